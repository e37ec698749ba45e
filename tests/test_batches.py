"""Several joint actions at a time: what is learned depends on how many, not on who evaluates them."""

import copy

import numpy as np
import pytest

import agents
import dsfp_env
from agents.learners.linear_model import LinearModel
from agents.loop import check_batch
from agents.registry import AGENTS, Contestant, choose_agent, contestant, expanded, in_batches
from dsfp_env import InputError
from dsfp_env.environment.lanes import Lane, start_lanes
from dsfp_env.testing import CheckError, check_agent
from dsfp_env.toy import ToyEnv

NEEDS = {"tpe": "optuna", "nsga2": "optuna", "cma_es": "cma"}
OURS = [name for name, entry in AGENTS.items() if entry.options is not None]


def played(name, env, evaluations, batch, seed=0, **how):
    pytest.importorskip(NEEDS.get(name, "numpy"))
    team = choose_agent(name).make(env, seed, evaluations)
    return agents.train(env, team, evaluations, batch=batch, seed=seed, **how), team


def told(history):
    """Everything that is known of joint actions, as something that can be compared."""
    return [
        (
            evaluation.number,
            {a: np.ravel(x).tolist() for a, x in evaluation.actions.items()},
            evaluation.rewards,
            evaluation.score,
        )
        for evaluation in history
    ]


@pytest.mark.parametrize("name", OURS)
def test_every_learner_finds_the_known_optimum_four_at_a_time(name):
    env = ToyEnv(AGENTS[name].actions)
    budget = 120 if AGENTS[name].slow else 300
    history, team = played(name, env, budget, 4)
    assert [evaluation.number for evaluation in history] == list(range(1, budget + 1))
    regret = {"uniform": 0.14}.get(name, 0.05)  # the best common ratio is worth 0.877
    assert agents.best(history).score > 1 - regret
    assert agents.play(env, team).score > 1 - max(regret, 0.1)


@pytest.mark.parametrize("name", OURS)
def test_equal_seeds_agree_and_the_size_of_the_batch_matters(name):
    env = ToyEnv(AGENTS[name].actions)
    histories = [told(played(name, env, 42, batch)[0]) for batch in (4, 4, 1)]
    assert histories[0] == histories[1]
    ignores = name in ("uniform", "random_search", "nsga2")  # what comes; a generation of eight is two batches
    assert (histories[0] == histories[2]) == ignores
    assert histories[0][-1][0] == 42  # the last batch is of two


@pytest.mark.parametrize("name", [name for name in OURS if AGENTS[name].actions == "levels"])
def test_longer_episodes_under_masks_stay_within_the_budget(name):
    env = ToyEnv(horizon=2, macs_budget=0.4)
    history, _ = played(name, env, 30, 4)
    assert max(evaluation.infos["conv_0"]["relative_macs"] for evaluation in history) <= 0.4 + 1e-9
    returns = [history[i].rewards["conv_0"] + history[i + 4].rewards["conv_0"] for i in range(4)]
    assert returns == pytest.approx([history[i + 4].score for i in range(4)])  # four episodes of two steps


def test_episodes_begin_as_they_would_one_after_another():
    ours, theirs = (ToyEnv(macs_budget=0.4) for _ in range(2))
    lanes = [Lane(ours) for _ in range(3)]
    masks = [lane.reset(seed=None if number else 7)[1] for number, lane in enumerate(lanes)]
    np.testing.assert_equal(masks, [theirs.reset(seed=None if number else 7)[1] for number in range(3)])
    assert len({str(one) for one in masks}) > 1
    lanes[0].step(dict.fromkeys(BEST := ours.possible_agents, 8))
    assert (lanes[0].agents, lanes[1].agents, ours.agents) == ([], BEST, BEST)


