"""Parameter sharing through Stable-Baselines3: every agent of every environment is one slot of a VecEnv."""

import importlib
import pickle
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper, parallel_to_aec
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecNormalize, VecVideoRecorder

import dsfp_env
from dsfp_env import InputError
from dsfp_env.toy import BEST_RATIOS, ToyEnv
from dsfp_env.wrappers import ParallelVecEnv, step_together

ON_POLICY = {"n_steps": 8, "batch_size": 8, "n_epochs": 2}
OFF_POLICY = {"learning_starts": 12, "batch_size": 8, "buffer_size": 200}
LEARNERS = {
    "PPO": (PPO, "box", ON_POLICY),
    "PPO-levels": (PPO, "levels", ON_POLICY),
    "A2C": (A2C, "box", {"n_steps": 4}),
    "A2C-levels": (A2C, "levels", {"n_steps": 4}),
    "SAC": (SAC, "box", OFF_POLICY),
    "TD3": (TD3, "box", OFF_POLICY),
    "DDPG": (DDPG, "box", OFF_POLICY),
    "DQN": (DQN, "levels", {**OFF_POLICY, "target_update_interval": 10}),
    "MaskablePPO": ("MaskablePPO", "levels", ON_POLICY),
    "TQC": ("TQC", "box", OFF_POLICY),
}


class Counter(ParallelEnv):
    """Agents a and b see how many steps they took, a ten more; each earns its action.

    Their episode has three steps and ends by ``ends``: agent -> "terminated", "truncated" or "both".
    """

    metadata = {"name": "counter_v0", "render_modes": []}  # noqa: RUF012
    possible_agents = ("a", "b")
    render_mode = None

    def __init__(self, ends=None, observations=None, actions=None, live=("a", "b")):
        self.ends = ends or {"a": "terminated", "b": "terminated"}
        self.observations = observations or dict.fromkeys("ab", Box(-5, 20, (1,), np.float32))
        self.actions = actions or dict.fromkeys("ab", Box(-3, 5, (1,), np.float32))
        self.live, self.agents, self.seeds, self.options = list(live), [], [], []

    def observation_space(self, agent):
        return self.observations[agent]

    def action_space(self, agent):
        return self.actions[agent]

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.options.append(options)
        self.agents, self.time = list(self.live), 0
        return self._seen(), {agent: {"start": True, "time": 0} for agent in self.live}

    def step(self, actions):
        self.time += 1
        over, agents = self.time == 3, self.agents
        ended = {agent: over and agent in self.ends and self.ends[agent] for agent in agents}
        self.agents = [] if over else agents
        return (
            self._seen(),
            {agent: float(np.sum(actions[agent])) for agent in agents},
            {agent: ended[agent] in ("terminated", "both") for agent in agents},
            {agent: ended[agent] in ("truncated", "both") for agent in agents},
            {agent: {"time": self.time} for agent in agents},
        )

    def _seen(self):
        return {agent: np.array([self.time + (10 if agent == "a" else 0)], np.float32) for agent in self.live}


class Idle(BaseParallelWrapper):
    """A wrapper that changes nothing."""


class OneMask(BaseParallelWrapper):
    """At time t action t is the only one; one array, changed in place, tells it to all agents."""

    def reset(self, seed=None, options=None):
        self.mask = np.array([1, 0, 0, 0], np.int8)
        observations, infos = super().reset(seed, options)
        return observations, self._told(infos)

    def step(self, actions):
        self.mask[:] = np.roll(self.mask, 1)
        *results, infos = super().step(actions)
        return *results, self._told(infos)

    def _told(self, infos):
        return {agent: {**info, "action_mask": self.mask} for agent, info in infos.items()}


class Reversed(BaseParallelWrapper):
    """A wrapper that turns actions round."""

    def step(self, actions):
        return self.env.step({agent: 100 - action for agent, action in actions.items()})


def algorithm(name):
    made, actions, kwargs = LEARNERS[name]
    if isinstance(made, str):
        made = getattr(pytest.importorskip("sb3_contrib"), made)
    return made, actions, kwargs


