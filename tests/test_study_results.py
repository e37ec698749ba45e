"""What came out of a study: its one file, the table and the figures that are made of it, and how long it takes."""

import json
import re
from pathlib import Path

import pytest

from agents.reproduce import estimate
from agents.reproduce import study as reproduce
from agents.reproduce.differences import differences_of
from agents.reproduce.figures import FIGURES, write_figures
from agents.reproduce.results import heading_of, read_results, rows_of, table_of
from agents.reproduce.settings import QUICK, StudySettings
from agents.reproduce.study import Study
from agents.reproduce.targets import Target, listed, names_of, piece_of
from dsfp_env import Evaluator, InputError
from dsfp_env.training.recipes import FINE_TUNING, recipe_from

HALF, QUARTER = Target(50, of_macs=True), Target(25, of_macs=True)


def row(accuracy, macs, first=4):
    return {
        "ratios": {"conv_0": 50.0, "conv_1": 50.0},
        "pruned_accuracy": accuracy / 2,
        "accuracy": accuracy,
        "validation_accuracy": accuracy,
        "best_epoch": 1,
        "epochs": 2,
        "epoch_accuracies": [accuracy, accuracy - 0.1],
        "filters": 6,
        "filters_kept": {"conv1": first, "conv2": 2},
        "params": 1000,
        "output_only_params": 2000,
        "macs": macs,
    }


@pytest.fixture
def results():
    """By hand: two kinds, two budgets, two seeds, one row not there yet."""
    asked = StudySettings(network="resnet20", macs_budgets=(0.5, 0.25), seeds=(0, 1), agents=("ucb1",))
    settings = json.loads(json.dumps({**vars(asked)}))
    rows = {
        piece_of("uniform", HALF, 0): row(0.80, 500),
        piece_of("uniform", HALF, 1): row(0.84, 500),
        piece_of("uniform", QUARTER, 0): row(0.70, 250, first=2),
        piece_of("ucb1", HALF, 0): row(0.90, 480),
    }
    base = {
        **{"accuracy": 0.9, "pruned_accuracy": 0.9, "filters": 12, "params": 4000, "output_only_params": 4000},
        **{"macs": 1000, "recipe": "fast", "filters_kept": {"conv1": 8, "conv2": 4}},
    }
    return {"settings": settings, "versions": {}, "base": base, "searches": {}, "rows": rows}


def test_differences_by_hand(results):
    rows = results["rows"]
    assert differences_of(results) == ""  # of one seed the table tells all
    rows[piece_of("ucb1", HALF, 1)] = row(0.91, 480)
    *_, last = differences_of(results).splitlines()
    assert last == "| ucb1 50 % of the MACs | +10.00, +7.00 |"
    results["settings"] |= {"seeds": [0, 1, 2], "yardsticks": ["erk", "sensitivity"]}
    rows |= {piece_of(kind, HALF, 2): row(accuracy, 500) for kind, accuracy in (("uniform", 0.8), ("ucb1", 0.89))}
    rows[piece_of("erk", HALF, 1)] = row(0.85, 500)
    _, table = differences_of(results).split("\n\n")
    assert table.splitlines() == [
        "|  | uniform | erk |",
        "| --- | --- | --- |",
        "| erk 50 % of the MACs | +1.00 |  |",
        "| ucb1 50 % of the MACs | +8.67 [4.87, 12.46] | +6.00 |",  # 10, 7, 9: 4.3027 times 1.5275 / sqrt(3)
    ]


def test_of_a_network_that_was_never_right_nothing_is_retained(results):
    results["base"]["accuracy"] = 0.0
    assert table_of(results).splitlines()[4] == (
        "| base |  | 0.00 |  | 12 | 0.0040 M | 0.0040 M | 0.00 M (100.0 %) |"
    )


def test_the_table_of_budgets_by_hand(results):
    heading, _, *lines = table_of(results).splitlines()
    assert heading == (
        "resnet20 on cifar10: filters by dsfp, 300 evaluations a search, fine-tuning paper, seeds 0, 1. The paper "
        "has no such network: these numbers stand beside none of its own."
    )
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| base",
        "| uniform 50 % of the MACs",
        "| ucb1 50 % of the MACs",
        "| uniform 25 % of the MACs",
    ]
    # 82 is the mean of 80 and 84, their standard deviation 2.83, and 82 of 90 are 91.11 %.
    assert lines[3].split(" | ")[1:4] == ["41.00", "82.00 ± 2.83", "91.11 %"]
    assert "paper" not in lines[0]
    assert "paper:" in table_of({**results, "settings": {**results["settings"], "network": "vgg16"}})
    assert "none of its own" not in heading_of({**results["settings"], "network": "vgg16"})
    few = heading_of({**results["settings"], "finalist_epochs": 4})
    assert "300 evaluations a search and 4 epochs of the ten best, fine-tuning paper" in few
    warm = heading_of({**results["settings"], "warm_start": ["sensitivity"]})
    assert "300 evaluations a search, beginning with what sensitivity says, fine-tuning paper" in warm


