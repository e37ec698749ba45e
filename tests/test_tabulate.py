"""Making tables: what is in them is what the live evaluator measures, whatever happens meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_task

import dsfp_env
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.executors import processes
from dsfp_env.tables import files as table_files
from dsfp_env.tabulate import TableSettings, tabulate

TINY = {"task": "tiny_tasks:tiny", "levels": (10, 50, 90), "seeds": (0, 5), "workers": 1}


def end_this_process(ratios):
    os.kill(os.getpid(), signal.SIGKILL)


def arrays_of(folder):
    return table_files.open_arrays(folder, table_files.read_meta(folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The table of the tiny task, made in one go."""
    folder = tmp_path_factory.mktemp("tables") / "tiny"
    tabulate(TableSettings(out=str(folder), **TINY))
    return folder


def test_rows_are_what_the_live_evaluator_measures(whole):
    table, task = dsfp_env.load_table(whole), make_tiny_task()
    live = dsfp_env.Evaluator(task, fidelity=dsfp_env.Fidelity(
        recalibration_images=32, batches=2, batch_size=16, threads=1), store=False)  # fmt: skip
    for row in range(len(table)):
        ratios = table.ratios_of(row)
        for seed in (0, 5):
            assert table.outcome(row, seed) == live.evaluate(ratios, seed)
            accuracies = [table.accuracies(seed, split)[row] for split in ("validation", "test")]
            assert accuracies == list(live.measure_splits(ratios, seed))


def test_without_distillation_seeds_make_no_difference(whole):
    table, task = dsfp_env.load_table(whole), make_tiny_task()
    fidelity = dsfp_env.Fidelity(recalibration_images=32, batches=0, batch_size=16, threads=1)
    live = dsfp_env.Evaluator(task, fidelity=fidelity, store=False)
    recalibrated = table.accuracies(0, fidelity="recalibrated")
    assert np.array_equal(recalibrated, table.accuracies(5, fidelity="recalibrated"))
    assert recalibrated[4] == live.evaluate(table.ratios_of(4)).accuracy


def test_the_environment_is_the_live_one(whole):
    """Same spaces, observations, infos, rewards and states, step by step."""
    table, task = dsfp_env.load_table(whole), make_tiny_task()
    fidelity = dsfp_env.Fidelity(recalibration_images=32, batches=2, batch_size=16, threads=1)
    said = {"reward": "budget", "macs_budget": 0.4, "horizon": 3}
    live = dsfp_env.parallel_env(task=task, fidelity=fidelity, store=False, **said)
    tabulated = dsfp_env.parallel_env(task=table, backend="table", **said)
    assert live.possible_agents == tabulated.possible_agents
    assert live.layer_names == tabulated.layer_names
    rng = np.random.default_rng(0)
    for seed in (0, 5):
        told = [env.reset(seed=seed) for env in (live, tabulated)]
        while live.agents:
            np.testing.assert_equal(told[1], told[0])
            np.testing.assert_array_equal(tabulated.state(), live.state())
            actions = {agent: rng.choice([10.0, 50.0, 90.0], 1).astype(np.float32) for agent in live.agents}
            told = [env.step(actions) for env in (live, tabulated)]
        np.testing.assert_equal(told[1], told[0])
    for agent in live.possible_agents:
        assert live.action_space(agent) == tabulated.action_space(agent)
        assert live.observation_space(agent) == tabulated.observation_space(agent)


def test_workers_make_no_difference(whole, tmp_path):
    tabulate(TableSettings(out=str(tmp_path / "two"), **{**TINY, "workers": 2}))
    assert np.array_equal(arrays_of(tmp_path / "two").correct, arrays_of(whole).correct)


def test_what_was_killed_goes_on(whole, tmp_path):
    folder = tmp_path / "killed"
    arguments = ["--task", "tiny_tasks:tiny", "--levels", "10", "50", "90", "--seeds", "0", "5", "--workers", "1"]
    command = [sys.executable, "-m", "dsfp_env.tabulate", "--out", str(folder), *arguments]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}

    def done():
        try:
            return int(table_files.is_measured(arrays_of(folder).correct).sum())
        except InputError:  # not begun
            return 0

    process = subprocess.Popen(command, env=here, stderr=subprocess.DEVNULL)
    while not done() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < done() <= 9
    again = subprocess.run(command, env=here, capture_output=True, text=True, check=True)
    assert "is whole: 9 joint actions" in again.stdout
    assert np.array_equal(arrays_of(folder).correct, arrays_of(whole).correct)


def test_only_what_is_left_is_measured(whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "copy")
    arrays = table_files.open_arrays(folder, table_files.read_meta(folder), writable=True)
    arrays.correct[4, 1, 0, 0] = np.iinfo(arrays.correct.dtype).max  # half a row, as a kill may leave
    arrays.correct.flush()
    asked = []
    measure = dsfp_env.tabulate.Surveyor.measure
    monkeypatch.setattr(
        dsfp_env.tabulate.Surveyor, "measure", lambda self, ratios: asked.append(ratios) or measure(self, ratios)
    )
    tabulate(TableSettings(out=str(folder), **TINY))
    assert asked == [{"conv_0": 50.0, "conv_1": 50.0}]
    assert np.array_equal(arrays_of(folder).correct, arrays_of(whole).correct)


