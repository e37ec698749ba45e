"""The paper's tables, cut into pieces: a small real study, its table, and going on after a stop."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from agents.reporting import long_fine_tune, run_folder
from agents.reproduce import pieces, searching
from agents.reproduce import study as reproduce
from agents.reproduce.known import Known
from agents.reproduce.paper_table import paper_table
from agents.reproduce.study import Study, StudySettings
from agents.reproduce.study_files import StudyFiles
from dsfp_env import InputError, checkpoints, load_pruned
from dsfp_env.common import files, folders, tensor_files
from dsfp_env.evaluation import measurement
from dsfp_env.evaluation.allocation import allocate
from dsfp_env.networks import PlainNet
from dsfp_env.training import epochs, fine_tuning
from dsfp_env.training.distillation import fine_tune
from dsfp_env.training.recipes import FINE_TUNING, recipe_from


def make_small(num_classes):
    return PlainNet((8, "M", 16), grid=1, hidden=(), norm=True, num_classes=num_classes)


class OwnLoop:
    """A team that cannot begin with what it is given."""

    team = True

    def __init__(self, env, seed):
        pass

    def act(self, observations, infos, *, deterministic=False):
        return dict.fromkeys(observations, 0)

    def learn(self, env, evaluations, *, seed=None, on_evaluation=None):
        return []


@pytest.fixture(scope="module")
def settings(image_files, tmp_path_factory):
    return StudySettings(
        network="test_reproduce:make_small",
        data=f"imagefolder:{image_files}",
        rates=(50,),
        seeds=(3,),
        evaluations=4,
        criterion="taylor",
        pretraining="fast(epochs=3, batch_size=16)",
        fine_tuning="short(epochs=2, batch_size=16)",
        device="cpu",
        out=str(tmp_path_factory.mktemp("study") / "out"),
    )


def changed(settings, **changes):
    return StudySettings(**{**vars(settings), **changes})


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """Of a study that is done."""
    settings = changed(settings, out=str(tmp_path_factory.mktemp("finished") / "out"))
    reproduce.reproduce(settings)
    return settings


def test_a_study_from_end_to_end_in_two_starts(settings, capsys):
    reproduce.reproduce(changed(settings, only=("base", "scores", "uniform")))
    said = capsys.readouterr().out
    assert "0 of 5 pieces are done; now: base, scores, uniform-50-seed3" in said
    assert "left: search-q_learning-50-seed3, q_learning-50-seed3" in said
    reproduce.reproduce(settings)
    said = capsys.readouterr().out
    assert "3 of 5 pieces are done" in said
    assert "left:" not in said
    folder = Study(settings).folder
    base, uniform, learned = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("base", "uniform-50-seed3", "q_learning-50-seed3")
    )
    # By hand: 3-8-16 filters of 3x3 with a bias and two numbers of normalisation each, and a head of 10.
    assert (base["filters"], base["params"]) == (24, 8 * (27 + 3) + 16 * (72 + 3) + 16 * 10 + 10)
    assert (uniform["filters"], uniform["params"]) == (12, 4 * (27 + 3) + 8 * (36 + 3) + 8 * 10 + 10)
    assert uniform["output_only_params"] == 4 * (27 + 3) + 8 * (72 + 3) + 16 * 10 + 10
    search = json.loads((folder / "search-q_learning-50-seed3.json").read_text())
    assert search["tried"] == 4
    assert learned["ratios"] == search["ratios"]
    pruned = load_pruned(folder / "uniform-50-seed3.safetensors", network=Study(settings).task.network)
    assert pruned.features.conv1.out_channels == 4
    assert "| uniform 50 % |" in said
    assert not list(folder.glob("*.training"))


def test_a_search_that_was_stopped_goes_on_as_if_not(finished, tmp_path, monkeypatch):
    """The log of half a search, with a line cut short, is taken up: the same evaluations, the same choice."""
    done, name = Study(finished), "search-q_learning-50-seed3"
    lines = (done.folder / f"{name}.jsonl").read_text().splitlines(keepends=True)
    work = []
    monkeypatch.setattr(measurement, "fine_tune", lambda *given: work.append(fine_tune(*given)))
    counts = []
    for log in ("", "".join(lines[:2]) + lines[2][:30]):
        folder = tmp_path / str(len(log))
        folder.mkdir()
        for file in ("base.safetensors", "base.json", "scores.json", "scores.safetensors"):
            (folder / file).write_bytes((done.folder / file).read_bytes())
        (folder / f"{name}.jsonl").write_text(log)
        before = len(work)
        Study(changed(finished, out=str(folder))).pieces[name]()
        counts.append(len(work) - before)
        for file in (f"{name}.jsonl", f"{name}.json"):
            assert (folder / file).read_text() == (done.folder / file).read_text()
    assert counts[1] < counts[0]


def test_a_few_epochs_choose_of_the_best_of_a_search(finished, tmp_path, monkeypatch):
    """The finalists are fine-tuned as a row is, for an epoch; a search that is stopped there goes on there."""
    done, name = Study(finished), "search-q_learning-50-seed3"

    def study(folder):
        folder.mkdir()
        for file in ("base.safetensors", "base.json", "scores.json", "scores.safetensors"):
            shutil.copy(done.folder / file, folder)
        return Study(changed(finished, out=str(folder), finalist_epochs=1))

    whole, stopped = study(tmp_path / "whole"), study(tmp_path / "stopped")
    whole.pieces[name]()
    found = json.loads(whole.files.of(name).read_text())
    tried = [json.loads(line) for line in (whole.folder / f"{name}.jsonl").read_text().splitlines()]
    allowed = found["macs_budget"] * whole.task.graph.costs().macs
    ranked = sorted((line for line in tried if line["macs"] <= allowed), key=lambda line: -line["reward"])
    finalists, once = found["finalists"], {str(line["ratios"]): line["ratios"] for line in ranked}
    assert [one["ratios"] for one in finalists] == list(once.values())
    for one in finalists:
        task = whole.task
        network = task.graph.slim(task.network, whole.evaluator().keep(one["ratios"]))
        recipe = task.suited(recipe_from("short(epochs=1, batch_size=16)", FINE_TUNING))
        (epoch,) = fine_tuning.distil(network, task.network, task.train, task.validation, recipe, seed=3)
        assert one["accuracy"] == epoch.accuracy
    assert found["ratios"] == max(finalists, key=lambda one: one["accuracy"])["ratios"]

    trainings = []

    def interrupted(network, task, recipe, seed, teacher, checkpoint, label):
        trainings.append(label)
        if len(trainings) == len(finalists):
            raise KeyboardInterrupt
        return long_fine_tune.finish(network, task, recipe, seed, teacher, checkpoint, label)

    monkeypatch.setattr(pieces, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.pieces[name]()
    assert len(list(stopped.folder.glob("*.training"))) == len(finalists) - 1
    monkeypatch.undo()
    counted, epoch_of = [], epochs._Training.epoch
    monkeypatch.setattr(epochs._Training, "epoch", lambda *given: counted.append(1) or epoch_of(*given))
    Study(stopped.settings).pieces[name]()
    assert len(counted) == 1  # of the last finalist alone
    assert stopped.files.of(name).read_bytes() == whole.files.of(name).read_bytes()
    assert not list(stopped.folder.glob("*.training"))


def test_no_network_is_a_finalist_twice(finished, tmp_path):
    """Of 8 and 16 filters 4 and 8 go at 50 % and at 50.5 %."""
    agents = [*Study(finished).task.agents]
    plans = [dict.fromkeys(agents, ratio) for ratio in (50.0, 50.5, 60.0)]
    trained = []

    def tuned(number, plan):
        trained.append(plan)
        return plan[agents[0]] / 100

    search = searching.Search(tmp_path / "log", Study(finished).evaluator(), 0.9, 3, 0, tuned, plans)
    found = search.draw()
    assert sorted(trained, key=lambda plan: plan[agents[0]]) == [plans[0], plans[2]]
    assert (found["tried"], found["ratios"]) == (3, plans[2])


def test_searches_begin_with_the_plans_of_rules(finished, tmp_path):
    """Agents and random search try them first, and a few epochs choose of them too, whatever they were worth."""
    rules, kinds = ("erk", "sensitivity"), ("random_search_equal_macs", "q_learning", "regression_bandit")
    asked = changed(
        finished, warm_start=rules, finalist_epochs=1, fill_budget=True, yardsticks=("erk", kinds[0]),
        agents=kinds[1:], only=("search", "erk"), evaluations=5, out=str(tmp_path / "out"),
    )  # fmt: skip
    reproduce.reproduce(asked)
    study = Study(asked)
    evaluator = study.evaluator()
    for kind in kinds:
        name = f"search-{kind}-50-seed3"
        found = json.loads(study.files.of(name).read_text())
        plans = [allocate(evaluator, rule, macs_budget=found["macs_budget"]) for rule in rules]
        tried = [json.loads(line)["ratios"] for line in study.files.log(name).read_text().splitlines()]
        finalists = [one["ratios"] for one in found["finalists"]]
        assert len(tried) == found["tried"] == 5
        filters = [[len(kept) for kept in evaluator.keep(plan).values()] for plan in finalists]
        assert all([len(kept) for kept in evaluator.keep(plan).values()] in filters for plan in plans)
        if kind == kinds[0]:
            assert tried[:2] == plans
        elif kind == kinds[2]:  # the same, but for what float32 and the bisection to the budget change
            assert [list(plan.values()) for plan in tried[:2]] == [
                pytest.approx([*plan.values()], abs=0.2) for plan in plans
            ]
            assert len(filters) == len({tuple(one) for one in filters})
        else:  # of levels, brought to the budget
            for told, plan in zip(tried, plans, strict=False):
                nearest = {agent: 10 * round(ratio / 10) for agent, ratio in plan.items()}
                shifts = {agent: round(told[agent] - nearest[agent], 6) for agent in plan if 10 < told[agent] < 90}
                assert len(set(shifts.values())) <= 1
    assert json.loads((study.folder / "erk-50-seed3.json").read_text())["ratios"] == plans[0]
    assert not list(study.folder.glob("*.training"))


def test_plans_that_just_meet_a_target_are_within_it(finished, tmp_path):
    """A share of the multiply-adds, times all of them, may round to less: the uniform plan itself is within."""
    for rate in (28, 42, 45, 50, 60, 65):
        asked = changed(
            finished, rates=(rate,), warm_start=("uniform",), only=(f"search-q_learning-{rate}",),
            out=str(tmp_path / str(rate)), weights=str(Study(finished).folder / "base.safetensors"),
        )  # fmt: skip
        reproduce.reproduce(asked)
        found = json.loads((tmp_path / str(rate) / f"search-q_learning-{rate}-seed3.json").read_text())
        log = (tmp_path / str(rate) / f"search-q_learning-{rate}-seed3.jsonl").read_text().splitlines()
        tried = [json.loads(line)["macs"] for line in log]
        task = Study(asked).task
        uniform = task.graph.costs(Study(asked).evaluator().keep(dict.fromkeys(task.agents, float(rate)))).macs
        assert found["within_budget"] == sum(macs <= uniform for macs in tried)


def test_what_another_folder_found_is_not_made_anew(finished, tmp_path, monkeypatch, capsys):
    """Of a results.json alone: its rows and searches are there, with their bytes, and more can be asked."""
    done = Study(finished).folder
    known = Path(shutil.copy(done / "results.json", tmp_path / "known.json"))
    weights = str(done / "base.safetensors")
    more = {"rates": (50, 70), "yardsticks": ("erk",), "only": ("scores", "uniform", "erk")}
    asked = changed(finished, known=str(known), weights=weights, **more, out=str(tmp_path / "out"))
    reproduce.reproduce(asked)
    said = capsys.readouterr().out
    assert "known: uniform-50-seed3, search-q_learning-50-seed3, q_learning-50-seed3\n4 of 10 pieces are" in said
    assert Study(asked).files.of("uniform-50-seed3").read_bytes() == (done / "uniform-50-seed3.json").read_bytes()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    made = {f"{rule}-{rate}-seed3" for rule in ("erk", "uniform") for rate in (50, 70)}
    assert results["rows"].keys() == made | {"q_learning-50-seed3"}

    again = changed(finished, known=str(known), weights=weights, out=str(tmp_path / "again"))
    monkeypatch.setattr(pieces, "finish", None)  # nothing is trained
    reproduce.reproduce(again)
    there = json.loads((tmp_path / "again" / "results.json").read_text())
    assert {name: there[name] for name in ("rows", "searches")} == {
        name: json.loads(known.read_text())[name] for name in ("rows", "searches")
    }


def test_more_or_less_may_be_asked_of_a_folder(finished, tmp_path, monkeypatch, capsys):
    """Other targets, seeds, yardsticks and learners, as long as every name of a piece means what it meant."""
    folder = tmp_path / "out"
    shutil.copytree(Study(finished).folder, folder)
    asked = changed(finished, out=str(folder))
    before = {file.name: file.read_bytes() for file in [*folder.glob("*-50-seed3.*"), folder / "settings.json"]}
    more = changed(asked, seeds=(3, 4), macs_budgets=(0.5,), yardsticks=("erk",), agents=("linucb(alpha=2)",))
    reproduce.reproduce(changed(more, estimate=True))
    reproduce.reproduce(changed(more, only=("uniform-50", "erk-50-seed3", "search-linucb-50-seed3")))
    made = "search-linucb-50-seed3"
    assert f"3 of 18 pieces are done; now: erk-50-seed3, {made}, uniform-50-seed4\n" in capsys.readouterr().out
    results = json.loads((folder / "results.json").read_text())
    assert results["rows"].keys() == {"uniform-50-seed3", "uniform-50-seed4", "erk-50-seed3"}
    assert results["searches"].keys() == {made}
    assert {name: (folder / name).read_bytes() for name in before} == before

    for other in ("linucb(alpha=3)", "linucb"):
        sentence = f"{made}.json is of linucb(alpha=2), and {other} would have that name, too: choose another"
        with pytest.raises(InputError, match=re.escape(sentence)):
            reproduce.reproduce(changed(asked, agents=(other,)))
    monkeypatch.setattr(pieces, "finish", None)  # nothing is trained
    reproduce.reproduce(changed(asked, rates=(60,), agents=("linucb",), only=("base",)))  # none is called so there
    reproduce.reproduce(asked)  # what was asked at first is there as it was
    assert "5 of 5 pieces are done" in capsys.readouterr().out
    whole = json.loads((Study(finished).folder / "results.json").read_text())
    assert json.loads((folder / "results.json").read_text()) == whole


def test_names_of_an_earlier_release_stand_for_what_they_stood_for(finished, tmp_path):
    """Its pieces do not say what they are of, but settings.json does."""
    folder = tmp_path / "out"
    shutil.copytree(Study(finished).folder, folder)
    for file in folder.glob("*q_learning*.json"):
        content = json.loads(file.read_text())
        assert content.pop("kind") == "q_learning"
        file.write_text(json.dumps(content))
    asked = changed(finished, out=str(folder))
    study = Study(asked)
    study.check()
    assert study.results()["rows"].keys() == {"uniform-50-seed3", "q_learning-50-seed3"}
    with pytest.raises(InputError, match=r"q_learning-50-seed3.json is of q_learning, and q_learning\(step_size"):
        Study(changed(asked, agents=("q_learning(step_size=0.5)",))).check()


@pytest.mark.parametrize(
    ("name", "value"), [("agents", "x"), ("seeds", 3), ("macs_budgets", [2]), ("versions", 5)]
)
def test_settings_that_were_damaged_are_refused(finished, tmp_path, name, value):
    there = json.loads((Study(finished).folder / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps({**there, name: value}))
    with pytest.raises(
        InputError, match=rf"settings\.json cannot be read \(.*\$\.{name}.*; choose another folder"
    ):
        Study(changed(finished, out=str(tmp_path))).check()


def test_who_is_refused_leaves_the_settings_of_another(settings, tmp_path):
    """While the other trains the original network nothing but its settings.json is in the folder."""
    folder, weights = tmp_path / "out", tmp_path / "damaged.safetensors"
    asked = changed(settings, out=str(folder))
    weights.write_bytes(b"none")
    folder.mkdir()
    with folders.shared(folder, Study(asked).files.begin):
        reproduce.reproduce(changed(asked, estimate=True))
        with pytest.raises(InputError, match="damaged.safetensors"):
            reproduce.reproduce(changed(asked, weights=str(weights)))
        assert [file.name for file in folder.iterdir()] == ["settings.json"]
    with pytest.raises(InputError, match="damaged.safetensors"):
        reproduce.reproduce(changed(asked, weights=str(weights)))
    assert not any(folder.iterdir())


def test_of_two_that_begin_at_once_the_second_goes_by_the_first(settings, tmp_path, monkeypatch):
    """It is let in when settings.json is there, and compared with it."""
    first, second = (changed(settings, out=str(tmp_path), evaluations=count) for count in (4, 5))
    study = Study(second)
    study.check()  # nothing is there yet
    begins, comes = (folders.shared(tmp_path, Study(one).files.begin) for one in (first, second))
    with begins, comes as alone:
        assert not alone()
        with pytest.raises(InputError, match="--evaluations is 4 there, and 5 came"):
            study.check()


def test_what_several_people_found_is_put_together(finished, tmp_path, monkeypatch):
    """A row that is in two files is that of the first; its search may be in another file."""
    whole = json.loads((Study(finished).folder / "results.json").read_text())
    uniform, learned = "uniform-50-seed3", "q_learning-50-seed3"
    wrong = {**whole["rows"][uniform], "accuracy": 0.125}
    files = [tmp_path / "rows.json", tmp_path / "search.json"]
    files[0].write_text(json.dumps({**whole, "searches": {}}))
    files[1].write_text(json.dumps({**whole, "rows": {uniform: wrong}}))
    asked = changed(
        finished, known=tuple(map(str, files)), weights=str(Study(finished).folder / "base.safetensors"),
        out=str(tmp_path / "out"),
    )  # fmt: skip
    monkeypatch.setattr(pieces, "finish", None)  # nothing is trained
    reproduce.reproduce(changed(asked, only=("scores",)))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["rows"] == {name: whole["rows"][name] for name in (uniform, learned)}
    assert results["base"]  # without which the rows might be of any network
    files[1].write_text("{")
    with pytest.raises(InputError, match=r"search\.json cannot be read"):
        reproduce.reproduce(changed(asked, out=str(tmp_path / "refused")))
    assert not (tmp_path / "refused").exists()


def test_what_is_known_of_another_study_is_refused(finished, tmp_path):
    whole = json.loads((Study(finished).folder / "results.json").read_text())
    known, out = tmp_path / "known.json", tmp_path / "out"
    asked = changed(finished, known=str(known), out=str(out))
    with pytest.raises(InputError, match=r"known.json cannot be read"):
        reproduce.reproduce(asked)
    known.write_text(json.dumps(whole))
    with pytest.raises(InputError, match="with other settings: --evaluations is 4 there, and 5 came"):
        reproduce.reproduce(changed(asked, evaluations=5))
    with pytest.raises(InputError, match="with other settings: --data is imagefolder.* there, and mine:task came"):
        Known(known, StudyFiles(changed(asked, data="mine:task")))
    weights, base, row = str(Study(finished).folder / "base.safetensors"), whole["base"], "uniform-50-seed3"
    with pytest.raises(InputError, match="known.json is of a trained network: expected that with --weights"):
        reproduce.reproduce(asked)
    asked, less = changed(asked, weights=weights), base["accuracy"] - 0.02
    differ = f"another original network: .* and {less:.2%} there, .* and {base['accuracy']:.2%} here. Give"
    for name, change, sentence in (
        ("versions", {"torch": "2.6.0"}, "was begun with torch 2.6.0, and this is .* or leave --known away"),
        ("base", {"accuracy": less}, differ),
        ("base", {"macs": base["macs"] + 1}, "of another original network"),
        ("rows", {row: {**whole["rows"][row], "epochs": 7, "epoch_accuracies": None}}, "uniform.* has 7 epochs"),
        (
            "rows",
            {row: {**whole["rows"][row], "ratios": {"conv_0": 5.0, "conv_1": 50.0}}},
            "the ratio 5 for conv_0",
        ),
        ("rows", {row: {**whole["rows"][row], "ratios": {"conv_0": 50.0}}}, r"uniform.*conv_1 missing"),
    ):
        known.write_text(json.dumps({**whole, name: {**whole[name], **change}}))
        with pytest.raises(InputError, match=sentence):
            reproduce.reproduce(asked)
        assert not out.exists(), sentence
    # One image of 100 may be told otherwise by another machine.
    known.write_text(json.dumps({**whole, "base": {**base, "accuracy": base["accuracy"] - 0.01}}))
    reproduce.reproduce(changed(asked, only=("base",)))


def test_a_search_that_ended_is_in_the_results_before_its_row(finished, tmp_path, monkeypatch):
    """So a machine that keeps nothing else has lost no search."""

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pieces, "finish", stopped)
    weights = str(Study(finished).folder / "base.safetensors")
    with pytest.raises(KeyboardInterrupt):
        reproduce.reproduce(
            changed(finished, weights=weights, only=("search-q", "q_learning"), out=str(tmp_path / "out"))
        )
    there, whole = (
        json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "out", Study(finished).folder)
    )
    assert (there["searches"], there["rows"]) == (whole["searches"], {})


def test_what_is_known_may_be_one_file_or_several():
    assert StudySettings(known=None).known == ()
    assert StudySettings(known="a.json").known == ("a.json",)
    assert StudySettings(known=Path("a.json")).known == (Path("a.json"),)
    assert StudySettings(known=("a.json", "b.json")).known == ("a.json", "b.json")


def test_a_known_row_of_another_search_is_made_anew(finished, tmp_path):
    """A search that was made here stays, and so does the row that stands on it."""
    whole = json.loads((Study(finished).folder / "results.json").read_text())
    search, row = "search-q_learning-50-seed3", "q_learning-50-seed3"
    weights = str(Study(finished).folder / "base.safetensors")
    known, other = tmp_path / "known.json", {"conv_0": 50.0, "conv_1": 50.0}
    for name, content in (
        ("other", {**whole, "searches": {search: {**whole["searches"][search], "ratios": other}}}),
        ("alone", {**whole, "searches": {}}),
    ):
        known.write_text(json.dumps(content))
        study = Study(changed(finished, known=str(known), weights=weights, out=str(tmp_path / name)))
        study.check()
        assert (search in (taken := study.take_over())) == (name == "other")
        assert row not in taken
        assert study.files.of("uniform-50-seed3").exists()


def test_an_estimate_takes_nothing_over(finished, tmp_path, capsys):
    known, weights = (str(Study(finished).folder / name) for name in ("results.json", "base.safetensors"))
    out = tmp_path / "out"
    reproduce.reproduce(changed(finished, known=known, weights=weights, estimate=True, out=str(out)))
    assert "3 of 5 pieces are done; now: base, scores" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed that were forked")
@pytest.mark.parametrize("executor", ["processes", pytest.param("ray", marks=pytest.mark.long)])
def test_pieces_may_be_worked_on_elsewhere(executor, finished, tmp_path, monkeypatch):
    if executor == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'dsfp_env[ray]'")
        monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{Path(__file__).parent}")
    reproduce.reproduce(changed(finished, executor=executor, workers=2, out=str(tmp_path / "out")))
    alone, spread = ({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
                     for folder in (Study(finished).folder, tmp_path / "out"))  # fmt: skip
    assert alone == spread


def test_a_study_that_is_killed_at_its_writes_ends_in_the_same_bytes(finished, tmp_path):
    whole, killed = Study(finished).folder, changed(finished, out=str(tmp_path / "killed"))

    def killed_at(moment):
        """In a process that is forked: the so many-th file is not put in its place, or the line is torn."""
        left = [moment]

        def writing(path, write):
            left[0] -= 1
            files.write_whole(path, lambda file: (write(file), left[0] or os.kill(os.getpid(), signal.SIGKILL)))

        def appending(path, line):
            left[0] -= 1
            if left[0]:
                return files.append_line(path, line)
            with open(path, "a") as file:
                file.write(line[:20])
            return os.kill(os.getpid(), signal.SIGKILL)

        for module in (tensor_files, run_folder, epochs, fine_tuning, checkpoints):
            module.write_whole = writing
        searching.append_line = appending
        reproduce.reproduce(killed)

    for moment in (1, 3, 2, 4, 6, 3, 4, 2):
        if not (pid := os.fork()):
            try:
                killed_at(moment)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    reproduce.reproduce(killed)
    names = {path.name for path in whole.iterdir() if path.is_file()}
    there = {path.name for path in Study(killed).folder.iterdir() if path.is_file()}
    assert {name for name in there if not name.endswith(".part")} == names
    for name in names:
        assert (Study(killed).folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_search_that_another_process_is_at_is_left_to_it(finished, tmp_path):
    """Nothing is added to what it has tried."""
    folder = Path(shutil.copytree(finished.out, tmp_path / "out"))
    (folder / "search-q_learning-50-seed3.json").unlink()
    log = folder / "search-q_learning-50-seed3.jsonl"
    before = log.read_bytes()
    with (
        folders.held(log),
        pytest.raises(InputError, match="at .*seed3.jsonl: wait for its end, or give .*--only"),
    ):
        reproduce.reproduce(changed(finished, out=str(folder)))
    assert log.read_bytes() == before


def test_bad_settings_get_a_sentence(finished, tmp_path):
    with pytest.raises(InputError, match="a study with other settings: --evaluations is 4 there, and 5 came"):
        reproduce.reproduce(changed(finished, evaluations=5))
    for change, sentence in {
        ("network", "vgg61"): "Unknown network of this package or torchvision 'vgg61'. Did you mean 'vgg16'",
        ("agents", ("q_lerning",)): "Unknown agent 'q_lerning'. Did you mean 'q_learning'",
        ("criterion", "dspf"): "Unknown criterion 'dspf'. Did you mean 'dsfp'",
        ("fine_tuning", "long"): "Unknown recipe 'long'",
        ("rates", (5,)): r"--rates are \(5,\): expected percentages in",
        ("finalist_epochs", 3): "--finalist-epochs is 3: expected from 1 to the 2 of --fine-tuning",
        ("warm_start", ("sensitvity",)): "Unknown rule 'sensitvity'. Did you mean 'sensitivity'",
        ("warm_start", ("global_ranking(normalisation=l3)",)): "normalisation",
        ("warm_start", ("erk", "erk")): "--warm-start is erk erk: expected each rule once, and fewer than the 4",
        ("only", ("unifrom",)): "--only unifrom: there is no such piece; there are: base, scores, uniform-50",
    }.items():
        with pytest.raises(InputError, match=sentence):
            reproduce.reproduce(changed(finished, **dict([change]), out=str(tmp_path / "out")))
    for agent in ("ppo", "test_reproduce:OwnLoop"):
        asked = changed(finished, warm_start=("erk",), agents=("q_learning", agent), out=str(tmp_path / "out"))
        with pytest.raises(InputError, match=f"--warm-start: {agent} has a loop of its own"):
            reproduce.reproduce(asked)
    assert not (tmp_path / "out").exists()


def test_a_study_may_be_of_rules_alone(finished, tmp_path, capsys):
    alone = {"agents": (), "out": str(tmp_path / "out")}
    reproduce.reproduce(changed(finished, yardsticks=("erk",), estimate=True, **alone))
    assert "now: base, scores, uniform-50-seed3, erk-50-seed3\n" in capsys.readouterr().out
    with pytest.raises(InputError, match="evaluations are 0"):
        reproduce.reproduce(changed(finished, evaluations=0, **alone))
    both = {"known": str(tmp_path / "a.json"), "results": str(tmp_path / "b.json")}
    with pytest.raises(InputError, match="--from makes the table .* --known goes on from one: expected one"):
        reproduce.reproduce(changed(finished, **both))


def test_what_cannot_be_begun_leaves_no_trace(settings, tmp_path):
    """So the folder can be used when the typing error is gone."""
    with pytest.raises(InputError, match="Unknown layer 'conv_9'"):
        reproduce.reproduce(changed(settings, layers="conv_9=keep", out=str(tmp_path / "of" / "mine")))
    assert not any(tmp_path.iterdir())


def test_the_table_by_hand():
    """Means over seeds, retained accuracy, and the paper's row: 87.40 of 87.76 is 99.59 % (it prints 99.58)."""
    base = {
        "accuracy": 0.8,
        "pruned_accuracy": 0.8,
        "filters": 1152,
        "params": 7e6,
        "output_only_params": 7e6,
        "macs": 2e8,
    }
    rows = [
        {**base, "accuracy": accuracy, "pruned_accuracy": 0.1, "filters": 576, "params": 2e6, "macs": 5e7}
        for accuracy in (0.70, 0.74)
    ]
    table = paper_table("alexnet", base, {"uniform 50 %": (50, [*rows, None]), "uniform 60 %": (60, [None])})
    assert table.splitlines()[2:] == [
        "| base |  | 80.00 | 100.00 % | 1152 | 7.0000 M | 7.0000 M | 200.00 M (100.0 %) | 87.76, 1152, 6.9768 M |",
        "| uniform 50 % | 10.00 | 72.00 ± 2.83 | 90.00 % | 576 | 2.0000 M | 7.0000 M | 50.00 M (25.0 %) "
        "| 44.28, 87.40, 99.59 %, 585, 5.8021 M |",
    ]
    assert "not trained" in paper_table("alexnet", None, {})
