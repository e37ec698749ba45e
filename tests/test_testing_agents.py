"""Every mistake that `check_agent` promises to find, made on purpose; and our learners, without any."""

import functools
import random

import numpy as np
import pytest
import torch

import agents
import dsfp_env
from agents.registry import AGENTS
from dsfp_env import InputError
from dsfp_env.testing import CheckError, check_agent
from dsfp_env.toy import ToyEnv


def drawn():
    return float(np.random.random())  # noqa: NPY002


def from_fork():
    """A number that depends on PyTorch's global generator, and leaves it alone."""
    with torch.random.fork_rng(devices=[]):
        return torch.rand(1).item()


class Bandit:
    """Keeps the rules: explores what the mask allows, and plays what was best."""

    def __init__(self, agent, observation_space, action_space, rng):
        self.space, self.rng, self.best, self.worth = action_space, rng, 8, -np.inf

    def act(self, observation, info, *, deterministic=False):
        return (
            self.best
            if deterministic
            else int(self.rng.choice(np.flatnonzero(info.get("action_mask", np.ones(9)))))
        )

    def update(self, transition):
        if transition.reward > self.worth:
            self.best, self.worth = transition.action, transition.reward
        return {"worth": self.worth}


class Team:
    """Keeps the rules, for all layers."""

    team = True

    def __init__(self, env, seed):
        self.env, self.rng, self.best = env, np.random.default_rng(seed), dict.fromkeys(env.possible_agents, 8)

    def act(self, observations, infos, *, deterministic=False):
        if deterministic:
            return self.best
        chosen = {}
        for agent in observations:  # in turn, so masks of the infos are not respected
            chosen[agent] = int(self.rng.choice(np.flatnonzero(self.env.action_mask(agent, chosen))))
        return chosen

    def update(self, transition):
        self.best = transition.actions


class Boxer(Bandit):
    actions = "box"

    def act(self, observation, info, *, deterministic=False):
        return self.space.high.copy() if deterministic else self.rng.uniform(10, 90, 1).astype(np.float32)


@pytest.mark.parametrize(
    "learner", [Bandit, Team, Boxer, functools.partial(agents.QLearning, exploration_steps=9)]
)
def test_learners_without_mistakes(learner):
    check_agent(learner, masks=True)
    check_agent(learner, env=ToyEnv(getattr(learner, "actions", "levels"), horizon=2), steps=5)


@pytest.mark.parametrize("name", AGENTS)
def test_our_own_learners_are_without_mistakes(name):
    pytest.importorskip({"tpe": "optuna", "nsga2": "optuna", "cma_es": "cma"}.get(name, "numpy"))
    entry = AGENTS[name]
    if entry.options is None:
        pytest.skip("its library has a loop of its own: test_sb3.py")

    def make(env, seed):
        return entry.make(env, seed, 30)

    make.team = True
    check_agent(make, actions=entry.actions, masks=True)
    check_agent(entry.make(ToyEnv(entry.actions), 0, 30), actions=entry.actions)
    of_one_layer = {
        "q_learning": agents.QLearning,
        "random_search": agents.RandomSearch,
        "uniform": agents.Uniform,
        "regression_bandit": agents.RegressionBandit,
    }
    if name in of_one_layer:
        check_agent(of_one_layer[name], actions=entry.actions, masks=True, steps=10)


def test_a_team_runs_on_the_environment_it_was_made_for(tiny):
    env = dsfp_env.parallel_env(task=tiny, actions="levels", reward="budget", macs_budget=0.3)
    check_agent(Team(env, 0), env=env, steps=4, masks=True)
    check_agent(Bandit, env=env, steps=4, masks=True)
    with pytest.raises(CheckError, match=r"There is no agent 'conv_2': .* \(an object is taken for a team"):
        check_agent(Team(env, 0))


def acting(change, base=Bandit, **attributes):
    """Makes a learner with a mistake: what act returns is changed."""

    def act(self, observation, info, *, deterministic=False):
        return change(self, base.act(self, observation, info, deterministic=deterministic), observation, info)

    return type(f"Wrong{base.__name__}", (base,), {"act": act, **attributes})


def updating(change):
    def update(self, transition):
        return change(self, transition)

    return type("WrongBandit", (Bandit,), {"update": update})