@pytest.mark.parametrize("credit", ["shared", "difference"])
def test_workers_do_not_change_anything(tiny, credit):
    def history(**how):
        env = dsfp_env.parallel_env(task=tiny, actions="levels", horizon=2, macs_budget=0.5, credit=credit)
        with env.evaluator:
            return told(played("q_learning", env, 14, 4, seed=3, **how)[0])

    one = history(workers=1)
    assert one == history(workers=2)
    assert one[-1][0] <= 14


def test_outcomes_come_one_by_one_and_are_those_of_single_steps(tiny, built):
    env = dsfp_env.parallel_env(task=tiny, seed=5)
    lanes = [Lane(env) for _ in range(3)]
    for lane in lanes:
        lane.reset()
    joint = [{"conv_0": ratio, "conv_1": 40.0} for ratio in (20.0, 50.0, 80.0)]
    waits = start_lanes(lanes, joint, workers=1)
    counts = []
    for lane, actions, _ in zip(lanes, joint, waits, strict=True):
        lane.step(actions)
        counts.append(len(built))
    assert counts == [1, 2, 3]  # the first is learned from, and noted, before the second is measured
    other = dsfp_env.parallel_env(task=tiny, seed=5)
    for lane, actions in zip(lanes, joint, strict=True):
        other.reset()
        assert other.step(actions)[4]["conv_0"]["accuracy"] == lane.env._now.outcome.accuracy


def test_a_budget_with_difference_credit_is_never_exceeded(tiny):
    env = dsfp_env.parallel_env(task=tiny, actions="levels", credit="difference")
    history, _ = played("random_search", env, 20, 4, workers=1)
    assert 17 < history[-1].number <= 20


def test_a_batch_of_linucb_is_spread():
    """What is under way counts as expected: the mean stays, and there is less to find out."""
    model = LinearModel(np.zeros(3), np.eye(3), 0.1)
    twin, features = copy.copy(model), np.array([1.0, 0.0, 1.0])
    twin.update(features, float(features @ twin.mean))
    assert twin.mean.tolist() == model.mean.tolist()
    assert twin.deviations(features[None])[0] < 0.2 < model.deviations(features[None])[0]
    env = ToyEnv()
    team = agents.LinUCB(env, 0, epsilon=0.0)
    observations, infos = env.reset(seed=0)
    chosen = team.act_many([observations] * 6, [infos] * 6)
    assert len({tuple(joint.values()) for joint in chosen}) >= 4
    assert (team.model.covariance == np.eye(len(team.model.mean))).all()  # it has learned nothing


def test_a_batch_of_coordinate_search_is_a_sweep():
    env = ToyEnv()
    team = agents.CoordinateSearch(env, 0)
    observations, infos = env.reset()
    first, *others = team.act_many([observations] * 7, [infos] * 7)
    assert set(first.values()) == {4}
    changes = [[level - 4 for level in joint.values() if level != 4] for joint in others]
    assert sorted(changes) == [[-3]] * 3 + [[3]] * 3
    many = team.act_many([observations] * 60, [infos] * 60)
    assert len({tuple(joint.values()) for joint in (first, *others, *many)}) >= 60


def test_a_batch_of_ucb1_tries_different_levels():
    env = ToyEnv()
    rng = np.random.default_rng(0)
    bandit = agents.UCB1("conv_0", env.observation_space("conv_0"), env.action_space("conv_0"), rng, epsilon=0.0)
    assert sorted(bandit.act_many([None] * 9, [{}] * 9)) == list(range(9))
    assert bandit.counts.sum() == 0


IN_TURN = ("ppo(n_steps=4, view=in_turn)", "maskable_ppo(n_steps=4, view=in_turn)")