def test_times_are_shown_where_they_were_measured(results):
    of = {"base": {"seconds": 0.004, "spread": 0.0001}, "uniform-macs50-seed0": {"seconds": 0.001, "spread": 0.0}}
    of["uniform-macs50-seed1"] = {"seconds": 0.002, "spread": 0.0}
    timed = {**results, "latencies": {"deployed": "batch_size=8", "device": "cpu", "of": of}}
    lines = table_of(timed).splitlines()[2:]
    # The mean of 1 and 2 ms is 1.5, 38 % of 4 ms (37.5 rounded to even); two rows came after the times.
    assert [line.split(" | ")[-1] for line in lines] == [
        *("forward pass |", "--- |", "4 ms (100 %) |", "1.5 ms (38 %) |", " |", " |")
    ]


def test_figures_show_each_kind_and_where_it_stands(results, tmp_path):
    assert write_figures(results, tmp_path) == [f"figure-{name}" for name in FIGURES]
    for name in FIGURES:
        svg = (tmp_path / f"figure-{name}.svg").read_text()
        assert {"uniform", "ucb1"} <= set(re.findall(r">([^<>]+)</text>", svg))
        assert (tmp_path / f"figure-{name}.pdf").stat().st_size
    again = tmp_path / "again"
    write_figures(results, again)
    assert (again / "figure-accuracy.svg").read_bytes() == (tmp_path / "figure-accuracy.svg").read_bytes()


def test_figures_of_little(results, tmp_path):
    nothing = {**results, "rows": {}, "base": None}
    assert write_figures(nothing, tmp_path) == []
    assert "no table yet" in table_of(nothing)
    assert write_figures({**results, "base": None}, tmp_path) == []
    old = {name: value for name, value in results["base"].items() if name != "filters_kept"}
    assert write_figures({**results, "base": old}, tmp_path) == [
        *("figure-accuracy", "figure-finetuning", "figure-epochs")
    ]
    for one in results["rows"].values():
        del one["epoch_accuracies"]
    assert write_figures(results, tmp_path) == ["figure-filters", "figure-accuracy", "figure-finetuning"]


def test_the_numbers_in_a_figure(results):
    from agents.reproduce import figures

    (axes,) = figures.accuracy(results).axes
    x, y = axes.containers[0].lines[0].get_data()
    assert (list(x), list(y)) == ([50, 25], pytest.approx([0.82, 0.70]))
    first, second = figures.filters_kept(results).axes
    assert list(first.lines[0].get_ydata()) == [0.5, 0.5]  # 4 of 8, and 2 of 4
    assert list(second.lines[0].get_ydata()) == [0.25, 0.5]
    half, quarter = figures.epochs(results).axes
    assert list(half.lines[0].get_ydata()) == pytest.approx([0.82, 0.72])
    assert list(quarter.lines[0].get_xdata()) == [1, 2]


def test_a_file_of_results_is_enough(results, tmp_path, capsys):
    results["rows"][piece_of("ucb1", HALF, 1)] = row(0.91, 480)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    reproduce.reproduce(StudySettings(results=str(file), figures=True, out=str(tmp_path / "pictures")))
    said = capsys.readouterr().out
    assert said.startswith(f"{table_of(results)}\n\n{differences_of(results)}")
    assert "figure-filters, figure-accuracy, figure-finetuning, figure-epochs" in said
    assert len(list((tmp_path / "pictures").iterdir())) == 8
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["results.json"]
    with pytest.raises(InputError, match="a file"):
        reproduce.reproduce(StudySettings(results=str(file), figures=True, out=str(file)))
    for content in ("{", "{}", json.dumps({**results, "rows": {"uniform-macs50-seed0": {"accuracy": 2}}})):
        file.write_text(content)
        with pytest.raises(InputError, match=r"results\.json cannot be"):
            reproduce.reproduce(StudySettings(results=str(file)))


