"""Layer control: layers left alone, bounded, of one ratio, tied; agents for coupled sets."""

import dataclasses
import itertools
import json
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from conftest import make_tiny_task
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import nn

import agents
import dsfp_env
import train_agents
from agents.compare.runs import ComparisonSettings, compare
from agents.leaderboard.runs import LeaderboardSettings, leaderboard
from agents.registry import AGENTS, choose_agent
from agents.reporting.baselines import random_plans, random_plans_of, uniform_plans
from agents.reproduce.study import StudySettings, reproduce
from dsfp_env import InputError
from dsfp_env.environment.credit import default_plan
from dsfp_env.tabulate import TableSettings, tabulate
from dsfp_env.tasks.layer_control import Decider, Layers, controlled, parse_layers, parse_tie
from dsfp_env.tasks.layer_features import FIXED
from dsfp_env.testing import check_env
from dsfp_env.toy import ToyEnv
from dsfp_env.wrappers import JointActionEnv, ParallelVecEnv
from dsfp_env.wrappers.table_vector import TableVectorEnv

NAMES = {f"conv_{number}": f"stage.{number}" for number in range(5)}  # stage.1 and stage.3 are coupled
LAYERS = Layers(NAMES, [["stage.0"], ["stage.1", "stage.3"], ["stage.2"], ["stage.4"]], {"stem": "it is grouped"})


def control(**said):
    return controlled(LAYERS, **said)


def test_if_nothing_is_said_every_layer_has_an_agent():
    assert control().agents == {agent: Decider((path,), 10, 90) for agent, path in NAMES.items()}
    assert (control().fixed, control().said) == ({}, {})


@pytest.mark.parametrize(
    ("layers", "free", "fixed"),
    [
        ({"conv_0": None}, [1, 2, 3, 4], {"stage.0": 0}),
        ({"first": None, "last": 30}, [1, 2, 3], {"stage.0": 0, "stage.4": 30}),
        ({"stage.1": None}, [0, 2, 4], {"stage.1": 0, "stage.3": 0}),  # coupled: none can stay without the other
        ({"stage.*": 40, "stage.2": (10, 90)}, [2], {f"stage.{number}": 40 for number in (0, 1, 3, 4)}),
        ({"stage.2": (10, 90), "stage.*": 40, "conv_4": (30, 50)}, [4], {f"stage.{n}": 40 for n in range(4)}),
        ({"stage.[01]": None}, [2, 4], {f"stage.{number}": 0 for number in (0, 1, 3)}),
        ({"stem": None}, [0, 1, 2, 3, 4], {}),
    ],
)
def test_layers_of_nobody(layers, free, fixed):
    said = control(layers=layers)
    assert list(said.agents) == [f"conv_{number}" for number in free]
    assert said.fixed == fixed


def test_bounds_hold_for_all_that_are_coupled():
    agents_of = control(layers={"conv_1": (20, 60), "conv_3": (40, 80), "conv_0": (33.3, 66.6)}).agents
    assert agents_of["conv_1"] == Decider(("stage.1",), 40, 60)
    assert agents_of["conv_3"] == Decider(("stage.3",), 40, 60)
    low, high = agents_of["conv_0"][1:]
    assert np.float32(low) == low <= 33.3 < 66.6 <= high == np.float32(high)
    assert agents_of["conv_2"] == Decider(("stage.2",))


@pytest.mark.parametrize(
    ("said", "groups"),
    [
        ({"tie": [["conv_0", "stage.2"]]}, {"conv_0": "02", "conv_1": "1", "conv_3": "3", "conv_4": "4"}),
        ({"agents_per": "set"}, {"conv_0": "0", "conv_1": "13", "conv_2": "2", "conv_4": "4"}),
        ({"tie": [["conv_2", "conv_0"], ["conv_4", "conv_2"]]}, {"conv_0": "024", "conv_1": "1", "conv_3": "3"}),
        ({"tie": [["conv_0", "conv_3"]], "agents_per": "set"}, {"conv_0": "013", "conv_2": "2", "conv_4": "4"}),
        ({"tie": ["first+last"][:0]}, {f"conv_{number}": str(number) for number in range(5)}),
        ({"tie": "first+last, stage.[12]"}, {"conv_0": "04", "conv_1": "12", "conv_3": "3"}),
    ],
)
def test_layers_with_one_agent(said, groups):
    expected = {agent: tuple(f"stage.{number}" for number in numbers) for agent, numbers in groups.items()}
    assert {agent: decides.paths for agent, decides in control(**said).agents.items()} == expected


