"""Several threads share an evaluator: each call is whole. They do not share an environment."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import make_tiny_task

import dsfp_env
from dsfp_env import Evaluator, Fidelity, InputError, Task
from dsfp_env.common.one_at_a_time import OneThread, computed_once

PLANS = [{"conv_0": float(r), "conv_1": 100.0 - r} for r in range(10, 91, 10)]


def at_once(function, many):
    """Call with each, all threads together."""
    start = threading.Barrier(len(many))

    def call(one):
        start.wait()
        return function(one)

    with ThreadPoolExecutor(len(many)) as threads:
        return list(threads.map(call, many))


@pytest.mark.parametrize("criterion", ["dsfp", "taylor"])
def test_outcomes_are_those_of_one_thread(criterion):
    """From the very first call on: the filters are scored then, with gradients of a network that all share."""
    alone, shared = Evaluator(make_tiny_task(), criterion), Evaluator(make_tiny_task(), criterion)
    expected = [alone.evaluate(plan, 3) for plan in PLANS[:4]]
    assert at_once(lambda plan: shared.evaluate(plan, 3), PLANS[:4]) == expected


def test_two_evaluators_of_two_fidelities_do_not_meet(tiny):
    """What one of them sets (threads, generators, precision) is one for the process."""

    def evaluators():
        of = (
            Fidelity(batches=3, batch_size=16, precision=p, threads=t)
            for p, t in (("float32", 2), ("bfloat16", 1))
        )
        return [Evaluator(tiny, "l1", fidelity, store=False) for fidelity in of]

    expected = [one.evaluate_many(PLANS[:3], 5, workers=1) for one in evaluators()]
    assert at_once(lambda one: one.evaluate_many(PLANS[:3], 5, workers=1), evaluators()) == expected


def test_equal_questions_of_several_threads_are_answered_once(tiny, built):
    shared = Evaluator(tiny)
    outcomes = at_once(shared.evaluate, [PLANS[0]] * 4)
    assert len({id(outcome) for outcome in outcomes}) == len(built) == 1


def test_several_threads_share_workers(tiny):
    expected = [Evaluator(tiny).evaluate_many(PLANS, seed, workers=1) for seed in range(3)]
    with Evaluator(tiny) as shared:
        assert at_once(lambda seed: shared.evaluate_many(PLANS, seed, workers=2), range(3)) == expected


def test_answers_may_be_asked_for_in_another_thread(tiny):
    expected = Evaluator(tiny).evaluate_many(PLANS, 2, workers=1)
    with Evaluator(tiny) as evaluator:
        for workers in (1, 2):
            answers = evaluator.start_many(PLANS, 2, workers=workers)
            assert [next(answers), *at_once(list, [answers])[0]] == expected


def test_an_environment_is_of_one_thread_at_a_time(tiny):
    entered, leave = threading.Event(), threading.Event()

    def worth(outcome, original):
        entered.set()
        leave.wait(30)
        return 1.0

    env = dsfp_env.parallel_env(task=tiny, reward=worth, horizon=3)
    env.reset(seed=0)
    with ThreadPoolExecutor(1) as threads:
        step = threads.submit(env.step, PLANS[0])
        entered.wait(30)
        for call in (lambda: env.step(PLANS[0]), env.reset):
            with pytest.raises(InputError, match="used by another thread .* make one for each; they may share"):
                call()
        leave.set()
        assert set(step.result()[1].values()) == {1.0}
    env.step(PLANS[1])  # one after another is fine


def test_environments_of_several_threads_share_an_evaluator(tiny):
    evaluator = Evaluator(tiny)

    def episode(seed):
        env = dsfp_env.parallel_env(evaluator=evaluator, horizon=4)
        env.reset(seed=seed)
        return [env.step(plan)[1]["conv_0"] for plan in PLANS[:4]]

    assert at_once(episode, [1, 2, 1]) == [episode(seed) for seed in (1, 2, 1)]


def test_a_property_is_computed_once_by_several_threads():
    class Has:
        @computed_once
        def what(self):
            """Words."""
            return object()

    has = Has()
    assert len({id(what) for what in at_once(lambda _: has.what, range(4))}) == 1
    assert Has.what.__doc__ == "Words."


def test_guards_travel_as_new_ones():
    guard = OneThread("This", "do not.")
    with guard, guard, copy.deepcopy(guard), pickle.loads(pickle.dumps(guard)):
        pass


def test_tasks_are_made_by_several_threads(tiny):
    splits = tiny.train, tiny.validation, tiny.test
    tasks = at_once(
        lambda name: Task.from_network(tiny.network, *splits, name=name, device="cpu"), ["a", "b", "c"]
    )
    assert len({task.fingerprint for task in tasks}) == 1
    assert all(isinstance(task, Task) for task in tasks)