def toys(actions="box", number=2, **kwargs):
    return ParallelVecEnv([ToyEnv(actions, **kwargs) for _ in range(number)])


def pruning(task, number, **kwargs):
    """Several environments of one evaluator."""
    first = dsfp_env.parallel_env(task=task, **kwargs)
    return [first, *(dsfp_env.parallel_env(evaluator=first.evaluator, **kwargs) for _ in range(number - 1))]


def collecting(infos):
    """A callback that collects the infos of every step."""

    def callback(given, _):
        infos.extend(given["infos"])
        return True  # go on

    return callback


# Slots


def test_a_slot_is_an_agent_with_its_number():
    vec = ParallelVecEnv([Counter(), Counter(), Counter()])
    assert vec.num_envs == 6
    assert vec.observation_space == Box(
        np.float32([-5, 0, 0]), np.float32([20, 1, 1]), dtype=np.float32
    )  # the agents' own bounds, then the one-hot's
    seen = vec.reset()
    assert seen.dtype == np.float32
    assert seen.tolist() == [[10, 1, 0], [0, 0, 1]] * 3
    seen, rewards, dones, infos = vec.step(np.zeros((6, 1), np.float32))
    assert seen.tolist() == [[11, 1, 0], [1, 0, 1]] * 3
    assert (rewards.dtype, rewards.shape, dones.dtype, dones.shape) == (np.float32, (6,), bool, (6,))
    assert infos == [{"time": 1, "TimeLimit.truncated": False}] * 6
    assert len({id(info) for info in infos}) == 6
    plain = ParallelVecEnv(Counter(), agent_ids=False)
    assert plain.observation_space == Box(-5, 20, (1,), np.float32)
    assert plain.reset().tolist() == [[10], [0]]


def test_what_is_handed_out_is_never_touched_again():
    vec = masked_counters()
    given = [vec.reset(), vec.reset_infos, vec.env_method("action_masks"), vec.step(np.zeros(4))]
    before = pickle.dumps(given)
    for _ in range(4):
        for info in vec.step(np.zeros(4))[3]:
            info["action_mask"][:] = 1
    np.testing.assert_equal(given, pickle.loads(before))


def masked_counters():
    return ParallelVecEnv([OneMask(Counter(actions=dict.fromkeys("ab", Discrete(4)))) for _ in range(2)])


def test_actions_are_centred_and_come_back_into_the_box():
    """-3 + (a + 1) / 2 * 8: -1 is -3, 0 is 1, 0.5 is 3, 1 is 5; the slots' actions are their rewards."""
    vec = ParallelVecEnv([Counter(), Counter()])
    assert vec.action_space == Box(-1, 1, (1,), np.float32)
    vec.reset()
    assert vec.step(np.float32([[-1], [0], [0.5], [1]]))[1].tolist() == [-3, 1, 3, 5]
    assert vec.step(np.float32([[-2], [2], [-1.0001], [1.0001]]))[1].tolist() == [-3, 5, -3, 5]
    box = Box(np.float32([0.1, -0.7]), np.float32([0.3, 1e6]), dtype=np.float32)  # bounds that float32 rounds
    vec = ParallelVecEnv(Counter(actions=dict.fromkeys("ab", box)))
    rng = np.random.default_rng(0)
    for actions in (*rng.uniform(-1, 1, (200, 2, 2)), np.ones((2, 2)), -np.ones((2, 2))):
        for action in vec.by_agent(actions.astype(np.float32))[0].values():
            assert box.contains(action)
    env = dsfp_env.toy.ToyEnv("box")
    joint = ParallelVecEnv(env).by_agent(np.float32([[-1], [0], [1]]))[0]
    assert joint == {"conv_0": 10, "conv_1": 50, "conv_2": 90}


