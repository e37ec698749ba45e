"""Runs that are killed, at any moment: the same command goes on, and ends in the same bytes."""

import contextlib
import importlib
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import dsfp_env
import train_agents
from agents.compare import runs as compare
from agents.leaderboard import runs as leaderboard
from agents.main_job import one_run, several_seeds
from agents.main_job.asked import free_folder
from agents.reporting import journal, run_folder
from agents.reproduce import study
from dsfp_env import tabulate
from dsfp_env.common import command_line, files, folders, tensor_files
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.executors.serial import Serial
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.tables import files as table_files
from dsfp_env.training import epochs

for slow_to_import in ("matplotlib.figure", "optuna", "sb3_contrib"):  # once, before processes are forked
    with contextlib.suppress(ImportError):
        importlib.import_module(slow_to_import)

ROOT = Path(__file__).parents[1]
AGENTS = ("q_learning", "thompson", "random_search", "ppo(n_steps=4)", "tpe")
WHAT_COMES = ("evaluations.jsonl", "result.json", "pruned.safetensors", "summary.png")
TINY = {"task": "tiny_tasks:tiny", "evaluations": 9, "criterion": "l1", "kd_batches": 1, "device": "cpu"}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed that were forked")


def settings(out, **changed):
    return train_agents.RunSettings(**{**TINY, "workers": 1, "store": False, **changed, "out": str(out)})


def arguments(out, **changed):
    asked = {**TINY, "workers": 1, **changed, "out": out}
    return [
        "--no-store",
        *(str(word) for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)),
    ]


def in_child(work, **streams):
    """Do it in a process that is forked; returns its exit status, negative for a signal."""
    pid = start_child(work, **streams)
    return ended(pid)