def test_what_is_said_of_a_layer_holds_for_those_it_is_tied_to():
    said = control(layers={"conv_0": None, "conv_4": (20, 40)}, tie=[["conv_0", "conv_1"], ["conv_4", "conv_2"]])
    assert said.fixed == dict.fromkeys(["stage.0", "stage.1", "stage.3"], 0)
    assert said.agents == {"conv_2": Decider(("stage.2", "stage.4"), 20, 40)}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"layers": {"conv_9": None}}, "Unknown layer 'conv_9'. Did you mean 'conv_"),
        ({"layers": {"stages.*": None}}, r"Unknown layer 'stages.\*'"),
        ({"layers": {"stem": 30}}, "'stem' cannot be pruned: it is grouped"),
        ({"layers": {"stage.*": None}}, "leave nothing to decide: expected at least one layer free, with all"),
        ({"layers": {"stage.0": None}, "tie": [["stage.*"]]}, "leave nothing to decide"),
        ({"layers": {"conv_0": (60, 20)}}, r"Of the layer 'conv_0' is said \(60, 20\): expected None"),
        ({"layers": {"conv_0": (0.2, 0.6)}}, r"within \[10, 90\]"),
        ({"layers": {"conv_0": 95}}, r"within \[10, 90\]"),
        ({"layers": {"conv_0": True}}, "is said True"),
        ({"layers": {"conv_0": float("nan")}}, "is said nan"),
        ({"layers": {"conv_0": "keep"}}, "is said 'keep'"),
        ({"layers": {3: None}}, "A layer is called 3"),
        ({"layers": ["conv_0"]}, r"layers is \['conv_0'\]: expected a dictionary"),
        ({"layers": "conv_0=some"}, "cannot be read at 'conv_0=some': expected, for example, first=keep"),
        ({"layers": "conv_0"}, "cannot be read at 'conv_0'"),
        ({"layers": {"conv_1": 30, "conv_3": 40}}, "'stage.1' is to lose 30 % and 'stage.3' 40 %, but they are"),
        ({"layers": {"conv_1": (10, 30), "conv_3": (40, 80)}}, "expected bounds that have more than one ratio"),
        ({"tie": {"conv_0": 1}}, "expected groups of layers"),
        ({"tie": 3}, "tie is 3: expected groups"),
        ({"tie": np.ma.masked}, "tie is masked: expected groups"),
        ({"tie": np.array(3)}, r"tie is array\(3\): expected groups"),
        ({"tie": np.ma.array(["conv_0", "conv_1"])}, "tie holds .*: expected a group"),
        ({"tie": [np.ma.masked_array(["conv_0", "conv_1"], [1, 0])]}, "A layer is called masked"),
        ({"layers": np.ma.array([20, 60])}, "layers is masked_array"),
        ({"layers": {"conv_0": np.ma.masked}}, "Of the layer 'conv_0' is said masked"),
        ({"tie": [["conv_0", ["conv_1"]]]}, r"A layer is called \['conv_1'\]"),
        ({"tie": ["conv_0"]}, "tie holds 'conv_0': expected a group"),
        ({"tie": [["conv_0", "nothing"]]}, "Unknown layer 'nothing'"),
        ({"agents_per": "net"}, "Unknown agents_per 'net'"),
    ],
)
def test_what_cannot_be_gets_a_sentence(said, sentence):
    with pytest.raises(InputError, match=sentence):
        control(**said)