def test_levels_stay_levels():
    vec = toys("levels")
    assert vec.action_space == Discrete(9)
    assert vec.by_agent(np.array([0, 1, 2, 3, 4, 8])) == [
        {"conv_0": 0, "conv_1": 1, "conv_2": 2},
        {"conv_0": 3, "conv_1": 4, "conv_2": 8},
    ]
    shifted = ParallelVecEnv(Counter(actions=dict.fromkeys("ab", Discrete(4, start=-1))))
    assert shifted.action_space == Discrete(4)
    assert shifted.by_agent(np.array([0, 3])) == [{"a": -1, "b": 2}]
    several = ParallelVecEnv(Counter(actions=dict.fromkeys("ab", MultiDiscrete([3, 4]))))
    assert several.action_space == MultiDiscrete([3, 4])
    assert {agent: row.tolist() for agent, row in several.by_agent([[0, 1], [2, 3]])[0].items()} == {
        "a": [0, 1],
        "b": [2, 3],
    }


# Episodes


@pytest.mark.parametrize(
    ("ends", "truncated"),
    [("terminated", False), ("truncated", True), ("both", False)],
)
def test_the_end_of_an_episode(ends, truncated):
    vec = ParallelVecEnv([Counter({"a": ends, "b": ends}), Counter()])
    vec.reset()
    nothing = np.zeros((4, 1))
    for _ in range(2):
        _, _, dones, infos = vec.step(nothing)
        assert not dones.any()
        assert not any("terminal_observation" in info for info in infos)
    vec.reset_infos = [{} for _ in range(4)]
    seen, _, dones, infos = vec.step(nothing)
    assert dones.all()
    assert seen.tolist() == [[10, 1, 0], [0, 0, 1]] * 2  # of the next episode
    assert [info.pop("terminal_observation").tolist() for info in infos] == [[13, 1, 0], [3, 0, 1]] * 2
    assert (
        infos
        == [{"time": 3, "TimeLimit.truncated": truncated}] * 2 + [{"time": 3, "TimeLimit.truncated": False}] * 2
    )
    assert vec.reset_infos == [{"start": True, "time": 0}] * 4
    assert vec.step(nothing)[0].tolist() == [[11, 1, 0], [1, 0, 1]] * 2


def test_one_agent_may_be_truncated_while_the_other_terminates():
    vec = ParallelVecEnv(Counter({"a": "terminated", "b": "truncated"}))
    vec.reset()
    for _ in range(3):
        _, _, dones, infos = vec.step(np.zeros((2, 1)))
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True]


def test_environments_end_on_their_own():
    vec = ParallelVecEnv([ToyEnv("levels", horizon=2), ToyEnv("levels", horizon=3)])
    vec.reset()
    ends = [vec.step(np.full(6, 4))[2].tolist() for _ in range(6)]
    assert [[*end[:1], *end[3:4]] for end in ends] == [
        [False, False], [True, False], [False, True], [True, False], [False, False], [True, True],
    ]  # fmt: skip


def test_infos_at_the_end_are_the_last_of_the_episode():
    vec = toys("levels", number=1)
    vec.reset()
    _, rewards, _, infos = vec.step(np.array([1, 6, 3]))  # 20, 70 and 40 %: the optimum
    assert rewards.tolist() == [1, 1, 1]
    assert [info["score"] for info in infos] == [1, 1, 1]
    assert [info["ratio"] for info in infos] == [20, 70, 40]
    assert [info["score"] for info in vec.reset_infos] == [0, 0, 0]


# Stable-Baselines3's contracts


def test_seeds_are_given_once():
    envs = [Counter(), Counter()]
    vec = ParallelVecEnv(envs)
    assert vec.seed(7) == [7, 7, 8, 8]
    vec.reset()
    for _ in range(3):
        vec.step(np.zeros((4, 1)))
    vec.reset()
    assert [env.seeds for env in envs] == [[7, None, None], [8, None, None]]
    PPO("MlpPolicy", vec, seed=5, **ON_POLICY).learn(1)
    assert [env.seeds[3:5] for env in envs] == [[5, None], [6, None]]
    assert len(set(vec.seed())) == 2