def start_child(work, stderr=os.devnull):
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        with open(stderr, "w") as errors, open(os.devnull, "w") as nothing:
            sys.stdout, sys.stderr = nothing, errors
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever these tests are run under
            status = work()
            errors.flush()
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_while_writing(moment, how):
    """From now on, in this process: the so many-th write is the last thing it does; ``torn`` does half of it."""
    left = [moment]

    def dying(write, torn):
        def writing(path, content):
            left[0] -= 1
            if left[0]:
                return write(path, content)
            if how == "torn":
                torn(path, content)
            elif how == "after":
                write(path, content)
            return die()

        return writing

    def half_a_line(path, line):
        with open(path, "a") as file:
            file.write(line[: len(line) // 2])

    def a_part(path, write):
        files.write_whole(path, lambda file: die() if write(file) else None)

    append, whole = dying(files.append_line, half_a_line), dying(files.write_whole, a_part)
    journal.append_line = run_folder.append_line = append
    run_folder.write_whole = dsfp_env.checkpoints.write_whole = whole
    epochs.write_whole = tensor_files.write_whole = whole


def run_until_killed(asked, moment, how):
    def work():
        killed_while_writing(moment, how)
        return train_agents.train(asked)

    return in_child(work)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """How many networks were pruned and fine-tuned, by all processes."""
    log, work = tmp_path_factory.mktemp("log") / "measured", Measurement.build

    def build(*given):
        with open(log, "a") as file:
            file.write("x")
        return work(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measurement, "build", build)
        yield lambda: log.stat().st_size if log.exists() else 0


@pytest.fixture(scope="module")
def wholes(tmp_path_factory, measured):
    """The folder of a run that nobody killed; in ``wholes.cost``, by folder, how many networks it measured."""
    made, cost = {}, {}

    def whole(agent="q_learning", **changed):
        key = agent, *changed.items()
        if key not in made:
            made[key], before = tmp_path_factory.mktemp("whole") / "run", measured()
            assert train_agents.train(settings(made[key], agent=agent, **changed)) == 0
            cost[made[key]] = measured() - before
        return made[key]

    whole.cost = cost
    return whole


def check_same_bytes(folder, whole):
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    for name in WHAT_COMES:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def check_kills(tmp_path, whole, measured, kills, rng, **changed):
    """Kill a run again and again while it writes, go on to its end, and compare."""
    out, before = tmp_path / f"run{rng.random()}", measured()
    died = 0
    for _ in range(kills):
        how = rng.choice(["before", "torn", "after"])
        status = run_until_killed(settings(out, **changed), rng.choice([1, 2, 5, 12, 25, 50]), how)
        assert status in (0, -signal.SIGKILL)
        died += status != 0
    assert in_child(lambda: train_agents.train(settings(out, **changed))) == 0
    check_same_bytes(out, whole)
    return died, measured() - before


@pytest.mark.parametrize("agent", AGENTS)
def test_a_killed_run_ends_in_the_same_bytes_and_measures_nothing_twice(tmp_path, wholes, measured, agent):
    whole = wholes(agent)
    died, again = check_kills(tmp_path, whole, measured, 3, random.Random(agent), agent=agent)
    assert died
    assert again <= wholes.cost[whole] + died * 3  # what was under way: at most a network with three seeds


def test_so_does_one_with_difference_credit_several_steps_and_masks(tmp_path, wholes, measured, monkeypatch):
    monkeypatch.setattr(
        dsfp_env.Evaluator, "workers", 1
    )  # those of this process are of no use to one that is forked
    changed = {"credit": "difference", "evaluations": 20, "horizon": 2, "macs_budget": 0.5}
    check_kills(tmp_path, wholes(**changed), measured, 3, random.Random(0), **changed)


def test_so_does_one_in_batches_whoever_evaluates_them(tmp_path, wholes, measured):
    changed = {"agent": "thompson", "batch": 4}  # of nine evaluations: the last batch is of one
    whole = wholes(**changed)
    died, again = check_kills(tmp_path, whole, measured, 3, random.Random(4), **changed)
    assert died
    assert again <= wholes.cost[whole] + died * 3
    assert train_agents.train(settings(tmp_path / "two", workers=2, **changed)) == 0
    check_same_bytes(tmp_path / "two", whole)
    assert json.loads((whole / "settings.json").read_text())["settings"]["batch"] == 4
    assert json.loads((whole / "result.json").read_text())["batch"] == 4
    assert (whole / "evaluations.jsonl").read_bytes() != (wholes("thompson") / "evaluations.jsonl").read_bytes()


def test_so_does_one_with_a_long_fine_tune_and_criteria_to_choose_from(tmp_path, wholes, measured):
    changed = {"fine_tune": "plain(epochs=3)", "criteria": "l1, l2", "evaluations": 20}
    whole, out = wholes(**changed), tmp_path / "out"
    moments = [*random.Random(1).sample(range(1, 12), 3), 3, 40, 9, 5]  # the later ones end it in trainings
    for moment, how in zip(moments, itertools.cycle(["before", "torn", "after"])):
        assert run_until_killed(settings(out, **changed), moment, how) in (0, -signal.SIGKILL)
    assert in_child(lambda: train_agents.train(settings(out, **changed))) == 0
    check_same_bytes(out, whole)


@pytest.mark.long
@pytest.mark.parametrize("agent", [*AGENTS, "sac", "maskable_ppo", "nsga2", "cma_es", "linucb", "joint_thompson"])
@pytest.mark.usefixtures("digits")
def test_runs_on_the_digits_are_killed_at_random_times(tmp_path, wholes, agent):
    changed = {"task": "digits", "kd_batches": 0, "evaluations": 20, "agent": agent}
    start, whole, rng = time.monotonic(), wholes(**changed), random.Random(agent)
    seconds, out = max(1.0, time.monotonic() - start), tmp_path / "out"
    for _ in range(10):
        pid = start_child(lambda: train_agents.train(settings(out, **changed)))
        time.sleep(rng.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    assert in_child(lambda: train_agents.train(settings(out, **changed))) == 0
    check_same_bytes(out, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_a_folder_that_goes_on(tmp_path, wholes, monkeypatch, number):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["train_agents.py", *arguments(out)])

    def interrupted():
        append, left = run_folder.append_line, [4]

        def appending(path, line):
            append(path, line)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), number)

        run_folder.append_line = appending
        return train_agents.main()

    assert in_child(interrupted, stderr=tmp_path / "errors") == 128 + number
    errors = (tmp_path / "errors").read_text()
    assert "ended after 4 of 9 evaluations; the best of them" in errors
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    result = json.loads((out / "result.json").read_text())
    assert (result["interrupted"], result["evaluations"]) == (True, 4)
    assert in_child(train_agents.main, stderr=tmp_path / "errors") == 0
    assert "4 of 9 evaluations are known; the run goes on" in (tmp_path / "errors").read_text()
    check_same_bytes(out, wholes())


def test_a_hang_up_that_is_ignored_stays_so(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])

    @dataclass
    class Nothing:
        pass

    def work(_):
        os.kill(os.getpid(), signal.SIGHUP)

    def ignoring():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return command_line.run(Nothing, work, None)

    assert in_child(ignoring) == 0
    assert in_child(lambda: command_line.run(Nothing, work, None)) == 128 + signal.SIGHUP


