"""Many evaluations at once: the outcomes are those of one after another, whatever becomes of the workers."""

import gc
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import TinyNet

from dsfp_env import Evaluator, Fidelity, InputError, LatencyMeter, Task
from dsfp_env.common.devices import threads_set
from dsfp_env.evaluation import worker_process
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.evaluation.workers import GivenUp, Workers

ROOT = Path(__file__).parents[1]
PLANS = [{"conv_0": float(r), "conv_1": 100.0 - r} for r in range(10, 91, 10)]
HALF = {"conv_0": 50.0, "conv_1": 50.0}


def workers_alive():
    return multiprocessing.active_children()


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def evaluator(tiny):
    with Evaluator(tiny) as evaluator:
        yield evaluator


def test_many_are_as_one_after_another(tiny, evaluator):
    alone = Evaluator(tiny)
    expected = [alone.evaluate(plan, 7) for plan in PLANS]
    assert evaluator.evaluate_many(PLANS, 7, workers=2) == expected
    assert len(workers_alive()) == 2
    before = {worker.pid for worker in workers_alive()}
    seeds = list(range(len(PLANS)))
    assert evaluator.evaluate_many(PLANS, seeds, workers=2) == [
        alone.evaluate(plan, seed) for plan, seed in zip(PLANS, seeds, strict=True)
    ]
    assert {worker.pid for worker in workers_alive()} == before  # kept for the next call
    assert Evaluator(tiny).evaluate_many(iter(PLANS), 7, workers=1) == expected
    assert evaluator.evaluate_many([]) == []
    evaluator.close()
    assert not workers_alive()


def test_nothing_is_evaluated_twice(evaluator, built):
    first = evaluator.evaluate(HALF)
    nearly = {"conv_0": 51.0, "conv_1": 49.0}  # the same filters stay
    outcomes = evaluator.evaluate_many([HALF, nearly, PLANS[0], HALF, PLANS[0]], workers=2)
    assert not workers_alive()  # one was new: none are started for it
    assert len(built) == 2
    assert outcomes[0] is outcomes[1] is outcomes[3] is first
    assert outcomes[2] is outcomes[4]
    evaluator.evaluate_many(PLANS, workers=2)
    assert len(built) == 2
    assert [evaluator.evaluate(plan) for plan in PLANS] == evaluator.evaluate_many(PLANS)
    assert len(built) == 2


def test_work_goes_on_in_the_background(evaluator, built):
    pending = evaluator.start_many(PLANS, workers=2)
    last = evaluator.evaluate(PLANS[-1])  # which no worker has begun: it is done here, and not again
    assert len(built) == 1
    assert list(pending) == [evaluator.evaluate(plan) for plan in PLANS]
    assert evaluator.evaluate(PLANS[-1]) is last
    assert len(built) == 1
    evaluator.start_many(PLANS, 1, workers=2)
    evaluator.close()  # what has not begun is dropped
    assert not workers_alive()
    assert len(evaluator.evaluate_many(PLANS, 1, workers=1)) == len(PLANS)


def test_the_workers_of_an_evaluator_that_nobody_holds_go_on(tiny, built):
    pending = Evaluator(tiny, store=False).start_many(PLANS, 5, workers=2)
    outcomes = list(pending)
    assert not built  # in this process
    wait_for(lambda: not workers_alive())  # nobody holds them any more
    assert outcomes == Evaluator(tiny, store=False).evaluate_many(PLANS, 5, workers=1)


@pytest.mark.parametrize(
    ("plans", "kwargs", "sentence"),
    [
        ([HALF, {"conv_0": 50.0}], {}, r"plans\[1\]: The joint action does not fit \(conv_1 missing\)"),
        ([HALF, HALF, {"conv_0": 5.0, "conv_1": 9.0}], {}, r"plans\[2\]: The pruning ratio of conv_0 is 5.0"),
        (HALF, {}, "One plan came alone"),
        ([HALF, HALF], {"seed": [1, 2, 3]}, r"The seeds \[1, 2, 3\] came for 2 plans"),
        ([HALF], {"seed": ["a"]}, r"The seeds \['a'\] came for 1 plan"),
        ([HALF], {"workers": 0}, "workers is 0: expected a number of processes, from 1 to 1024"),
        ([HALF], {"workers": 1.5}, "workers is 1.5"),
    ],
)
def test_nothing_starts_before_everything_is_checked(tiny, monkeypatch, plans, kwargs, sentence):
    evaluator = Evaluator(tiny)
    monkeypatch.setattr(Measurement, "build", None)
    with pytest.raises(InputError, match=sentence):
        evaluator.evaluate_many(plans, **{"workers": 2, **kwargs})
    assert not workers_alive()


