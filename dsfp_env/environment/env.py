"""The environment: one agent per convolution chooses how much of its layer is pruned.

| | |
|---|---|
| import | `dsfp_env.parallel_env(...)`, or `pettingzoo.make("parallel", "dsfp/layer_pruning-v0", ...)` |
| agents | `conv_0`, `conv_1`, ...: the prunable convolutions in order of execution |
| actions | `Box(10, 90, (1,))`, a pruning ratio in percent, or `Discrete(9)`, the levels 10 %, 20 %, ... 90 % |
| observations | `Box(0, 1, (13,))`, see `observations`, or the paper's scalar context `Box(10, 90, (1,))` |
| state | `Box(0, 1, (3 * agents + 5,))` |
| rewards | the change in score, see `rewards`; shared by all agents, or each its own part, see `credit` |
| infos | what was measured and applied, see `infos`; masks where levels meet a budget, see `masks` |

**A step** prunes the original network by the joint action (not what the last step left), lets it recover, and
measures it. Nothing is random but the fine-tuning, and that depends on the seed alone: within one seed, equal
joint actions give equal outcomes.

**Coupled layers** (the two sides of a residual sum, a depthwise convolution and its input) keep a common set of
filters, so the mean of their agents' ratios is applied: ``infos[agent]["applied_ratio"]`` says what was, and
agents with an equal ``infos[agent]["coupled_set"]`` share it (``env.coupled_agents`` names them).

**Layer control.** Some layers may be left alone, be bounded (then so are the actions), or have one agent together;
see `tasks.layer_control`. ``env.layers_of`` names the layers of each agent.

**An episode** has ``horizon`` steps and then terminates: the task is over, so nothing is truncated. With
``horizon=1`` it is the paper's one-shot decision (DSFP section III-B). With more, every step revises all ratios,
and observations carry the last ratios and their outcome. The reward of a step is the change in score, counted
from 0, so the undiscounted return of an episode is the score of its last joint action.

**Seeds.** ``reset(seed=s)`` measures with ``evaluator.evaluate(..., seed=s)`` until it is called with another;
masks are drawn from it too.

**Copies**, by `copy.deepcopy` or by pickle, go on where the original is, in the middle of an episode too, and what
becomes of one changes nothing for the other. A deep copy shares the evaluator and all that it knows. Pickle takes
an evaluator along that was given; one that the environment has made is made anew by whoever unpickles.

**Threads.** An environment is of one thread at a time; a second one, while the first is in a step, is refused.

**Costs.** ``infos[agent]["evaluations"]`` are those that the last step asked for; ``env.evaluations_per_step`` is
the largest number.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Space
from gymnasium.utils import seeding
from pettingzoo import ParallelEnv

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.one_at_a_time import OneThread
from dsfp_env.environment import actions as action_kinds
from dsfp_env.environment import observations, rendering
from dsfp_env.environment.backends import check_predicts
from dsfp_env.environment.credit import compared_plans, credits, default_plan
from dsfp_env.environment.infos import Infos
from dsfp_env.environment.masks import BudgetMasks
from dsfp_env.environment.rules import RENDER_MODES, SEEN, Rules, check_context
from dsfp_env.evaluation.at_budget import AtBudget, unfilled
from dsfp_env.evaluation.budgets import MACS, WORDS, Budget, budget_from, relative_cost_of
from dsfp_env.evaluation.interface import AnyEvaluator, check_evaluator
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.rewards import RewardFunction
from dsfp_env.tasks.layer_control import control_of

if TYPE_CHECKING:
    from typing_extensions import Self

Method = TypeVar("Method", bound=Callable[..., Any])


class _Situation(NamedTuple):
    """What changes during an episode."""

    ratios: dict[str, float]  # percent by agent, as chosen, or brought to a budget; 0 before the first step
    outcome: Outcome  # of the network as it is
    score: float  # what it is worth; 0 before the first step
    credits: dict[str, float]  # by agent: its part in that
    evaluations: int  # that the last step asked for
    time: int  # steps taken


def _by_one_thread(method: Method) -> Method:
    """A method of an environment that a second thread may not call while a first is within."""

    @wraps(method)
    def guarded(self: LayerPruningEnv, *args: Any, **kwargs: Any) -> Any:
        with self._one_thread:
            return method(self, *args, **kwargs)

    return cast(Method, guarded)


class LayerPruningEnv(ParallelEnv[str, np.ndarray, Any]):
    """The parallel environment; see the top of this file. `dsfp_env.parallel_env` makes it, and its evaluator.

    Args:
        evaluator: Tells what joint actions are worth, several environments may share one; or a function that
            makes one.
        actions: ``"box"`` or ``"levels"``.
        reward: A name in `rewards.REWARDS`, or a function (outcome, original) -> score.
        macs_budget: Relative MACs allowed, in (0, 1), or a `budgets.Budget` of something else; for the reward
            ``"budget"``, and seen by the agents.
        horizon: Steps in an episode.
        seed: Of the evaluations, until ``reset`` gives another; drawn anew if not given.
        render_mode: ``"ansi"`` returns text, ``"rgb_array"`` a picture, ``"human"`` prints the text at every
            reset and step.
        observation: ``"layers"`` or ``"context"``.
        context: The number seen with ``observation="context"``, in [10, 90]; ``reset(options={"context": 60})``
            changes it.
        credit: ``"shared"``, or ``"difference"``, which costs an evaluation for each agent; see `credit`.
        fill_budget: Bring every joint action to the budget; so it is with an `AtBudget` as the evaluator, too.

    Attributes:
        evaluator: That measures; the one within, if an `AtBudget` was given.
        at_budget: The one that brings joint actions to the budget, or None.

    Raises:
        InputError: If an argument is not what was expected.
    """

    metadata = {  # noqa: RUF012 - PettingZoo reads it from the class
        "name": "layer_pruning_v0",
        "render_modes": RENDER_MODES,
        "render_fps": 1,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        evaluator: AnyEvaluator | Callable[[], AnyEvaluator],
        actions: str = "box",
        reward: str | RewardFunction = "accuracy_x_saving",
        macs_budget: float | Budget | None = None,
        horizon: int = 1,
        seed: int | None = None,
        render_mode: str | None = None,
        observation: str = "layers",
        context: float = 50.0,
        credit: str = "shared",
        fill_budget: bool = False,
    ) -> None:
        # The rules, before anything is loaded. (Never an attribute max_cycles: parallel_api_test overwrites it.)
        budget = budget_from(macs_budget)
        if isinstance(evaluator, AtBudget):
            budget, fill_budget = _agreed(budget, evaluator.budget), True
        rules = Rules(actions, reward, budget, horizon, render_mode, observation, context, credit)
        # Who tells what joint actions are worth, and the agents that choose them.
        makes: Any = evaluator if callable(evaluator) and not isinstance(evaluator, type) else None
        self._make_evaluator: Callable[[], AnyEvaluator] | None = makes
        given: AnyEvaluator = makes() if makes else evaluator  # type: ignore[assignment]
        check_evaluator(given)
        if isinstance(given, AtBudget):  # also if it is made here
            budget, fill_budget = _agreed(budget, given.budget), True
            rules = replace(rules, budget=budget)
        self.evaluator: AnyEvaluator = unfilled(given)
        check_predicts(self.evaluator, budget)
        self._rules, self._context, self.render_mode, self.credit = rules, float(context), render_mode, credit
        self.budget, self.at_budget = budget, AtBudget(self.evaluator, budget) if fill_budget else None
        self.macs_budget = budget.share if budget is not None and budget.of == MACS else None
        self.layer_names = dict(self.evaluator.task.agents)  # agent -> module path, of its first layer
        control = control_of(self.evaluator.task)
        self.layers_of = {agent: decides.paths for agent, decides in control.agents.items()}
        self.possible_agents = list(self.layer_names)
        self.agents: list[str] = []
        # Agent -> the agents whose layers are pruned with its own.
        self.coupled_agents = self.evaluator.task.coupled_agents
        self._coupled_sets = _numbered(self.coupled_agents)
        self.evaluations_per_step = 1 if credit == "shared" else 1 + len(self.possible_agents)
        self.default_plan = default_plan(control.agents)  # what difference credit compares with

        # What they do and see: the same objects each time.
        self._choices = action_kinds.choices_of(control.agents, actions, self.evaluator.levels)
        self._action_spaces = {
            agent: action_kinds.action_space(actions, choice) for agent, choice in self._choices.items()
        }
        self._observation_spaces = {agent: SEEN[observation]() for agent in self.layer_names}
        self.features = observations.FEATURES if observation == "layers" else ("context",)  # of what they see
        self.state_space = observations.state_space(len(self.possible_agents))
        self._fixed_features = np.stack(list(self.evaluator.layer_features.values()))  # [agents, features]
        self.allowed = None if budget is None else budget.allowed(self.evaluator.original)  # share of the cost
        self._budget_masks = self._make_budget_masks()
        self._masks: dict[str, np.ndarray] = {}  # by agent, for one episode

        self._seed(seed)
        self._beginning = self._original()
        self._was_reset, self._now = False, self._beginning
        self._first_told = self._told()
        self._one_thread = OneThread("This environment", "make one for each; they may share an evaluator.")

    def observation_space(self, agent: str) -> Box:
        """What this agent sees lies in this space (the same object each time).

        Raises:
            InputError: If there is no such agent.
        """
        self._check_agent(agent)
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        """What this agent does lies in this space (the same object each time).

        Raises:
            InputError: If there is no such agent.
        """
        self._check_agent(agent)
        return self._action_spaces[agent]

    @_by_one_thread
    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Infos]:
        """Start an episode from the original network.

        Args:
            seed: Of the evaluations from now on; if None, the one before stays.
            options: ``{"context": 60}`` changes the context; other options are ignored.

        Returns:
            Observations, ``[13]`` float32 in [0, 1] or the context ``[1]`` in percent, and infos, by agent.

        Raises:
            InputError: If the seed, the options or the context are not such.
        """
        if seed is not None:
            self._seed(seed)
        if options is not None and not isinstance(options, Mapping):
            raise InputError(f"The options are {shortened(options)}: expected a dict, such as {{'context': 60}}.")
        if options and "context" in options:
            self._context = check_context(options["context"])
        self.agents = list(self.possible_agents)
        self._was_reset, self._now = True, self._beginning
        if self._budget_masks is not None and self._rules.actions == "levels":
            self._masks = self._budget_masks.draw(self._generator())
        self._render_for_humans()
        return self._observe(), self._infos()

    @_by_one_thread
    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], Infos]:
        """Prune by a joint action, and measure.

        Args:
            actions: Agent -> action, for every live agent: ``[1]`` float in percent, or a level from 0.

        Returns:
            Observations as those of `reset`, rewards, terminations, truncations (never True) and infos, by agent.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset, and after the end of an episode.
            InputError: If an agent is missing, or an action is not in its space; nothing has changed then.
        """
        self._check_running(actions)
        if not self.agents:
            return {}, {}, {}, {}, {}
        chosen = action_kinds.decode(actions, self._choices, self._rules.actions)
        before, self._now = self._now, self._after(chosen, self.plans_of(chosen))
        over = self._now.time >= self._rules.horizon
        acted, self.agents = self.agents, [] if over else self.agents
        self._render_for_humans()
        return (
            self._observe(),
            {agent: self._now.credits[agent] - before.credits[agent] for agent in acted},
            dict.fromkeys(acted, over),
            dict.fromkeys(acted, False),
            self._infos(),
        )

    def plans(self, actions: Mapping[str, Any]) -> list[dict[str, float]]:
        """What ``step(actions)`` would evaluate: the joint action, and what agents' credit needs besides.

        Returns:
            Ratios in percent by agent; no plans after the end of an episode.

        Raises:
            gymnasium.error.ResetNeeded: As `step` does.
            InputError: As `step` does.
        """
        self._check_running(actions)
        if not self.agents:
            return []
        return self.plans_of(action_kinds.decode(actions, self._choices, self._rules.actions))

    def plans_of(self, ratios: Mapping[str, float]) -> list[dict[str, float]]:
        """As `plans`, of the ratios in percent that agents choose; if all are brought to a budget, after that."""
        plans = [dict(ratios), *compared_plans(dict(ratios), self.credit, self.default_plan)]
        return plans if self.at_budget is None else [self.at_budget.filled(plan) for plan in plans]

    def action_mask(self, agent: str, chosen: Mapping[str, int] | None = None) -> np.ndarray:
        """The levels that an agent may choose in its turn: those with which the budget can still be met.

        Args:
            agent: Whose turn it is.
            chosen: Agent -> level, of those who have chosen. Agents that ask in turn end within the budget, and
                can choose every joint action that is; ``infos[agent]["action_mask"]`` is for choosing all at once.

        Returns:
            ``[levels of the agent]`` int8; 1 where the level may be chosen, everywhere if there is no budget.

        Raises:
            InputError: If actions are no levels, or there is no such agent.
        """
        if self._rules.actions != "levels":
            raise InputError(
                f"Masks are for levels, and actions are {self._rules.actions!r}: expected actions='levels'."
            )
        if self._budget_masks is None:
            self._check_agent(agent)
            return np.ones(len(self._choices[agent].levels), np.int8)
        return self._budget_masks.of(agent, chosen)

    def ratios_of(self, actions: Mapping[str, Any]) -> dict[str, float]:
        """The ratios in percent that actions of some agents mean, by agent.

        Raises:
            InputError: If there is no such agent, or an action is not in its space.
        """
        named = actions if isinstance(actions, Mapping) else self._choices
        acting = {agent: choice for agent, choice in self._choices.items() if agent in named}
        return action_kinds.decode(actions, acting, self._rules.actions)

    def actions_of(self, ratios: Mapping[str, float]) -> dict[str, Any]:
        """The joint action that means these ratios in percent by agent, or the nearest to them that there are.

        Raises:
            InputError: If an agent is missing or unknown, or a ratio is not a number in [0, 100].
        """
        return action_kinds.encode(ratios, self._choices, self._rules.actions)

    def cost_range(self, ratios: Mapping[str, float]) -> tuple[float, float]:
        """The least and the most that the network can cost, if some agents have chosen and all others have not.

        Where joint actions are brought to a budget, before that is done.

        Args:
            ratios: Agent -> ratio in percent, of those who have chosen.

        Returns:
            Relative to the original network, in (0, 1], with all others pruned by their highest ratio, and by
            their lowest; of the kind of cost that the budget is of, of MACs if there is none.

        Raises:
            InputError: If there is no such agent, or a ratio is not a number within its bounds.
        """
        relative_cost = relative_cost_of(self.evaluator, MACS if self.budget is None else self.budget.of)
        ends = {agent: self._levels_of(choice) for agent, choice in self._choices.items()}
        least, most = (
            relative_cost({agent: ratios.get(agent, float(choices[end])) for agent, choices in ends.items()})
            for end in (-1, 0)
        )
        return least, most

    def score(self, outcome: Outcome) -> float:
        """What an outcome is worth by the reward function.

        Raises:
            InputError: If a function of the user's own gives no finite number.
        """
        return float(self._rules.worth(outcome, self.evaluator.original))

    def state(self) -> np.ndarray:
        """The state of the environment, ``[3 * agents + 5]`` float32 in [0, 1], for centralised critics."""
        return observations.state(self._fixed_features, self._progress())

    def render(self) -> str | np.ndarray | None:
        """Text, a picture ``[H, W, 3]`` uint8, or None, as the render mode says."""
        if self.render_mode == "ansi":
            return rendering.as_text(self._frame())
        if self.render_mode == "rgb_array":
            return rendering.as_image(self._frame())
        self._render_for_humans()
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        for name in ("evaluator", "at_budget", "_make_evaluator", "_rules", "_beginning", "_now", "_first_told"):
            memo[id(getattr(self, name))] = getattr(self, name)  # nobody changes these
        twin.__dict__.update(copy.deepcopy(vars(self), memo))
        return twin

    def __copy__(self) -> Self:
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        anew = {"_budget_masks", *(("evaluator", "at_budget") if self._make_evaluator is not None else ())}
        return {name: value for name, value in vars(self).items() if name not in anew} | {
            "_fills": self.at_budget is not None
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        fills = state.pop("_fills")
        self.__dict__.update(state)
        if self._make_evaluator is not None:
            self.evaluator = unfilled(self._make_evaluator())
            self.at_budget = AtBudget(self.evaluator, self.budget) if fills else None
        self._budget_masks = self._make_budget_masks()

    def close(self) -> None:
        """End the evaluator's workers, if there are any; another step would start them anew."""
        self.evaluator.close()

    def _check_running(self, actions: Mapping[str, Any]) -> None:
        if not self._was_reset:
            raise ResetNeeded("step was called before reset: call env.reset(seed=...) first.")
        if not self.agents and (actions or not isinstance(actions, Mapping)):
            raise ResetNeeded(
                f"step was called with {shortened(actions)}, but the episode of {self._rules.horizon} "
                "step(s) is over: call env.reset() first."
            )

    def _make_budget_masks(self) -> BudgetMasks | None:
        if self.budget is None or self.allowed is None or self.at_budget is not None:
            return None  # there is none, or whatever is chosen meets it
        return BudgetMasks(
            {agent: self._levels_of(choice) for agent, choice in self._choices.items()},
            relative_cost_of(self.evaluator, self.budget.of),
            self.allowed,
            WORDS[self.budget.of],
        )

    def _levels_of(self, choice: action_kinds.Choice) -> np.ndarray:
        """What budgets know of what an agent may choose: its levels, or the ends of its range."""
        return choice.levels if self._rules.actions == "levels" else np.array([choice.lowest, choice.highest])

    def _seed(self, seed: int | None) -> None:
        self.evaluation_seed = _evaluation_seed(seed)
        self._rng: np.random.Generator | None = None

    def _generator(self) -> np.random.Generator:
        """What draws masks; it is made when it is needed, which takes longer than a reset."""
        if self._rng is None:
            self._rng = np.random.default_rng(self.evaluation_seed)
        return self._rng

    def _original(self) -> _Situation:
        """Before anything is pruned."""
        nothing = dict.fromkeys(self.possible_agents, 0.0)
        return _Situation(nothing, self.evaluator.original, 0.0, nothing, 0, 0)

    def _after(self, chosen: dict[str, float], plans: list[dict[str, float]]) -> _Situation:
        """After a step: what was chosen is the first of the plans, or what that becomes at the budget."""
        if len(plans) == 1:
            outcomes = [self.evaluator.evaluate(plans[0], self.evaluation_seed)]
        else:
            outcomes = self.evaluator.evaluate_many(plans, self.evaluation_seed)
        score, *compared = map(self.score, outcomes)
        shares = credits(chosen, self.credit, score, compared, self.default_plan)
        return _Situation(plans[0], outcomes[0], score, shares, len(plans), self._now.time + 1)

    def _progress(self) -> observations.Progress:
        return observations.Progress(self._now.outcome, self.allowed, self._now.time / self._rules.horizon)

    def _check_agent(self, agent: str) -> None:
        if not isinstance(agent, str) or agent not in self._choices:
            raise InputError(f"There is no agent {shortened(agent)}: expected one of {self.possible_agents}.")

    def _observe(self) -> dict[str, np.ndarray]:
        if self._rules.observation == "context":
            return {agent: np.array([self._context], np.float32) for agent in self.possible_agents}
        return observations.observe(self._fixed_features, self._progress())

    def _infos(self) -> Infos:
        first = self._now is self._beginning  # and that tells the same each time, but for masks
        infos = {agent: info.copy() for agent, info in self._first_told.items()} if first else self._told()
        for agent, mask in self._masks.items():
            infos[agent]["action_mask"] = mask.copy()
        return infos

    def _told(self) -> Infos:
        """Infos, but for masks."""
        now, outcome = self._now, self._now.outcome
        team = {
            "accuracy": outcome.accuracy,
            "relative_macs": outcome.relative_macs,
            "macs": outcome.macs,
            "params": outcome.params,
            "score": now.score,
            "evaluations": now.evaluations,
        }
        if self.budget is not None and self.budget.of != MACS:
            team[f"relative_{self.budget.of}"] = self.budget.used(outcome, self.evaluator.original)
        if outcome.distance is not None:
            team["distance"] = outcome.distance
        return {
            agent: {
                **team,
                "credit": now.credits[agent],
                "ratio": now.ratios[agent],
                "applied_ratio": outcome.applied_ratios[agent],
                "coupled_set": self._coupled_sets[agent],
                "filters_kept": outcome.filters_kept[agent],
            }
            for agent in self.possible_agents
        }

    def _render_for_humans(self) -> None:
        if self.render_mode == "human":
            print(rendering.as_text(self._frame()))

    def _frame(self) -> rendering.Frame:
        title = f"layer pruning, task {self.evaluator.task.name}, step {self._now.time} of {self._rules.horizon}"
        return rendering.Frame(
            title,
            self.layer_names,
            self._coupled_sets,
            self._now.outcome,
            self.evaluator.original,
            self._now.score,
        )


def _numbered(coupled_agents: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """A number for each coupled set of agents, in the order of their first members; alone is a set too."""
    numbers: dict[str, int] = {}
    for agent, others in coupled_agents.items():
        known = [numbers[other] for other in others if other in numbers]
        numbers[agent] = known[0] if known else 1 + max(numbers.values(), default=-1)
    return numbers


def _agreed(budget: Budget | None, filled: Budget) -> Budget:
    """The budget of an environment whose evaluator brings plans to one."""
    if budget not in (None, filled):
        raise InputError(
            f"The evaluator brings plans to {filled}, and the environment has {budget}: expected the same, or the "
            "evaluator within it (AtBudget.evaluator)."
        )
    return filled


def _evaluation_seed(seed: int | None) -> int:
    """The seed itself, or one drawn anew; a negative one is refused by Gymnasium."""
    if type(seed) is int and 0 <= seed < 2**63:  # Gymnasium would make a generator of it
        return seed
    try:
        return int(seeding.np_random(seed)[1]) % 2**63
    except ValueError as error:  # as of an integer of too many digits to be shown
        raise InputError(f"The seed is {shortened(seed)}: expected a whole number, 0 or more.") from error