def constructing(change):
    def __init__(self, agent, observation_space, action_space, rng):
        Bandit.__init__(self, agent, observation_space, action_space, rng)
        change(self)

    return type("WrongBandit", (Bandit,), {"__init__": __init__})


class TwoArguments(Bandit):
    def __init__(self, agent, rng):
        pass


class NoAct:
    def __init__(self, agent, observation_space, action_space, rng):
        pass

    def update(self, transition):
        pass


class NoUpdate(Bandit):
    update = None


class NoKeyword(Bandit):
    def act(self, observation, info):
        return 0


class NoDefault(Bandit):
    def act(self, observation, info, *, deterministic):
        return 0


class ActsOnObservations(Bandit):
    def act(self, observation, *, deterministic=False):
        return 0


class UpdatesOnParts(Bandit):
    def update(self, observation, action, reward):
        pass


class DrawsWhenDeterministic(Bandit):
    def act(self, observation, info, *, deterministic=False):
        action = int(self.rng.integers(9))
        return 0 if deterministic else action


class CountsAlways(Bandit):
    """A schedule that goes on when deterministic actions are asked for."""

    asked = 0

    def act(self, observation, info, *, deterministic=False):
        self.asked += 1
        return 0 if deterministic else self.asked % 9


class OneArrayOnly(Boxer):
    def act(self, observation, info, *, deterministic=False):
        self.action = getattr(self, "action", np.zeros(1, np.float32))
        self.action[:] = self.rng.uniform(10, 90) if not deterministic else 10
        return self.action


def put(array, index, value):
    array[index] = value


def acted(learner, action, observation, info):
    return action


