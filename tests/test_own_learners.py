"""Learners of the user's own: whom they are for, which options they have, what they may do with torch."""

import functools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import agents
from agents.registry import AGENTS, ListingSettings, choose_agent, describe, expanded, list_learners, say_left_out
from agents.reporting.statistics import warning_of_few
from agents.trial import check_learners
from dsfp_env.common.errors import InputError
from dsfp_env.common.signatures import is_for_team, options_of
from dsfp_env.testing import CheckError, check_agent
from dsfp_env.toy import ToyEnv


class Plays:
    """Plays one level."""

    def act(self, observation, info, *, deterministic=False):
        return self.level

    def update(self, transition):
        pass


class ForOne(Plays):
    """Plays one level.

    Args:
        level: Which one.
    """

    def __init__(self, agent, observation_space, action_space, rng, level=0, *, evaluations: int = 0):
        self.level, self.evaluations = level, evaluations


class ForAll(Plays):
    def __init__(self, env, seed, *, evaluations, level=0):
        self.level, self.evaluations, self.agents = level, evaluations, env.possible_agents

    def act(self, observations, infos, *, deterministic=False):
        return dict.fromkeys(observations, self.level)


class Bare(Plays):
    level = 0

    def __init__(self, agent, observation_space, action_space, rng):
        pass


def of_any(*args, **options):
    return ForOne(*args, **options)


def test_a_class_for_the_team_is_recognised():
    assert is_for_team(ForAll)
    assert is_for_team(lambda env, seed: None)
    assert is_for_team(lambda env, seed=None, step=1, more=2: None)  # four would do too: its first name decides
    assert not is_for_team(ForOne)
    assert not is_for_team(lambda agent, space, actions, rng: None)
    assert not is_for_team(of_any)
    assert not is_for_team(functools.partial(ForOne, level=2))
    of_any_team = functools.partial(of_any)
    of_any_team.team = True
    assert is_for_team(of_any_team)
    assert options_of(ForOne, False) == ("level",)
    assert options_of(ForAll, True) == ("level",)
    assert options_of(of_any, False) is None


def test_options_and_the_budget_reach_classes_of_ones_own():
    env = ToyEnv()
    team = choose_agent("test_own_learners:ForAll(level=3)").make(env, 0, 17)
    assert (team.level, team.evaluations) == (3, 17)
    each = choose_agent("test_own_learners:ForOne(level=2)").make(env, 0, 17).learners
    assert {(one.level, one.evaluations) for one in each.values()} == {(2, 17)}
    assert agents.train(env, team, 2)[0].actions == dict.fromkeys(env.possible_agents, 3)
    with pytest.raises(InputError, match=r"Unknown option .* 'levl'\. Did you mean 'level'\?"):
        choose_agent("test_own_learners:ForOne(levl=2)")
    with pytest.raises(InputError, match=r"takes no options, and level = 2 came\. Those of a class of your own"):
        choose_agent("test_own_learners:Bare(level=2)")


def test_options_are_told_in_words():
    text = describe("test_own_learners:ForOne")
    assert "level: default 0\n      Which one." in text
    assert "evaluations" not in text  # that is the budget
    text = describe("q_learning")
    assert "step_size: number from 0 to 1, default 1.0" in text
    assert "exploration_steps: whole number 0 or more, default fits the budget" in text
    assert "It has no options." in describe("random_search")
    assert "learning_rate: default 0.0003" in describe("ppo")
    with pytest.raises(InputError, match="Unknown agent"):
        describe("q_learnin")


class Network(Plays):
    """Seeds torch itself, and leaves what it draws later to a generator of its own."""

    seeded = True

    def __init__(self, agent, observation_space, action_space, rng):
        if self.seeded:
            torch.manual_seed(int(rng.integers(2**63)))
        self.network = torch.nn.Linear(observation_space.shape[0], action_space.n)
        self.generator = torch.Generator().manual_seed(int(rng.integers(2**63)))

    def act(self, observation, info, *, deterministic=False):
        with torch.no_grad():
            logits = self.network(torch.from_numpy(np.array(observation)))
        if deterministic:
            return int(logits.argmax())
        return int(torch.multinomial(logits.softmax(0), 1, generator=self.generator))


class Unseeded(Network):
    seeded = False


class DrawsLater(Network):
    def act(self, observation, info, *, deterministic=False):
        return int(torch.randint(9, (1,)))


def test_learners_of_torch_may_seed_it_themselves():
    check_agent(Network, masks=False)
    with pytest.raises(
        CheckError, match=r"The constructor of Unseeded used the global .* of torch.*may seed torch"
    ):
        check_agent(Unseeded, masks=False)
    with pytest.raises(CheckError, match="used the global random generator of torch"):
        check_agent(DrawsLater, masks=False)
    check_agent(ForAll, masks=False)


def test_making_a_learner_leaves_torch_as_it_was():
    env, before = ToyEnv(), torch.get_rng_state()
    first, second = (agents.Independent(Network, env, seed=0).learners["conv_0"].network.weight for _ in range(2))
    choose_agent("test_own_learners:Network").make(env, 0, 1)
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_intervals_of_few_runs_carry_a_warning():
    assert warning_of_few([5, 100]) == ""
    assert warning_of_few([]) == ""
    assert "intervals are of 3 seeds, fewer than 5" in warning_of_few([5, 3])
    assert "one seed has no interval" in warning_of_few([1])


