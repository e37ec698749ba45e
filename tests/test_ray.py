"""Work on a Ray cluster: three nodes in this machine, some of which are killed, and others added.

The outcomes are those of one process, whatever becomes of workers and nodes.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_task

import train_agents
from agents.compare import runs as compare
from agents.leaderboard import runs as leaderboard
from dsfp_env import Evaluator, InputError, tabulate
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.chosen import executor_from
from dsfp_env.evaluation.executors.options import ExecutorSettings
from dsfp_env.evaluation.executors.ray_cluster import Ray
from dsfp_env.evaluation.workers import GivenUp
from dsfp_env.tables.files import read
from dsfp_env.tables.receipts import receipt
from dsfp_env.wrappers.together import step_together

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'dsfp_env[ray]'")
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.apart]
TESTS = Path(__file__).parent
PLANS = [{"conv_0": float(r), "conv_1": 100.0 - r} for r in range(10, 91, 10)]
ONE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8}


@pytest.fixture(scope="module")
def cluster():
    """Three nodes with room for a worker each."""
    from ray.cluster_utils import Cluster

    patch, before = pytest.MonkeyPatch(), signal.getsignal(signal.SIGTERM)
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("PYTHONPATH", f"{TESTS.parent}:{TESTS}")
    patch.setenv("RAY_health_check_period_ms", "500")
    patch.setenv("RAY_health_check_failure_threshold", "3")
    cluster = Cluster(initialize_head=True, head_node_args=ONE)
    for _ in range(2):
        cluster.add_node(**ONE)
    connected = Ray(address=cluster.address)
    connected.begin(len).stop()  # one connection for all tests: workers are kept from one to the next
    yield cluster
    connected.stop()
    assert not ray.is_initialized()
    cluster.shutdown()
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # Ray has one of its own
    patch.undo()


@pytest.fixture
def executor(cluster):
    executor = Ray(address=cluster.address)
    yield executor
    executor.stop()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
        time.sleep(0.05)


def test_many_are_as_one_after_another(executor, tiny, store, built):
    expected = [Evaluator(tiny, store=False).evaluate(plan, 7) for plan in PLANS]
    built.clear()
    with Evaluator(tiny, executor=executor) as evaluator:
        pending = evaluator.start_many([*PLANS, PLANS[0]], 7)
        assert list(pending) == [*expected, expected[0]]
        assert not built  # in this process
        assert evaluator.evaluate_many(PLANS, 7) == expected
        seeds = list(range(len(PLANS)))
        again = evaluator.evaluate_many(PLANS, seeds, workers=2)
    assert again == [
        Evaluator(tiny, store=False).evaluate(plan, seed) for plan, seed in zip(PLANS, seeds, strict=True)
    ]
    built.clear()
    assert Evaluator(tiny).evaluate_many(PLANS, 7, workers=1) == expected  # kept by this machine's store
    assert not built


def test_environments_step_together(executor, tiny):
    import dsfp_env

    alone = [dsfp_env.parallel_env(task=tiny, seed=0, store=False) for _ in range(2)]
    first = dsfp_env.parallel_env(task=tiny, seed=0, store=False, executor=executor)
    ours = [first, dsfp_env.parallel_env(evaluator=first.evaluator, seed=0, executor=executor)]
    for env in (*alone, *ours):
        env.reset(seed=3)
    actions = [{agent: np.array([ratio], np.float32) for agent in tiny.agents} for ratio in (30, 60)]
    infos = [step[-1] for step in step_together(ours, actions)]
    assert infos == [env.step(action)[-1] for env, action in zip(alone, actions, strict=True)]
    first.close()


class Poked:
    """Work that writes into what it has."""

    def __init__(self):
        self.numbers = torch.zeros(1_000_000)

    def __call__(self, step):
        time.sleep(0.2)
        self.numbers[:1000] += step
        maps = Path("/proc/self/smaps").read_text().split("VmFlags")
        for one in maps:
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in one.splitlines() if line.endswith("kB")}
            if "memfd:dsfp_env" in one and sizes["Size"] > 3_900:
                inode = one.split("memfd:dsfp_env")[0].split()[-1]
                return os.getpid(), float(self.numbers[0]), float(self.numbers[-1]), inode, sizes["Anonymous"]
        raise AssertionError("What work holds is not in shared memory.")


def test_what_work_holds_is_on_a_node_once_and_each_worker_may_write_into_it(cluster):
    executor, work = Ray(address=cluster.address, cpus_per_worker=0.5), Poked()
    answers = [answer for _, answer in as_done(work, dict.fromkeys(range(16), 1.0), executor)]
    times = Counter(answer[0] for answer in answers)
    assert 2 <= len(times) < 16  # some of them did several, on several nodes
    for process, count in times.items():
        of_one = sorted(answer for answer in answers if answer[0] == process)
        assert [answer[1] for answer in of_one] == list(range(1, count + 1))  # it sees what it wrote, alone
    assert all(answer[2] == 0 for answer in answers)
    assert all(0 < answer[4] < 100 for answer in answers)  # kB of its own, of 4,000
    assert len({answer[3] for answer in answers}) == 1  # all nodes are in one machine: one copy
    assert not work.numbers.any()


def die(number):
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 13:
        raise ZeroDivisionError("of the work")
    return number * 2


def test_work_that_ends_its_worker_is_given_up_and_the_rest_is_done(executor):
    crew = executor.begin(die)
    futures = {number: crew.submit(number) for number in (1, -1, 2, 13, 3)}
    assert [futures[number].result(60) for number in (1, 2, 3)] == [2, 4, 6]
    with pytest.raises(ZeroDivisionError, match="of the work"):
        futures[13].result(60)
    with pytest.raises(GivenUp, match="A worker was ended from outside, 3 times at the same work"):
        futures[-1].result(60)
    assert crew.submit(4).result(60) == 8
    crew.stop()


def where(number):
    time.sleep(0.3)
    return number, os.getpid()


def test_a_worker_and_a_node_that_are_killed_cost_time_and_nothing_else_and_a_new_node_helps(cluster, executor):
    extra = cluster.add_node(**ONE)
    crew = executor.begin(where)
    futures = [crew.submit(number) for number in range(60)]
    process = futures[0].result(60)[1]
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: futures[12].done())
    cluster.remove_node(extra, allow_graceful=False)
    cluster.add_node(**ONE)
    assert [future.result(120)[0] for future in futures] == list(range(60))
    assert sum(future.deaths for future in futures) <= 4  # of those under way alone, if it was not between two
    assert crew.ahead >= 4
    crew.stop()


def test_a_node_of_another_state_is_refused_before_work_and_when_it_joins(cluster, executor, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\nreal = m.version\n"
        "m.version = lambda name: '0.1.2' if name == 'numpy' else real(name)\n"
    )
    crew = executor.begin(where)
    first = [crew.submit(number) for number in range(8)]
    first[0].result(60)
    path = f"{tmp_path}:{os.environ['PYTHONPATH']}"
    node = cluster.add_node(**ONE, env_vars={"PYTHONPATH": path})
    try:
        words = rf"has numpy 0\.1\.2, and .* has numpy {np.__version__}: expected the same on all"
        with pytest.raises(InputError, match=words):
            [future.result(60) for future in [crew.submit(number) for number in range(500)]]
        with pytest.raises(InputError, match=words):
            Ray(address=cluster.address).begin(where)
    finally:
        crew.stop(at_once=True)
        cluster.remove_node(node)


def test_another_kind_of_processor_is_refused_or_has_outcomes_of_its_own(cluster, executor, tiny, store):
    """torch takes other instructions on that node, for real."""
    node = cluster.add_node(**{**ONE, "num_cpus": 4}, env_vars={"ATEN_CPU_CAPABILITY": "default"})
    try:
        with pytest.raises(InputError, match="computes with cpu DEFAULT, and .* with cpu AVX.*--mixed-processors"):
            Evaluator(tiny, executor=executor).evaluate_many(PLANS)
        mixed = Ray(address=cluster.address, mixed_processors=True)
        with Evaluator(tiny, executor=mixed) as evaluator:
            with pytest.warns(UserWarning, match="computes with cpu DEFAULT beside cpu AVX"):
                outcomes = evaluator.evaluate_many(PLANS * 3, [n for n in range(3) for _ in PLANS])
            stored = evaluator._store
            questions = [evaluator._question(plan, seed) for seed in range(3) for plan in PLANS]
            ours = {stored.key(question): outcome for question, outcome in zip(questions, outcomes, strict=True)}
            theirs = {
                stored.key(question, "cpu DEFAULT"): outcome
                for question, outcome in zip(questions, outcomes, strict=True)
            }
        found = store.find([*ours, *theirs])
        by = Counter(key in theirs for key in found)
        assert by[True] >= 1
        assert by[True] + by[False] == len(set(questions))
        assert all(({**ours, **theirs}[key]).accuracy == accuracy for key, accuracy in found.items())
    finally:
        cluster.remove_node(node)


def files(folder, *names):
    """Their bytes; but for what a call took."""
    return {name: (folder / name).read_bytes().partition(b" This call took")[0] for name in names}


def test_commands_leave_the_same_bytes_as_alone(cluster, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS))
    there = {"executor": "ray", "address": cluster.address}
    runs = {}
    for name, where_to in (("alone", {"executor": "serial"}), ("cluster", there)):
        settings = train_agents.RunSettings(
            task="tiny_tasks:tiny", evaluations=6, store=False, out=str(tmp_path / name / "run"), **where_to
        )
        train_agents.train(settings)
        train_agents.train(replace(settings, evaluations=3, seeds="0-1", out=str(tmp_path / name / "seeds")))
        tabulate.tabulate(
            tabulate.TableSettings(
                task="tiny_tasks:tiny",
                levels=(20, 50, 80),
                seeds=(0, 1),
                out=str(tmp_path / name / "table"),
                **where_to,
            )
        )
        leaderboard.leaderboard(
            leaderboard.LeaderboardSettings(
                ("random_search", "linucb"), str(tmp_path / "alone" / "table"), seeds="0-3", evaluations=5,
                out=str(tmp_path / name / "board"), **where_to
            )
        )  # fmt: skip
        compare.compare(
            compare.ComparisonSettings(
                ("random_search", "q_learning"), (3, 5), "0", task="tiny_tasks:tiny",
                out=str(tmp_path / name / "compared"), **where_to,
            )
        )  # fmt: skip
        runs[name] = tmp_path / name
    written = "run/evaluations.jsonl", "run/result.json", "run/pruned.safetensors", "run/summary.png"
    written += "seeds/seed-0/result.json", "seeds/seed-1/pruned.safetensors", "seeds/summary.json"
    written += "table/correct.npy", "table/costs.npy", "table/network.safetensors"
    written += "board/leaderboard.md", "board/leaderboard.png", "compared/comparison.md"
    for folder in ("board/runs", "compared/runs"):
        written += tuple(f"{folder}/{path.name}" for path in (tmp_path / "alone" / folder).iterdir())
    assert files(runs["alone"], *written) == files(runs["cluster"], *written)
    metas = [read(runs[name] / "table")[0] for name in runs]
    assert metas[0]["machines"] == metas[1]["machines"]


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: executor_from("rai"), "Unknown executor 'rai'. Did you mean 'ray'"),
        (lambda: executor_from("ray(adress=auto)"), "Did you mean 'address'"),
        (
            lambda: executor_from(object()),
            "The executor is of type object: expected one of serial, processes, ray",
        ),
        (lambda: Ray(cpus_per_worker=0), "A worker takes 0 CPUs and 0.0 GPUs"),
        (lambda: Ray(gpus_per_worker=1.5), "A worker takes 1.5 GPUs: expected a part of one, or a whole number"),
        (lambda: Ray(address="ray://head:10001"), "expected auto or host:port"),
        (lambda: ExecutorSettings(workers=0).place(), "--workers is 0: expected from 1 to 1024"),
        (
            lambda: ExecutorSettings(address="auto").place(),
            "--address is 'auto', which --executor processes has no",
        ),
        (lambda: ExecutorSettings(gpus_per_worker=0.5).place(), "--gpus-per-worker is 0.5, which --executor proc"),
        (
            lambda: ExecutorSettings(executor="serial", workers=2).place(),
            "workers is 2 with the executor 'serial'",
        ),
        (
            lambda: Evaluator(make_tiny_task(), executor="ray(gpus_per_worker=0.5)"),
            "The task is on cpu, and a worker",
        ),
    ],
)
def test_what_means_nothing_is_refused(made, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        made()


def test_ray_is_imported_when_it_is_asked_for(monkeypatch, tiny):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="The executor 'ray' needs the library ray.*pip install ray"):
        Evaluator(tiny, executor="ray", store=False).evaluate_many(PLANS)


def test_a_bound_number_is_under_way(cluster):
    """However many are given, the cluster has a few, and the rest wait here."""
    executor = Ray(address=cluster.address)
    crew = executor.begin(where)
    futures = [crew.submit(number) for number in range(2000)]
    most = 0
    for _ in range(20):
        most = max(most, len(crew._sender._under_way))
        time.sleep(0.05)
    assert 1 <= most <= 2 * sum(int(node["Resources"].get("CPU", 0)) for node in ray.nodes()) + 2
    thread = threading.Thread(target=crew.stop, args=(True,))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert sum(future.cancelled() for future in futures) > 1900
    executor.stop()


def started(command, folder, **how):
    """A command of ours, as somebody would give it."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how,
    )  # fmt: skip