WRONG_LEARNERS = {
    "another constructor": (
        TwoArguments,
        "TwoArguments(agent, rng) cannot be called (too many positional arguments): expected a constructor that "
        "takes (agent, observation_space, action_space, rng)",
    ),
    "a team without team = True": (
        type("Team", (Team,), {"team": False}),
        "mark a learner of all layers, made from (env, seed), by a class attribute team = True",
    ),
    "a constructor that raises": (
        agents.RegressionBandit,
        "RegressionBandit could not be made, InputError (The regression bandit for conv_0 got the action space "
        "Discrete(9): expected a Box of one number.",
    ),
    "a name": ("q_learning", "check_agent got 'q_learning': expected a class with act(self, observation, info, *"),
    "no act": (
        NoAct,
        "NoAct of conv_0 has no method act: expected act(self, observation, info, *, deterministic=",
    ),
    "no update": (NoUpdate, "NoUpdate of conv_0 has no method update: expected update(self, transition)"),
    "act without deterministic": (
        NoKeyword,
        "NoKeyword of conv_0.act(observation, info) cannot be called (got an unexpected keyword argument "
        "'deterministic'): expected act(self, observation, info, *, deterministic=False); change its arguments",
    ),
    "deterministic without a default": (NoDefault, "cannot be called (missing a required"),
    "act without info": (ActsOnObservations, "cannot be called (too many positional arguments): expected act("),
    "update of parts": (
        UpdatesOnParts,
        "UpdatesOnParts of conv_0.update(observation, action, reward) cannot be called",
    ),
    "a level too high": (
        acting(lambda self, action, *seen: 9),
        "WrongBandit.act(..., deterministic=False): the action of conv_0 is 9, of type int: expected an element "
        "of Discrete(9) (env.action_space('conv_0'))",
    ),
    "a level as float": (
        acting(lambda self, action, *seen: float(action)),
        "of type float: expected an element of",
    ),
    "a level in an array": (
        acting(lambda self, action, *seen: np.array([action])),
        "of type numpy.ndarray: expected",
    ),
    "no action": (acting(lambda self, action, *seen: None), "the action of conv_0 is None, of type NoneType"),
    "a ratio too high": (
        acting(lambda self, action, *seen: action + 90, Boxer),
        "numbers within Box(10.0, 90.0, (1,), float32), so clip or rescale it (env.action_space('conv_0'))",
    ),
    "a ratio in float64": (
        acting(lambda self, action, *seen: action.astype(float), Boxer),
        "the action of conv_0 is an array of float64: expected float32, so convert it with .astype(np.float32)",
    ),
    "a ratio without a shape": (
        acting(lambda self, action, *seen: action[0], Boxer),
        "of type numpy.float32: expected",
    ),
    "a ratio of another shape": (
        acting(lambda self, action, *seen: action[None], Boxer),
        "of shape (1, 1): expected an array, np.array([...], np.float32) of shape (1,)",
    ),
    "NaN": (
        acting(lambda self, action, *seen: action * np.float32("nan"), Boxer),
        "is array([nan], dtype=float32)",
    ),
    "wrong when deterministic": (
        type("Wrong", (Bandit,), {"update": lambda self, transition: setattr(self, "best", 9)}),
        "Wrong.act(..., deterministic=True): the action of conv_0 is 9",
    ),
    "a team that leaves one out": (
        acting(lambda self, actions, *seen: {"conv_0": 0}, Team),
        "WrongTeam.act(..., deterministic=False) returned {'conv_0': 0}, with conv_1, conv_2 missing and none "
        "unknown: expected a dictionary with an action for each of conv_0, conv_1, conv_2",
    ),
    "a team that adds one": (
        acting(lambda self, actions, *seen: {**actions, "conv_3": 0}, Team),
        "with none missing and conv_3 unknown",
    ),
    "a team that returns a list": (
        acting(lambda self, actions, *seen: list(actions.values()), Team),
        "with conv_0, conv_1, conv_2 missing",
    ),
    "a team that draws too high": (
        acting(lambda self, actions, *seen: dict.fromkeys(actions, 9), Team),
        "conv_0 is 9",
    ),
    "a report that is a number": (
        updating(lambda self, transition: 0.5),
        "WrongBandit of conv_0.update returned 0.5: expected None, or numbers by name, as in {'td_error': 0.5}",
    ),
    "a report of tensors": (
        updating(lambda self, transition: {"loss": torch.ones(1)}),
        "convert them with float(...)",
    ),
    "a report without names": (
        updating(lambda self, transition: {0: 1.0}),
        "update returned {0: 1.0}: expected None",
    ),
    "update raises": (
        updating(lambda self, transition: transition.reward / 0),
        "WrongBandit of conv_0.update raised ZeroDivisionError (float division by zero): expected no exception",
    ),
    "act raises": (
        acting(lambda self, action, seen, info: info["layer"]),
        "WrongBandit of conv_0.act raised KeyError ('layer'): expected no exception",
    ),
    "NumPy's global generator": (
        acting(lambda self, action, *seen: int(drawn() * 9)),
        "WrongBandit of conv_0.act used the global random generator of numpy.random: expected that it is left "
        "alone, since others use it too, and no seed of ours reaches it; draw from the rng that __init__ was",
    ),
    "Python's global generator": (
        updating(lambda self, transition: {"noise": random.random()}),
        "WrongBandit of conv_0.update used the global random generator of random:",
    ),
    "PyTorch's global generator in a network": (
        constructing(lambda self: torch.nn.Linear(4, 9)),
        "The constructor of WrongBandit used the global random generator of torch:",
    ),
    "PyTorch's global generator, read only": (
        constructing(lambda self: setattr(self, "rng", np.random.default_rng(int(from_fork() * 2**20)))),
        "in a second run from the same seed: expected equal actions; draw all that is random from the rng that",
    ),
    "a generator without a seed": (
        constructing(lambda self: setattr(self, "rng", np.random.default_rng())),
        "in a second run from the same seed: expected equal actions",
    ),
    "a team without its seed": (
        type("Unseeded", (Team,), {"__init__": lambda self, env, seed: Team.__init__(self, env, None)}),
        "Unseeded: actions[0]['conv_",
    ),
    "deterministic actions differ": (
        acting(lambda self, action, *seen: int(self.rng.integers(9))),
        "WrongBandit.act(..., deterministic=True): actions['conv_",
    ),
    "deterministic actions draw": (
        DrawsWhenDeterministic,
        "in a run where deterministic actions were asked for in between: expected no trace of them; draw and "
        "count nothing in act(..., deterministic=True)",
    ),
    "deterministic actions count": (
        CountsAlways,
        "CountsAlways: actions[0]['conv_0'] was 1 and then 3 in a run where",
    ),
    "an observation is changed": (
        acting(lambda self, action, seen, info: put(seen, 0, 1) or action),
        "WrongBandit of conv_0.act changed its argument: observation was array([0.33333334",
    ),
    "an info is changed": (
        acting(lambda self, action, seen, info: info.clear() or action),
        "act changed its argument: the keys of info was ['score', 'relative_macs', 'ratio'] and then []",
    ),
    "a transition is changed": (
        updating(lambda self, transition: put(transition.next_observation, 3, 0)),
        "WrongBandit of conv_0.update changed its argument: transition.next_observation was array(",
    ),
    "an action is changed later": (OneArrayOnly, "OneArrayOnly: actions[0]['conv_0'] was array(["),
}