def test_the_number_of_workers(tiny, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    counts = {}
    for threads in (0, 1, 3, 16):
        counts[threads] = Evaluator(tiny, fidelity=Fidelity(threads=threads))._worker_count(None)
    assert counts == {0: 8, 1: 8, 3: 2, 16: 1}  # here, the process has one thread
    assert Evaluator(tiny, latency=LatencyMeter())._worker_count(None) == 1
    with pytest.raises(InputError, match="times are measured one after another"):
        Evaluator(tiny, latency=LatencyMeter()).evaluate_many([HALF], workers=2)


def test_threads_are_the_fidelitys_and_afterwards_as_before(tiny, monkeypatch):
    seen = []
    evaluator = Evaluator(tiny, fidelity=Fidelity(threads=2, batches=1))
    measured = Measurement._measured
    monkeypatch.setattr(Measurement, "_measured", lambda *a: seen.append(torch.get_num_threads()) or measured(*a))
    evaluator.evaluate(HALF)
    assert (seen, torch.get_num_threads()) == ([2], 1)
    with pytest.raises(ZeroDivisionError), threads_set(2):
        _ = 1 / 0
    assert torch.get_num_threads() == 1


def test_the_threads_of_the_process_change_nothing_where_the_fidelity_has_its_own(digits):
    assert digits.fidelity.threads == 1
    plans = [dict.fromkeys(digits.agents, ratio) for ratio in (30.0, 60.0, 80.0)]
    expected = [Evaluator(digits, "l1").evaluate(plan) for plan in plans]
    with threads_set(2), Evaluator(digits, "l1") as evaluator:
        assert evaluator.evaluate_many(plans, workers=2) == expected
        assert Evaluator(digits, "l1").evaluate_many(plans, workers=1) == expected


def slow_task(tiny):
    """Each evaluation takes a few tenths of a second."""
    fidelity = Fidelity(recalibration_images=32, batches=150, batch_size=16)
    splits = tiny.train, tiny.validation, tiny.test
    return Task.from_network(tiny.network, *splits, device="cpu", fidelity=fidelity)


def test_a_worker_that_is_ended_costs_time_and_nothing_else(tiny):
    task = slow_task(tiny)
    expected = Evaluator(task, store=False).evaluate_many(PLANS[:5], 3, workers=1)
    with Evaluator(task, store=False) as evaluator:
        pending = evaluator.start_many(PLANS[:5], 3, workers=2)
        first = next(pending)
        before = {worker.pid for worker in workers_alive()}
        os.kill(min(before), signal.SIGKILL)
        with pytest.warns(UserWarning, match="A worker was ended from outside") as warned:
            again = [first, *pending]
        after = {worker.pid for worker in workers_alive()}
    assert again == expected
    assert len(warned) == 1
    assert len(before & after) == 1  # what the other was at went on
    assert len(after) == 2


def end_this_process(number):
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_work_that_ends_its_worker_is_given_up_and_the_rest_is_done():
    workers = Workers(end_this_process, 2)
    futures = [workers.submit(number) for number in (1, -1, 2, 3)]
    with pytest.raises(GivenUp, match="A worker was ended from outside, 3 times at the same work"):
        futures[1].result()
    assert [futures[place].result() for place in (0, 2, 3)] == [1, 2, 3]
    assert workers.submit(4).result() == 4
    workers.stop()
    assert not workers_alive()


def test_jobs_that_are_given_up_do_not_keep_the_rest_from_being_done():
    found = as_done(end_this_process, {0: -1, 1: 1, 2: 2, 3: 3}, Processes(2))
    assert {next(found)[1] for _ in range(3)} == {1, 2, 3}
    with pytest.raises(
        InputError, match="3 times at the same work.* 1 of 4 jobs are left.* the same command goes"
    ):
        next(found)
    assert not workers_alive()


def test_workers_that_were_ended_while_idle_are_replaced(tiny, evaluator):
    evaluator.evaluate_many(PLANS, workers=2)
    for worker in workers_alive():
        os.kill(worker.pid, signal.SIGKILL)
    time.sleep(1)
    assert evaluator.evaluate_many(PLANS, 1, workers=2) == Evaluator(tiny).evaluate_many(PLANS, 1, workers=1)
    assert len(workers_alive()) == 2


def test_what_cannot_be_sent_is_evaluated_here(tiny):
    class Local(TinyNet):
        pass

    task = Task.from_network(Local(), tiny.train, tiny.validation, tiny.test, device="cpu", fidelity=tiny.fidelity)
    evaluator = Evaluator(task, "l1")
    with pytest.warns(UserWarning, match="Workers could not be started .*Local.* top of a module"):
        outcomes = evaluator.evaluate_many(PLANS, workers=2)
    assert outcomes == [evaluator.evaluate(plan) for plan in PLANS]


def test_a_criterion_and_scores_of_ones_own_need_not_be_sendable(tiny):
    with Evaluator(tiny, lambda evidence: tiny.scores("l1")) as evaluator:
        assert evaluator.evaluate_many(PLANS, workers=2) == Evaluator(tiny, "l1").evaluate_many(PLANS, workers=1)


def test_images_and_weights_are_in_memory_once():
    """Every worker maps the same memory, and has no copy of its own of any page of it."""
    images, labels = torch.randn(1500, 1, 64, 64), torch.arange(1500) % 3  # 25 MB
    small = images[:50], labels[:50]
    fidelity = Fidelity(recalibration_images=1500, batches=2)
    task = Task.from_network(TinyNet(), (images, labels), small, small, device="cpu", fidelity=fidelity)
    with Evaluator(task, "l1") as evaluator:
        evaluator.evaluate_many(PLANS[:4], workers=2)
        places = set()
        for worker in workers_alive():
            maps = Path(f"/proc/{worker.pid}/smaps").read_text().split("VmFlags")
            (shared,) = [one for one in maps if "memfd:dsfp_env" in one]
            numbers = {line.split(":")[0]: line.split()[1] for line in shared.splitlines() if line.endswith("kB")}
            assert int(numbers["Rss"]) > 24_000
            assert int(numbers["Anonymous"]) == 0
            places.add(shared.split("memfd:dsfp_env")[0].split()[-1])  # the inode
        assert len(places) == 1


SCRIPT = """
    import os, sys, time
    import torch
    import dsfp_env
    torch.set_num_threads(1)
    task = dsfp_env.load_task("digits", device="cpu")
    print("once", flush=True)
    evaluator = dsfp_env.Evaluator(task, "l1", dsfp_env.Fidelity(batches={batches}), store=False)
    plans = [dict.fromkeys(task.agents, float(ratio)) for ratio in range(10, 90, 5)]
    pending = evaluator.start_many(plans, workers=2)
    next(pending)
    import multiprocessing
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    {then}
    print(len(list(pending)), flush=True)
"""


def script(tmp_path, batches, then):
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(SCRIPT).format(batches=batches, then=then))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(file)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.usefixtures("digits")
def test_a_script_needs_no_guard(tmp_path):
    """Workers do not run it anew."""
    out, errors = script(tmp_path, 1, "pass").communicate(timeout=120)
    assert errors == ""
    assert [out.splitlines()[0], out.splitlines()[-1]] == ["once", "15"]