def test_options_are_given_once():
    envs = [Counter(), Counter()]
    vec = ParallelVecEnv(envs)
    vec.set_options({"context": 60})
    vec.reset()
    vec.reset()
    vec.set_options([{}, {}, {"context": 20}, {"context": 20}])
    vec.reset()
    assert [env.options for env in envs] == [
        [{"context": 60}, None, None],
        [{"context": 60}, None, {"context": 20}],
    ]
    with pytest.raises(InputError, match="2 options came for 4 slots"):
        vec.set_options([{}, {}])


def test_attributes_and_methods_of_the_environments():
    envs = [Idle(ToyEnv("box")), ToyEnv("box")]
    vec = ParallelVecEnv(envs)
    assert vec.get_attr("best_ratios", [0, 5]) == [ToyEnv().best_ratios] * 2
    assert vec.get_attr("possible_agents", 1) == [["conv_0", "conv_1", "conv_2"]]
    vec.set_attr("mark", 5, indices=[3])
    assert [hasattr(env, "mark") for env in envs] == [False, True]
    assert not vec.has_attr("mark")
    vec.set_attr("mark", 6)
    assert vec.get_attr("mark") == [6] * 6
    calls = []
    envs[0].env.score = lambda ratios: calls.append(ratios) or 0.5
    optimum = ToyEnv().best_ratios
    assert vec.env_method("score", optimum) == [0.5] * 3 + [1] * 3
    assert calls == [optimum]  # an environment is asked once
    assert vec.env_method("score", ratios=optimum, indices=[4, 0]) == [1, 0.5]
    assert vec.env_is_wrapped(Idle) == [True] * 3 + [False] * 3
    assert vec.env_is_wrapped(Reversed, 0) == [False]
    with pytest.raises(AttributeError, match="action_masks"):
        vec.get_attr("action_masks")  # there is nothing to mask in a Box


def test_masks_of_slots():
    vec = toys("levels", macs_budget=0.4, horizon=2)
    assert vec.has_attr("action_masks")
    vec.seed(3)
    vec.reset()
    expected = [info["action_mask"].astype(bool) for info in vec.reset_infos]
    assert min(mask.sum() for mask in expected) < 9
    masks = vec.env_method("action_masks")
    assert {mask.dtype for mask in masks} == {np.dtype(bool)}
    np.testing.assert_array_equal(masks, expected)
    np.testing.assert_array_equal([method() for method in vec.get_attr("action_masks")], expected)
    np.testing.assert_array_equal(vec.env_method("action_masks", indices=[4, 1]), [expected[4], expected[1]])
    free = toys("levels")
    free.reset()
    assert np.array(free.env_method("action_masks")).tolist() == [[True] * 9] * 6


def test_masks_are_those_of_the_moment():
    vec = masked_counters()
    vec.reset()
    for time in (0, 1, 2, 0, 1):  # an episode has three steps
        assert np.array(vec.env_method("action_masks")).tolist() == [[action == time for action in range(4)]] * 4
        vec.step(np.full(4, time))


def test_pickling():
    vec = toys("levels", horizon=2)
    vec.seed(1)
    vec.reset()
    twin = cloudpickle.loads(cloudpickle.dumps(vec))
    for _ in range(3):
        np.testing.assert_equal(vec.step(np.arange(6)), twin.step(np.arange(6)))


def test_stable_baselines_is_imported_when_it_is_needed(monkeypatch):
    monkeypatch.setattr(dsfp_env, "wrappers", dsfp_env.wrappers)  # to be put back
    for name in ("dsfp_env.wrappers", "dsfp_env.wrappers.vec_env"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)  # cannot be imported any more
    fresh = importlib.import_module("dsfp_env.wrappers")
    assert fresh.step_together is step_together
    with pytest.raises(ImportError, match="stable_baselines3"):
        fresh.ParallelVecEnv  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'NoSuchEnv'"):
        fresh.NoSuchEnv  # noqa: B018


# Input that cannot be used


