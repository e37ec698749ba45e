"""Many joint actions in one step, predicted by a surrogate: all environments are one question.

What is known of a network is computed when it is made, and kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from dsfp_env.environment.observations import SHARED, states
from dsfp_env.evaluation.budgets import MACS, Budget
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.rewards import REWARDS, RewardFunction, many_scores, reward_function
from dsfp_env.surrogates.evaluator import SurrogateEvaluator
from dsfp_env.surrogates.surrogate import Surrogate
from dsfp_env.wrappers.many_episodes import Actions, Known, ManyEpisodes, checked_mode, checked_number, pattern_of
from dsfp_env.wrappers.many_masks import SearchedMasks

_NUMBERS = ("accuracy", "macs", "relative_macs", "params", "relative_params", "filters")  # of an outcome


class SurrogateVectorEnv(ManyEpisodes):
    """Many `JointActionEnv` over one surrogate, with all that a `SyncVectorEnv` of them does, to the last bit.

    It is what

        gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=1024, task="resnet20", backend="surrogate")

    makes; see `TableVectorEnv` for what "all that" is, and what differs. Besides:

    - Ratios are used as they are, not rounded to levels.
    - Infos tell the ``distance`` of a joint action from the nearest that was measured only with
      ``distances=True``: a look at thousands of measurements for each takes many times as long as all the rest.
    - A reward function of your own is asked about one joint action after another, which takes most of the time
      then; outcomes have a distance if infos have.

    Args:
        num_envs: How many.
        task: A surrogate, or a name for `load_surrogate`.
        actions: As for `LayerPruningEnv`, and so up to `seed`.
        reward: Likewise.
        macs_budget: Likewise.
        horizon: Likewise.
        seed: Likewise, the same for all; drawn anew for each if not given.
        autoreset_mode: What follows the end of an episode: ``NEXT_STEP`` or ``SAME_STEP``.
        agent_infos: Whether infos have, by agent, what the parallel environment tells it; quicker without.
        distances: Whether infos have distances.
        masks: Whether infos of agents have the masks of a budget of levels; quicker without.
        **kwargs: See `layer_pruning_v0.parallel_env`; for example ``layers``, or ``params_budget``.

    Raises:
        InputError: If an argument is not what was expected.
    """

    def __init__(
        self,
        num_envs: int = 1,
        task: str | Surrogate = "resnet20",
        actions: str = "box",
        reward: str | RewardFunction = "accuracy_x_saving",
        macs_budget: float | None = None,
        horizon: int = 1,
        seed: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        agent_infos: bool = True,
        distances: bool = False,
        masks: bool = True,
        **kwargs: Any,
    ) -> None:
        number, mode = checked_number(num_envs), checked_mode(autoreset_mode)
        game = {"actions": actions, "reward": reward, "macs_budget": macs_budget, "horizon": horizon, "seed": seed}
        pattern = pattern_of("surrogate", SurrogateEvaluator, task, game, kwargs)
        super().__init__(number, pattern, horizon, seed, mode, agent_infos)

        env = pattern.parallel_env
        self.surrogate, drawn = env.evaluator.surrogate, None
        networks = SurrogateNetworks(number, env.evaluator, reward, env.budget, env.allowed, distances)
        if self._levels and env.allowed is not None and agent_infos and masks and self._fills_to is None:
            drawn = SearchedMasks(self._all_levels, self._lowest, self._sizes, networks.used, env.allowed)
        self._use(networks, drawn)


class SurrogateNetworks:
    """The networks of many environments, as a surrogate knows them; see `many_episodes.Networks`.

    Args:
        num_envs: How many.
        evaluator: Of the surrogate.
        reward: As for the environment.
        budget: That of the environment.
        allowed: The share that it allows.
        distances: Whether `known` tells how far they are from what was measured.
    """

    def __init__(
        self,
        num_envs: int,
        evaluator: SurrogateEvaluator,
        reward: str | RewardFunction,
        budget: Budget | None,
        allowed: float | None,
        distances: bool,
    ) -> None:
        self.surrogate, self._original = evaluator.surrogate, evaluator.original
        self._agents, self._fixed = list(evaluator.task.agents), np.stack(list(evaluator.layer_features.values()))
        self._reward, self._budget, self._distances = reward, budget, distances
        self._seen_budget = 1.0 if allowed is None else allowed
        recorded = evaluator.surrogate.meta["agents"]
        place = {about["path"]: number for number, about in enumerate(recorded.values())}
        control = evaluator.task.control
        members = [[place[path] for path in one.paths] for one in control.agents.values()]  # of each agent
        self._layers, sizes = np.concatenate(members), [len(of_agent) for of_agent in members]
        self._firsts = np.cumsum([0, *sizes[:-1]])  # [agents], where in those layers an agent's own begin
        # What all layers have, in percent, but for those that agents decide for.
        self._always = np.zeros(len(place))
        self._always[[place[path] for path in control.fixed]] = list(control.fixed.values())
        self._decides = np.repeat(np.arange(len(members)), sizes)  # for these layers, which agent
        self._one_each = np.array_equal(self._layers, np.arange(len(place))) and max(sizes) == 1
        self._told = ["accuracy", "relative_macs", "macs", "params", *(["distance"] if distances else [])]
        if budget is not None and budget.of != MACS:
            self._told.append("relative_params")
        self._filters = np.array([list(self._original.filters_kept.values())]).T  # [agents, 1]
        self._seeds = np.zeros(num_envs, np.int64)
        whole = {name: getattr(self._original, name) for name in _NUMBERS}
        self._whole = {**whole, "score": 0.0, **({"distance": 0.0} if distances else {})}
        self._now = {name: np.full(num_envs, value) for name, value in self._whole.items()}  # [num_envs] each
        self._kept = np.repeat(self._filters, num_envs, axis=1)  # [agents, num_envs]

    def used(self, ratios: np.ndarray) -> np.ndarray:
        """See `many_episodes.Networks`."""
        costs = self.surrogate.cost_tables.costs(self._lost(ratios), kept=False)
        of_macs = self._budget is None or self._budget.of == MACS
        return costs.macs / self._original.macs if of_macs else costs.params / self._original.params

    def prune(self, actions: Actions) -> None:
        """Each becomes what is predicted of its ratios."""
        lost = self._lost(actions.ratios)
        costs = self.surrogate.cost_tables.costs(lost)
        kept = costs.kept.T
        self._kept = kept if self._one_each else np.add.reduceat(kept[self._layers], self._firsts)
        self._now = {
            "accuracy": self.surrogate.accuracy_lost(lost, self._seeds),
            "macs": costs.macs,
            "relative_macs": costs.macs / self._original.macs,
            "params": costs.params,
            "relative_params": costs.params / self._original.params,
            "filters": costs.filters,
        }
        if self._distances:
            self._now["distance"] = self.surrogate.distance_lost(lost)
        self._now["score"] = self._scores()

    def restore(self, which: np.ndarray) -> None:
        """These, ``[num_envs]`` bool, become the original."""
        self._now = {name: np.where(which, self._whole[name], value) for name, value in self._now.items()}
        self._kept = np.where(which, self._filters, self._kept)

    def reseed(self, seeds: np.ndarray) -> None:
        """The noise of these seeds, ``[num_envs]``, is drawn from now on."""
        self._seeds = seeds

    def known(self) -> Known:
        """What was predicted of them."""
        now, applied = self._now, self._applied()
        budget, time = np.full_like(now["accuracy"], self._seen_budget), np.zeros_like(now["accuracy"])
        shared = {**now, "macs_budget": budget, "time": time}
        seen = states(self._fixed, applied.T, np.stack([shared[name] for name in SHARED], axis=1))
        team = {name: now[name].copy() for name in self._told}
        return Known(seen, now["score"], team, applied, self._kept.copy())

    def _lost(self, ratios: np.ndarray) -> np.ndarray:
        """How many classes of each coupled set go, ``[N, sets]``; of ratios in percent ``[N, agents]``."""
        if not self._one_each:
            of_agents, ratios = ratios, np.tile(self._always, (len(ratios), 1))
            ratios[:, self._layers] = of_agents[:, self._decides]
        return self.surrogate.cost_tables.classes_lost(ratios / 100)

    def _applied(self) -> np.ndarray:
        """Percent of filters that are gone, ``[agents, num_envs]``."""
        applied: np.ndarray = 100 * (1 - self._kept / self._filters)
        return applied

    def _scores(self) -> np.ndarray:
        """What the networks are worth, ``[num_envs]``."""
        numbers: Any = self._now
        if isinstance(self._reward, str) and self._reward in REWARDS:
            many = Outcome(**numbers, filters_kept={}, applied_ratios={})
            return many_scores(self._reward, self._budget, many, self._original)
        worth = reward_function(self._reward, self._budget)
        rows = zip(*(value.tolist() for value in numbers.values()), strict=True)
        layers = zip(self._kept.T.tolist(), self._applied().T.tolist(), strict=True)
        outcomes = (
            Outcome(
                **dict(zip(numbers, row, strict=True)),
                filters_kept=dict(zip(self._agents, kept, strict=True)),
                applied_ratios=dict(zip(self._agents, applied, strict=True)),
            )
            for row, (kept, applied) in zip(rows, layers, strict=True)
        )
        return np.array([worth(outcome, self._original) for outcome in outcomes], np.float64)