def test_the_tables_on_the_pages_are_those_of_their_results():
    docs = Path(__file__).parents[1] / "docs"
    pages = [page.read_text() for page in docs.glob("reproduction*.md")]
    files = sorted(docs.glob("reproduction-*.json"))
    assert files
    for file in files:
        results = read_results(file)
        (page,) = (page for page in pages if f"--from docs/{file.name}" in page)
        assert table_of(results).split("\n\n", 1)[1] in page
        assert differences_of(results).rpartition("\n\n")[2] in page


def test_rates_have_the_names_that_they_had():
    assert piece_of("q_learning", Target(50), 3) == "q_learning-50-seed3"
    assert piece_of("mine:Learner", Target(50), 0) == "mine.Learner-50-seed0"
    assert StudySettings().rates == (50, 60, 70)
    assert [target.name for target in StudySettings(macs_budgets=(0.5, 0.15)).targets] == ["macs50", "macs15"]
    assert [target.name for target in StudySettings(rates=(60,), macs_budgets=(0.29,)).targets] == ["60", "macs29"]


def test_names_do_without_options_and_are_told_apart():
    kinds = ["uniform", "ucb1(a=1)", "linucb", "linucb(alpha=1)", "linucb(alpha=2)", "erk@dsfp(kl=fisher)"]
    assert [*names_of(kinds)] == kinds
    assert [*names_of(kinds).values()] == ["uniform", "ucb1", "linucb", "linucb-2", "linucb-3", "erk@dsfp"]


def test_many_pieces_are_listed_in_part():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefghijklmn")) == "a, b, c, d, e, f, g, h, i, j, k, l and 2 more"


def test_a_table_says_what_options_a_name_stands_for(results):
    results["settings"]["agents"] = ["ucb1(exploration=2.0)"]
    heading, _, *lines = table_of(results).splitlines()
    assert heading.endswith("none of its own. ucb1 is ucb1(exploration=2.0).")
    assert lines[4].startswith("| ucb1 50 % of the MACs | 45.00 | 90.00 |")


def test_results_whose_rows_are_of_another_network_are_refused(results, tmp_path):
    results["rows"]["ucb1-macs50-seed0"]["filters_kept"] = {"conv1": 4, "features.0": 2}
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(
        InputError, match=r"row 'ucb1-macs50-seed0' has the layers \['conv1', 'features\.0'\]: expected"
    ):
        read_results(tmp_path / "results.json")


def test_rows_that_cannot_be_are_refused(results, tmp_path):
    file, name = tmp_path / "results.json", piece_of("uniform", HALF, 0)
    for change, sentence in (
        ({"macs": 1001}, "has 1001 macs: expected no more than the original network, 1000"),
        ({"best_epoch": 3}, "was best after epoch 3: expected one of its 2"),
    ):
        rows = {**results["rows"], name: {**results["rows"][name], **change}}
        file.write_text(json.dumps({**results, "rows": rows}))
        with pytest.raises(InputError, match=f"row '{name}' {sentence}"):
            read_results(file)


def test_quick_is_the_digits_unless_something_else_is_said():
    settled = StudySettings(quick=True, evaluations=5).settled()
    assert {name: getattr(settled, name) for name in QUICK} == {**QUICK, "evaluations": 5}
    assert "none of its own" in heading_of(vars(settled))
    assert StudySettings(network="alexnet").settled().network == "alexnet"


def test_what_is_said_beside_quick_holds_though_it_is_usual(tmp_path, monkeypatch, capsys):
    asked = ["reproduce", "--quick", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*asked, "--network=vgg16"])
    assert reproduce.main() == 2
    assert "--data digits has a network of its own" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*asked, "--known", "network"])  # the name of a file
    assert reproduce.main() == 2
    assert "network cannot be read" in capsys.readouterr().err
    assert StudySettings(quick=True).settled(["evaluations"]).evaluations == 300


def test_seconds_are_counted_by_hand():
    targets = [HALF, HALF, QUARTER]
    work = estimate.Work(
        base=20,
        passes=18,
        evaluations=estimate.counted(targets, [30, 30, 30]),
        epochs=estimate.counted(targets, [5, 5, 5]),
        answers=5,
    )
    assert work.evaluations == {HALF: 60, QUARTER: 30}
    seconds = estimate.Seconds(2.0, 0.5, {HALF: 1.0, QUARTER: 0.5}, {HALF: 10.0, QUARTER: 6.0}, 4.0).of(work)
    assert seconds == {
        "original network": 40,
        "one layer at a time": 9,
        "searches": 60 * 1 + 30 * 0.5,
        "fine-tuning": 10 * 10 + 5 * 6 + 5 * 4,
    }
    assert estimate.told(seconds, 1) == (
        "about 5 min of work (original network 40 s, one layer at a time 9 s, searches 75 s, fine-tuning 2 min), "
        "as a few batches tell; scoring filters is not in it"
    )
    assert estimate.told(seconds, 4).endswith("; 4 at a time, if they do not slow each other: 68 s")
    assert estimate.counted(targets, [0, 3, 0]) == {HALF: 3}
    assert estimate.of_search(150, None) == (170, 0)
    assert estimate.of_search(150, finalist_epochs=5) == (150, 50)
    assert estimate.of_search(4, finalist_epochs=5) == (4, 20)
    assert estimate.of_search(150, None, first=2) == (174, 0)
    assert [estimate.in_words(long) for long in (99, 100, 5900, 7200)] == ["99 s", "2 min", "98 min", "2 h"]