def make(**methods):
    """A class of learners of one layer with these in place of its own methods."""
    return type("Mine", (Bare,), methods)


MISTAKES = [
    (
        {"act": None},
        r"The learner of conv_0 is a Mine, which has no method act: expected act\(self, observation, info",
    ),
    (
        {"update": None},
        r"The learner of conv_0 is a Mine, which has no method update: expected update\(self, tran",
    ),
    (
        {"act": lambda self, seen: 0},
        r"is a Mine, whose act\(seen\) cannot be called \(too many .*: expected act\(self",
    ),
    ({"act": lambda self, seen, info: 0}, "cannot be called .*argument 'deterministic'.: expected act"),
    ({"update": lambda self: None}, r"whose update\(\) cannot be called .*: expected update\(self, transition\)"),
    (
        {"update": lambda self, _: 0.5},
        "The learner of conv_0 returned 0.5 from update: expected nothing, or numbers",
    ),
]


@pytest.mark.parametrize(("methods", "sentence"), MISTAKES, ids=[sentence[:40] for _, sentence in MISTAKES])
def test_in_python_too_a_learner_that_is_none_gets_a_sentence(methods, sentence):
    env = ToyEnv()
    with pytest.raises(InputError, match=sentence):
        agents.train(env, agents.Independent(make(**methods), env, seed=0), evaluations=2)


def test_what_makes_no_learners_gets_a_sentence():
    env = ToyEnv()
    with pytest.raises(InputError, match="make_agent gave None for conv_0: expected an object with act"):
        agents.Independent(lambda agent, seen, actions, rng: None, env)
    with pytest.raises(InputError, match="make_agent gave the class Bare for conv_0: expected an object"):
        agents.Independent(lambda agent, seen, actions, rng: Bare, env)
    with pytest.raises(
        InputError, match="The environment is 'digits': expected one, such as dsfp_env.parallel_env"
    ):
        agents.Independent(Bare, "digits")


def test_a_team_is_asked_for_what_is_needed_of_it():
    env = ToyEnv()
    team = ForAll(env, 0, evaluations=2)
    agents.train(env, team, evaluations=2)
    with pytest.raises(InputError, match="The environment is 'digits'"):
        agents.train("digits", team, evaluations=2)
    team.act = lambda observations: {}
    for use in (lambda: agents.play(env, team), lambda: agents.train(env, team, evaluations=2)):
        with pytest.raises(InputError, match=r"The team is a ForAll, whose act\(observations\) cannot be called"):
            use()
    plays = type("Plays", (), {"act": ForAll.act, "level": 1})()
    assert set(agents.play(env, plays).actions.values()) == {1}
    with pytest.raises(InputError, match="The team is a Plays, which has no method update: expected update"):
        agents.train(env, plays, evaluations=2)


def test_all_learners_are_listed_with_a_sentence_of_their_own_in_one_write(monkeypatch):
    written = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=written.append, flush=lambda: None))
    list_learners(ListingSettings())
    (text,) = filter(None, written)  # so that `| head` takes what it wants
    listed = [line.partition(". ") for line in text.splitlines() if ": " in line]
    assert [head for head, *_ in listed] == [f"{name}: {entry.actions}" for name, entry in AGENTS.items()]
    sentences = [sentence for *_, sentence in listed]
    assert len(set(sentences)) == len(AGENTS)
    assert all(30 < len(sentence) < 120 for sentence in sentences)


@pytest.mark.parametrize(("name", "library"), [("tpe", "optuna"), ("cma_es", "cma"), ("tqc", "sb3_contrib")])
def test_a_learner_whose_library_is_missing_is_refused_before_anything_is_done(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        InputError, match=f"The agent '{name}' needs the library {library}, which is not installed: pip"
    ):
        check_learners([name], 300)


def test_all_leaves_out_learners_whose_library_is_missing_and_says_so(monkeypatch, capsys):
    say_left_out(["all"])
    assert capsys.readouterr().err == ""
    assert expanded(["all"]) == list(AGENTS)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    left = {"tpe", "nsga2", "tqc", "maskable_ppo"}
    assert expanded(["all@batch=2"]) == [f"{name}@batch=2" for name in AGENTS if name not in left]
    say_left_out(["ucb1"])
    assert capsys.readouterr().err == ""
    say_left_out(["all@batch=2"])
    told = capsys.readouterr().err
    assert told.startswith(
        "left out, as libraries of theirs are not installed: tpe, nsga2, tqc, maskable_ppo (pip"
    )
    assert told.endswith("(pip install optuna sb3_contrib)\n")


def test_learners_with_a_comma_between_them_are_told_apart():
    with pytest.raises(
        InputError, match="The agent 'ucb1,q_learning' has a comma: several are .* in ucb1 q_learning."
    ):
        choose_agent("ucb1,q_learning")
    with pytest.raises(
        InputError, match="The agent ',' has a comma: several are separated by spaces, as in ucb1 th"
    ):
        choose_agent(",")
    choose_agent("q_learning(step_size=0.5,epsilon=0.1)")


def test_the_environment_comes_first():
    env = ToyEnv()
    with pytest.raises(InputError, match="The team is an environment: expected the environment first"):
        agents.train(ForAll(env, 0, evaluations=2), env, evaluations=2)
