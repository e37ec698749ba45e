"""Black-box optimisers and functions as teams, on a toy whose optimum is known."""

import itertools
import pickle
import sys
from functools import partial

import numpy as np
import pytest
from gymnasium.spaces import MultiBinary

import agents
import dsfp_env
from agents.libraries.ask_tell import from_ask_tell
from agents.libraries.cma_es import CMAES
from agents.libraries.functions import from_function
from agents.libraries.optuna_search import NSGA2, TPE, OptunaSearch
from agents.masking import under_masks
from dsfp_env import InputError
from dsfp_env.pareto import pareto_front
from dsfp_env.toy import BEST_RATIOS, ToyEnv

SEARCHES = {  # how it is made, what it needs, what it plays, how many evaluations it needs
    "tpe": (TPE, "optuna", "levels", 100),
    "tpe on ratios": (TPE, "optuna", "box", 100),
    "nsga2": (partial(NSGA2, population=10), "optuna", "levels", 300),
    "nsga2 on ratios": (partial(NSGA2, population=10), "optuna", "box", 300),
    "cma_es": (CMAES, "cma", "box", 300),
}


@pytest.fixture(params=SEARCHES)
def search(request):
    make, library, kind, _ = SEARCHES[request.param]
    pytest.importorskip(library)
    return make, kind


def numbers(evaluation):
    return tuple(np.ravel(action).item() for action in evaluation.actions.values())


class Script:
    """An optimiser that asks for what is written, and writes down what it is told."""

    def __init__(self, *asks):
        self.asks, self.told = iter(asks), []

    def ask(self):
        return next(self.asks)

    def tell(self, joint_action, score):
        self.told.append((joint_action, score))


def test_an_optimiser_is_told_what_it_asked_for():
    env = ToyEnv("levels", horizon=2)
    script = Script({"conv_0": 1, "conv_1": 6, "conv_2": 3}, np.array([1.2, 5.8, 9.0]), [0, 0, 0])
    team = from_ask_tell(script, env)
    history = agents.train(env, team, 3, seed=0)
    assert [numbers(e) for e in history] == [(1, 6, 3), (1, 6, 8), (0, 0, 0)]
    assert script.told[0] == ({"conv_0": 1, "conv_1": 6, "conv_2": 3}, 1.0)
    assert script.told[1][0].tolist() == [1.2, 5.8, 9.0]  # in its own words
    assert script.told[1][1] == pytest.approx(1 - 0.5**2)  # the score; the reward is the change in it
    assert script.told[2][0] == [0, 0, 0]
    assert numbers(agents.play(env, team)) == (1, 6, 3)


def test_ratios_are_brought_back_into_their_range():
    env = ToyEnv("box")
    history = agents.train(env, from_ask_tell(Script([-5, 50.5, 1000]), env), 1)
    assert numbers(history[0]) == (10, 50.5, 90)
    assert all(env.action_space(agent).contains(action) for agent, action in history[0].actions.items())


def test_before_anything_was_evaluated_the_middle_is_played():
    for kind, middle in (("levels", 4), ("box", 50)):
        env = ToyEnv(kind)
        assert numbers(agents.play(env, from_ask_tell(Script(), env))) == (middle,) * 3


def test_under_masks_by_hand():
    """Relative MACs of 0.4 are ratios that sum up to 180 % and more."""
    env = ToyEnv("levels", macs_budget=0.4)
    _, infos = env.reset(seed=0)

    def played(*levels):
        return tuple(under_masks(env, infos, dict(zip(BEST_RATIOS, levels, strict=True))).values())

    assert played(0, 0, 0) == (5, 5, 5)
    assert played(8, 4, 3) == (8, 4, 3)  # 90 + 50 + 40 meets the budget
    assert played(8, 0, 0) == (8, 3, 4)  # raised to (8, 4, 4), and the second can return by one
    assert played(0, 8, 8) == (0, 8, 8)


def test_under_masks_changes_nothing_that_is_allowed_and_meets_the_budget_otherwise():
    env = ToyEnv("levels", macs_budget=0.35)
    _, infos = env.reset(seed=0)
    for levels in itertools.product(range(9), repeat=3):
        wished = dict(zip(BEST_RATIOS, levels, strict=True))
        macs = 1 - (sum(levels) * 10 + 30) / 300
        played = under_masks(env, infos, wished)
        assert 1 - (sum(played.values()) * 10 + 30) / 300 <= 0.35 + 1e-9
        assert (played == wished) == (macs <= 0.35 + 1e-9)
        assert all(type(level) is int for level in played.values())