def test_in_text():
    assert parse_layers("first=keep, conv_2=20-60,features.*=30") == {
        "first": None,
        "conv_2": (20.0, 60.0),
        "features.*": 30.0,
    }
    assert list(parse_layers("a=30,b=40,a=50")) == ["b", "a"]
    assert parse_tie("conv_1+conv_2, blocks.*") == [["conv_1", "conv_2"], ["blocks.*"]]


class Residual(nn.Module):
    """A stem of 8 filters, summed with what two blocks make; a head of 6."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 10, 3, padding=1)
        self.outer = nn.Conv2d(10, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 6, 3)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.classifier(self.head(x).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def residual():
    rng = torch.Generator().manual_seed(0)

    def split(count):
        return torch.rand(count, 1, 8, 8, generator=rng), torch.randint(3, (count,), generator=rng)

    torch.manual_seed(0)
    fidelity = dsfp_env.Fidelity(batches=1, batch_size=16, threads=1)
    return dsfp_env.Task.from_network(Residual(), split(64), split(30), split(30), "residual", "cpu", fidelity)


def test_a_layer_that_is_left_alone_keeps_all_its_filters(residual):
    task = residual.with_layers({"stem": None})
    assert task.agents == {"conv_1": "inner", "conv_3": "head"}
    with dsfp_env.Evaluator(task, store=False) as evaluator:
        outcome = evaluator.evaluate({"conv_1": 50, "conv_3": 50})
        network = evaluator.build({"conv_1": 50, "conv_3": 50})
    widths = {
        name: module.out_channels for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    }
    assert widths == {"stem": 8, "inner": 5, "outer": 8, "head": 3}
    assert outcome.filters_kept == {"conv_1": 5, "conv_3": 3}
    whole = dsfp_env.Evaluator(residual, store=False)
    assert task.graph is residual.graph
    assert whole.costs(dict.fromkeys(residual.agents, 50)).macs < outcome.macs < whole.original.macs


def test_a_layer_of_one_ratio_always_loses_it(residual):
    env = dsfp_env.parallel_env(task=residual, layers={"head": 50, "inner": (20, 40)}, store=False)
    assert env.possible_agents == ["conv_0", "conv_1", "conv_2"]
    assert env.action_space("conv_1") == Box(20, 40, (1,), np.float32)
    env.reset(seed=0)
    *_, infos = env.step({"conv_0": [10.0], "conv_1": [40.0], "conv_2": [10.0]})
    assert infos["conv_1"]["filters_kept"] == 6
    built = env.evaluator.build({"conv_0": 10, "conv_1": 40, "conv_2": 10})
    assert built.head.out_channels == 3


def test_one_agent_for_a_coupled_set(residual):
    per_layer = dsfp_env.parallel_env(task=residual, store=False, seed=0)
    per_set = dsfp_env.parallel_env(task=residual, agents_per="set", store=False, seed=0)
    assert per_set.layers_of == {"conv_0": ("stem", "outer"), "conv_1": ("inner",), "conv_3": ("head",)}
    assert per_set.coupled_agents == {"conv_0": (), "conv_1": (), "conv_3": ()}
    for env in (per_layer, per_set):
        env.reset()
    *_, mine = per_set.step({"conv_0": [40.0], "conv_1": [60.0], "conv_3": [20.0]})
    *_, theirs = per_layer.step({"conv_0": [40.0], "conv_1": [60.0], "conv_2": [40.0], "conv_3": [20.0]})
    assert mine["conv_0"]["score"] == theirs["conv_0"]["score"]
    assert mine["conv_0"]["filters_kept"] == theirs["conv_0"]["filters_kept"] + theirs["conv_2"]["filters_kept"]
    assert "conv_0" in per_set.reset()[0]


def test_a_tied_agent_sees_its_layers_together(residual):
    one, both = dsfp_env.parallel_env(task=residual), dsfp_env.parallel_env(task=residual, tie=[["first", "head"]])
    seen, together = one.reset()[0], both.reset()[0]["conv_0"]
    assert together[3] == pytest.approx(seen["conv_0"][3] + seen["conv_3"][3])  # share of the MACs
    assert together[1] == pytest.approx((seen["conv_0"][1] + seen["conv_3"][1]) / 2)  # log2 of filters
    np.testing.assert_array_equal(both.reset()[0]["conv_1"], seen["conv_1"])


@pytest.mark.parametrize("actions", ["box", "levels"])
@pytest.mark.parametrize("macs_budget", [None, 0.7])
def test_environments_are_as_pettingzoo_wants_them(residual, actions, macs_budget):
    env = dsfp_env.parallel_env(
        task=residual,
        actions=actions,
        macs_budget=macs_budget,
        layers={"stem": (20, 50), "head": None},
        tie=[["inner", "outer"]],
        horizon=2,
    )
    check_env(env)
    again = pickle.loads(pickle.dumps(env))
    assert again.layers_of == env.layers_of == {"conv_0": ("stem",), "conv_1": ("inner", "outer")}


def test_levels_are_those_within_the_bounds(residual):
    env = dsfp_env.parallel_env(task=residual, actions="levels", layers={"inner": (25, 60)}, macs_budget=0.8)
    assert env.action_space("conv_1") == Discrete(4)  # 30, 40, 50 and 60 %
    env.reset(seed=0)
    *_, infos = env.step({"conv_0": 0, "conv_1": 0, "conv_2": 0, "conv_3": 0})
    assert [info["ratio"] for info in infos.values()] == [10, 30, 10, 10]
    assert len(env.action_mask("conv_1")) == 4
    assert len(env.reset()[1]["conv_1"]["action_mask"]) == 4
    with pytest.raises(
        InputError, match=r"The action of conv_1 is 4: expected a level, an integer from 0 \(30 %\)"
    ):
        env.step({"conv_0": 0, "conv_1": 4, "conv_2": 0, "conv_3": 0})
    with pytest.raises(InputError, match="There is no agent 'conv_9'"):
        env.action_mask("conv_9")
    with pytest.raises(InputError, match="conv_1 is bounded by 41 and 49 %, and none of the levels 10, 20"):
        dsfp_env.parallel_env(task=residual, actions="levels", layers={"inner": (41, 49)})
    assert dsfp_env.parallel_env(task=residual, layers={"inner": (41, 49)}).reset()


@pytest.mark.parametrize("macs_budget", [0.5, 0.35])
def test_masks_reach_all_that_is_within_the_budget_and_nothing_else(residual, macs_budget):
    said = {"layers": {"stem": (20, 60), "head": 70}, "tie": [["inner", "outer"]]}
    env = dsfp_env.parallel_env(task=residual, actions="levels", macs_budget=macs_budget, **said)
    together = [np.flatnonzero(info["action_mask"]) for info in env.reset(seed=0)[1].values()]
    costs = env.evaluator.costs
    most = macs_budget * env.evaluator.original.macs
    within = {  # levels of both are 20, 30, ... 60 %: outer is coupled with stem
        (one, other)
        for one, other in itertools.product(range(5), repeat=2)
        if costs({"conv_0": 20 + 10 * one, "conv_1": 20 + 10 * other}).macs <= most
    }
    firsts, seconds = (np.flatnonzero(env.action_mask(agent, {})) for agent in ("conv_0", "conv_1"))
    in_turn = {(i, j) for i in firsts for j in np.flatnonzero(env.action_mask("conv_1", {"conv_0": i}))}
    turned = {(i, j) for j in seconds for i in np.flatnonzero(env.action_mask("conv_0", {"conv_1": j}))}
    assert 0 < len(within) < 25
    assert in_turn == turned == within >= set(itertools.product(*together))


def test_a_budget_that_bounds_forbid_gets_a_sentence(residual):
    with pytest.raises(InputError, match="with every layer pruned by 20 or 90 % the network still has"):
        dsfp_env.parallel_env(task=residual, layers={"inner": (10, 20)}, macs_budget=0.05)


def test_an_evaluator_beside_layers(residual):
    evaluator = dsfp_env.Evaluator(residual.with_layers({"stem": None}))
    assert dsfp_env.parallel_env(evaluator=evaluator).possible_agents == ["conv_1", "conv_3"]
    assert dsfp_env.parallel_env(evaluator=evaluator, layers={"stem": None}).possible_agents == [
        "conv_1",
        "conv_3",
    ]
    with pytest.raises(InputError, match="layers={'head': None} came beside an evaluator"):
        dsfp_env.parallel_env(evaluator=evaluator, layers={"head": None})
    with pytest.raises(InputError, match="layers=.*array.* came beside an evaluator"):
        dsfp_env.parallel_env(evaluator=evaluator, layers=np.array([20, 60]))
    with pytest.raises(
        InputError, match=r"The pruning ratio of conv_1 is 70: expected a percentage in \[20, 60\]"
    ):
        dsfp_env.Evaluator(residual.with_layers({"inner": (20, 60)})).evaluate(dict.fromkeys(residual.agents, 70))


def test_difference_credit_compares_with_what_is_allowed(residual):
    env = dsfp_env.parallel_env(task=residual, layers={"inner": (60, 80), "stem": None}, credit="difference")
    assert env.default_plan == default_plan(env.evaluator.task.control.agents) == {"conv_1": 60, "conv_3": 50}
    env.reset(seed=0)
    *_, infos = env.step({"conv_1": [60.0], "conv_3": [50.0]})
    assert infos["conv_1"]["evaluations"] == 1


def test_one_controller_and_one_shared_policy(residual):
    said = {"layers": {"inner": (25, 60), "stem": None}, "task": residual}
    joint = JointActionEnv(actions="levels", macs_budget=0.7, **said)
    assert joint.action_space == MultiDiscrete([4, 9])
    joint.reset(seed=0)
    assert joint.action_masks().shape == (13,)
    box = JointActionEnv(**said)
    box.reset(seed=0)
    info = box.step(np.array([-1.0, 1.0], np.float32))[4]
    assert (info["conv_1"]["ratio"], info["conv_3"]["ratio"]) == (25, 90)

    shared = ParallelVecEnv(dsfp_env.parallel_env(actions="levels", macs_budget=0.7, **said))
    assert shared.action_space == Discrete(9)
    shared.reset()
    assert not shared.env_method("action_masks")[0][4:].any()
    assert shared.by_agent(np.array([8, 8])) == [{"conv_1": 3, "conv_3": 8}]
    with pytest.raises(InputError, match=r"The action of conv_1 is np.int64\(9\)"):
        shared.step(np.array([9, 0]))
    shared = ParallelVecEnv(dsfp_env.parallel_env(**said))
    assert shared.action_space == Box(-1, 1, (1,), np.float32)
    np.testing.assert_array_equal(shared.by_agent(np.array([[-1], [1]]))[0]["conv_1"], np.float32([25]))


def test_yardsticks_stay_within_the_bounds(residual):
    evaluator = dsfp_env.Evaluator(residual.with_layers({"inner": (25, 60), "stem": None}))
    rng = np.random.default_rng(0)
    uniform = uniform_plans(evaluator)
    assert uniform[0] == {"conv_1": 25, "conv_3": 10}
    assert uniform[-1] == {"conv_1": 60, "conv_3": 90}
    assert {plan["conv_1"] for plan in random_plans(evaluator, 200, "levels", rng)} == {30, 40, 50, 60}
    drawn = [*random_plans(evaluator, 50, "box", rng), *random_plans_of(evaluator, 20, 6000, rng)]
    assert all(25 <= plan["conv_1"] <= 60 and plan.keys() == {"conv_1", "conv_3"} for plan in drawn)


LEARNERS = [(name, None) for name, entry in AGENTS.items() if not entry.slow]
MASKED = [(name, 0.5) for name, entry in AGENTS.items() if not entry.slow and entry.actions == "levels"]
OTHERS = [("dqn", None), ("sac", None), ("ppo(view=joint)", None), ("tpe", 0.5)]
MASKED_PPO = [("maskable_ppo", 0.5), ("maskable_ppo(view=joint)", 0.5)]


@pytest.mark.parametrize(("learner", "macs_budget"), [*LEARNERS, *MASKED, *OTHERS, *MASKED_PPO])
def test_every_learner_stays_within_the_bounds(learner, macs_budget):
    """conv_0 wants 20 % and may have 40 to 60; conv_1 wants 70 and may; conv_2 has two levels."""
    entry = choose_agent(learner)
    bounds = {"conv_0": (40.0, 60.0), "conv_2": (30.0, 40.0)}
    env = ToyEnv(entry.actions, macs_budget=macs_budget, bounds=bounds)
    team = entry.make(env, 0, 40)
    history = agents.train(env, team, 40, seed=0)
    for evaluation in (*history, agents.play(env, team)):
        assert 40 <= evaluation.ratios["conv_0"] <= 60
        assert 30 <= evaluation.ratios["conv_2"] <= 40
    if entry.actions == "levels":
        assert max(evaluation.score for evaluation in history) > 0.8


SAID = {"layers": {"conv_0": (25, 60), "conv_3": 70}, "tie": [["conv_1", "conv_2"]]}


@pytest.fixture(scope="module")
def evaluator():
    return dsfp_env.TableEvaluator(dsfp_env.load_table("digits"), **SAID)


class TestTable:
    """The digits' table: conv_0 ... conv_3, nine levels each, none of which is 0 %."""

    def test_rows(self, evaluator):
        outcome = evaluator.evaluate({"conv_0": 30, "conv_1": 50})
        whole = dsfp_env.TableEvaluator(evaluator.table)
        same = whole.evaluate({"conv_0": 30, "conv_1": 50, "conv_2": 50, "conv_3": 70})
        assert (outcome.accuracy, outcome.macs) == (same.accuracy, same.macs)
        assert outcome.filters_kept["conv_1"] == same.filters_kept["conv_1"] + same.filters_kept["conv_2"]
        assert evaluator.costs({"conv_0": 30, "conv_1": 50}).macs == same.macs
        with pytest.raises(InputError, match=r"conv_0 is 70: expected a percentage in \[25, 60\]"):
            evaluator.evaluate({"conv_0": 70, "conv_1": 50})

    def test_what_no_row_has_gets_a_sentence(self):
        with pytest.raises(InputError, match="is to be left alone, and the table 'digits' has no row with that"):
            dsfp_env.parallel_env(backend="table", layers={"first": None})
        with pytest.raises(InputError, match="is to always lose 35 %"):
            dsfp_env.parallel_env(backend="table", layers={"first": 35})

    def test_as_live(self, digits):
        live = dsfp_env.parallel_env(task=digits, actions="levels", macs_budget=0.3, **SAID)
        table = dsfp_env.parallel_env(backend="table", actions="levels", macs_budget=0.3, **SAID)
        seen, told = live.reset(seed=0)
        looked_up, found = table.reset(seed=0)
        for agent in live.possible_agents:
            same = [
                place for place, name in enumerate(FIXED) if "sensitivity" not in name
            ]  # of this machine's network
            np.testing.assert_allclose(seen[agent][same], looked_up[agent][same], rtol=0, atol=1e-6)
            np.testing.assert_array_equal(told[agent]["action_mask"], found[agent]["action_mask"])
            assert live.action_space(agent) == table.action_space(agent)
            for chosen in ({}, {"conv_1": 0}, {"conv_0": 0}):
                np.testing.assert_array_equal(live.action_mask(agent, chosen), table.action_mask(agent, chosen))
        live.close()

    @pytest.mark.parametrize("actions", ["levels", "box"])
    @pytest.mark.parametrize("macs_budget", [None, 0.2])
    def test_many_at_once_are_as_one_by_one(self, evaluator, actions, macs_budget):
        said = {"actions": actions, "macs_budget": macs_budget, "horizon": 2}
        many = TableVectorEnv(5, evaluator=evaluator, **said)
        ones = gymnasium.vector.SyncVectorEnv([lambda: JointActionEnv(evaluator=evaluator, **said)] * 5)
        assert many.single_action_space == ones.single_action_space
        np.testing.assert_equal(many.reset(seed=3), ones.reset(seed=3))
        ones.action_space.seed(0)
        for _ in range(7):
            action = ones.action_space.sample()
            np.testing.assert_equal(many.step(action), ones.step(action))
        bad = many.action_space.sample()
        bad[2, 1] = 9
        with pytest.raises(InputError, match="The action of conv_1 in environment 2 is 9"):
            many.step(bad)

    def test_a_learner_finds_the_best_of_what_is_left(self, evaluator):
        env = dsfp_env.parallel_env(evaluator=evaluator, actions="levels")
        best = max(
            env.score(evaluator.evaluate({"conv_0": first, "conv_1": second}))
            for first, second in itertools.product((30.0, 40.0, 50.0, 60.0), np.arange(10.0, 91, 10).tolist())
        )
        team = choose_agent("coordinate_search").make(env, 0, 36)
        assert agents.best(agents.train(env, team, 36, seed=0)).score == best