@pytest.mark.parametrize("mistake", WRONG_LEARNERS)
@pytest.mark.filterwarnings("ignore:The learner cannot be pickled")  # its class was made in a function
def test_every_mistake_of_a_learner_gets_its_sentence(mistake):
    learner, sentence = WRONG_LEARNERS[mistake]
    with pytest.raises(CheckError) as caught:
        check_agent(learner, steps=8)
    message = str(caught.value)
    assert sentence in message
    assert "expected" in message
    assert "\n" not in message


class NeverLooks(Bandit):
    """At masks."""

    def act(self, observation, info, *, deterministic=False):
        return 0


class TeamNeverLooks(Team):
    def act(self, observations, infos, *, deterministic=False):
        return dict.fromkeys(observations, 0)


@pytest.mark.parametrize("learner", [NeverLooks, TeamNeverLooks])
def test_masks_need_not_be_respected(learner):
    sentence = (
        r"Looks chose the level 0 for conv_0, whose info\['action_mask'\] is \[0, .*1\]: expected a level with a 1"
    )
    with pytest.warns(UserWarning, match=sentence):
        check_agent(learner, steps=5)
    with pytest.raises(CheckError, match=sentence):
        check_agent(learner, steps=5, masks=True)
    check_agent(learner, steps=5, masks=False)  # the suite makes an error of every UserWarning


def test_a_team_that_is_there_already_runs_without_a_budget():
    check_agent(TeamNeverLooks(ToyEnv(), 0), steps=5, masks=True)


class Generating(Team):
    """Can be neither copied nor pickled."""

    def __init__(self, env, seed):
        super().__init__(env, seed)
        self.numbers = (number for number in range(9))


def test_what_cannot_be_pickled_or_copied_gets_a_warning():
    with pytest.warns(UserWarning, match="cannot be pickled, so it can neither be saved .* 'generator' object"):
        check_agent(Generating)
    with pytest.warns(UserWarning, match="cannot be copied, so equal runs are not compared because of TypeError"):
        check_agent(Generating(ToyEnv(), 0))


class OwnLoop(Team):
    """With a loop of another library, which uses global randomness."""

    update = None

    def __init__(self, env, seed):
        super().__init__(env, seed)
        torch.manual_seed(seed)

    def learn(self, env, evaluations, *, seed=None, on_evaluation=None):
        raise NotImplementedError

    def act(self, observations, infos, *, deterministic=False):
        return dict.fromkeys(observations, 0 if deterministic else int(drawn() * 9))


def test_of_a_loop_of_its_own_only_actions_are_looked_at():
    check_agent(OwnLoop, masks=False)
    with pytest.raises(CheckError, match="the action of conv_0 is 9"):
        check_agent(OwnLoopTooHigh, masks=False)


class OwnLoopTooHigh(OwnLoop):
    def act(self, observations, infos, *, deterministic=False):
        return dict.fromkeys(observations, 9)


def test_bad_arguments_get_a_sentence():
    with pytest.raises(InputError, match="Did you mean 'levels'"):
        check_agent(Bandit, actions="level")
    with pytest.raises(InputError, match="actions 'box': expected a ParallelEnv, or actions"):
        check_agent(Bandit, env=ToyEnv(), actions="box")
    with pytest.raises(InputError, match=r"env is <class .*ToyEnv'> and actions None: expected a ParallelEnv"):
        check_agent(Bandit, env=ToyEnv)


def test_checking_leaves_global_randomness_as_it_is():
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    check_agent(agents.QLearning)
    assert before == (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())  # noqa: NPY002
