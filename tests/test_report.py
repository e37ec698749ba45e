"""The report of a run: one page that needs nothing else, made from the files of a run folder, again and again."""

import json
import re
import shutil
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

import dsfp_env
from agents.reporting import figures
from agents.reporting.html_report import answer, asked, finish_tables, layers_table, notes, page_of, write_run
from agents.reporting.remaking import ReportSettings, remake
from agents.reporting.report_data import RunRecord, layers_of, read_run
from dsfp_env.common.errors import InputError

AGENTS = ("conv_0", "conv_1")


def entry(kept, accuracy, reward=0.5):
    return {
        "ratios": {agent: 100 * (1 - k / 10) for agent, k in zip(AGENTS, kept, strict=True)},
        "validation_accuracy": accuracy,
        "test_accuracy": accuracy - 0.01,
        "macs": 100 * kept[0],
        "relative_macs": kept[0] / 10,
        "params": 10 * sum(kept),
        "filters": sum(kept),
        "filters_kept": dict(zip(AGENTS, kept, strict=True)),
        "reward": reward,
    }


def result(task="digits"):
    best = entry((5, 4), 0.9)
    names = ("uniform", "uniform_at_greedy", "uniform_best_reward", "random_search", "random_search_equal_macs")
    return {
        **{"task": task, "agent": "q_learning", "seed": 0, "evaluations": 3, "reward": "accuracy_x_saving"},
        **{"criterion": "l1", "macs_budget": None, "original": entry((10, 10), 0.95, 0.0)},
        **{"best": best, "greedy": entry((4, 4), 0.85), "baselines": {name: entry((5, 5), 0.8) for name in names}},
        **{"pareto": [{"relative_macs": 0.5, "validation_accuracy": 0.9}]},
    }


LINES = [
    {
        "evaluation": number,
        "ratios": dict.fromkeys(AGENTS, 20.0 * number),
        "validation_accuracy": 0.9 - number / 10,
        "relative_macs": 0.8 - number / 10,
        "reward": number / 10,
    }
    for number in (1, 2, 3)
]