def test_a_table_of_what_is_left(tmp_path):
    """conv_0 keeps all its filters in every row; what the table says is what is measured live."""
    said = {"task": "tiny_tasks:tiny", "levels": (30, 60), "seeds": (0,), "workers": 1, "layers": "first=keep"}
    tabulate(TableSettings(out=str(tmp_path / "table"), **said))
    table = dsfp_env.load_table(tmp_path / "table")
    assert (table.agents, len(table), table.meta["control"]) == (
        ["conv_1"],
        2,
        {"fixed": {"conv1": 0.0}, "tied": {}},
    )
    fidelity = dsfp_env.Fidelity(recalibration_images=32, batches=2, batch_size=16, threads=1)
    live = dsfp_env.Evaluator(make_tiny_task().with_layers({"first": None}), fidelity=fidelity, store=False)
    assert table.outcome(1, 0) == live.evaluate({"conv_1": 60})
    board = {"table": str(tmp_path / "table"), "seeds": "0", "evaluations": 2, "workers": 1}
    forms = ("accuracy_x_saving", "budget(macs_budget=0.01)")
    leaderboard(LeaderboardSettings(("coordinate_search",), rewards=forms, out=str(tmp_path / "board"), **board))
    assert "| coordinate_search | 0.0000 | 100% |" in (text := (tmp_path / "board" / "leaderboard.md").read_text())
    assert text.count("No learner could be run with this reward") == 1
    with pytest.raises(InputError, match="--layers is 'first=keep', which --backend table cannot do"):
        train_agents.judge(train_agents.RunSettings(backend="table", layers="first=keep"))
    with pytest.raises(InputError, match="--kd-batches is 0: expected 1 or more"):
        tabulate(TableSettings(out=str(tmp_path / "other"), **said, kd_batches=0))
    with pytest.raises(InputError, match="not of one table: fidelities.distilled.batches is 2 and 1, expected"):
        tabulate(TableSettings(out=str(tmp_path / "table"), **said, kd_batches=1))
    with pytest.raises(InputError, match="--layers bounds conv_0, but all agents of a table have the same levels"):
        tabulate(TableSettings(out=str(tmp_path / "other"), **said | {"layers": "conv_0=20-60"}))
    with pytest.raises(InputError, match="not of one table: control.fixed is"):
        tabulate(TableSettings(out=str(tmp_path / "table"), **said | {"layers": None, "tie": "conv_0+conv_1"}))