@pytest.fixture
def half(tmp_path):
    """The folder of a run that was killed after about half of its evaluations."""
    folder = tmp_path / "half"
    assert run_until_killed(settings(folder), 9, "after") == -signal.SIGKILL
    assert 3 <= (folder / "evaluations.jsonl").read_text().count("\n") <= 7
    return folder


def test_a_line_that_is_cut_short_is_lost_alone(half, wholes, measured):
    lines = (half / "evaluations.jsonl").read_bytes()
    (half / "evaluations.jsonl").write_bytes(lines[:-20])
    train_agents.train(settings(half))
    check_same_bytes(half, wholes())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"evaluations": 10}, "--evaluations is 9 there, and 10 came"),
        ({"seed": 3}, "--seed is 0 there, and 3 came"),
        (
            {"agent": "ucb1", "horizon": 2},
            "--agent is q_learning there, and ucb1 came; --horizon is 1 there, and 2 came",
        ),
        ({"kd_batches": None}, "--kd-batches is 1 there, and not given came"),
        ({"seeds": "0-1"}, "--seeds is not given there, and 0-1 came"),
    ],
    ids=str,
)
def test_other_settings_are_refused(half, changed, sentence):
    before = {path.name: path.read_bytes() for path in half.iterdir()}
    with pytest.raises(InputError, match=f"already holds a run with other settings: {sentence}"):
        train_agents.train(settings(half, **changed))
    assert {path.name: path.read_bytes() for path in half.iterdir()} == before


def edit(path, line, change):
    lines = path.read_text().splitlines()
    lines[line] = change(lines[line])
    path.write_text("\n".join(lines) + "\n")


def test_what_was_edited_or_is_of_another_version_is_refused(half):
    kept = {path: path.read_bytes() for path in half.iterdir()}

    def refused(sentence, **changed):
        with pytest.raises(InputError, match=sentence):
            train_agents.train(settings(half, **changed))
        for path, content in kept.items():
            path.write_bytes(content)
        assert set(half.iterdir()) == set(kept)

    edit(half / "evaluations.jsonl", 1, lambda line: line.replace('"reward": 0.', '"reward": 0.9'))
    refused("Line 2 of .*evaluations.jsonl is not what this run comes to .reward is 0.9.* there")
    edit(half / "evaluations.jsonl", 1, lambda line: line[:30])
    refused("Line 2 of .*evaluations.jsonl cannot be read")
    edit(half / "journal.jsonl", 0, lambda line: line.replace("0.", "0.1"))
    refused("Line 1 of .*journal.jsonl does not match its checksum")
    (half / "settings.json").write_text((half / "settings.json").read_text().replace('"torch": "', '"torch": "0.'))
    refused("was begun with torch 0.* and this is .*: go on with the former")
    (half / "settings.json").write_text("{")
    refused("settings.json cannot be read .* choose another folder with --out")


def test_a_journal_that_is_gone_costs_time_only(half, wholes):
    (half / "journal.jsonl").unlink()
    train_agents.train(settings(half))
    check_same_bytes(half, wholes())


def test_a_finished_run_is_printed_and_nothing_is_done(tmp_path, wholes, capsys, measured, monkeypatch):
    wholes()
    monkeypatch.setattr(one_run, "make_env", None)
    done = measured()
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in wholes().iterdir()}
    assert train_agents.train(settings(wholes())) == 0
    said = capsys.readouterr().out
    assert "is finished, nothing is left to do" in said
    assert "best joint action" in said
    assert measured() == done
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in wholes().iterdir()} == before