def write(folder, **files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return folder


class Tags(HTMLParser):
    """Start tags with their attributes, and whether all are closed."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_an_old_run_folder_has_a_report_that_needs_nothing_else(tmp_path):
    run = write(tmp_path / "run", result=result())
    remake(ReportSettings((str(run),)))
    page = (run / "report.html").read_text()
    tags = Tags(page)
    assert not tags.open
    assert {"svg", "table", "pre"} <= {tag for tag, _ in tags.found}
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.found}
    attributes = [pair for _, given in tags.found for pair in given.items()]
    references = [value for name, value in attributes if name.endswith(("href", "src"))]
    assert all(value.startswith("#") for value in references)
    ids = [given["id"] for _, given in tags.found if "id" in given]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    assert figures.INK not in re.sub("<style>.*?</style>", "", page, flags=re.DOTALL)
    for name in figures.FIGURES:
        assert (run / f"report-{name}.svg").read_text().startswith("<?xml")
        assert (run / f"report-{name}.pdf").read_bytes().startswith(b"%PDF")


def test_equal_runs_have_equal_files_whatever_the_day(tmp_path, monkeypatch):
    for name in ("first", "second"):
        run = write(tmp_path / name / "run", result=result())
        remake(ReportSettings((str(run),)))
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    first, second = tmp_path / "first", tmp_path / "second"
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 3 + 2 * len(figures.FIGURES)
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_names_of_users_are_text_and_nothing_else(tmp_path):
    name = "<script>alert('$x_1$')</script>"
    found = result(name)
    layer = {"layer": name, "agent": "conv_0", "filters": [10, 5], "params": [9, 4], "macs": None, "note": name}
    write_run(RunRecord("run", found, LINES, {"layers": [layer]}), tmp_path / "r.html")
    tags = Tags((tmp_path / "r.html").read_text())
    assert "script" not in {tag for tag, _ in tags.found}
    assert tags.text.count(name) >= 4  # title, heading, question, layer


def test_the_answer_in_one_sentence():
    assert answer(result()) == (
        "2.0 times fewer multiply-adds and 2.2 times fewer parameters, at 89.0% test accuracy, 5.0 points less "
        "than the original; at equal multiply-adds uniform pruning has 79.0%, random search 79.0%."
    )
    assert "within 30% of the multiply-adds" in asked({**result(), "macs_budget": 0.3})


def test_a_budget_of_parameters_and_the_finish_are_on_the_page():
    told = result()
    drawn = told["baselines"].pop("random_search_equal_macs")
    told["baselines"]["random_search_equal_params"] = drawn
    network = {"test_accuracy": 0.91, "validation_accuracy": 0.9, "best_epoch": 3, "epochs": 9}
    told |= {
        "params_budget": 0.4,
        "fine_tuned": {"recipe": "plain(epochs=9)", "networks": {"random_search_equal_params": network}},
        "exported": {"onnx": {"error": "there is no ONNX"}},
    }
    assert "at equal parameters uniform pruning" in answer(told)
    assert "within 40% of the parameters" in asked(told)
    (table,) = finish_tables(told)
    cells = ["random search, equal params", "91.0%", "90.0%", f"{drawn['relative_macs']:.1%}", "3 of 9"]
    assert (table.caption, table.rows[0].cells) == ("After the long fine-tune, plain(epochs=9).", cells)
    assert notes(told) == ["Onnx: there is no ONNX."]
    written = {"file": "pruned.onnx", "agrees": True, "test_accuracy": 0.9, "largest_difference": 0}
    told["exported"] = {"onnx": written}
    assert notes(told)[0].startswith("pruned.onnx: 90.0% of the test split")


def test_predicted_times_are_beside_measured_ones():
    told = {**result(), "latency_budget": "0.5", "deployed": "batch_size=8"}
    told["baselines"]["random_search_equal_latency"] = told["baselines"].pop("random_search_equal_macs")
    for one in (told["best"], told["greedy"], *told["baselines"].values()):
        one |= {"predicted_latency": 2e-3, "measured_latency": 2.5e-3, "latency_spread": 1e-4}
    told["original"] |= {"predicted_latency": 4e-3, "measured_latency": 4e-3, "latency_spread": 1e-4}
    told["latency_model"] = {"measurements": 61, "median_error": 0.014, "error_90": 0.05}
    assert "within 50% of the time of a forward pass" in asked(told)
    assert "within 2.5 ms of a forward pass" in asked({**told, "latency_budget": "2500us"})
    assert answer(told).startswith(
        "1.6 times as fast by measured times, 2.0 by predicted ones, with 2.0 times fewer"
    )
    (table,) = finish_tables(told)
    assert table.rows[1].cells == ["best joint action", "2.000", "2.500", "+25.0%", "0.100"]
    assert "batch_size=8. Budgets are of predicted times: the model, from 61 networks" in table.caption
    assert "by 1.4% at most for half of those left out, by 5.0% for nine tenths." in table.caption
    assert ("2.500 ms", "measured; predicted 2.000, original 4.000") in [
        (number.value, number.what) for number in page_of(RunRecord("run", told), []).numbers
    ]


def test_sensitivity_by_hand():
    points = [
        {"filters_kept": [10, 5], "validation_accuracy": 0.9},  # conv_0 loses nothing, conv_1 half
        {"filters_kept": [10, 1], "validation_accuracy": 0.5},  # conv_1 loses 90 %
    ]
    found = figures.sensitivities(RunRecord("run", result(), more={"random_search": points}))
    assert found["conv_0"][0] == pytest.approx(0.7)
    assert found["conv_1"][[5, 9]].tolist() == [0.9, 0.5]
    assert np.isnan(found["conv_1"]).sum() == 8
    assert figures.sensitivities(RunRecord("run", result())) == {}
    with figures.style():
        assert figures.sensitivity(RunRecord("run", result())) is None
        assert figures.rewards(RunRecord("run", result())) is None


def test_a_network_of_many_layers_has_every_picture():
    many = [f"conv_{i}" for i in range(30)]
    found = result()
    entries = [found["original"], found["best"], found["greedy"], *found["baselines"].values()]
    for one in entries:
        one["filters_kept"] = dict.fromkeys(many, 3)
    lines = [{**line, "ratios": dict.fromkeys(many, 50.0)} for line in LINES]
    with figures.style():
        drawn = [draw(RunRecord("run", found, lines)) for draw, _ in figures.FIGURES.values()]
    assert drawn[0].get_figheight() > 5
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in drawn)


def test_layers_before_and_after_also_those_left_alone():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3, bias=False), nn.Flatten(), nn.LazyLinear(2))
    images, labels = torch.rand(4, 1, 6, 6), torch.arange(4) % 2
    network(images)
    splits = [(images, labels)] * 3
    task = dsfp_env.Task.from_network(network, *splits, name="two").with_layers({"first": None})
    graph = task.graph
    keep = graph.keep({"1": 0.5}, {path: torch.ones(layer.out_channels) for path, layer in graph.layers.items()})
    first, second = layers_of(task, graph.slim(task.network, keep))
    assert (first["agent"], first["filters"], first["note"]) == (None, [4, 4], "left alone, as asked")
    assert (second["agent"], second["filters"], second["note"]) == ("conv_1", [6, 3], None)
    assert second["params"] == [6 * 4 * 9, 3 * 4 * 9]
    assert second["macs"] == [6 * 4 * 9 * 4, 3 * 4 * 9 * 4]  # maps of 2x2
    found = result()
    found["best"]["ratios"] = {"conv_1": 50.0}
    table = layers_table(RunRecord("run", found, more={"layers": [first, second]}))
    assert [row.cells[:5] for row in table.rows] == [
        ["0", "", "4", "", "0 %"],
        ["1", "conv_1", "6 → 3", "50 %", "50 %"],
    ]


def test_several_runs_side_by_side(tmp_path, capsys):
    runs = [write(tmp_path / name, result=result(), settings={"settings": {"seed": name}}) for name in ("a", "b")]
    remake(ReportSettings(tuple(map(str, runs)), out=str(tmp_path / "both.html")))
    text = Tags((tmp_path / "both.html").read_text()).text
    assert "2 runs side by side" in text
    assert "fewer than five" in text
    assert f"written to {tmp_path / 'both.html'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "holds no run: expected a folder"),
        ({"settings": {}}, "holds a run that is not finished"),
        ({"summary": {}}, "holds runs of several seeds: give their folders"),
        ({"result": {"interrupted": True}}, "was interrupted: give its command again"),
        ({"result": {"best": 1}}, r"No report can be made of run \(KeyError"),
        ({"result": {**result(), "best": {"macs": "many"}}}, "No report can be made of"),
        ({"result": result(), "report": {"layers": [{}]}}, "No report can be made of"),
    ],
)
def test_what_is_no_run_is_said(tmp_path, files, sentence):
    run = write(tmp_path / "run", **files)
    with pytest.raises(InputError, match=sentence):
        remake(ReportSettings((str(run),)))
    assert not (run / "report.html").exists()


def test_files_that_cannot_be_read_are_named(tmp_path):
    run = write(tmp_path / "run", result=result())
    (run / "evaluations.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"evaluations\.jsonl cannot be read"):
        read_run(run)
    (run / "evaluations.jsonl").unlink()
    assert read_run(run).evaluations == []
    with pytest.raises(InputError, match="No run was named"):
        remake(ReportSettings(()))
    with pytest.raises(InputError, match="expected a file, such as"):
        remake(ReportSettings((str(run),), out=str(tmp_path)))
    shutil.rmtree(run)