def test_a_comparison_takes_what_the_main_job_takes(tmp_path):
    asked = ComparisonSettings(
        agents=("random_search", "q_learning"),
        budgets=(3,),
        seeds="0",
        task="tiny_tasks:tiny",
        layers="first=keep, conv_1=20-60",
        criterion="l1",
        kd_batches=0,
        round_to=2,
        params_budget=0.8,
        reward="budget",
        workers=1,
        out=str(tmp_path / "out"),
    )
    compare(asked)
    runs = [json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").iterdir()]
    assert {run["agent"] for run in runs} == {"random_search", "q_learning"}
    fidelity = dsfp_env.Fidelity(recalibration_images=32, batches=0, batch_size=16, threads=1)
    task = make_tiny_task().with_layers("first=keep, conv_1=20-60")
    evaluator = dsfp_env.Evaluator(task, "l1", fidelity, round_to=2, store=False)
    for run in runs:
        best = run["best"]
        outcome = evaluator.evaluate(best["ratios"])
        assert best["filters_kept"] == outcome.filters_kept
        assert best["filters_kept"]["conv_1"] in (2, 4)  # of 6
        assert best["validation_accuracy"] == pytest.approx(outcome.accuracy)
        assert best["params"] <= 0.8 * evaluator.original.params
        assert 20 <= best["ratios"]["conv_1"] <= 60
    with pytest.raises(
        InputError, match="--layers is first=keep, conv_1=20-60 there, and .*choose another with --out"
    ):
        compare(dataclasses.replace(asked, layers="first=keep"))
    for change, sentence in (
        ({"layers": "conv_7=keep"}, "Unknown layer 'conv_7'"),
        ({"layers": "conv_1"}, "cannot be read at 'conv_1'"),
        ({"layers": "*=keep"}, "leave nothing to decide"),
        ({"image_size": 0}, "takes no option 'image_size'"),
        ({"round_to": 99}, "round_to is 99: expected a whole number from 1 to 6"),
        ({"macs_budget": 0.5}, "macs_budget and params_budget were given"),
    ):
        with pytest.raises(InputError, match=sentence):
            compare(dataclasses.replace(asked, **change, out=str(tmp_path / "other")))
        assert not (tmp_path / "other").exists()


def test_a_study_of_what_is_left(tmp_path, image_files):
    asked = StudySettings(
        network="test_reproduce:make_small",
        data=f"imagefolder:{image_files}",
        rates=(50,),
        evaluations=2,
        criterion="l1",
        layers="first=keep, conv_1=10-40",
        kd_batches=0,
        pretraining="fast(epochs=1, batch_size=16)",
        fine_tuning="short(epochs=1, batch_size=16)",
        device="cpu",
        out=str(tmp_path),
    )
    reproduce(asked)
    rows = [json.loads((tmp_path / f"{kind}-50-seed0.json").read_text()) for kind in ("uniform", "q_learning")]
    assert rows[0]["ratios"] == {"conv_1": 40}  # the nearest within the bounds
    for row in rows:
        assert row["filters_kept"]["features.conv1"] == 8
        assert 10 <= row["filters_kept"]["features.conv2"] <= 15  # of 16
    with pytest.raises(InputError, match="--layers is first=keep, conv_1=10-40 there, and not given came"):
        reproduce(dataclasses.replace(asked, layers=None))


def test_the_main_job(tmp_path):
    settings = train_agents.RunSettings(
        task="tiny_tasks:tiny",
        layers="first=keep, conv_1=20-60",
        evaluations=4,
        kd_batches=0,
        workers=1,
        out=str(tmp_path / "run"),
    )
    train_agents.train(settings)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["layers"] == "first=keep, conv_1=20-60"
    assert all(20 <= result[name]["ratios"]["conv_1"] <= 60 for name in ("best", "greedy"))
    assert result["best"]["ratios"].keys() == {"conv_1"}
    network = dsfp_env.load_pruned(tmp_path / "run" / "pruned.safetensors", task=make_tiny_task())
    assert network.conv1.out_channels == 4 > 6 - network.conv2.out_channels > 0
    for layers, sentence in (("conv_7=keep", "Unknown layer 'conv_7'"), ("conv_1", "cannot be read")):
        with pytest.raises(InputError, match=sentence):
            train_agents.train(dataclasses.replace(settings, layers=layers, out=str(tmp_path / "other")))
        assert not (tmp_path / "other").exists()
