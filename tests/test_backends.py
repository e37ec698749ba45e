"""The door of the environment: every argument in sight, none ignored, and one kind of evaluator behind it."""

import inspect

import gymnasium
import numpy as np
import pettingzoo
import pytest
import torch

import dsfp_env
from dsfp_env import Evaluator, Fidelity, InputError, LayerPruningEnv, TableEvaluator
from dsfp_env.channels.costs import Costs
from dsfp_env.environment.backends import MEASURING, make_evaluator
from dsfp_env.evaluation.outcome import outcome_of

GAME = (
    *("actions", "reward", "macs_budget", "horizon", "seed", "render_mode", "observation", "context", "credit"),
    "fill_budget",
)


def test_all_arguments_are_in_sight():
    for made in (dsfp_env.parallel_env, dsfp_env.env, dsfp_env.raw_env):
        parameters = inspect.signature(made).parameters
        budgets = {"params_budget", "latency_budget"}
        turns = set() if made is dsfp_env.parallel_env else {"order"}
        assert set(parameters) == {*MEASURING, *GAME, *budgets, *turns, "evaluator", "max_cycles"}
        assert not [p for p in parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert tuple(inspect.signature(LayerPruningEnv).parameters) == ("evaluator", *GAME)
    made = inspect.signature(dsfp_env.parallel_env).parameters
    for where in (inspect.signature(make_evaluator), inspect.signature(LayerPruningEnv)):
        for name, parameter in where.parameters.items():
            assert name == "evaluator" or parameter.default == made[name].default, name


@pytest.mark.parametrize(
    "make",
    [
        dsfp_env.parallel_env,
        dsfp_env.env,
        lambda **kwargs: gymnasium.make("dsfp/LayerPruning-v0", **kwargs),
        lambda **kwargs: gymnasium.make("dsfp/LayerByLayer-v0", **kwargs),
        lambda **kwargs: gymnasium.make_vec("dsfp/LayerPruning-v0", **kwargs),
    ],
)
def test_an_unknown_argument_gets_the_nearest_known_one(tiny, make):
    with pytest.raises(InputError, match="Unknown argument of parallel_env: 'horizn'. Did you mean 'horizon'"):
        make(task=tiny, horizn=3)
    with pytest.raises(TypeError):  # as Python itself would
        make(task=tiny, horizn=3)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"criterion": "l1"}, "criterion='l1'"),
        ({"criterion": "dsfp"}, "criterion='dsfp'"),  # what it is unless given, and it was given
        ({"criterion": len}, "criterion=<built-in"),
        ({"round_to": np.array([1, 2])}, "round_to=array"),
        ({"task": np.array([1, 2])}, "task=array"),
        ({"task": "cifar10-resnet20"}, "task='cifar10-resnet20'"),
        ({"fidelity": Fidelity(batches=7)}, "fidelity=Fidelity"),
        ({"device": "cuda:3"}, "device='cuda:3'"),
        ({"min_filters": 2}, "min_filters=2"),
        ({"round_to": 8}, "round_to=8"),
        ({"latency": dsfp_env.LatencyMeter()}, "latency=LatencyMeter"),
        ({"store": False}, "store=False"),
        ({"backend": "table"}, "backend='table'"),
    ],
)
def test_nothing_is_ignored_beside_an_evaluator(tiny, given, wrong):
    evaluator = Evaluator(tiny, "l2")
    with pytest.raises(
        InputError, match=f"(?s){wrong}.* came beside an evaluator, which was not made with it: leave"
    ):
        dsfp_env.parallel_env(evaluator=evaluator, **given)


@pytest.mark.parametrize(
    "said",
    [
        {"criterion": "l2", "min_filters": 2, "device": "cpu", "backend": "live", "store": False},
        {"device": torch.device("cpu"), "round_to": 1, "latency": None, "fidelity": None},
        {
            "fidelity": Fidelity(recalibration_images=32, batches=2, batch_size=16),
            "device": "auto",
            "task": "tiny",
        },
    ],
    ids=str,
)
def test_what_an_evaluator_was_made_with_may_be_said(tiny, said):
    evaluator = Evaluator(tiny, "l2", min_filters=2, store=False)
    assert dsfp_env.parallel_env(evaluator=evaluator, **said).evaluator is evaluator
    assert dsfp_env.parallel_env(tiny, evaluator=evaluator).evaluator is evaluator


def test_a_tables_arguments_beside_its_evaluator():
    table = TableEvaluator(dsfp_env.load_table("digits"))
    said = {"store": False, "device": "cpu", "fidelity": table.fidelity, "criterion": "dsfp", "min_filters": 1}
    assert dsfp_env.parallel_env(task="digits", evaluator=table, backend="table", **said).evaluator is table
    for wrong in ({"backend": "live"}, {"fidelity": Fidelity(batches=3)}, {"min_filters": 2}):
        with pytest.raises(InputError, match="came beside an evaluator"):
            dsfp_env.parallel_env(evaluator=table, **wrong)
    with pytest.raises(InputError, match="Unknown backend 'tabel'"):
        dsfp_env.parallel_env(evaluator=table, backend="tabel")


