"""Deciding in turn: what earlier agents chose is seen, and outcomes are those of choosing at once."""

import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from pettingzoo.test import api_test, seed_test
from pettingzoo.utils import aec_to_parallel
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import dsfp_env
from dsfp_env import InputError
from dsfp_env.environment.observations import FEATURES
from dsfp_env.environment.turn_based import TurnBasedEnv
from dsfp_env.environment.turns import Turns
from dsfp_env.toy import ToyEnv
from dsfp_env.wrappers import LayerByLayerEnv

TABLE = {"task": "digits", "backend": "table"}
GAMES = {
    "box": {**TABLE, "horizon": 3},
    "levels": {**TABLE, "horizon": 3, "actions": "levels", "reward": "budget", "macs_budget": 0.1},
    "parameters": {**TABLE, "actions": "levels", "params_budget": 0.2},
    "context": {**TABLE, "observation": "context", "context": 30},
    "difference": {**TABLE, "horizon": 2, "actions": "levels", "credit": "difference"},
    "bounded": {**TABLE, "actions": "levels", "layers": {"features.conv1": (20, 60)}, "macs_budget": 0.3},
    "tied": {**TABLE, "tie": [["features.conv2", "features.conv4"]]},
}


def drawn(env, seed, rounds):
    """Joint actions at random."""
    for agent in env.possible_agents:
        env.action_space(agent).seed(seed)
    return [{agent: env.action_space(agent).sample() for agent in env.possible_agents} for _ in range(rounds)]


def without_mask(infos):
    return {agent: {k: v for k, v in info.items() if k != "action_mask"} for agent, info in infos.items()}


def check_equal_outcomes(turns, parallel, joint_actions):
    """The same joint actions in either, one after another: rewards, ends, infos, states and what is observed."""
    turns.reset(seed=1)
    _, infos = parallel.reset(seed=1)
    assert without_mask(turns.infos) == without_mask(infos)
    for joint in joint_actions:
        for agent in turns.order:
            assert turns.agent_selection == agent
            turns.step(joint[agent])
        observations, rewards, terminations, truncations, infos = parallel.step(joint)
        assert turns.rewards == rewards
        assert turns.terminations == terminations
        assert turns.truncations == truncations
        assert without_mask(turns.infos) == without_mask(infos)
        for agent, observation in observations.items():
            space = parallel.observation_space(agent)
            share = (observation - space.low) / (space.high - space.low)
            np.testing.assert_array_equal(turns.observe(agent)[: len(share)], share)
        np.testing.assert_array_equal(turns.state()[: len(parallel.state())], parallel.state())
    assert not parallel.agents
    for agent in turns.order:  # each takes its leave
        assert turns.agent_selection == agent
        turns.step(None)
    assert not turns.agents


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
@pytest.mark.parametrize("order", ["execution", "reverse"])
def test_outcomes_are_those_of_choosing_at_once(game, order):
    turns, parallel = dsfp_env.raw_env(**game, order=order), dsfp_env.parallel_env(**game)
    expected = parallel.possible_agents if order == "execution" else parallel.possible_agents[::-1]
    assert list(turns.order) == expected
    check_equal_outcomes(turns, parallel, drawn(parallel, 0, game.get("horizon", 1)))


def test_outcomes_that_are_measured(tiny, monkeypatch):
    monkeypatch.setattr(dsfp_env.Evaluator, "workers", 1)
    game = {"task": tiny, "horizon": 2, "credit": "difference"}
    turns, parallel = dsfp_env.raw_env(**game), dsfp_env.parallel_env(**game)
    check_equal_outcomes(turns, parallel, drawn(parallel, 0, 2))


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_official(game):
    api_test(dsfp_env.env(**game), num_cycles=30)
    seed_test(lambda: dsfp_env.env(**game))
    if "credit" not in game:
        env = gymnasium.make("dsfp/LayerByLayer-v0", **game).unwrapped
        gymnasium_check_env(env)
        sb3_check_env(env)


