"""Surveys: what is in them is what the live evaluator measures, whatever happens meanwhile."""

import json
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_task
from surrogates import make_surrogate

import dsfp_env
from agents.survey.runs import read_runs, survey_learners
from agents.survey.settings import LearnersSurveySettings
from dsfp_env.channels.cost_tables import cost_tables
from dsfp_env.channels.graph import ChannelGraph
from dsfp_env.common.array_files import read_arrays, write_arrays
from dsfp_env.networks import make_network
from dsfp_env.surrogates.ensemble import Ensemble
from dsfp_env.surrogates.fitting import LEAST_DEVIATION, Replicates, fit_noise
from dsfp_env.surrogates.trust import trust
from dsfp_env.survey import survey
from dsfp_env.surveys import files
from dsfp_env.surveys.designs import SHARES, design
from dsfp_env.surveys.merging import merge
from dsfp_env.surveys.settings import SurveySettings
from dsfp_env.tables.files import checksum, checksum_of

TINY = {"task": "tiny_tasks:tiny", "workers": 1}


def surveyed(folder, plans=12, **more):
    survey(SurveySettings(out=str(folder), plans=plans, seeds=(0, 5), **TINY | more))
    return files.read_survey([folder])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a survey of the tiny task, made in one go."""
    folder = tmp_path_factory.mktemp("surveys") / "tiny"
    surveyed(folder)
    return folder


def rows_of(folder):
    return sorted(files.read_rows(folder, 2), key=files.key_of)


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_rows_are_what_the_live_evaluator_measures(whole):
    known, task = files.read_survey([whole]), make_tiny_task()
    fidelity = dsfp_env.Fidelity(recalibration_images=32, batches=2, batch_size=16, threads=1)
    live = dsfp_env.Evaluator(task, fidelity=fidelity, store=False)
    for ratios, seed, accuracy in zip(known.ratios.tolist(), known.seeds, known.accuracy, strict=True):
        plan = dict(zip(task.agents, ratios, strict=True))
        assert tuple(accuracy) == live.measure_splits(plan, int(seed))


def test_every_tenth_joint_action_is_measured_with_all_seeds():
    asked = list(design([[0], [1]], 2, lambda ratios: 1 - ratios.mean() / 100, 20, [0, 5, 7]))
    assert [one.seed for one in asked] == [0, 5, 7, *[5, 7, 0] * 3, *[0, 5, 7], *[7, 0, 5] * 3][: len(asked)]
    assert asked[0].ratios == asked[1].ratios == asked[2].ratios != asked[3].ratios


def test_more_plans_later_keep_those_that_are_there(whole, tmp_path):
    folder = tmp_path / "grown"
    surveyed(folder, plans=5)
    assert surveyed(folder, plans=12).meta == files.read_survey([whole]).meta
    assert without_times(rows_of(folder)) == without_times(rows_of(whole))


def test_parts_merge_to_the_whole(whole, tmp_path):
    parts = [tmp_path / "first", tmp_path / "second"]
    for number, part in enumerate(parts, start=1):
        surveyed(part, part=f"{number}/2")
    merge(parts, tmp_path / "merged")
    assert without_times(rows_of(tmp_path / "merged")) == without_times(rows_of(whole))
    with pytest.raises(dsfp_env.InputError, match="exists: choose another"):
        merge(parts, tmp_path / "merged")


def test_a_line_cut_short_is_measured_again_and_a_changed_one_is_refused(tmp_path):
    folder = tmp_path / "survey"
    surveyed(folder, plans=3)
    before, path = rows_of(folder), folder / files.ROWS
    path.write_bytes(path.read_bytes()[:-10])
    surveyed(folder, plans=3)
    assert without_times(rows_of(folder)) == without_times(before)
    lines = path.read_text().splitlines()
    changed = json.loads(lines[0])
    changed["row"]["right"][0] += 1
    path.write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    with pytest.raises(dsfp_env.InputError, match=r"Line 1 of .* was changed"):
        surveyed(folder, plans=3)


def test_another_task_in_the_same_folder_is_refused(whole):
    with pytest.raises(dsfp_env.InputError, match="not of one survey: criterion is dsfp and l1"):
        surveyed(whole, criterion="l1")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"plans": 0}, "--plans is 0"),
        ({"part": "3/2"}, "--part is '3/2'"),
        ({"layers": "first=keep"}, "--layers was given, and a survey is of all layers"),
        ({"validation_images": 0}, "--validation-images is 0"),
        ({"seeds": (1, 1)}, "each once"),
    ],
)
def test_what_cannot_be_surveyed_is_refused_before_anything_is_written(said, sentence, tmp_path):
    with pytest.raises(dsfp_env.InputError, match=sentence):
        survey(SurveySettings(out=str(tmp_path / "survey"), **TINY | said))
    assert not (tmp_path / "survey").exists()


@pytest.mark.slow
def test_a_killed_survey_goes_on(whole, tmp_path):
    folder = tmp_path / "survey"
    command = [
        *(sys.executable, "-m", "dsfp_env.survey", "--task", TINY["task"], "--plans", "12", "--seeds", "0", "5"),
        *("--workers", "1", "--out", str(folder)),
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / files.ROWS).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    surveyed(folder)
    assert without_times(rows_of(folder)) == without_times(rows_of(whole))


def test_a_design_has_its_shares_and_costs_from_the_cheapest_to_the_dearest():
    def relative_macs(ratios):
        return float(np.prod(1 - ratios / 100))

    asked = list(design([[0], [1, 2]], 3, relative_macs, 100, [0]))
    sources = [one.source for one in asked]
    assert {name: sources.count(name) for name in SHARES} == SHARES
    costs = [relative_macs(np.array(one.ratios)) for one in asked if one.source == "stratified"]
    share, _ = np.histogram(costs, bins=3, range=(0.1**3, 0.9**3))
    assert min(share) > 5  # random ones would be cheap, nearly all
    sweeps = [one.ratios for one in asked if one.source == "sweep"]
    assert all(ratios[1] == ratios[2] or ratios[0] in ratios[1:] for ratios in sweeps)


def test_learners_leave_their_joint_actions_and_runs(whole, tmp_path):
    said = {"agents": ("random_search", "q_learning"), "seeds": "0", "evaluations": 4, **TINY}
    settings = LearnersSurveySettings(out=str(tmp_path / "survey"), **said)
    survey_learners(settings)
    known, runs = files.read_survey([tmp_path / "survey"]), read_runs(tmp_path / "survey")
    assert {source.split(",")[0] for source in known.sources} <= {"random_search", "q_learning"}
    assert [run["agent"] for run in runs] == ["q_learning", "random_search"]
    assert all(len(run["scores"]) == 4 for run in runs)
    measured = set(known.accuracy[:, 0].round(9))
    assert {round(accuracy, 9) for run in runs for accuracy in run["accuracies"]} == measured
    before = rows_of(tmp_path / "survey")
    survey_learners(settings)  # nothing is left
    assert rows_of(tmp_path / "survey") == before


@pytest.mark.parametrize("name", ["resnet20", "small-vgg", "digits-net"])
def test_cost_tables_are_exact(name):
    channels, size = (1, 8) if name == "digits-net" else (3, 32)
    graph = ChannelGraph.trace(make_network(name, 10), torch.randn(1, channels, size, size))
    rng = np.random.default_rng(1)
    scores = {path: torch.from_numpy(rng.random(layer.out_channels)) for path, layer in graph.layers.items()}
    tables = cost_tables(graph, scores)
    ratios = rng.uniform(0.1, 0.9, (50, len(graph.layers)))
    found = tables.costs(tables.classes_lost(ratios))
    for row, one in enumerate(ratios.tolist()):
        assert tables.classes_lost(ratios[[row]]).tolist() == [tables.classes_lost(ratios)[row].tolist()]
        keep = graph.keep(dict(zip(graph.layers, one, strict=True)), scores)
        costs = graph.costs(keep)
        assert (found.macs[row], found.params[row], found.filters[row]) == (
            costs.macs,
            costs.params,
            costs.filters,
        )
        assert found.kept[row].tolist() == [len(keep[path]) for path in graph.layers]
        alone = tables.costs(tables.classes_lost(ratios[[row]]))  # looked up in another way
        assert [one.tolist() for one in alone] == [one[[row]].tolist() for one in found]


def test_the_surrogate_that_comes_with_the_package():
    surrogate = dsfp_env.load_surrogate("resnet20")
    assert len(surrogate.agents) == 19
    best = surrogate.optimum()
    assert surrogate.regret(best.ratios) == pytest.approx(0, abs=1e-6)
    uniform = np.repeat(np.arange(10.0, 91.0, 10.0)[:, None], 19, axis=1)
    assert (surrogate.regret(uniform) > 0).all()
    assert (np.diff(surrogate.query(uniform).macs) < 0).all()
    env = dsfp_env.parallel_env(task="resnet20", backend="surrogate", actions="levels")
    env.reset(seed=0)
    *_, infos = env.step(dict.fromkeys(env.agents, 4))
    told = infos["conv_0"]
    assert told["accuracy"] == surrogate.query(uniform[[4]], seed=0).accuracy[0]
    assert told["macs"] == surrogate.query(uniform[[4]]).macs[0]
    assert told["distance"] == pytest.approx(surrogate.distance(uniform[[4]])[0])


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")  # of so few rows
def test_a_learning_curve_ends_at_what_cross_validation_finds(whole, capsys):
    curve = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "surrogate_rows.py"))
    known = files.read_survey([whole])
    kept, rows = 1 - known.classes_lost / known.costs.sizes, []

    def constant(of_these, accuracy):
        rows.append({one.tobytes() for one in of_these})
        return lambda asked: np.full((len(asked), 2), accuracy.mean(0)) + 0.1 * asked

    expected = trust(kept, known.accuracy, kept[:, 0], known.sources, {"networks": constant})["cross_validation"]
    rows.clear()
    found = [curve["learned"](known, constant, share, 0) for share in (1, 0.5)]
    assert expected["networks"].items() <= found[0].items()
    assert found[0]["r2"] != found[1]["r2"]
    assert all(few < all_of_them for all_of_them, few in zip(rows[:5], rows[5:], strict=True))
    curve["main"](curve["Settings"]((whole,), "quadratic", shares=(1,), repeats=2))
    assert "\n| 10 | " in capsys.readouterr().out  # four fifths of twelve


def test_noise_is_told_by_the_accuracy_and_nowhere_made_up():
    """Deviations of 0.05 at an accuracy of a half, less towards both ends; four seeds each."""
    rng = np.random.default_rng(0)
    means = np.repeat(rng.uniform(0.2, 0.8, 600), 4)
    widths = 0.05 - 0.3 * (means - 0.5) ** 2
    measured = means[:, None] + widths[:, None] * rng.normal(size=(2400, 2))
    groups = Replicates(np.arange(2400), np.repeat(np.arange(600), 4))
    ensemble = Ensemble(np.zeros(1), np.ones(1), [], fit_noise(groups, measured))
    asked = np.array([0.25, 0.5, 0.7])
    for split in (0, 1):
        assert np.allclose(ensemble.deviations(asked, split), 0.05 - 0.3 * (asked - 0.5) ** 2, rtol=0.12)
        far, end = ensemble.deviations(np.array([0.999, 0.9]), split)
        assert np.isclose(far, end)  # as at the highest that was measured
    assert (
        fit_noise(Replicates(np.empty(0, int), np.empty(0, int)), measured)[0] == np.log(LEAST_DEVIATION)
    ).all()


def test_surrogates_that_cannot_be_used_get_a_sentence(tmp_path):
    folder = make_surrogate(tmp_path / "s")
    meta, arrays = json.loads((folder / "meta.json").read_text()), read_arrays(folder / "model.npz")
    for noise in (arrays["noise"][:3], arrays["noise"] * np.nan, arrays["noise"].astype(int)):
        write_arrays(folder / "model.npz", {**arrays, "noise": noise})
        told = {key: value for key, value in meta.items() if key != "checksum"}
        told["files"] = {**told["files"], "model.npz": checksum(folder / "model.npz")}
        (folder / "meta.json").write_text(json.dumps({**told, "checksum": checksum_of(told)}))
        with pytest.raises(dsfp_env.InputError, match=r"cannot be used \('noise'\)"):
            dsfp_env.load_surrogate(folder)
    (folder / "meta.json").write_text(json.dumps({**meta, "schema": 1}))
    with pytest.raises(dsfp_env.InputError, match=r"of an older kind \(1, .* make it anew with"):
        dsfp_env.load_surrogate(folder)
