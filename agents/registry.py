"""The learners that can be chosen by name, with options as in ``q_learning(step_size=0.5)``.

    python -m agents.registry [NAME]

lists them, or the options of one.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial, wraps
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

import tyro
from pettingzoo import ParallelEnv

from agents.base import MakeAgent, MultiAgent
from agents.learners.bandits import UCB1, EpsilonGreedy, GaussianThompson
from agents.learners.coordinate_search import CoordinateSearch
from agents.learners.few_explorers import FewExplorers
from agents.learners.gp_search import GPSearch
from agents.learners.independent import Independent
from agents.learners.joint_thompson import JointThompson
from agents.learners.linucb import LinUCB
from agents.learners.local_search import LocalSearch
from agents.learners.policy_gradient import PolicyGradient
from agents.learners.q_learning import QLearning
from agents.learners.random_search import RandomSearch
from agents.learners.regression_bandit import RegressionBandit
from agents.learners.sequential_q_learning import SequentialQLearning
from agents.learners.uniform import Uniform
from agents.learners.value_decomposition import QMIX, VDN
from agents.libraries.cma_es import CMAES
from agents.libraries.optuna_search import NSGA2, TPE
from agents.option_help import as_text, first_sentence, options_of
from agents.told import Told
from agents.verbs import ALL, ONE
from dsfp_env.common import command_line
from dsfp_env.common.choices import choose, parse_call
from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.optional import is_installed
from dsfp_env.common.ranges import check_numbers
from dsfp_env.common.saying import remark, say
from dsfp_env.common.signatures import BUDGET, OF_ALL, OF_ONE, is_for_team, parameters_of, takes_budget
from dsfp_env.common.signatures import options_of as options_in
from dsfp_env.common.torch_left_alone import torch_left_alone
from dsfp_env.environment.credit import KINDS

ENTRY_POINTS = "dsfp_env.agents"  # the group under which installed packages offer agents of theirs


@dataclass(frozen=True)
class Entry:
    """A learner by name.

    Attributes:
        make: ``(env, seed, evaluations, **options)`` -> a team for the environment, fit for that budget.
        options: What may be given as options; None if that is for ``make`` to say.
        made: The class whose options they are; its annotations say in which ranges numbers must be.
        fitted: Those whose default depends on the budget.
        find_made: Gives the class, if ``made`` is none: of a library that takes long to import.
        shared: A class of teams that has the other options, if there are any.
        actions: The kind of actions that it takes, ``"levels"`` or ``"box"``.
        about: What it is, in a sentence; that of the class unless given.
        needs: A library that is installed by those who use it.
        slow: Whether it needs a quarter of a second or more for 300 evaluations that take no time themselves.
    """

    make: Callable[..., MultiAgent]
    options: tuple[str, ...] | None = ()
    made: Callable[..., Any] | None = None
    actions: str = "levels"
    slow: bool = False
    fitted: tuple[str, ...] = ()
    find_made: Callable[[], Callable[..., Any]] | None = None
    shared: Callable[..., Any] | None = None
    about: str = ""
    needs: str = ""


def one_each(make_agent: Callable[..., Any], actions: str = "levels", **fitted: Callable[[int], Any]) -> Entry:
    """A learner for every agent of the environment, none of which knows of the others.

    Args:
        make_agent: Its class; keyword-only arguments are its options.
        actions: The kind of actions that it takes.
        **fitted: Option -> its value for a budget of so many evaluations, unless it is given.
    """

    def make(env: ParallelEnv[str, Any, Any], seed: int, evaluations: int, **options: Any) -> MultiAgent:
        maker: MakeAgent = partial(make_agent, **_fit(fitted, evaluations) | options)
        return Independent(maker, env, seed)

    return Entry(make, _options(make_agent), make_agent, actions, fitted=tuple(fitted))


def exploring(make_agent: Callable[..., Any], actions: str = "levels", **fitted: Callable[[int], Any]) -> Entry:
    """As `one_each`; who explores is said by the options of `FewExplorers`."""
    shared = _options(FewExplorers)

    def make(env: ParallelEnv[str, Any, Any], seed: int, evaluations: int, **options: Any) -> MultiAgent:
        own = {name: value for name, value in options.items() if name not in shared}
        maker: MakeAgent = partial(make_agent, **_fit(fitted, evaluations) | own)
        return FewExplorers(maker, env, seed, **{name: options[name] for name in shared if name in options})

    entry = one_each(make_agent, actions, **fitted)
    return replace(entry, make=make, options=(*_options(make_agent), *shared), shared=FewExplorers)


def one_team(make_team: Callable[..., Any], actions: str = "levels", **fitted: Callable[[int], Any]) -> Entry:
    """A learner for all agents at once, made by ``make_team(env, seed)``; otherwise as `one_each`."""

    def make(env: ParallelEnv[str, Any, Any], seed: int, evaluations: int, **options: Any) -> MultiAgent:
        team: MultiAgent = make_team(env, seed, **_fit(fitted, evaluations) | options)
        return team

    return Entry(make, _options(make_team), make_team, actions, fitted=tuple(fitted))


def stable_baselines3(algorithm: str, about: str, actions: str = "box") -> Entry:
    """An algorithm of `agents.libraries.sb3`; options are ``view`` and the algorithm's hyperparameters."""

    def make(env: ParallelEnv[str, Any, Any], seed: int, evaluations: int, **options: Any) -> MultiAgent:
        from agents.libraries.sb3 import StableBaselines3  # takes seconds to import

        return StableBaselines3(env, seed, evaluations, algorithm, **options)

    def find_made() -> Callable[..., Any]:
        from agents.libraries.sb3 import algorithm_class

        return algorithm_class(algorithm)

    return Entry(make, None, actions=actions, slow=True, find_made=find_made, about=about)