@pytest.mark.parametrize(
    "name", ["ppo(n_steps=2)", "ppo(n_steps=2, view=joint)", "maskable_ppo(n_steps=2)", *IN_TURN]
)
def test_stable_baselines3_through_copies(name, tiny, built):
    pytest.importorskip("sb3_contrib" if "maskable" in name else "stable_baselines3")
    entry = choose_agent(name)
    env = dsfp_env.parallel_env(task=tiny, actions=entry.actions, horizon=2, macs_budget=0.5)
    seen = []
    history, team = played(name, env, 10, 4, on_evaluation=lambda _: seen.append(len(built)), workers=1)
    assert [evaluation.number for evaluation in history] == list(range(1, 11))
    assert len(seen) == 10
    assert len(built) <= 10  # nothing is measured that is not in the history
    assert team.model.num_timesteps > 0
    assert team.model.n_envs == 4 * team._width
    if entry.actions == "levels":
        assert max(evaluation.infos["conv_0"]["relative_macs"] for evaluation in history) <= 0.5
    again, _ = played(name, env, 10, 4, workers=1)
    assert told(history) == told(again)
    with pytest.raises(InputError, match="has learned with 4: expected the same"):
        agents.train(env, team, 10, batch=2)


class Alternating:
    """Must learn from each action before the next."""

    alternates = True

    def __init__(self, agent, observation_space, action_space, rng):
        self.waiting = False

    def act(self, observation, info, *, deterministic=False):
        if not deterministic:
            assert not self.waiting
            self.waiting = True
        return 0

    def update(self, transition):
        self.waiting = False


class Unaware(Alternating):
    alternates = False


class Different(Alternating):
    """Chooses otherwise when asked for one by the other method."""

    alternates = False

    def act(self, observation, info, *, deterministic=False):
        return 0

    def act_many(self, observations, infos):
        return [1] * len(observations)


class Short(Different):
    def act_many(self, observations, infos):
        return [0]


def test_learners_that_cannot_are_found_and_refused():
    env = ToyEnv()
    with pytest.raises(InputError, match="must learn from one joint action before it chooses the next"):
        agents.train(env, agents.Independent(Alternating, env), 8, batch=4)
    check_agent(Alternating, masks=False)
    with pytest.raises(CheckError, match=r"(?s)AssertionError.*says alternates = True"):
        check_agent(Unaware, masks=False)
    with pytest.raises(CheckError, match="act_many of one does the same"):
        check_agent(Different, masks=False)
    with pytest.raises(CheckError, match="expected a list of 4, one for each"):
        check_agent(Short, masks=False)
    with pytest.raises(InputError, match=r"chose 1 action.s. where 4 were asked for"):
        agents.train(env, agents.Independent(Short, env), 8, batch=4)


class OwnLoop:
    def learn(self, env, evaluations, *, seed=None, on_evaluation=None):
        return []


class NoCopy(ToyEnv):
    def __deepcopy__(self, memo):
        raise RuntimeError("a socket")


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, "4"])
def test_bad_batches_get_a_sentence(batch):
    env = ToyEnv()
    with pytest.raises(InputError, match="expected a whole number of joint actions, 1 or more"):
        agents.train(env, choose_agent("ucb1").make(env, 0, 8), 8, batch=batch)


def test_what_a_batch_cannot_be_had_for_gets_a_sentence():
    with pytest.raises(InputError, match="whose method learn takes no batch"):
        check_batch(OwnLoop(), 4)
    env = NoCopy()
    with pytest.raises(InputError, match=r"cannot be copied .RuntimeError: a socket."):
        agents.train(env, choose_agent("ucb1").make(env, 0, 8), 8, batch=4)


def test_contestants():
    assert contestant("ucb1") == Contestant("ucb1", "shared", 1)
    assert contestant("ucb1(epsilon=0)@difference@batch=16") == Contestant("ucb1(epsilon=0)", "difference", 16)
    assert contestant(in_batches("ucb1", 4)).batch == 4
    assert expanded(["all@batch=4", "ucb1"])[-2:] == [f"{list(AGENTS)[-1]}@batch=4", "ucb1"]
    for wrong in ("ucb1@batch=0", "ucb1@batch=x", "ucb1@barch=4"):
        with pytest.raises(InputError, match="or a batch such as batch=4"):
            contestant(wrong)
    with pytest.raises(InputError, match="Unknown credit 'diference'"):
        contestant("ucb1@diference")