@pytest.mark.apart
def test_several_seeds_go_on_one_by_one(tmp_path, wholes, capsys):
    asked, out = {"seeds": "0-2", "evaluations": 4, "agent": "random_search"}, tmp_path / "out"
    for moment in (60, 20, 25):
        assert run_until_killed(settings(out, **asked), moment, "after") == -signal.SIGKILL
    assert train_agents.train(settings(out, **asked)) == 0
    whole = wholes(**asked)
    assert (out / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    for seed in range(3):
        check_same_bytes(out / f"seed-{seed}", whole / f"seed-{seed}")
    capsys.readouterr()
    assert train_agents.train(settings(out, **asked)) == 0
    assert "3 seeds, mean" in capsys.readouterr().out
    with pytest.raises(InputError, match="--seeds is 0-2 there, and 0-4 came"):
        train_agents.train(settings(out, **{**asked, "seeds": "0-4"}))


SEEDS = {"seeds": "0-2", "evaluations": 4, "agent": "random_search"}


def check_same_seeds(out, whole):
    assert (out / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    for seed in range(3):
        check_same_bytes(out / f"seed-{seed}", whole / f"seed-{seed}")


def test_seeds_at_once_come_to_the_same(tmp_path, wholes, capsys):
    out = tmp_path / "out"
    assert train_agents.train(settings(out, **SEEDS, workers=2)) == 0
    check_same_seeds(out, wholes(**SEEDS))
    said = capsys.readouterr().out
    assert all(f"seed {seed}, 4 evaluations" in said for seed in range(3))
    assert "3 seeds, mean" in said


@pytest.mark.apart
def test_seeds_at_once_end_with_ctrl_c_and_go_on(tmp_path, wholes):
    out, longer = tmp_path / "out", {**SEEDS, "evaluations": 30}
    command = subprocess.Popen(
        [sys.executable, "-m", "train_agents", *arguments(out, **longer, workers=2)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    begun = [out / f"seed-{seed}" / "evaluations.jsonl" for seed in (0, 1)]
    while not all(path.exists() for path in begun):
        assert command.poll() is None, command.stderr.read()
        time.sleep(0.02)
    command.send_signal(signal.SIGINT)
    errors = command.communicate(timeout=60)[1]
    assert command.returncode == 130
    assert "stopped; the same command goes on from here" in errors
    for seed in (0, 1):
        assert f"seed {seed}: ended after" in errors
        assert json.loads((out / f"seed-{seed}" / "result.json").read_text())["interrupted"]
    assert train_agents.train(settings(out, **longer, workers=2)) == 0
    check_same_seeds(out, wholes(**longer))


def test_seeds_at_once_that_are_refused_leave_nothing(tmp_path):
    with pytest.raises(InputError, match="budget"):
        train_agents.train(settings(tmp_path / "out", **SEEDS, workers=2, macs_budget=1e-9))
    assert not (tmp_path / "out").exists()


def test_a_seed_whose_folder_a_node_does_not_see_is_run_here(tmp_path, wholes, capsys, monkeypatch):
    elsewhere = several_seeds.SeedRunner(tmp_path / "nowhere", Processes(1))
    assert elsewhere.run(settings(tmp_path, **SEEDS)) == several_seeds.NotSeen(platform.node())
    monkeypatch.setattr(several_seeds, "crew_for", lambda *_: (Serial(), Serial()))
    monkeypatch.setattr(several_seeds.SeedRunner, "run", lambda *_: several_seeds.NotSeen("there"))
    assert train_agents.train(settings(tmp_path / "out", **SEEDS)) == 0
    check_same_seeds(tmp_path / "out", wholes(**SEEDS))
    assert f"{tmp_path / 'out'} is not seen from there: seed 2 is run here." in capsys.readouterr().err


def test_who_runs_seeds_and_who_measures_for_them(monkeypatch):
    def shares(count, workers, **changed):
        crew = several_seeds.crew_for(settings("", **changed, workers=workers), count)
        return crew and tuple(one.count for one in crew)

    assert shares(5, 2) == (2, 1)
    assert shares(2, 5) == (2, 2)
    assert shares(2, 64) == (2, 8)
    assert shares(5, 1) is None
    assert shares(1, 2) is None
    assert shares(3, 2, batch=4) is None
    assert shares(4, 2, batch=4) == (2, 1)
    assert shares(5, 2, executor="serial") is None
    assert shares(5, 2, reward="accuracy_x_speed") is None
    assert shares(5, 2, latency_budget="0.5") is None


def test_without_out_the_unfinished_run_of_the_same_settings_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = train_agents.RunSettings(**{**TINY, "workers": 1, "store": False, "evaluations": 4})
    assert run_until_killed(asked, 5, "after") == -signal.SIGKILL
    first = free_folder(asked)
    assert first.exists()
    assert free_folder(settings("", evaluations=5)).name == f"{first.name}-2"
    with folders.held(first):  # another process is at it
        assert free_folder(asked).name == f"{first.name}-2"
        with pytest.raises(InputError, match="Another process works in the folder"):
            train_agents.train(settings(first, evaluations=4))
    assert train_agents.train(asked) == 0
    assert [path.name for path in Path("runs").iterdir()] == [first.name]
    assert free_folder(asked).name == f"{first.name}-2"  # a finished one is not touched


def test_measured_times_cannot_go_on_and_this_is_said(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    asked = settings(out, reward="accuracy_x_speed")
    status = in_child(lambda: killed_while_writing(5, "after") or train_agents.train(asked), stderr=tmp_path / "e")
    assert status == -signal.SIGKILL
    assert "once stopped, this run cannot go on" in (tmp_path / "e").read_text()
    with pytest.raises(InputError, match="measured times, which are never the same again"):
        train_agents.train(asked)


def test_a_full_or_closed_output_harms_nothing(tmp_path, wholes):
    script = [sys.executable, str(ROOT / "train_agents.py"), *arguments(tmp_path / "out")]
    paths = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths}
    sentence = "error: standard output cannot be written"
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            process = subprocess.run(script, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.returncode == 1
        assert process.stderr.count(sentence) == 1
        assert "Traceback" not in process.stderr
        assert "Exception ignored" not in process.stderr
        check_same_bytes(tmp_path / "out", wholes())
    process = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    process.stdout.close()  # as head does
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert errors.count("\n") == errors.count(sentence) or "evaluations" in errors
    assert "Traceback" not in errors
    check_same_bytes(tmp_path / "out", wholes())


def test_help_that_nobody_reads_ends_without_a_word():
    script = [sys.executable, str(ROOT / "train_agents.py"), "--help"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert errors == ""  # as after `--help | head`


def test_a_whole_result_is_never_replaced_by_that_of_an_interrupted_run(tmp_path, wholes, monkeypatch):
    out, whole = tmp_path / "out", wholes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(one_run, "say", interrupt)
    with pytest.raises(KeyboardInterrupt, match="the result was written before, and is whole"):
        train_agents.train(settings(out))
    check_same_bytes(out, whole)


@pytest.mark.parametrize(
    ("work", "asked"),
    [
        (train_agents.train, train_agents.RunSettings(agent="ucb1(exploration=high)")),
        (compare.compare, compare.ComparisonSettings(agents=("q_learning(step_size=abc)",))),
        (compare.compare, compare.ComparisonSettings(agents=("ucb1",), reward="budget")),
        (compare.compare, compare.ComparisonSettings(agents=("ucb1",), task="digit")),
        (compare.compare, compare.ComparisonSettings(agents=("ucb1",), budgets=(0,))),
        (compare.compare, compare.ComparisonSettings(agents=("ucb1",), seeds="4-0")),
        (compare.compare, compare.ComparisonSettings(agents=("ucb1",), layers="first")),
        (compare.compare, compare.ComparisonSettings(agents=("ucb1",), criterion="taylr")),
        (compare.compare, compare.ComparisonSettings(agents=("ucb1",), precision="float8")),
        (study.reproduce, study.StudySettings(tie="conv_0+")),
        (tabulate.tabulate, tabulate.TableSettings(out="out", kd_batches=-1)),
        (leaderboard.leaderboard, leaderboard.LeaderboardSettings(agents=("q_learning(step_size=abc)",))),
        (study.reproduce, study.StudySettings(agents=("q_learning(step_size=abc)",))),
        (study.reproduce, study.StudySettings(seeds=())),
        (tabulate.tabulate, tabulate.TableSettings(out="out", criterion="taylr")),
    ],
)
def test_bad_settings_are_refused_before_anything_is_loaded_or_written(tmp_path, monkeypatch, work, asked):
    monkeypatch.chdir(tmp_path)
    for module in (train_agents.RunSettings, tabulate.TableSettings, compare.ComparisonSettings):
        monkeypatch.setattr(module, "load", None)
    with pytest.raises(InputError):
        work(asked)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    for module in (train_agents.RunSettings, tabulate.TableSettings, compare.ComparisonSettings):
        monkeypatch.setattr(module, "load", None)
    monkeypatch.setattr(dsfp_env, "load_table", None)
    for out in (str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        for work in (
            lambda out: train_agents.train(train_agents.RunSettings(out=out)),
            lambda out: compare.compare(compare.ComparisonSettings(("ucb1",), out=out)),
            lambda out: leaderboard.leaderboard(leaderboard.LeaderboardSettings(("ucb1",), out=out)),
            lambda out: study.reproduce(study.StudySettings(out=out)),
            lambda out: tabulate.tabulate(tabulate.TableSettings(out=out)),
        ):
            with pytest.raises(InputError, match="cannot be written .*file is a file"):
                work(out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "network.safetensors").write_text("somebody's")
    (tmp_path / "other" / "notes").touch()
    with pytest.raises(InputError, match="holds something else"):
        tabulate.tabulate(tabulate.TableSettings(out=str(tmp_path / "other")))
    assert (tmp_path / "file").read_text() == "kept"


def test_a_table_that_was_killed_while_it_was_begun_goes_on(tmp_path, monkeypatch):
    asked = {"task": "tiny_tasks:tiny", "levels": (10, 90), "seeds": (0,), "criterion": "l1", "workers": 1}

    def killed(moment, how, out):
        def work():
            left, whole = [moment], files.write_whole

            def writing(path, write):
                left[0] -= 1
                whole(path, lambda file: die() if write(file) or True else None) if not left[0] else whole(
                    path, write
                )

            tabulate.write_whole = table_files.write_whole = writing
            return tabulate.tabulate(tabulate.TableSettings(out=str(out), **asked))

        return in_child(work)

    tabulate.tabulate(tabulate.TableSettings(out=str(tmp_path / "whole"), **asked))
    out = tmp_path / "killed"
    for moment in range(1, 8):  # network, four arrays, meta.json, and meta.json with its checksums
        assert killed(moment, "torn", out) == -signal.SIGKILL
    tabulate.tabulate(tabulate.TableSettings(out=str(out), **asked))
    whole, table = (dsfp_env.load_table(folder) for folder in (tmp_path / "whole", out))
    assert (whole.accuracies(0) == table.accuracies(0)).all()
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_files_of_others_are_no_leftovers(tmp_path):
    (tmp_path / "film.part").touch()
    (tmp_path / "result.json.0a_b1c2d.part").touch()
    folders.remove_parts(tmp_path)
    assert folders.contents(tmp_path) == [tmp_path / "film.part"]
    with pytest.raises(InputError, match="is not empty"):
        train_agents.train(settings(tmp_path))


def test_what_an_earlier_release_began_goes_on(tmp_path, image_files):
    """It knew fewer settings: those that it had not are as they were then."""
    asked = compare.ComparisonSettings(
        ("uniform",), (2,), "0", task="tiny_tasks:tiny", workers=1, out=str(tmp_path / "compare")
    )
    compare.compare(asked)
    written = json.loads((tmp_path / "compare" / "settings.json").read_text())
    assert written["same"] == {"task": "tiny_tasks:tiny", "reward": "accuracy_x_saving", "macs_budget": None}
    compare.compare(replace(asked, seeds="0-1", data_root=str(tmp_path)))
    with pytest.raises(
        InputError, match="a comparison with other settings: --agents-per is not given there, and set came. Give"
    ):
        compare.compare(replace(asked, agents_per="set"))

    begun = study.StudySettings(
        "digits_net", f"imagefolder:{image_files}", device="cpu", out=str(tmp_path / "study")
    )
    study.Study(begun).files.begin()
    file = tmp_path / "study" / "settings.json"
    written = json.loads(file.read_text())
    for name in ("layers", "tie", "agents_per", "kd_batches", "precision", "kernels", "min_filters", "round_to"):
        del written[name]
    file.write_text(json.dumps(written))
    study.Study(begun).check()
    with pytest.raises(
        InputError, match="a study with other settings: --agents-per is layer there, and set came. Give"
    ):
        study.Study(replace(begun, agents_per="set")).check()


def test_a_comparison_that_is_killed_ends_in_the_same_bytes(tmp_path):
    def asked(out):
        agents = ("random_search", "q_learning")
        return compare.ComparisonSettings(agents, (3, 5), "0-1", task="tiny_tasks:tiny", workers=1, out=str(out))

    def killed(moment, out):
        def work():
            left, whole = [moment], run_folder.write_whole

            def writing(path, write):
                left[0] -= 1
                whole(path, lambda file: die() if write(file) and not left[0] else None)

            run_folder.write_whole = compare.write_whole = writing
            compare.compare(asked(out))
            return 0

        return in_child(work)

    compare.compare(asked(tmp_path / "whole"))
    for moment in (1, 3, 2, 4):
        assert killed(moment, tmp_path / "killed") == -signal.SIGKILL
    compare.compare(asked(tmp_path / "killed"))
    names = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    for name in names:
        if name.name != "settings.json":  # which names the folder
            assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((tmp_path / "killed").rglob("*.part"))