def test_an_optimiser_is_told_what_was_played_instead():
    env = ToyEnv("levels", macs_budget=0.4)
    script = Script({"conv_0": 8, "conv_1": 0, "conv_2": 0}, [8, 0, 0])
    history = agents.train(env, from_ask_tell(script, env), 2, seed=0)
    assert script.told[0] == ({"conv_0": 8, "conv_1": 3, "conv_2": 4}, history[0].score)
    assert script.told[1][0].tolist() == [8, 3, 4]


def test_what_is_no_joint_action_is_refused():
    env = ToyEnv("levels")
    for asked, message in (
        ([1, 2], "a number for each of the agents conv_0, conv_1, conv_2"),
        ({"conv_0": 1, "conv_9": 2}, "actions of conv_0, conv_9: expected one for each"),
        ([1, 2, np.nan], "nan.* for conv_2: expected one finite number"),
        ({"conv_0": "many", "conv_1": 1, "conv_2": 2}, "'many' for conv_0"),
    ):
        with pytest.raises(InputError, match=message):
            agents.train(env, from_ask_tell(Script(asked), env), 1)
    env.action_space = lambda agent: MultiBinary(3)
    with pytest.raises(InputError, match="conv_0 has the action space MultiBinary"):
        from_ask_tell(Script(), env)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("make", "library", "kind", "evaluations"), SEARCHES.values(), ids=SEARCHES)
def test_every_search_finds_the_known_optimum(make, library, kind, evaluations, seed):
    pytest.importorskip(library)
    env = ToyEnv(kind)
    team = make(env, seed)
    history = agents.train(env, team, evaluations, seed=seed)
    assert len(history) == evaluations
    assert max(e.score for e in history[:5]) < 0.99 < agents.best(history).score
    assert agents.play(env, team).score == agents.best(history).score


def test_equal_seeds_agree_and_others_do_not(search):
    make, kind = search

    def actions(seed):
        env = ToyEnv(kind, horizon=2)
        return [numbers(e) for e in agents.train(env, make(env, seed), 30, seed=0)]

    assert actions(0) == actions(0)
    assert actions(0) != actions(1)


def test_a_search_is_silent_and_leaves_no_trace(search, capfd):
    make, kind = search
    np.random.seed(7)  # noqa: NPY002 - this is about the global generator
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    env = ToyEnv(kind)
    agents.train(env, make(env, 0), 40, seed=0)
    assert np.random.random() == expected  # noqa: NPY002
    assert capfd.readouterr() == ("", "")


def test_options_that_optuna_refuses():
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match="NSGAIISampler does not take.*population_size.*greater than"):
        NSGA2(ToyEnv("levels"), 0, population=1)


def test_optunas_verbosity_is_as_before():
    optuna = pytest.importorskip("optuna")
    before = optuna.logging.get_verbosity()
    for verbosity in (optuna.logging.INFO, optuna.logging.ERROR):
        optuna.logging.set_verbosity(verbosity)
        env = ToyEnv("levels")
        agents.train(env, TPE(env, 0), 2)
        assert optuna.logging.get_verbosity() == verbosity
    optuna.logging.set_verbosity(before)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("make", "evaluations"), [(TPE, 100), (partial(NSGA2, population=10), 300)])
def test_masks_keep_the_budget_and_the_best_within_it_is_found(make, evaluations, seed):
    pytest.importorskip("optuna")
    env = ToyEnv("levels", macs_budget=0.35)  # the optimum of the toy has 0.57
    plans = itertools.product(range(10, 91, 10), repeat=3)
    best = max(
        env.score(dict(zip(BEST_RATIOS, plan, strict=True)))
        for plan in plans
        if 1 - sum(plan) / 300 <= 0.35 + 1e-9
    )
    team = make(env, seed)
    history = agents.train(env, team, evaluations, seed=seed)
    assert all(e.infos["conv_0"]["relative_macs"] <= 0.35 for e in history)
    assert best - 0.01 < agents.best(history).score <= best
    assert agents.play(env, team).score == agents.best(history).score