def test_a_worker_that_is_ended_is_a_sentence_and_loses_nothing(whole, tmp_path, monkeypatch):
    real = processes.Workers
    monkeypatch.setattr(processes, "Workers", lambda work, count: real(end_this_process, count))
    settings = TableSettings(out=str(tmp_path / "ended"), **{**TINY, "workers": 2})
    with pytest.raises(InputError, match="A worker was ended from outside"):
        tabulate(settings)
    monkeypatch.undo()
    tabulate(settings)
    assert np.array_equal(arrays_of(tmp_path / "ended").correct, arrays_of(whole).correct)


def test_two_machines_make_halves(whole, tmp_path, capsys):
    for part in ("1/2", "2/2"):
        tabulate(TableSettings(out=str(tmp_path / part[0]), part=part, **TINY))
        assert "of 9 joint actions are left" in capsys.readouterr().out
        with pytest.raises(InputError, match="is not finished"):
            dsfp_env.load_table(tmp_path / part[0])
    halves = str(tmp_path / "1"), str(tmp_path / "2")
    tabulate(TableSettings(out=str(tmp_path / "both"), merge=halves))
    assert np.array_equal(arrays_of(tmp_path / "both").correct, arrays_of(whole).correct)
    assert len(dsfp_env.load_table(tmp_path / "both")) == 9
    capsys.readouterr()
    tabulate(TableSettings(out=str(tmp_path / "both"), merge=halves))  # as after a kill just before it said so
    assert "both is whole: 9 joint actions" in capsys.readouterr().out
    with pytest.raises(InputError, match="exists"):
        tabulate(TableSettings(out=str(tmp_path), merge=halves))
    with pytest.raises(InputError, match="exists"):
        tabulate(TableSettings(out=halves[0], merge=halves))


def test_parts_of_other_tables_are_not_merged(whole, tmp_path):
    tabulate(TableSettings(out=str(tmp_path / "other"), **{**TINY, "seeds": (0,)}))
    with pytest.raises(InputError, match="not of one table: seeds is \\[0, 5\\] and \\[0\\]"):
        tabulate(TableSettings(out=str(tmp_path / "both"), merge=(str(whole), str(tmp_path / "other"))))
    assert not (tmp_path / "both").exists()


def test_another_network_is_another_table(whole, tmp_path, monkeypatch):
    import tiny_tasks

    def other(data_root, device, seed):
        task = make_tiny_task()
        with torch.no_grad():
            task.network.conv1.weight.add_(0.1)
        return task

    monkeypatch.setattr(tiny_tasks, "tiny", other)
    monkeypatch.setattr("dsfp_env.tasks.loading.load_task", lambda name, *rest, **options: other(*rest[:3]))
    with pytest.raises(InputError, match=r"task_hash is .*Give --weights with the network\.safetensors"):
        tabulate(TableSettings(out=str(whole), **TINY))


def test_the_images_can_be_fewer(tmp_path):
    tabulate(TableSettings(out=str(tmp_path / "few"), validation_images=20, test_images=10, **TINY))
    assert dsfp_env.load_table(tmp_path / "few").meta["splits"] == {"validation": 20, "test": 10}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"levels": (50, 10)}, "levels are (50, 10): expected two or more rising percentages"),
        ({"levels": (0, 50)}, "in [10, 90]"),
        ({"seeds": ()}, "expected one or more"),
        ({"seeds": (1, 1)}, "each once"),
        ({"workers": 0}, "--workers is 0"),
        ({"part": "3/2"}, "--part is '3/2': expected for example 1/2"),
        ({"part": "half"}, "--part is 'half'"),
        ({"validation_images": 1000}, "1000 images of a split of 40"),
        ({"criterion": "dsf"}, "Did you mean 'dsfp'"),
        ({"task": "digit"}, "Did you mean 'digits'"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, change, sentence):
    with pytest.raises(InputError) as refused:
        tabulate(TableSettings(out=str(tmp_path / "table"), **{**TINY, **change}))
    assert sentence in str(refused.value)
    assert not (tmp_path / "table").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds something else"):
        tabulate(TableSettings(out=str(tmp_path), **TINY))


def damage(folder, name, row=4):
    array = np.load(folder / f"{name}.npy", mmap_mode="r+")
    array[row] = array[row] * 0 + 1
    array.flush()


@pytest.mark.parametrize("name", ["correct", "seconds"])
@pytest.mark.parametrize("finished", [True, False])
def test_joint_actions_that_were_damaged_are_measured_anew(whole, tmp_path, capsys, name, finished):
    folder = tmp_path / "table"
    shutil.copytree(whole, folder)
    if not finished:
        meta = table_files.read_meta(folder)
        table_files.write_meta(
            folder, {key: value for key, value in meta.items() if key not in ("files", "checksum")}
        )
    damage(folder, name)
    tabulate(TableSettings(out=str(folder), **TINY))
    assert "1 joint actions were damaged, and are measured anew" in capsys.readouterr().out
    assert np.array_equal(arrays_of(folder).correct, arrays_of(whole).correct)
    dsfp_env.load_table(folder)


@pytest.mark.parametrize("name", ["costs", "filters_kept"])
def test_a_whole_table_that_was_damaged_is_not_signed_anew(whole, tmp_path, name):
    folder = tmp_path / "table"
    shutil.copytree(whole, folder)
    damage(folder, name)
    with pytest.raises(InputError, match=f"is damaged: {name}.npy is not the file that meta.json tells of"):
        tabulate(TableSettings(out=str(folder), **TINY))


def test_a_damaged_part_is_not_merged(whole, tmp_path):
    folder = tmp_path / "part"
    shutil.copytree(whole, folder)
    damage(folder, "correct")
    with pytest.raises(InputError, match="is damaged"):
        tabulate(TableSettings(out=str(tmp_path / "merged"), merge=(str(folder), str(whole)), **TINY))