def spaces(**by_agent):
    return dict(zip("ab", by_agent.values(), strict=True))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (list, "0 environments came"),
        (lambda: [ToyEnv()] * 2, "2 environments came, 1 of them different"),
        (lambda: [object()], "none of PettingZoo's parallel kind"),
        (lambda: parallel_to_aec(ToyEnv()), "none of PettingZoo's parallel kind"),
        (lambda: [Counter(), ToyEnv()], "agents conv_0, conv_1, conv_2, environment 0 has a, b"),
        (lambda: [ToyEnv("box"), ToyEnv("levels")], "action space of conv_0 .* 0 is Box.*environment 1"),
        (
            lambda: Counter(observations=spaces(a=Box(0, 1, (1,)), b=Box(0, 1, (2,)))),
            "The observation space of a of environment 0 is Box.*that of b of environment 0 is Box",
        ),
        (lambda: Counter(actions=spaces(a=Discrete(2), b=Box(0, 1, (3,)))), "The action space of a .*Box"),
        (lambda: Counter(observations=spaces(a=Discrete(2), b=Discrete(2))), "Use agent_ids=False"),
        (lambda: Counter(observations=spaces(a=Box(0, 1, (2, 2)), b=Box(0, 1, (2, 2)))), "Use agent_ids=False"),
        (lambda: Counter(actions=spaces(a=Box(0, np.inf), b=Box(0, np.inf))), "floats with finite bounds"),
        (lambda: Counter(actions=spaces(a=Box(0, 3, (1,), int), b=Box(0, 3, (1,), int))), "a Box of floats"),
        (lambda: Counter(actions=spaces(a=Dict(), b=Dict())), "expected a Box of floats"),
    ],
)  # fmt: skip
def test_environments_that_cannot_share_a_policy(make, sentence):
    with pytest.raises(InputError, match=sentence):
        ParallelVecEnv(make())


def test_other_observations_without_one_hot():
    env = Counter(observations=dict.fromkeys("ab", Dict({"x": Discrete(2)})))
    with pytest.raises(InputError, match="expected a Box, Discrete, MultiDiscrete or MultiBinary"):
        ParallelVecEnv(env, agent_ids=False)


def test_agents_that_come_or_go_alone():
    vec = ParallelVecEnv([Counter(), Counter({"b": "terminated"})])
    vec.reset()
    for _ in range(2):
        vec.step(np.zeros((4, 1)))
    with pytest.raises(InputError, match="In environment 1, b ended while other agents go on"):
        vec.step(np.zeros((4, 1)))
    with pytest.raises(InputError, match="The episode of environment 0 starts without b: expected"):
        ParallelVecEnv(Counter(live=["a"])).reset()


def test_actions_that_do_not_fit():
    vec = toys("levels")
    vec.reset()
    with pytest.raises(InputError, match="5 actions came for 6 slots"):
        vec.step(np.zeros(5, int))
    with pytest.raises(InputError, match="The action of conv_1 is .*9.*: expected a level"):
        vec.step(np.array([0, 9, 0, 0, 0, 0]))


# Learners


@pytest.mark.parametrize("name", LEARNERS)
def test_equal_seeds_agree_to_the_bit(name):
    make, actions, kwargs = algorithm(name)

    def learned(seed):
        vec = toys(actions, horizon=2)
        model = make("MlpPolicy", vec, seed=seed, policy_kwargs={"net_arch": [16]}, **kwargs)
        untrained = [parameter.clone() for parameter in model.policy.parameters()]
        model.learn(96)
        assert any(not torch.equal(*pair) for pair in zip(untrained, model.policy.parameters(), strict=True))
        return model, model.predict(vec.reset())[0]

    (first, first_actions), (second, second_actions), (third, _) = learned(0), learned(0), learned(1)

    def equal(one, other):
        pairs = zip(one.policy.state_dict().values(), other.policy.state_dict().values(), strict=True)
        return all(torch.equal(*pair) for pair in pairs)

    assert equal(first, second)
    assert not equal(first, third)
    np.testing.assert_array_equal(first_actions, second_actions)