def test_what_is_seen_by_hand():
    """The toy's relative MACs are the mean share of filters that are kept."""
    turns = TurnBasedEnv(ToyEnv(horizon=2))
    assert turns.features[:4] == ("place", "ratio", "score", "time")
    assert turns.observation_space("conv_0") == Box(0, 1, (4 + 3 * 3 + 2,), np.float32)

    def seen(*names):
        by_name = dict(zip(turns.features, turns.observe(turns.agent_selection).tolist(), strict=True))
        return [pytest.approx(by_name[name], abs=1e-6) for name in names]

    chosen, ratios, whose, cost = (
        [f"conv_{i}.chosen" for i in range(3)],
        [f"conv_{i}.ratio" for i in range(3)],
        [f"conv_{i}.turn" for i in range(3)],
        ["cost_at_least", "cost_at_most"],
    )
    turns.reset()
    assert seen("place", *chosen, *ratios, *whose) == [1 / 3, *[0, 0, 0], *[0, 0, 0], *[1, 0, 0]]
    assert seen(*cost) == [0.1, 0.9]
    turns.step(1)  # 20 %
    assert seen("place", *chosen, *ratios, *whose) == [2 / 3, *[1, 0, 0], *[0.2, 0, 0], *[0, 1, 0]]
    assert seen(*cost) == [1 - (20 + 90 + 90) / 300, 1 - (20 + 10 + 10) / 300]
    turns.step(6)
    assert seen(*chosen, *ratios, *whose) == [*[1, 1, 0], *[0.2, 0.7, 0], *[0, 0, 1]]
    assert seen(*cost) == [1 - (20 + 70 + 90) / 300, 1 - (20 + 70 + 10) / 300]
    turns.step(3)  # the outcome; the next round shows what was chosen in this one
    assert seen("score", "time", *chosen, *ratios, *whose) == [1, 0.5, *[0, 0, 0], *[0.2, 0.7, 0.4], *[1, 0, 0]]
    assert seen(*cost) == [0.1, 0.9]
    turns.step(8)
    assert seen(*chosen, *ratios) == [*[1, 0, 0], *[0.9, 0.7, 0.4]]
    turns.step(8)
    turns.step(8)
    assert seen(*chosen, *ratios, *whose) == [*[0, 0, 0], *[0.9, 0.9, 0.9], *[0, 0, 0]]  # nobody's turn


def test_the_names_are_those_of_the_observation():
    agents = [f"conv_{i}" for i in range(4)]
    expected = (*FEATURES, *(f"{a}.{what}" for what in ("chosen", "ratio", "turn") for a in agents))
    env = dsfp_env.raw_env(**TABLE)
    assert env.features == (*expected, "cost_at_least", "cost_at_most")
    assert env.observation_space("conv_0").shape == (len(env.features),)
    assert LayerByLayerEnv(**TABLE).turns.features == env.features
    context = dsfp_env.raw_env(**TABLE, observation="context", context=30)
    context.reset()
    assert dict(zip(context.features, context.last()[0], strict=True))["context"] == 0.25  # of 10 to 90


@pytest.mark.parametrize("budget", [{"macs_budget": 0.1}, {"params_budget": 0.1}, {}], ids=str)
def test_the_range_of_costs(budget):
    env = dsfp_env.parallel_env(**TABLE, actions="levels", **budget)
    kind = "params" if "params_budget" in budget else "macs"

    def relative(*ratios):
        costs = env.evaluator.costs(dict(zip(env.possible_agents, ratios, strict=True)))
        return getattr(costs, kind) / getattr(env.evaluator.original, kind)

    assert env.cost_range({}) == (relative(90, 90, 90, 90), relative(10, 10, 10, 10))
    assert env.cost_range({"conv_2": 30.0}) == (relative(90, 90, 30, 90), relative(10, 10, 30, 10))
    assert env.cost_range(env.ratios_of({"conv_0": 0, "conv_3": 4})) == (
        relative(10, 90, 90, 50),
        relative(10, 10, 10, 50),
    )


def test_masks_allow_exactly_what_is_within_the_budget():
    turns, reached, within = TurnBasedEnv(ToyEnv(macs_budget=0.35)), set(), set()
    for levels in itertools.product(range(9), repeat=3):
        turns.reset()
        allowed = True
        for level in levels:
            allowed &= bool(turns.last()[4]["action_mask"][level])
            turns.step(level)
        reached |= {levels} if allowed else set()
        within |= {levels} if turns.infos["conv_0"]["relative_macs"] <= 0.35 else set()
    assert reached == within
    assert 0 < len(within) < 729