OWN_NETWORK = """
    import torch
    import dsfp_env
    from conftest import TinyNet
    from dsfp_env.evaluation.measurement import Measurement

    class Net(TinyNet):
        pass

    def main():
        torch.set_num_threads(1)
        part = torch.randn(40, 1, 8, 8), torch.arange(40) % 3
        fidelity = dsfp_env.Fidelity(batches=1, batch_size=8)
        task = dsfp_env.Task.from_network(Net(), part, part, part, device="cpu", fidelity=fidelity)
        plans = [dict.fromkeys(task.agents, float(ratio)) for ratio in (20, 50, 80)]
        with dsfp_env.Evaluator(task, "l1", store=False) as evaluator:
            pending = evaluator.start_many(plans, workers=2)
            Measurement.build = None  # nothing is evaluated in this process
            print(len(list(pending)))

    if __name__ == "__main__":
        main()
"""


def test_a_script_may_define_its_own_network(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(OWN_NETWORK))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    process = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("3\n", "")


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_asked(tmp_path, how):
    """And say nothing: no traceback, no semaphore that is left."""
    process = script(tmp_path, 40, "print('waiting', flush=True)")
    assert process.stdout.readline() == "once\n"
    workers = process.stdout.readline().split()
    assert len(workers) == 2
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1  # where it was asked, alone
    else:
        assert errors == ""
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


@pytest.mark.usefixtures("digits")
def test_a_script_that_ends_does_not_wait_for_what_nobody_asked_for(tmp_path):
    fidelity = "dsfp_env.Fidelity(batches=2000, precision='float32')"  # minutes of work
    then = f'slow = dsfp_env.Evaluator(task, "l1", {fidelity}, store=False); slow.start_many(plans, workers=2)'
    process = script(tmp_path, 1, f"{then}; sys.exit()")
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert not any(Path(f"/proc/{worker}").exists() for worker in out.split()[1:])


def halve(number):
    if number < 0:
        raise ZeroDivisionError
    time.sleep(number % 3 / 100)
    return number / 2


@pytest.mark.parametrize("count", [1, 2])
def test_jobs_are_given_as_they_are_done(count):
    assert dict(as_done(halve, {f"job {n}": n for n in range(20)}, Processes(count))) == {
        f"job {n}": n / 2 for n in range(20)
    }
    assert not workers_alive()