def test_ppo_finds_the_optimum_of_the_toy():
    """The best joint action is worth 1; at random it is the product of 1 - (80^2 / 12 + (50 - best)^2) / 100^2."""
    toy, vec = ToyEnv("box"), toys(number=8)
    assert np.prod([1 - (80**2 / 12 + (50 - best) ** 2) / 1e4 for best in (20, 70, 40)]) == pytest.approx(
        0.728, abs=1e-3
    )
    model = PPO(
        "MlpPolicy", vec, 0.02, n_steps=8, batch_size=96, n_epochs=4, seed=0, policy_kwargs={"net_arch": [16]}
    )
    model.learn(25 * 8 * vec.num_envs)
    chosen, _ = model.predict(vec.reset(), deterministic=True)
    for joint_action in vec.by_agent(chosen):
        ratios = {agent: ratio.item() for agent, ratio in joint_action.items()}
        assert toy.score(ratios) > 0.98
        assert ratios == pytest.approx(BEST_RATIOS, abs=8)  # one policy, three answers


@pytest.mark.parametrize("horizon", [1, 3])
def test_masked_agents_never_leave_the_budget(horizon):
    masked_ppo = algorithm("MaskablePPO")[0]

    def relative_macs(make):
        seen = []
        vec = toys("levels", macs_budget=0.45, horizon=horizon)
        model = make("MlpPolicy", vec, seed=0, policy_kwargs={"net_arch": [16]}, **ON_POLICY)
        model.learn(240, collecting(seen))
        return np.array([info["relative_macs"] for info in seen])

    masked = relative_macs(masked_ppo)
    assert masked.shape == (240,)
    assert (masked <= 0.45).all()
    assert (relative_macs(PPO) > 0.45).mean() > 0.3  # the masks have something to do


def test_evaluate_policy_gives_the_true_score():
    vec = VecMonitor(toys(horizon=3))
    model = PPO("MlpPolicy", vec, seed=0, policy_kwargs={"net_arch": [16]}, **ON_POLICY)
    mean, deviation = evaluate_policy(model, vec, n_eval_episodes=12)
    env, ids = ToyEnv("box", horizon=3), np.eye(3, dtype=np.float32)
    observations, _ = env.reset()
    while env.agents:
        seen = np.stack([np.append(observations[agent], one) for agent, one in zip(env.agents, ids, strict=True)])
        ratios = 50 + 40 * model.predict(seen, deterministic=True)[0]
        observations, _, _, _, infos = env.step(dict(zip(env.agents, ratios, strict=True)))
    assert mean == pytest.approx(infos["conv_0"]["score"], abs=1e-6)  # the changes in score add up to it
    assert deviation < 1e-6


def test_callbacks_saving_and_learning_on(tmp_path):
    vec = VecMonitor(toys(horizon=2), str(tmp_path / "monitor.csv"), info_keywords=("relative_macs",))
    evaluating = EvalCallback(
        VecMonitor(toys(horizon=2)), best_model_save_path=tmp_path, log_path=tmp_path, eval_freq=8, verbose=0
    )
    model = PPO("MlpPolicy", vec, seed=0, policy_kwargs={"net_arch": [16]}, **ON_POLICY)
    model.learn(96, [evaluating, CheckpointCallback(8, tmp_path, "ppo")])
    assert model.num_timesteps == 96
    assert len(model.ep_info_buffer) == 96 / 2
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (2, 5)
    assert {"best_model.zip", "ppo_48_steps.zip", "ppo_96_steps.zip"} <= {file.name for file in tmp_path.iterdir()}
    assert len((tmp_path / "monitor.csv").read_text().splitlines()) == 2 + 96 / 2
    model.save(tmp_path / "mine")
    resumed = PPO.load(tmp_path / "mine", env=VecMonitor(toys(horizon=2)))
    seen = vec.reset()
    np.testing.assert_array_equal(*(m.predict(seen, deterministic=True)[0] for m in (model, resumed)))
    assert resumed.learn(48, reset_num_timesteps=False).num_timesteps == 144


