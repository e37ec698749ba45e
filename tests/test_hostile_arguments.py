"""What programs give by hand, of any type: it is used, or refused with a sentence."""

import copy
import inspect

import gymnasium
import numpy as np
import pytest
import torch
from conftest import TinyNet, make_tiny_task
from hostile import NUMBERS, WHATEVER, examples, try_all
from hypothesis import strategies as st
from tables import make_table

import dsfp_env
from dsfp_env import Evaluator, Fidelity, InputError, LatencyMeter, Task
from dsfp_env.tables.evaluator import TableEvaluator
from dsfp_env.training.recipes import Recipe
from dsfp_env.wrappers.table_vector import TableVectorEnv


@pytest.fixture(scope="module")
def task():
    return make_tiny_task("hostile")


@pytest.fixture(scope="module")
def quick():
    return Fidelity(batches=0, recalibration_images=8)


@pytest.fixture(scope="module")
def evaluator(task, quick):
    return Evaluator(task, "l1", quick, store=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return dsfp_env.load_table(make_table(tmp_path_factory.mktemp("hostile") / "table"))


KEYS = st.one_of(st.sampled_from(["conv_0", "conv_1", "conv_2", "", 0, None, ("conv_0",)]), st.text(max_size=4))
RATIOS = st.one_of(st.floats(10, 90), NUMBERS, WHATEVER)
PLANS = st.one_of(
    st.fixed_dictionaries({"conv_0": RATIOS, "conv_1": RATIOS}),
    st.fixed_dictionaries({"conv_0": st.floats(10, 90), "conv_1": st.floats(10, 90)}),
    st.dictionaries(KEYS, RATIOS, max_size=3),
    WHATEVER,
)
SEEDS = st.one_of(st.integers(0, 3), NUMBERS, WHATEVER)


@examples(25, 4000)
def test_plans_and_seeds(evaluator, table, count):
    looked_up = TableEvaluator(table)
    for one in (evaluator, looked_up):
        try_all("plans", count, lambda plan, seed, one=one: one.evaluate(plan, seed), PLANS, SEEDS)
        several = st.one_of(st.lists(PLANS, max_size=2), PLANS)
        seeds = st.one_of(st.lists(SEEDS, max_size=2), SEEDS)

        def many(plans, seed, workers, one=one):
            one.evaluate_many(plans, seed, workers)

        workers = st.one_of(st.none(), st.just(1), st.floats(), st.text(max_size=3), st.integers(-5, 1))
        try_all("many plans", count, many, several, seeds, workers)
        try_all("costs", count, one.costs, PLANS)
    levels = st.one_of(st.lists(st.lists(st.integers(-1, 3), min_size=2, max_size=2), max_size=2), WHATEVER)
    fidelity = st.one_of(st.sampled_from(["distilled", "recalibrated"]), WHATEVER)
    split = st.one_of(st.sampled_from(["validation", "test"]), WHATEVER)
    try_all("levels", count, table.query, levels, st.one_of(st.none(), SEEDS), split, fidelity)


ACTIONS = st.one_of(
    PLANS,
    st.fixed_dictionaries(
        {
            agent: st.builds(
                lambda x: np.array([x], np.float32),
                RATIOS.filter(np.isscalar).filter(lambda x: isinstance(x, float)),
            )
            for agent in ("conv_0", "conv_1")
        }
    ),
    st.fixed_dictionaries({agent: st.integers(-1, 9) for agent in ("conv_0", "conv_1")}),
)
OPTIONS = st.one_of(st.none(), st.dictionaries(st.sampled_from(["context", "other"]), RATIOS), WHATEVER)


@examples(12, 3000)
@pytest.mark.parametrize("actions", ["box", "levels"])
@pytest.mark.parametrize("how", ["live", "table"])
def test_steps_and_resets(evaluator, table, actions, how, count):
    env = dsfp_env.parallel_env(
        evaluator=evaluator if how == "live" else TableEvaluator(table),
        actions=actions,
        horizon=2,
        macs_budget=0.5,
    )

    def played(given, seed, options):
        env.reset(seed=0)
        before = copy.deepcopy(env)
        try:
            env.step(given)
        except InputError:
            assert env._now is before._now  # nothing has changed
        try:
            env.reset(seed=seed, options=options)
        except gymnasium.error.Error as error:  # of a seed: its sentence
            raise InputError(f"Gymnasium says: {error}") from error

    try_all("steps", count, played, ACTIONS, st.one_of(st.none(), SEEDS), OPTIONS)
    try_all(
        "masks",
        count,
        lambda agent, chosen: env.action_mask(agent, chosen),
        st.one_of(st.sampled_from(["conv_0", "conv_1"]), WHATEVER),
        st.one_of(st.none(), ACTIONS),
    )


@examples(20, 3000)
@pytest.mark.parametrize("actions", ["box", "levels"])
def test_steps_of_many_at_once(table, actions, count):
    env = TableVectorEnv(2, table, actions, macs_budget=0.5)
    shape = st.lists(st.lists(RATIOS, min_size=2, max_size=2), min_size=2, max_size=2)
    fine = st.lists(st.lists(st.sampled_from([0, 1, 0.5, -1.0]), min_size=2, max_size=2), min_size=2, max_size=2)
    masks = st.fixed_dictionaries({"reset_mask": st.one_of(st.just(np.array([True, False])), WHATEVER)})

    def played(given, seed, options):
        env.reset(seed=0)
        try:
            env.step(given)
        finally:
            env.reset(seed=seed, options=options)

    seeds = st.one_of(st.none(), SEEDS, st.lists(st.one_of(st.none(), SEEDS), min_size=2, max_size=2))
    try_all("vector steps", count, played, st.one_of(shape, fine, WHATEVER), seeds, st.one_of(masks, OPTIONS))


def made_with(make, base, names, refused=()):
    """A function that makes something, with other values of some keywords."""

    def made(changes):
        given = {**base, **changes}
        try:
            return make(**given)
        except gymnasium.error.Error as error:
            raise InputError(f"Gymnasium says: {error}") from error
        except TypeError as error:
            if "unexpected keyword argument" in str(error):  # of Python, which names it
                raise InputError(f"Python says: {error}") from error
            raise

    unknown = st.text(max_size=4).filter(lambda name: name not in names)
    words = st.one_of(st.sampled_from(sorted(names)), st.sampled_from(sorted(names)), unknown)
    return made, st.dictionaries(
        words, st.one_of(WHATEVER, st.sampled_from(WORDS), NUMBERS), min_size=1, max_size=2
    )


WORDS = [
    "box",
    "levels",
    "live",
    "table",
    "digits_",
    "dsfp",
    "l1",
    "auto",
    "cpu",
    "shared",
    "difference",
    "layers",
]


def parameters(of):
    return {name for name in inspect.signature(of).parameters if name not in ("self", "args", "kwargs", "given")}


@examples(20, 3000)
def test_keywords(task, evaluator, quick, table, count, tmp_path):
    splits = (task.train, task.validation, task.test)
    trained = {"network": task.network, **dict(zip(("train", "validation", "test"), splits, strict=True))}
    cases = {
        "parallel_env": (
            dsfp_env.parallel_env,
            {"task": task, "fidelity": quick, "store": False, "device": "cpu"},
        ),
        "parallel_env beside": (dsfp_env.parallel_env, {"evaluator": evaluator}),
        "parallel_env table": (dsfp_env.parallel_env, {"task": table, "backend": "table"}),
        "raw_env": (dsfp_env.raw_env, {"evaluator": evaluator}),
        "TableVectorEnv": (TableVectorEnv, {"task": table, "num_envs": 2}),
        "Evaluator": (Evaluator, {"task": task, "criterion": "l1", "fidelity": quick, "store": False}),
        "TableEvaluator": (TableEvaluator, {"table": table}),
        "Task.from_network": (Task.from_network, {**trained, "device": "cpu"}),
        "load_table": (dsfp_env.load_table, {"name": table.folder}),
        "Fidelity": (Fidelity, {}),
        "Recipe": (Recipe, {}),
        "LatencyMeter": (LatencyMeter, {}),
        "score_filters": (dsfp_env.score_filters, {"task": task, "criterion": "l1"}),
    }
    for name, (make, base) in cases.items():
        made, changes = made_with(make, base, parameters(make))
        try_all(f"keywords of {name}", max(10, count // len(cases) * 2), made, changes)


@examples(20, 2000)
def test_splits_of_images(count):
    network = TinyNet()
    fine = (torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
    kinds = st.sampled_from([torch.float16, torch.float64, torch.complex64, torch.int8, torch.bool, torch.uint8])
    shapes = st.lists(st.integers(0, 9), max_size=5)

    def tensor(kind, shape, value):
        return torch.full(shape, value).to(kind)

    tensors = st.builds(tensor, kinds, shapes, st.sampled_from([0.0, 1.0, float("nan"), -1.0, 2.0, 1e6]))
    odd = st.sampled_from(
        [fine[0].to_sparse(), fine[0].to("meta"), fine[1].to("meta"), fine[0].to(torch.complex64)]
    )
    one = st.one_of(tensors, odd, st.sampled_from(fine), WHATEVER)
    split = st.one_of(
        st.tuples(one, st.just(fine[1])), st.tuples(st.just(fine[0]), one), st.tuples(one, one), WHATEVER
    )
    quick = Fidelity(batches=0)

    def made(train, test):
        Task.from_network(network, train, fine, test, device="cpu", fidelity=quick)

    try_all("splits", count, made, st.one_of(split, st.just(fine)), st.one_of(split, st.just(fine)))


@pytest.mark.parametrize("odd", [np.array(50.0), torch.tensor(1j), 5.5, None, "ab"])
def test_what_cannot_be_gone_over(table, odd):
    evaluator, plan = TableEvaluator(table), dict.fromkeys(table.agents, 50.0)
    with pytest.raises(InputError, match="The plans are|The joint action is"):
        evaluator.evaluate_many(odd, 0)
    with pytest.raises(InputError, match="The seeds"):
        evaluator.evaluate_many([plan], odd)
    if odd is not None:
        with pytest.raises(InputError, match="seeds"):
            TableVectorEnv(2, table).reset(seed=odd if isinstance(odd, (np.ndarray, float)) else 0.5)