def _fit(fitted: Mapping[str, Callable[[int], Any]], evaluations: int) -> dict[str, Any]:
    """The options that depend on the budget."""
    return {name: value(evaluations) for name, value in fitted.items()}


def _options(made: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(made).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


AGENTS: dict[str, Entry] = {
    "uniform": one_each(Uniform, "box"),
    "random_search": one_each(RandomSearch),
    "coordinate_search": one_team(CoordinateSearch),
    "q_learning": exploring(QLearning, exploration_steps=lambda budget: max(1, 2 * budget // 3)),
    "regression_bandit": exploring(
        RegressionBandit,
        "box",
        warm_up=lambda budget: max(5, budget // 5),
        exploration_steps=lambda budget: max(1, 2 * budget // 3),
    ),
    "epsilon_greedy": exploring(EpsilonGreedy, exploration_steps=lambda budget: max(1, 2 * budget // 3)),
    "ucb1": exploring(UCB1),
    "thompson": exploring(GaussianThompson),
    "linucb": one_team(LinUCB),
    "joint_thompson": one_team(JointThompson),
    "sequential_q_learning": one_team(
        SequentialQLearning, exploration_steps=lambda budget: max(1, 2 * budget // 3)
    ),
    "vdn": replace(one_team(VDN, exploration_steps=lambda budget: max(1, budget // 2)), slow=True),
    "qmix": replace(one_team(QMIX, exploration_steps=lambda budget: max(1, budget // 2)), slow=True),
    "policy_gradient": one_team(PolicyGradient),
    "local_search": one_team(LocalSearch),
    "gp_search": replace(one_team(GPSearch), slow=True),
    "tpe": replace(one_team(TPE), slow=True, needs="optuna"),
    "nsga2": replace(one_team(NSGA2, population=lambda budget: max(8, budget // 30)), needs="optuna"),
    "cma_es": replace(one_team(CMAES, "box"), needs="cma"),
    "ppo": stable_baselines3("ppo", "Proximal policy optimisation of Stable-Baselines3, in small steps."),
    "a2c": stable_baselines3(
        "a2c", "Advantage actor-critic of Stable-Baselines3: simpler than PPO, more often updated."
    ),
    "sac": stable_baselines3("sac", "Soft actor-critic of Stable-Baselines3: off-policy, explores by entropy."),
    "td3": stable_baselines3(
        "td3", "Twin delayed DDPG of Stable-Baselines3: off-policy, two critics against optimism."
    ),
    "ddpg": stable_baselines3(
        "ddpg", "Deep deterministic policy gradient of Stable-Baselines3: off-policy, one critic."
    ),
    "tqc": replace(
        stable_baselines3("tqc", "Truncated quantile critics of sb3-contrib: SAC with cautious critics."),
        needs="sb3_contrib",
    ),
    "dqn": stable_baselines3("dqn", "Deep Q-network of Stable-Baselines3: knows no masks.", "levels"),
    "maskable_ppo": replace(
        stable_baselines3("maskable_ppo", "PPO of sb3-contrib under the masks of a budget.", "levels"),
        needs="sb3_contrib",
    ),
}


def choose_agent(text: str) -> Entry:
    """A learner by name, with options or without, or one of your own.

    ``"package.module:Class"`` is called as ``Class(agent, observation_space, action_space, rng)`` for every agent,
    or, if that is what it takes or it has an attribute ``team = True``, as ``Class(env, seed)``. All its other
    parameters are options, but for one that is called ``evaluations``, which gets the budget. Its attribute
    ``actions`` says which kind of actions it takes: ``"levels"`` (also if there is none) or ``"box"``. Installed
    packages offer such classes by name, as entry points of the group ``dsfp_env.agents``.

    Raises:
        InputError: If the name or an option is unknown, or the class cannot be imported.
    """
    name, options = parse_call("agent", text)
    if "," in name:
        names = " ".join(text.replace(",", " ").split()) or "ucb1 thompson"
        raise InputError(f"The agent {text!r} has a comma: several are separated by spaces, as in {names}.")
    offered: dict[str, Any] = AGENTS
    if name not in AGENTS:  # looking through what is installed takes some 20 ms
        offered = {**{point.name: point for point in entry_points(group=ENTRY_POINTS)}, **AGENTS}
    chosen = choose("agent", name, offered, importable=True)
    entry = chosen if isinstance(chosen, Entry) else _of_ones_own(name, chosen)
    if entry.options is not None:
        for option in options:
            if not entry.options:
                raise InputError(
                    f"The agent {name!r} takes no options, and {option} = {options[option]!r} came. Those of a "
                    "class of your own are parameters after the agreed ones, best keyword-only: `*, step=1`."
                )
            choose(f"option of the agent {name!r}:", option, dict.fromkeys(entry.options))
    if entry.made is not None:
        for made in filter(None, (entry.made, entry.shared)):
            check_numbers(f"option of the agent {name!r}:", options, made)
    return replace(entry, make=partial(entry.make, **options))


def _of_ones_own(name: str, chosen: Any) -> Entry:
    if isinstance(chosen, EntryPoint):
        try:
            chosen = chosen.load()
        except Exception as error:  # whatever the package raises when it is imported
            raise_if_of_the_machine(error, f"importing the agent {name!r}", "what else is in memory")
            raise InputError(
                f"Could not load the agent {name!r} that an installed package offers ({error}): repair or remove "
                "the package."
            ) from error
    if not callable(chosen):
        raise InputError(f"The agent {name!r} is of type {type(chosen).__name__}: expected a class.")
    actions = getattr(chosen, "actions", "levels")
    choose(f"kind of actions of the agent {name!r}:", actions, dict.fromkeys(("levels", "box")))
    if parameters_of(chosen) is None:
        raise InputError(f"The agent {name!r} is {chosen!r}: expected a class of Python's.")
    team = is_for_team(chosen)
    fitted = {BUDGET: lambda budget: budget} if takes_budget(chosen) else {}
    entry = (one_team if team else one_each)(_told(name, chosen, team), actions, **fitted)
    return replace(
        entry,
        options=options_in(chosen, team),
        make=lambda *args, **options: Told(entry.make(*args, **options), name),
    )


def _told(name: str, chosen: Callable[..., Any], team: bool) -> Callable[..., Any]:
    """A class of the user's own; what goes wrong when it is called comes with what it was called as."""

    @wraps(chosen, updated=())
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            with torch_left_alone():
                made = chosen(*args, **kwargs)
        except InputError:
            raise
        except Exception as error:  # whatever the class raises
            raise_if_of_the_machine(error, f"making the agent {name!r}", "what it needs")
            how = ", ".join(OF_ALL if team else OF_ONE)
            who = "" if team else " for every agent"
            more = "" if team else ", and a class for all agents at once says team = True"
            raise InputError(
                f"The agent {name!r} could not be made ({type(error).__name__}: {error}). It is called as "
                f"{name}({how}){who}{more}."
            ) from error
        if made is None:
            verbs = " and ".join(ALL if team else ONE)
            raise InputError(f"The agent {name!r} gave None when it was called: expected an object with {verbs}.")
        return made

    return called


def expanded(texts: Iterable[str]) -> list[str]:
    """The contestants, each once, with every learner in the place of ``all``, as in ``all@batch=4`` too.

    Those whose library is not installed are not among them; `say_left_out` tells of it.
    """
    parts = [text.partition("@") for text in texts]
    every = [name for name, entry in AGENTS.items() if not entry.needs or is_installed(entry.needs)]
    return list(
        dict.fromkeys(f"{one}{at}{how}" for name, at, how in parts for one in (every if name == "all" else [name]))
    )


def say_left_out(texts: Iterable[str]) -> None:
    """Say which learners ``all`` does not stand for here, and how to install what they need."""
    needed = {name: entry.needs for name, entry in AGENTS.items() if entry.needs and not is_installed(entry.needs)}
    if needed and any(text.partition("@")[0] == "all" for text in texts):
        libraries = " ".join(dict.fromkeys(needed.values()))
        remark(
            f"left out, as libraries of theirs are not installed: {', '.join(needed)} (pip install {libraries})"
        )


def in_batches(agent: str, batch: int) -> str:
    """The contestant that a learner is with a batch."""
    return agent if batch == 1 else f"{agent}@batch={batch}"


class Contestant(NamedTuple):
    """A learner, and how it learns, as in ``q_learning(step_size=0.5)@difference@batch=4``."""

    agent: str  # for `choose_agent`
    credit: str = "shared"  # a kind in `dsfp_env.environment.credit`
    batch: int = 1  # joint actions that it chooses before it learns from them


def contestant(text: str) -> Contestant:
    """The contestant that a text means.

    Raises:
        InputError: If what comes after an ``@`` is neither a kind of credit nor a batch.
    """
    agent, *more = text.split("@")
    chosen = Contestant(agent)
    for one in more:
        name, equals, value = one.partition("=")
        if not equals:
            choose("credit", one, dict.fromkeys(KINDS))
            chosen = chosen._replace(credit=one)
        elif name == "batch" and value.isdecimal() and int(value) > 0:
            chosen = chosen._replace(batch=int(value))
        else:
            raise InputError(
                f"The learner {text!r} has {one!r} after an @: expected a kind of credit ({', '.join(KINDS)}), or "
                "a batch such as batch=4."
            )
    return chosen


@dataclass(frozen=True)
class ListingSettings:
    """Which learners are listed."""

    name: tyro.conf.Positional[str | None] = None
    """The learner whose options are listed; all learners, without their options, unless given."""


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(ListingSettings, list_learners, __doc__)


def list_learners(settings: ListingSettings) -> None:
    """Print what there is.

    Raises:
        InputError: If the name is unknown.
    """
    if settings.name is not None:
        say(describe(settings.name))
        return
    lines = [f"{name}: {entry.actions}. {_about(entry)}" for name, entry in AGENTS.items()]
    say("\n".join([*lines, "", "python -m agents.registry NAME lists the options of one."]))


def describe(text: str) -> str:
    """A learner in words, with its options: type, range, default and meaning.

    Args:
        text: As for `choose_agent`.

    Raises:
        InputError: As `choose_agent` does.
    """
    name, _ = parse_call("agent", text)
    entry = choose_agent(name)
    made = _made(entry)
    names = entry.options
    if names is None:  # the library's own
        positional = ("self", "policy", "env")
        names = tuple(one for one in inspect.signature(made).parameters if one not in positional)
    if entry.shared is None:
        options = options_of(made, names, entry.fitted)
    else:
        options = options_of(made, _options(made), entry.fitted) + options_of(entry.shared, _options(entry.shared))
    first = f"{name}: {_about(entry)}\nActions: {entry.actions}. "
    if entry.find_made is not None:
        views = "Views: shared, one policy for all agents; joint, one controller; in_turn, one for a layer a step."
        first += f"{views} Defaults of the library; those of agents/libraries/sb3.py come before them. "
    if not options:
        return f"{first}It has no options."
    return f"{first}Options, as in '{name}({options[0].name}=...)':\n\n{as_text(options)}"


def _about(entry: Entry) -> str:
    return entry.about or first_sentence(entry.made)


def _made(entry: Entry) -> Any:
    return entry.find_made() if entry.find_made is not None else entry.made


if __name__ == "__main__":
    sys.exit(main())