def test_a_number_of_steps_has_one_name(tiny):
    assert dsfp_env.parallel_env(tiny, max_cycles=3)._rules.horizon == 3
    with pytest.raises(InputError, match="Both max_cycles and horizon were given"):
        dsfp_env.parallel_env(tiny, max_cycles=3, horizon=1)


def test_numpys_numbers_are_numbers(tiny):
    env = dsfp_env.parallel_env(tiny, horizon=np.int64(1), actions="levels")
    env.reset(seed=0)
    assert env.step(dict.fromkeys(env.agents, 4))[2] == {"conv_0": True, "conv_1": True}
    assert type(env.step({})) is tuple
    assert type(env._rules.horizon) is int


def test_the_turn_based_view_takes_the_same(tiny):
    assert inspect.signature(dsfp_env.env).return_annotation is pettingzoo.AECEnv
    turns = dsfp_env.env(tiny, "levels")
    turns.reset(seed=0)
    turns.step(8)
    with pytest.raises(AssertionError):  # of PettingZoo's wrapper: it is no level
        turns.step(9)


def test_what_is_no_evaluator_is_refused(tiny):
    for no in (tiny, "digits", Evaluator):
        with pytest.raises(
            InputError,
            match=r"expected a dsfp_env.Evaluator, TableEvaluator or .*parallel_env\(task=...\) makes one",
        ):
            dsfp_env.parallel_env(evaluator=no)
        with pytest.raises(InputError, match=r"expected a dsfp_env.Evaluator"):
            LayerPruningEnv(no)


def test_the_rules_are_checked_before_anything_is_loaded():
    def load():
        raise AssertionError("loaded")

    for wrong in ({"horizon": 0}, {"actions": "boxes"}, {"reward": "budget"}, {"credit": "own"}, {"context": 5}):
        with pytest.raises(InputError):
            LayerPruningEnv(load, **wrong)


class Halves:
    """An evaluator of somebody else: an accuracy of one half, whatever is asked."""

    latency = None
    levels = np.array([10.0, 50.0, 90.0])

    class task:
        name = "halves"
        agents = {"a": "first", "b": "second"}  # noqa: RUF012
        coupled_agents = {"a": (), "b": ()}  # noqa: RUF012

    layer_features = {"a": np.zeros(8, np.float32), "b": np.ones(8, np.float32)}  # noqa: RUF012
    original = outcome_of(0.5, Costs(100, 10, 20), Costs(100, 10, 20), {"a": 10, "b": 10}, {"a": 10, "b": 10})

    def costs(self, ratios):
        kept = 200 - sum(ratios.values())
        return Costs(int(kept / 2), 10, int(kept / 10))

    def evaluate(self, ratios, seed=0):
        kept = {agent: round(10 - ratio / 10) for agent, ratio in ratios.items()}
        return outcome_of(0.5, self.costs(ratios), Costs(100, 10, 20), kept, {"a": 10, "b": 10})

    def evaluate_many(self, plans, seed=0, workers=None):
        return [self.evaluate(plan) for plan in plans]

    def start_many(self, plans, seed=0, workers=None):
        return iter(self.evaluate_many(plans))

    def close(self):
        pass


def test_an_evaluator_of_ones_own():
    """Half of the MACs saved at an accuracy of one half: a score of one quarter."""
    env = dsfp_env.parallel_env(evaluator=Halves(), actions="levels", macs_budget=0.6)
    env.reset(seed=0)
    _, rewards, _, _, infos = env.step({"a": 1, "b": 1})
    assert rewards == {"a": 0.25, "b": 0.25}
    assert infos["a"]["filters_kept"] == 5
    assert env.action_mask("a", {"b": 0}).tolist() == [0, 0, 1]


@pytest.mark.parametrize(("backend", "task"), [("table", "digits"), ("surrogate", "resnet20")])
def test_what_measures_nothing_has_no_networks(backend, task):
    evaluator = dsfp_env.parallel_env(task=task, backend=backend).evaluator
    with pytest.raises(
        InputError, match=f"A {backend} knows .* has no networks: expected an evaluator that measures"
    ):
        evaluator.build({}, seed=0)


def test_a_name_or_a_seed_that_is_none_gets_a_sentence(tiny):
    env = dsfp_env.parallel_env(task=tiny)
    for space in (env.action_space, env.observation_space):
        with pytest.raises(
            InputError, match=r"There is no agent 'conv_9': expected one of \['conv_0', 'conv_1'\]"
        ):
            space("conv_9")
    with pytest.raises(InputError, match="The seed of an evaluation is 'x': expected a whole number"):
        env.evaluator.build(dict.fromkeys(env.possible_agents, 50.0), seed="x")