TABLE = (
    "dsfp_env.tabulate",
    "--task",
    "tiny_tasks:tiny",
    "--levels",
    *map(str, range(10, 91, 10)),
    "--seeds",
    "0",
    "1",
)


def rows_of(folder):
    """How many joint actions are measured, and when the arrays were last written."""
    file = folder / "correct.npy"
    return int((np.load(file, mmap_mode="r") != 255).all((1, 2, 3)).sum()) if file.exists() else 0


def test_a_driver_that_is_killed_leaves_nothing_at_work_and_goes_on(cluster, tmp_path):
    """And the cluster, which is the user's, stays."""
    command = *TABLE, "--out", "table", "--executor", "ray", "--address", cluster.address
    process = started(command, tmp_path)
    wait_for(lambda: rows_of(tmp_path / "table") >= 3 or process.poll() is not None, 120)
    process.kill()
    assert process.communicate()[0] == ""
    before = rows_of(tmp_path / "table")
    assert 3 <= before < 81
    free = sum(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    wait_for(lambda: ray.available_resources().get("CPU", 0) == free)
    made = []
    settings = tabulate.TableSettings(
        task="tiny_tasks:tiny", seeds=(0, 1), out=str(tmp_path / "table"), executor="ray", address=cluster.address
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TESTS))
        patch.setattr(tabulate, "receipt", lambda arrays, row: made.append(row) or receipt(arrays, row))
        tabulate.tabulate(settings)
        tabulate.tabulate(replace(settings, out=str(tmp_path / "alone"), executor="serial", address=None))
    assert len(made) == 81 - before + 81
    names = "correct.npy", "costs.npy", "filters_kept.npy", "network.safetensors"
    assert files(tmp_path / "table", *names) == files(tmp_path / "alone", *names)