def test_masks_are_told_not_enforced_and_without_a_budget_all_may_be_chosen():
    turns = dsfp_env.env(**TABLE, actions="levels", macs_budget=0.1)
    turns.reset(seed=0)
    masks = []
    for _ in range(4):
        masks.append(turns.last()[4]["action_mask"].tolist())
        turns.step(0)
    assert masks == [[1] * 9, [0] * 7 + [1] * 2, *[[0] * 8 + [1]] * 2]  # the second leaves nothing
    assert turns.infos["conv_0"]["relative_macs"] > 0.5
    free = dsfp_env.env(**TABLE, actions="levels")
    free.reset()
    assert free.last()[4]["action_mask"].tolist() == [1] * 9
    box = dsfp_env.env(**TABLE, macs_budget=0.05)
    box.reset()
    assert "action_mask" not in box.last()[4]


def test_rewards_come_with_the_last_choice_and_accumulate():
    """The optimum of the toy is worth 1, all levels 0 are worth 0.99 * 0.64 * 0.91."""
    turns, worse = TurnBasedEnv(ToyEnv(horizon=2)), pytest.approx(0.99 * 0.64 * 0.91)
    turns.reset()
    told = []
    for level in (1, 6, 3, 0, 0, 0):
        told.append((turns.agent_selection, turns.last()[1]))
        turns.step(level)
    assert told == [(f"conv_{i}", reward) for reward in (0.0, 1.0) for i in range(3)]
    for _ in range(3):
        _, reward, terminated, truncated, _ = turns.last()
        assert (1 + reward, terminated, truncated) == (worse, True, False)
        turns.step(None)


def test_any_order():
    order = ("conv_2", "conv_0", "conv_3", "conv_1")
    turns, parallel = dsfp_env.raw_env(**TABLE, order=order), dsfp_env.parallel_env(**TABLE)
    check_equal_outcomes(turns, parallel, drawn(parallel, 3, 1))
    back = aec_to_parallel(dsfp_env.raw_env(**TABLE, order=order))
    back.reset(seed=1)
    parallel.reset(seed=1)
    (joint,) = drawn(parallel, 4, 1)
    assert back.step(joint)[1] == parallel.step(joint)[1]
    for wrong in (
        "backwards",
        order[:3],
        (*order[:3], "conv_2"),
        3,
        np.array(3),
        [1, 2, 3, 4],
        dict.fromkeys(order),
    ):
        with pytest.raises(
            InputError, match="expected 'execution', 'reverse', or all agents, each once, of conv_0"
        ):
            dsfp_env.env(**TABLE, order=wrong)


def test_a_choice_stays_when_its_array_is_used_again():
    turns, action = dsfp_env.raw_env(**TABLE), np.zeros(1, np.float32)
    turns.reset()
    for ratio in (20, 40, 60, 80):
        action[:] = ratio
        turns.step(action)
    assert [info["ratio"] for info in turns.infos.values()] == [20, 40, 60, 80]


def test_one_agent_alone():
    turns = TurnBasedEnv(ToyEnv(best_ratios={"conv_0": 20.0}))
    turns.reset()
    turns.step(1)
    assert turns.last()[1:3] == (1.0, True)


@pytest.mark.parametrize("kind", ["levels", "box"])
def test_what_cannot_be_chosen_changes_nothing(kind):
    turns, good, bad = dsfp_env.raw_env(**TABLE, actions=kind), *((4, 9) if kind == "levels" else (50.0, 95.0))
    with pytest.raises(ResetNeeded, match="before reset"):
        turns.step(good)
    turns.reset(seed=0)
    for agent in turns.order:
        before = turns.observe(agent)
        with pytest.raises(InputError, match=f"of {agent} is {bad}"):
            turns.step(bad)
        assert turns.agent_selection == agent
        np.testing.assert_array_equal(turns.observe(agent), before)
        turns.step(good)
    with pytest.raises(ValueError, match="None"):  # PettingZoo's, of the dead
        turns.step(good)
    for _ in turns.order:
        turns.step(None)
    with pytest.raises(ResetNeeded, match="after the end"):
        turns.step(None)


def test_environments_that_tell_no_costs_are_refused():
    class Other:
        possible_agents = ("a",)

    with pytest.raises(InputError, match="does not tell what choices cost: expected a LayerPruningEnv"):
        Turns(Other())