def test_optuna_is_told_of_every_joint_action_that_was_played():
    pytest.importorskip("optuna")
    for make in (TPE, partial(NSGA2, population=5)):
        env = ToyEnv("levels", macs_budget=0.3)
        team = make(env, 0)
        history = agents.train(env, team, 40, seed=0)
        trials = [trial for trial in team.optimiser.study.trials if trial.state.name == "COMPLETE"]
        assert [tuple(trial.params.values()) for trial in trials] == [numbers(e) for e in history]
        assert [trial.value for trial in trials] == [e.score for e in history]
        assert len(team.optimiser.study.trials) > 40  # some had to be repaired
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in trials]
    assert generations == [i // 5 for i in range(40)]  # what was played counts in its generation


def test_any_sampler_of_optuna():
    samplers = pytest.importorskip("optuna").samplers
    env = ToyEnv("levels")
    history = agents.train(env, OptunaSearch(env, samplers.RandomSampler(seed=0)), 200)
    assert {level for e in history for level in numbers(e)} == set(range(9))
    assert agents.best(history).score > 0.95


def test_the_front_of_accuracy_and_macs(tiny):
    """Optuna's front is that of the history."""
    pytest.importorskip("optuna")
    env = dsfp_env.parallel_env(task=tiny, actions="levels")
    team = NSGA2(env, 0, population=5, pareto=True)
    history = agents.train(env, team, 30, seed=0)
    infos = [e.infos["conv_0"] for e in history]
    points = np.array([[info["accuracy"], 1 - info["relative_macs"]] for info in infos])
    trials = np.array([[trial.values[0], 1 - trial.values[1]] for trial in team.optimiser.study.best_trials])
    assert {tuple(p) for p in points[pareto_front(points)]} == {tuple(p) for p in trials}
    assert len(trials) > 1
    assert agents.play(env, team).score == agents.best(history).score
    with pytest.raises(InputError, match="accuracy and relative_macs"):
        agents.train(ToyEnv("levels"), TPE(ToyEnv("levels"), 0, pareto=True), 1)


def test_cma_es_starts_again_when_it_has_converged():
    """Two agents: a generation has 6, then 12, and draws widely again."""
    pytest.importorskip("cma")
    env = ToyEnv("box", best_ratios={"conv_0": 20, "conv_1": 70})
    history = agents.train(env, CMAES(env, 0), 1500)
    ratios = np.array([numbers(e)[0] for e in history])
    spread = ratios[: len(ratios) // 12 * 12].reshape(-1, 12).std(1)
    converged = int((spread < 1e-3).argmax())
    assert 0 < converged < 120
    assert spread[converged:].max() > 10


def test_cma_es_refuses_what_it_cannot_use():
    with pytest.raises(InputError, match="actions='box'"):
        CMAES(ToyEnv("levels"), 0)
    with pytest.raises(InputError, match="two agents or more"):
        CMAES(ToyEnv("box", best_ratios={"conv_0": 50}), 0)
    with pytest.raises(InputError, match=r"sigma 20"):
        CMAES(ToyEnv("box"), 0, sigma=20)


@pytest.mark.parametrize(("make", "library", "kind", "_"), SEARCHES.values(), ids=SEARCHES)
def test_a_missing_library_is_named(make, library, kind, _, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=f"pip install {library}"):
        make(ToyEnv(kind), 0)


def test_a_search_pickles_and_goes_on_alike(search):
    make, kind = search
    env = ToyEnv(kind)
    team = make(env, 0)
    agents.train(env, team, 23, seed=0)
    copy = pickle.loads(pickle.dumps(team))
    one, other = (agents.train(env, each, 20, seed=0) for each in (team, copy))
    assert [numbers(e) for e in one] == [numbers(e) for e in other]


def test_what_a_search_did_not_ask_for_is_remembered(search):
    make, kind = search
    env = ToyEnv(kind)
    team = make(env, 0)
    observations, infos = env.reset(seed=0)
    team.act(observations, infos)
    best = from_ask_tell(Script([1, 6, 3] if kind == "levels" else [20, 70, 40]), env).act(observations, infos)
    team.update(agents.JointTransition(observations, best, *env.step(best)))
    assert agents.play(env, team).score == 1
    assert len(agents.train(env, team, 12)) == 12


def test_a_function_of_every_agent():
    env = ToyEnv("levels", macs_budget=0.3)

    def lowest(observation, info):
        assert observation.shape == (4,)
        return int(np.flatnonzero(info["action_mask"])[0])

    history = agents.train(env, from_function(lowest), 20, seed=0)
    assert all(e.infos["conv_0"]["relative_macs"] <= 0.3 for e in history)
    assert len({numbers(e) for e in history}) > 1


def test_a_function_of_all_agents():
    env = ToyEnv("box")

    def known(observations, infos):
        assert set(observations) == set(infos) == set(BEST_RATIOS)
        return BEST_RATIOS

    team = from_function(known, joint=True)
    assert agents.train(env, team, 1)[0].score == 1
    assert agents.play(env, team).score == 1