def test_what_is_timed(tiny):
    """Something of everything that is asked for, and nothing else; and the task is as it was."""
    before = {name: tensor.clone() for name, tensor in tiny.network.state_dict().items()}
    work = estimate.Work(base=0, passes=2, evaluations={HALF: 3}, epochs={QUARTER: 2}, answers=2)
    plan = dict.fromkeys(tiny.agents, 50.0)
    tuning = recipe_from("plain(epochs=2, batch_size=8)", FINE_TUNING)
    evaluator = Evaluator(tiny, "l1", store=False)
    seconds = estimate.measured(tiny, evaluator, lambda evaluator, target: plan, work, None, tuning)
    assert seconds.base == 0
    assert seconds.passes > 0
    assert {*seconds.evaluations} == {HALF}
    assert {*seconds.epochs} == {QUARTER}
    assert min(seconds.evaluations[HALF], seconds.epochs[QUARTER], seconds.answers) > 0
    assert all((tensor == before[name]).all() for name, tensor in tiny.network.state_dict().items())


SMALL = {
    "network": "test_reproduce:make_small",
    "criterion": "l1",
    "pretraining": "fast(epochs=1, batch_size=16)",
    "fine_tuning": "short(epochs=1, batch_size=16)",
    "kd_batches": 0,
    "evaluations": 3,
    "device": "cpu",
}


def test_budgets_and_yardsticks_from_end_to_end(image_files, tmp_path, capsys):
    yardsticks = ("erk", "global_ranking", "sensitivity", "random_search_equal_macs", "uniform@l2")
    asked = StudySettings(
        **SMALL,
        data=f"imagefolder:{image_files}",
        macs_budgets=(0.5,),
        yardsticks=yardsticks,
        agents=("ucb1",),
        validation_images=10,
        deployed="min_run_time=0.01, rounds=1",
        out=str(tmp_path / "out"),
    )
    reproduce.reproduce(StudySettings(**{**vars(asked), "estimate": True}))
    assert "original network" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    reproduce.reproduce(asked)
    said = capsys.readouterr().out
    assert "about" in said.splitlines()[1]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert table_of(results) in said
    found = rows_of(results)
    assert [kind for kind, _ in found] == ["uniform", *yardsticks, "ucb1"]
    whole = results["base"]["macs"]
    for (kind, target), rows in found.items():
        assert target == HALF
        if kind != "ucb1":  # the agent may find nothing within the budget in three evaluations
            assert rows[0]["macs"] <= whole / 2
    assert results["searches"]["search-random_search_equal_macs-macs50-seed0"]["within_budget"] == 3
    assert {*results["latencies"]["of"]} == {"base", *results["rows"]}
    assert results["latencies"]["of"]["base"]["seconds"] > 0
    assert json.loads((tmp_path / "out" / "scores-l2.json").read_text()) == {"criterion": "l2"}
    reproduce.reproduce(StudySettings(results=str(tmp_path / "out" / "results.json")))
    assert table_of(results) in capsys.readouterr().out


def search_settings(image_files, out, fill):
    """Of a study that ends with its searches, within half of the multiply-adds."""
    return StudySettings(
        **SMALL,
        data=f"imagefolder:{image_files}",
        macs_budgets=(0.5,),
        agents=("ucb1",),
        fill_budget=fill,
        only=("base", "scores", "search"),
        out=str(out),
    )