@pytest.mark.parametrize("actions", ["levels", "box"])
def test_layer_by_layer_is_the_same_game(actions):
    game = {**TABLE, "actions": actions, "horizon": 2, "order": "reverse"}
    env, turns = gymnasium.make("dsfp/LayerByLayer-v0", **game), dsfp_env.raw_env(**game)
    seen, info = env.reset(seed=5)
    turns.reset(seed=5)
    rng, total = np.random.default_rng(0), 0.0
    for number in range(8):
        assert info["agent"] == turns.agent_selection
        np.testing.assert_array_equal(seen, turns.observe(turns.agent_selection))
        action = rng.integers(9) if actions == "levels" else rng.choice(9, 1) / np.float32(4) - 1
        seen, reward, terminated, truncated, info = env.step(action)
        turns.step(action if actions == "levels" else 50 + 40 * action)
        assert (terminated, truncated) == (number == 7, False)
        assert reward == turns.rewards["conv_0"]
        assert reward == 0 or number in (3, 7)
        total += reward
    assert total == pytest.approx(info["score"])
    assert info["agent"] is None
    assert info["conv_2"] == without_mask(turns.infos)["conv_2"]
    with pytest.raises(ResetNeeded):
        env.unwrapped.step(action)


def test_layer_by_layer_keeps_a_budget_with_layers_of_fewer_levels():
    game = {"layers": {"features.conv1": (20, 60)}, "macs_budget": 0.1, "reward": "budget"}
    env = LayerByLayerEnv(**TABLE, actions="levels", **game)
    assert env.action_space == Discrete(9)
    rng, costs = np.random.default_rng(0), set()
    for _ in range(30):
        env.reset()
        assert not env.action_masks()[5:].any()  # of 20, 30, ... 60 %
        for _ in range(4):
            allowed = np.flatnonzero(env.action_masks())
            *_, info = env.step(np.int64(rng.choice(allowed)))
        costs.add(info["relative_macs"])
    assert max(costs) <= 0.1
    assert len(costs) > 10
    env.reset()
    for level in (8, 0, 0, 0):
        *_, info = env.step(level)
    assert info["conv_0"]["ratio"] == 60
    bounded = LayerByLayerEnv(**TABLE, layers={"features.conv1": (20, 60)})
    bounded.reset()
    for action in (0.5, 0, 0, 0):
        *_, info = bounded.step(np.float32([action]))
    assert (info["conv_0"]["ratio"], info["conv_1"]["ratio"]) == (50, 50)


def test_layer_by_layer_refuses():
    with pytest.raises(InputError, match="one controller takes all actions"):
        LayerByLayerEnv(**TABLE, credit="difference")
    with pytest.raises(InputError, match="Masks are for levels"):
        LayerByLayerEnv(**TABLE).action_masks()
    with pytest.raises(InputError, match="Did you mean 'horizon'"):
        LayerByLayerEnv(**TABLE, horizn=2)
    env = LayerByLayerEnv(**TABLE, actions="levels")
    env.reset()
    for wrong in (9, 1.5, None):
        with pytest.raises(InputError, match="The action of conv_0 is"):
            env.step(wrong)
    env.step(3)
    assert env.turns.agent == "conv_1"


@pytest.mark.parametrize("name", ["MaskablePPO", "RecurrentPPO"])
def test_algorithms_of_sb3_contrib_on_long_episodes(name):
    """Two agents, times five rounds, are episodes of ten steps."""
    sb3_contrib = pytest.importorskip("sb3_contrib")
    masked, horizon = name == "MaskablePPO", 5
    env = LayerByLayerEnv(ToyEnv(horizon=horizon, macs_budget=0.4, best_ratios={"conv_0": 40.0, "conv_1": 80.0}))
    policy, size = ("MlpPolicy", {}) if masked else ("MlpLstmPolicy", {"policy_kwargs": {"lstm_hidden_size": 8}})
    how = {"n_steps": 20, "batch_size": 20, "n_epochs": 2, "seed": 0, "device": "cpu"}
    model = getattr(sb3_contrib, name)(policy, env, **how, **size)
    seen = []
    model.learn(100, callback=lambda local, _: seen.extend(local["infos"]) or True)
    assert len(seen) == 100
    assert [number for number, info in enumerate(seen, 1) if info["agent"] is None] == list(range(10, 101, 10))
    costs = [info["relative_macs"] for info in seen if info["agent"] is None]
    assert max(costs) <= 0.4 or not masked