def test_who_stops_asking_does_not_wait_for_workers():
    start = time.monotonic()
    for _ in as_done(time.sleep, {0: 0.0, 1: 60.0, 2: 60.0, 3: 60.0}, Processes(2)):
        break
    with pytest.raises(ZeroDivisionError):
        list(as_done(halve, {0: -1, 1: 1, 2: 2}, Processes(2)))
    assert not workers_alive()
    assert time.monotonic() - start < 50


def fail_as_told(how):
    """Results and errors that cannot be sent, and some that can."""

    class Local(Exception):
        pass

    if how == "result":
        return lambda: None
    if how == "error":
        raise Local("words")
    if how == "exit":
        sys.exit(3)
    return 1 / 0


@pytest.mark.parametrize(
    ("how", "expected", "words"),
    [
        ("result", (AttributeError, pickle.PicklingError), "lambda"),
        ("error", RuntimeError, "Local: words"),
        ("exit", SystemExit, "3"),
        ("", ZeroDivisionError, "division by zero"),
    ],
)
def test_what_is_raised_by_work_is_told_with_its_place(how, expected, words):
    workers = Workers(fail_as_told, 1)
    with pytest.raises(expected, match=words) as raised:
        workers.submit(how).result()
    assert "in message_of" in str(raised.value.__cause__)
    if how != "result":
        assert "in fail_as_told" in str(raised.value.__cause__)
    with pytest.raises(ZeroDivisionError):  # and the worker goes on
        workers.submit("").result()
    workers.stop()


def descriptors(process="self"):
    return len(os.listdir(f"/proc/{process}/fd"))


def test_tensors_hold_no_descriptors_on_either_side():
    """Whatever is sent and answered, not questions alone: torch's own way keeps one for each tensor."""
    workers = Workers(torch.neg, 1)
    kept = [workers.submit(torch.ones(10)).result()]
    gc.collect()  # workers of other tests
    (worker,) = workers_alive()
    before = descriptors(), descriptors(worker.pid)
    kept += [workers.submit(torch.ones(10)).result() for _ in range(50)]
    assert (descriptors(), descriptors(worker.pid)) == before
    assert torch.equal(torch.stack(kept), -torch.ones(51, 10))
    workers.stop()


def test_there_need_be_no_semaphores(tiny, monkeypatch):
    """They are in /dev/shm, which may be full or missing."""
    monkeypatch.setattr("_multiprocessing.SemLock", None)
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", None)
    with Evaluator(tiny) as evaluator:
        assert evaluator.evaluate_many(PLANS, workers=2) == Evaluator(tiny).evaluate_many(PLANS, workers=1)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_start_method_of_the_users_own_processes_is_theirs(tiny, method):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        with Evaluator(tiny) as evaluator:
            assert evaluator.evaluate_many(PLANS, workers=2) == Evaluator(tiny).evaluate_many(PLANS, workers=1)
        assert multiprocessing.get_start_method() == method
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_few_descriptors_are_enough_and_without_any_the_work_is_done_here(tiny):
    expected = Evaluator(tiny).evaluate_many(PLANS, workers=1)
    with Evaluator(tiny, store=False) as evaluator:
        evaluator.evaluate_many(PLANS[:2], 1, workers=2)  # the server of processes is there from now on
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for more, warned in ((20, nullcontext()), (6, pytest.warns(UserWarning, match="could not be started"))):
            with Evaluator(tiny, store=False) as evaluator, warned:
                taken = {int(one) for one in os.listdir("/proc/self/fd")}
                lowest = next(n for n in range(limits[0]) if n - sum(one < n for one in taken) == more)
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
                assert evaluator.evaluate_many(PLANS, workers=2) == expected
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_fork_leaves_its_parents_workers_alone(tiny, evaluator):
    expected = evaluator.evaluate_many(PLANS, workers=2)
    before = {worker.pid for worker in workers_alive()}
    if (child := os.fork()) == 0:
        evaluator.close()
        same = evaluator.evaluate(PLANS[0], 1) == Evaluator(tiny).evaluate(PLANS[0], 1)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert evaluator.evaluate_many(PLANS, 1, workers=2) == Evaluator(tiny).evaluate_many(PLANS, 1, workers=1)
    assert {worker.pid for worker in workers_alive()} == before
    assert evaluator.evaluate_many(PLANS, workers=2) == expected


def test_a_server_of_processes_that_ends_before_it_answers_is_tried_again(monkeypatch):
    tries, fails = [], 2

    class Process:
        def start(self):
            tries.append(self)
            if len(tries) <= fails:
                raise EOFError("unexpected EOF")

    monkeypatch.setattr(worker_process, "_start_method", lambda: None)
    monkeypatch.setattr(worker_process.time, "sleep", lambda seconds: None)
    starting = object.__new__(worker_process.WorkerProcess)
    starting._process = Process()
    starting._begin()
    assert len(tries) == 3
    tries, fails = [], 3
    with pytest.raises(OSError, match="the server of processes ends"):
        starting._begin()