def test_normalised_observations_and_rewards(tmp_path):
    vec = VecNormalize(VecMonitor(toys(horizon=2)))
    model = PPO("MlpPolicy", vec, seed=0, policy_kwargs={"net_arch": [16]}, **ON_POLICY).learn(96)
    vec.save(tmp_path / "statistics.pkl")
    again = VecNormalize.load(tmp_path / "statistics.pkl", VecMonitor(toys(horizon=2)))
    again.training = vec.training = False
    again.norm_reward = vec.norm_reward = False
    seen = vec.reset()
    np.testing.assert_array_equal(seen, again.reset())
    assert abs(seen).max() > 1  # normalised indeed
    for _ in range(2):
        actions, _ = model.predict(seen, deterministic=True)
        step = vec.step(actions)
        np.testing.assert_equal(step[:3], again.step(actions)[:3])
        seen = step[0]
    infos = step[3]
    assert abs(infos[0]["terminal_observation"]).max() > 1
    assert evaluate_policy(model, again, 6)[0] == pytest.approx(infos[0]["score"], abs=1e-6)


def test_stacked_frames():
    vec = VecFrameStack(ParallelVecEnv(Counter()), 2)
    assert vec.reset().tolist() == [[0, 0, 0, 10, 1, 0], [0, 0, 0, 0, 0, 1]]
    for _ in range(3):
        _, _, _, infos = vec.step(np.zeros((2, 1)))
    assert infos[1]["terminal_observation"].tolist() == [2, 0, 1, 3, 0, 1]


# The real environment


@pytest.mark.parametrize("actions", ["box", "levels"])
@pytest.mark.parametrize("credit", ["shared", "difference"])
def test_two_environments_of_one_evaluator_are_as_two_alone(tiny, actions, credit):
    kwargs = {"actions": actions, "credit": credit, "horizon": 2, "reward": "budget", "macs_budget": 0.6}
    vec = ParallelVecEnv(pruning(tiny, 2, **kwargs), workers=1)
    known = vec.envs[0].evaluator if credit == "difference" else None  # alone, that would start workers
    alone = [dsfp_env.parallel_env(task=tiny, evaluator=known, **kwargs) for _ in range(2)]
    vec.seed(4)
    starts = [env.reset(seed=4 + number) for number, env in enumerate(alone)]
    assert_slots_see(vec.reset(), [observations for observations, _ in starts])
    rng = np.random.default_rng(0)
    for time in range(5):
        chosen = rng.integers(9, size=4) if actions == "levels" else rng.integers(-8, 9, (4, 1)) / 8
        seen, rewards, dones, infos = vec.step(chosen)
        meant = (chosen if actions == "levels" else 50 + 40 * chosen).reshape(2, 2)
        steps = [
            env.step({"conv_0": first, "conv_1": second})
            for env, (first, second) in zip(alone, meant, strict=True)
        ]
        assert dones.tolist() == [time % 2 == 1] * 4
        assert rewards.tolist() == [np.float32(reward) for step in steps for reward in step[1].values()]
        last = [info.pop("terminal_observation") for info in infos if dones[0]]
        assert [info.pop("TimeLimit.truncated") for info in infos] == [False] * 4
        np.testing.assert_equal(infos, [info for step in steps for info in step[4].values()])
        if dones[0]:
            assert_slots_see(last, [step[0] for step in steps])
            starts = [env.reset() for env in alone]
            assert_slots_see(seen, [observations for observations, _ in starts])
            np.testing.assert_equal(vec.reset_infos, [info for _, infos in starts for info in infos.values()])
        else:
            assert_slots_see(seen, [step[0] for step in steps])


def assert_slots_see(seen, observations):
    """Two environments with two agents each."""
    own = [observation for by_agent in observations for observation in by_agent.values()]
    np.testing.assert_array_equal(seen, np.hstack([own, np.tile(np.eye(2), (2, 1))]).astype(np.float32))


def test_joint_actions_are_evaluated_at_once(tiny, monkeypatch):
    envs = pruning(tiny, 3)
    vec, asked = ParallelVecEnv(envs, workers=1), []
    start_many = envs[0].evaluator.start_many
    monkeypatch.setattr(envs[0].evaluator, "start_many", lambda *given: asked.append(given) or start_many(*given))
    vec.seed(0)
    vec.reset()
    vec.step(np.float32([[-1], [0], [1], [0.5], [0], [0]]))
    ((plans, seeds, workers),) = asked
    assert plans == [{"conv_0": 10, "conv_1": 50}, {"conv_0": 90, "conv_1": 70}, {"conv_0": 50, "conv_1": 50}]
    assert (seeds, workers) == ([0, 1, 2], 1)
    with pytest.raises(InputError, match="several evaluators: expected one for all"):
        ParallelVecEnv([dsfp_env.parallel_env(task=tiny) for _ in range(2)])