def test_what_is_tried_is_brought_to_the_budget_if_that_is_said(image_files, tmp_path):
    macs = {}
    for fill in (False, True):
        asked = search_settings(image_files, tmp_path / str(fill), fill)
        reproduce.reproduce(asked)
        study, log = Study(asked), tmp_path / str(fill) / "search-ucb1-macs50-seed0.jsonl"
        tried = [json.loads(line) for line in log.read_text().splitlines()]
        macs[fill] = [line["macs"] for line in tried]
        assert [study.evaluator().costs(line["ratios"]).macs for line in tried] == macs[fill]
    whole, found = study.task.graph.costs().macs, study.results()["searches"]["search-ucb1-macs50-seed0"]
    assert found["within_budget"] == 3
    assert max(macs[True]) <= whole / 2
    less = {agent: max(ratio - 7, 10.0) for agent, ratio in found["ratios"].items()}  # a filter of 16 is 6.25 %
    assert study.evaluator().costs(less).macs > whole / 2
    assert min(macs[False]) < min(macs[True])  # levels under masks leave a gap


def test_a_folder_of_an_earlier_release_goes_on(image_files, tmp_path):
    """Its settings had no budgets, no yardsticks, and its base no filters of each layer."""
    asked = StudySettings(
        **SMALL, data=f"imagefolder:{image_files}", rates=(50,), agents=("ucb1",), out=str(tmp_path)
    )
    reproduce.reproduce(StudySettings(**{**vars(asked), "only": ("base", "scores")}))
    for name, new in {
        "settings": ("macs_budgets", "yardsticks", "validation_images", "fill_budget"),
        "base": ("filters_kept",),
    }.items():
        file = tmp_path / f"{name}.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in content.items() if key not in new}))
    reproduce.reproduce(asked)
    assert {*rows_of(Study(asked).results())} == {("uniform", Target(50)), ("ucb1", Target(50))}


def test_files_of_an_earlier_release_have_the_names_of_today(image_files, tmp_path, capsys):
    """It had the options of learners in them."""
    long, short = "ucb1(exploration=2.0)", "ucb1"
    asked = StudySettings(
        **SMALL, data=f"imagefolder:{image_files}", rates=(50,), agents=(long, "linucb"), out=str(tmp_path)
    )
    reproduce.reproduce(asked)
    table = table_of(Study(asked).results())
    for file in list(tmp_path.glob(f"*{short}-50*")):
        file.rename(file.with_name(file.name.replace(short, long)))
    results = json.loads((tmp_path / "results.json").read_text())
    for part in ("rows", "searches"):
        results[part] = {name.replace(short, long): value for name, value in results[part].items()}
    assert {*results["rows"]} == {"uniform-50-seed0", f"{long}-50-seed0", "linucb-50-seed0"}
    assert table_of(results) == table
    capsys.readouterr()
    reproduce.reproduce(asked)
    assert "7 of 7 pieces are done; now: nothing" in capsys.readouterr().out
    assert table_of(Study(asked).results()) == table
    assert not list(tmp_path.glob("*(*"))


def test_searches_that_shifted_in_the_end_alone_are_refused(image_files, tmp_path):
    asked = search_settings(image_files, tmp_path, fill=True)
    reproduce.reproduce(asked)
    file = tmp_path / "search-ucb1-macs50-seed0.json"
    found = json.loads(file.read_text())
    assert found.pop("filled") is True
    file.write_text(json.dumps(found))
    with pytest.raises(InputError, match="is of an earlier release, which brought to the budget"):
        reproduce.reproduce(asked)


def test_accuracies_of_other_epochs_than_there_were_are_refused(results, tmp_path):
    results["rows"]["ucb1-macs50-seed0"]["epoch_accuracies"].append(0.9)
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match="has 2 epochs and 3 accuracies of epochs: expected as many"):
        read_results(tmp_path / "results.json")


def test_what_cannot_be_is_said(tmp_path):
    for change, sentence in {
        ("macs_budgets", (1.5,)): r"--macs-budgets are \(1\.5,\): expected shares",
        ("yardsticks", ("lamp",)): "Unknown rule 'lamp'",
        ("yardsticks", ("random_search_equal_mac",)): "Did you mean 'random_search_equal_macs'",
        ("yardsticks", ("uniform@fischer",)): "Unknown criterion 'fischer'",
        ("yardsticks", ("random_search_equal_macs@l1",)): "random search has no criterion but",
        ("rates", (50, 60, 50)): "Of --rates and --macs-budgets, 50 % came more than once",
        ("macs_budgets", (0.12345678, 0.12345681)): "12.3457 % of the MACs came more than once",
        ("rates", ()): "neither --rates nor --macs-budgets",
        ("deployed", "batch=8"): "option of a deployment",
        ("validation_images", 0): "--validation-images is 0",
        ("data", "digits"): "--data digits has a network of its own: expected --network digits_net",
    }.items():
        with pytest.raises(InputError, match=sentence):
            reproduce.reproduce(StudySettings(**dict([change]), device="cpu", out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