def offspring(process):
    """Processes that a process has started, and those that these have."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


@pytest.mark.long
@pytest.mark.parametrize(("how", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_cluster_of_our_own_ends_with_the_command_and_the_run_goes_on(tmp_path, how, status):
    run = (
        "train_agents",
        "--task",
        "tiny_tasks:tiny",
        "--evaluations",
        "40",
        "--no-store",
        "--agent",
        "random_search",
    )
    expected = started((*run, "--out", "alone", "--executor", "serial"), tmp_path)
    assert expected.communicate(timeout=300)[1].count("Traceback") == 0
    command = *run, "--out", "run", "--executor", "ray", "--workers", "2"
    for moment in (1, 25, 60):
        process = started(command, tmp_path, start_new_session=True)
        journal = tmp_path / "run" / "journal.jsonl"

        def far(journal=journal, process=process, moment=moment):
            noted = journal.read_bytes().count(b"\n") if journal.exists() else 0
            return noted >= moment or process.poll() is not None

        wait_for(far, 200)
        children = offspring(process.pid)
        os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
        out, errors = process.communicate(timeout=120)
        assert process.returncode in (status, 0)
        assert "Traceback" not in errors
        assert "ray" not in (out + errors).lower().replace(str(tmp_path), "")
        # After SIGKILL two idle agents of Ray stay for a minute or so; whatever works ends at once.
        wait_for(lambda children=children: not any(Path(f"/proc/{child}").exists() for child in children), 150)
    process = started(command, tmp_path)
    assert process.communicate(timeout=300)[1].count("Traceback") == 0
    names = "evaluations.jsonl", "result.json", "pruned.safetensors", "summary.png"
    assert files(tmp_path / "run", *names) == files(tmp_path / "alone", *names)