def test_wrapped_environments_step_as_their_wrappers_say(tiny, monkeypatch):
    vec = ParallelVecEnv([Reversed(env) for env in pruning(tiny, 2)])
    monkeypatch.setattr(dsfp_env.Evaluator, "evaluate_many", None)  # who knows what a wrapper will ask for
    vec.reset()
    infos = vec.step(np.float32([[-1], [0], [1], [0.5]]))[3]
    assert [info["ratio"] for info in infos] == [90, 50, 10, 30]


def test_real_environments_pickle(tiny):
    vec = ParallelVecEnv(pruning(tiny, 2), workers=1)
    twin = pickle.loads(pickle.dumps(vec))
    assert len({id(env.evaluator) for env in twin.envs}) == 1
    for one in (vec, twin):
        one.seed(0)
    np.testing.assert_array_equal(vec.reset(), twin.reset())
    actions = np.float32([[-1], [0], [1], [0.5]])
    np.testing.assert_equal(vec.step(actions), twin.step(actions))


def test_step_needs_a_reset(tiny):
    with pytest.raises(ResetNeeded):
        ParallelVecEnv(dsfp_env.parallel_env(task=tiny)).step(np.zeros((2, 1)))


def test_pictures_are_of_environments(tiny):
    vec = ParallelVecEnv(pruning(tiny, 2, render_mode="rgb_array", horizon=3), workers=1)
    assert vec.metadata["render_fps"] == 1
    vec.reset()
    vec.step(np.zeros((4, 1), np.float32))
    images = vec.get_images()
    assert len(images) == 2
    height, width, _ = images[0].shape
    assert vec.render().shape == (2 * height, width, 3)  # one above the other
    np.testing.assert_array_equal(vec.render()[height:], images[1])
    quiet = ParallelVecEnv(dsfp_env.parallel_env(task=tiny))
    quiet.reset()
    assert quiet.get_images() == [None]


def test_text_is_printed_once_for_an_environment(tiny, capsys):
    vec = ParallelVecEnv(dsfp_env.parallel_env(task=tiny, render_mode="human"))
    vec.reset()
    once = capsys.readouterr().out
    vec.render()
    assert capsys.readouterr().out == once != ""


def test_videos(tiny, tmp_path):
    pytest.importorskip("moviepy")
    vec = ParallelVecEnv(pruning(tiny, 2, render_mode="rgb_array", horizon=3), workers=1)
    recorder = VecVideoRecorder(vec, str(tmp_path), lambda step: step == 0, video_length=2)
    recorder.reset()
    for _ in range(3):
        recorder.step(np.zeros((4, 1), np.float32))
    recorder.close()
    assert [file.suffix for file in tmp_path.iterdir()] == [".mp4"]
    assert recorder.frames_per_sec == 1


def test_masked_ppo_prunes_the_digits_within_the_budget(digits):
    masked_ppo = algorithm("MaskablePPO")[0]
    env = dsfp_env.parallel_env(task=digits, actions="levels", reward="budget", macs_budget=0.2, horizon=3)
    vec, seen = VecMonitor(ParallelVecEnv(env)), []
    model = masked_ppo("MlpPolicy", vec, n_steps=3, batch_size=12, seed=0, policy_kwargs={"net_arch": [16]})
    model.learn(4 * 6, collecting(seen))  # 6 evaluations
    assert len(seen) == 24
    assert max(info["relative_macs"] for info in seen) <= 0.2
    ends = [info for info in seen if "episode" in info]
    assert len(ends) == 8
    assert all(info["episode"]["r"] == pytest.approx(info["score"], abs=1e-6) for info in ends)
