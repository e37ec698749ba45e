"""A metric that is not accuracy, in pictures, tables and sentences: by its name and in its own units."""

import pytest
from matplotlib.figure import Figure
from test_report import LINES, result

from agents.reporting import figures, run_report
from agents.reporting.html_report import answer, comparison_of, finish_tables, networks_table, page_of
from agents.reporting.metric_units import MetricUnits, common_units, units_of
from agents.reporting.report_data import RunRecord
from dsfp_env.evaluation.outcome import Outcome

ERROR = {"name": "negative_error", "worst": -4.0, "best": 0.0}  # the scaled 0.9 is -0.4


def with_metric(metric):
    """A result whose entries say what they were measured at, but for the original."""
    found = {**result(), "metric": metric}
    units = units_of(found)
    for one in (found["best"], found["greedy"], *found["baselines"].values()):
        for split in ("validation", "test"):
            one[f"{split}_metric"] = units.of_scaled(one[f"{split}_accuracy"])
    return found


def record(metric=ERROR):
    uniform = [{"filters": 10, "relative_macs": 0.5, "validation_accuracy": 0.5, "reward": 0.1}]
    return RunRecord("run", with_metric(metric) if metric else result(), LINES, {"uniform": uniform})


def test_values_by_hand():
    units = units_of({"metric": ERROR})
    assert units == MetricUnits("negative error", -4.0, 0.0, False)
    assert units.of_scaled(0.75) == -1
    assert units.text({"test_accuracy": 0.75}, "test") == "-1.00"
    assert units.text({"test_accuracy": 0.0, "test_metric": -5.678}, "test") == "-5.68"  # worse than the worst
    assert units.text({"test_metric": -123.4}, "test") == "-123"
    assert (units.axis, units.capitalised) == ("negative error", "Negative error")
    falling = units_of({"metric": {"name": "mse", "worst": 2.0, "best": 0.0}})
    assert (falling.of_scaled(0.75), falling.axis) == (0.5, "MSE (less is better)")
    accuracy = units_of({})
    assert accuracy.text({"test_accuracy": 0.75}, "test") == "75.0%"
    assert (accuracy.of_scaled(0.1), accuracy.axis) == (0.1, "accuracy")


def test_runs_have_units_in_common_or_none():
    low, high = ({"metric": {"name": "mse", "worst": worst, "best": 0.0}} for worst in (2.0, 3.0))
    assert common_units([low, high]).capitalised == "MSE"  # of splits of other seeds
    assert common_units([low, {"metric": ERROR}]) is None
    assert common_units([{}, {"metric": {"name": "accuracy", "worst": 0.0, "best": 1.0}}]) is None  # of masks


def test_pictures_have_the_name_and_the_units():
    with figures.style():
        for draw, _ in figures.FIGURES.values():
            draw(record())
        front, rate, sensitivity = (
            figures.FIGURES[name][0](record()).axes[0] for name in ("front", "rate", "sensitivity")
        )
    assert [axes.get_ylabel() for axes in (front, rate, sensitivity)] == [
        "validation negative error",
        "validation negative error",
        "mean validation negative error",
    ]
    tried = {line.get_label(): line.get_ydata() for line in front.lines}
    assert list(tried["evaluated"]) == pytest.approx([-0.8, -1.2, -1.6])
    assert list(tried["uniform"]) == [-2]
    assert list(tried["best"]) == pytest.approx([-0.4])
    assert list(sensitivity.lines[0].get_ydata()) == pytest.approx([-0.8, -1.2, -1.6])
    assert "%" not in "".join(label.get_text() for label in rate.get_yticklabels())
    assert figures.caption("front", record()).startswith("Negative error against multiply-adds.")
    assert figures.caption("front", record(None)).startswith("Accuracy against multiply-adds.")


def test_summary_png_has_them_too(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    uniform = [Outcome(0.5, 100, 0.5, 10, 0.5, 10, {}, {})]
    for found in (with_metric(ERROR), result()):
        run_report.draw(tmp_path / "summary.png", found, LINES, [0.1], uniform)
    (mine, usual) = drawn
    assert "test negative error -0.440 with 50.0% of the MACs (original -0.240)" in mine.get_suptitle()
    assert "89.0% test accuracy with 50.0% of the MACs (original 94.0%)" in usual.get_suptitle()
    titles = [figure.axes[2].get_title() for figure in drawn]
    assert titles == ["validation negative error", "validation accuracy"]
    of_uniform = [axes.lines[2].get_ydata() for axes in (mine.axes[2], usual.axes[2])]
    assert [list(values) for values in of_uniform] == [[-2], [0.5]]


def test_tables_and_sentences():
    found = with_metric(ERROR)
    network = {"test_accuracy": 0.9, "validation_accuracy": 0.8, "best_epoch": 1, "epochs": 2}
    found["fine_tuned"] = {"recipe": "plain", "networks": {"best": network}}
    told = {"file": "pruned.onnx", "test_accuracy": 0.9, "test_metric": -0.4, "largest_difference": 0}
    found["exported"] = {"onnx": {**told, "agrees": True}}
    assert "at -0.440 test negative error, beside -0.240 of the original" in answer(found)
    table = networks_table(found)
    assert table.head[:3] == ("", "test negative error", "valid. negative error")
    assert table.rows[1].cells[:3] == ["best joint action", "-0.440", "-0.400"]
    assert table.caption.startswith("In place of accuracy: negative error, from -4 at worst to 0 at best. Rewards")
    (tuned,) = finish_tables(found)
    assert tuned.rows[0].cells[1:3] == ["-0.400", "-0.800"]
    printed = run_report.tables(found)
    assert "fine-tuned with three seeds that no search has seen, and these are\nthe means: so they" in printed
    assert "pruned.onnx: negative error -0.400 on the test split" in printed
    assert "%" not in printed.split("after the long fine-tune")[1].split("\n")[2][:46]
    page = page_of(RunRecord("run", found), [])
    assert page.numbers[0].value == "-0.440"
    assert page.sections[0].texts[0].startswith("Values of negative error are means")
    said = repr(page).replace("In place of accuracy", "").replace("accuracy_x_saving", "")
    assert "ccurac" not in said


def test_seeds_are_summed_up_in_own_units():
    first, second = with_metric(ERROR), with_metric(ERROR)
    for one in (first, second):
        one["original"] |= {"test_metric": -0.2, "validation_metric": -0.2}
    second["best"]["test_metric"] = -0.64
    columns = run_report.summary([first, second])["best"]
    assert columns["test_metric"] == {"mean": pytest.approx(-0.54), "std": pytest.approx(0.2 / 2**0.5)}
    assert "test: negative error" in run_report.summary_table([first, second])
    assert "-0.540 ± 0.141" in run_report.summary_table([first, second])
    assert "test_metric" not in run_report.summary([result()])["best"]


def test_runs_of_several_metrics_side_by_side():
    page = comparison_of({"mine": record(), "usual": record(None)})
    table = page.sections[0].tables[0]
    assert table.head[:3] == ("", "test", "valid.")
    assert table.rows[0].cells[1] == "negative error -0.440"
    assert table.rows[5].cells[1] == "accuracy 89.0%"
    assert page.answers == []  # their rewards say nothing of each other
    with figures.style():
        axes = figures.compared_networks({"mine": record(), "usual": record(None)}).axes[0]
        alone = figures.compared_networks({"mine": record()}).axes[0]
    assert axes.get_ylabel() == "test metric, scaled to 0 to 100 %"
    assert list(axes.lines[0].get_ydata()) == pytest.approx([0.89])
    assert list(alone.lines[0].get_ydata()) == pytest.approx([-0.44])
