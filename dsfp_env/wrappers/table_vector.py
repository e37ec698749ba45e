"""Many joint actions in one step, answered from a table: a handful of NumPy calls for all environments.

A network is a row of the table, or the original one, and the seed that answers. Scores and observations of all
rows are computed once, so a step looks them up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from dsfp_env.environment.observations import SHARED, column_of, states
from dsfp_env.evaluation.budgets import MACS, Budget
from dsfp_env.evaluation.rewards import RewardFunction
from dsfp_env.tables.evaluator import TableEvaluator
from dsfp_env.tables.table import Table
from dsfp_env.tasks.layer_features import bounded
from dsfp_env.wrappers.many_episodes import Actions, Known, ManyEpisodes, checked_mode, checked_number, pattern_of
from dsfp_env.wrappers.many_masks import ManyMasks
from dsfp_env.wrappers.table_rows import rows_of


class TableNetworks:
    """The networks of many environments, as a table knows them; see `many_episodes.Networks`.

    Args:
        num_envs: How many.
        evaluator: Of the table.
        reward: As for the environment.
        budget: That of the environment.
        of_agents: Whether `known` tells of layers.
    """

    def __init__(
        self,
        num_envs: int,
        evaluator: TableEvaluator,
        reward: str | RewardFunction,
        budget: Budget | None,
        of_agents: bool,
    ) -> None:
        self.table, self.rows, self._of_agents = evaluator.table, rows_of(evaluator), of_agents
        self._look_all_up(evaluator, reward, budget)
        self.of_budget = self.relative_macs if budget is None or budget.of == MACS else self.relative_params
        self._tells_params = budget is not None and budget.of != MACS
        self._row = np.full(num_envs, self._original)  # [num_envs]
        self._offsets = np.zeros(num_envs, np.int64)  # [num_envs]

    def prune(self, actions: Actions) -> None:
        """Each becomes a row of the table."""
        levels = actions.levels
        self._row = self.rows.of(np.searchsorted(self._middles, actions.ratios) if levels is None else levels)

    def used(self, ratios: np.ndarray) -> np.ndarray:
        """See `many_episodes.Networks`."""
        used: np.ndarray = self.of_budget[self.rows.of(np.searchsorted(self._middles, ratios))]
        return used

    def restore(self, which: np.ndarray) -> None:
        """These, ``[num_envs]`` bool, become the original."""
        self._row = np.where(which, self._original, self._row)

    def reseed(self, seeds: np.ndarray) -> None:
        """Seeds ``[num_envs]`` are answered for as `TableEvaluator.measured_seed` says."""
        places = seeds % len(self.table.seeds)
        for place, measured in enumerate(self.table.seeds):
            places[seeds == measured] = place
        self._offsets = places * (self._original + 1)

    def known(self) -> Known:
        """What the table knows of these rows."""
        rows = self._row
        places = self._offsets + rows
        seen = self._observations[rows]
        seen[:, self._accuracy_column] = self._seen_accuracies[places]
        team = {
            "accuracy": self._accuracies[places],
            "relative_macs": self.relative_macs[rows],
            "macs": self._macs[rows],
            "params": self._params[rows],
        }
        if self._tells_params:
            team["relative_params"] = self.relative_params[rows]
        applied, kept = (
            (self._applied_ratios[:, rows], self._filters_kept[:, rows]) if self._of_agents else (None,) * 2
        )
        return Known(seen, self._scores[places], team, applied, kept)

    def _look_all_up(
        self,
        evaluator: TableEvaluator,
        reward: str | RewardFunction,
        budget: Budget | None,
    ) -> None:
        """What is known of every joint action, and of the original network after the last of them.

        Args:
            evaluator: Of the table.
            reward: As for the environment.
            budget: That of the environment.
        """
        table, whole, name = self.table, evaluator.original, evaluator.fidelity_name
        count = len(table)
        self._original = count  # its row
        known = table.query(table.levels_of(np.arange(count)))
        self._macs = np.append(known.macs, whole.macs)
        self.relative_macs = np.append(known.relative_macs, whole.relative_macs)
        self._params = np.append(known.params, whole.params)
        self.relative_params = self._params / whole.params
        filters = np.array(list(whole.filters_kept.values()))
        of_agents = [table.filters_kept[:, members].sum(1, dtype=np.int64) for members in self.rows.members]
        self._filters_kept = np.append(np.stack(of_agents), filters[:, None], 1)  # [agents, rows]
        self._applied_ratios = 100 * (1 - self._filters_kept / filters[:, None])  # [agents, rows], percent
        # By seed and row, one seed after another: a place is offset + row.
        accuracies = [table.accuracies(seed, "validation", name) for seed in table.seeds]
        self._accuracies = np.concatenate([np.append(one, whole.accuracy) for one in accuracies])
        scores = [table.scores(reward, budget, seed, "validation", name) for seed in table.seeds]
        self._scores = np.concatenate([np.append(one, 0.0) for one in scores])
        # Observations, but for accuracy and time.
        unknown = np.zeros(count + 1)
        shared = {
            "accuracy": unknown,
            "relative_macs": self.relative_macs,
            "relative_params": self.relative_params,
            "macs_budget": np.full(count + 1, 1.0 if budget is None else budget.share),
            "time": unknown,
        }
        fixed = np.stack(list(evaluator.layer_features.values()))  # [agents, features]
        self._observations = states(fixed, self._applied_ratios.T, np.stack([shared[name] for name in SHARED], 1))
        self._seen_accuracies = bounded(self._accuracies)
        self._accuracy_column = column_of("accuracy", len(fixed))
        self._middles = (table.levels[1:] + table.levels[:-1]) / 2


class TableVectorEnv(ManyEpisodes):
    """Many `JointActionEnv` over one table, with all that a `SyncVectorEnv` of them does, to the last bit.

    All that: spaces, observations ``[num_envs, 3 * agents + 5]``, rewards ``[num_envs]``, infos, seeds
    (``reset(seed=s)`` gives ``s + i`` to the i-th), the end of episodes. It is what

        gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=1024, task="digits", backend="table")

    makes. What differs:

    - There are no environments inside: no ``envs``, ``call``, ``get_attr`` or ``set_attr``, and nothing to render.
    - Bad actions are refused before any environment has changed.
    - A reward function is asked about every joint action, when this is made, and must give finite numbers.
    - In infos, what is the same for the team and for each agent is one array: copy it before you write into it.
    - ``reset(options={"reset_mask": ...})`` leaves the options as they are.

    Where levels meet a budget, the infos of agents have masks, drawn for every episode by the generator of its
    environment. That is most of the time of such a step; ``masks=False`` leaves it out.

    Args:
        num_envs: How many.
        task: A table, or a name for `load_table`.
        actions: As for `LayerPruningEnv`, and so up to `seed`.
        reward: Likewise.
        macs_budget: Likewise.
        horizon: Likewise.
        seed: Likewise, the same for all; drawn anew for each if not given.
        autoreset_mode: What follows the end of an episode: ``NEXT_STEP`` or ``SAME_STEP``.
        agent_infos: Whether infos have, by agent, what the parallel environment tells it; quicker without.
        masks: Whether infos of agents have the masks of a budget of levels.
        **kwargs: See `layer_pruning_v0.parallel_env`; for example ``fidelity``, or ``params_budget``.

    Raises:
        InputError: If an argument is not what was expected.
    """

    def __init__(
        self,
        num_envs: int = 1,
        task: str | Table = "digits",
        actions: str = "box",
        reward: str | RewardFunction = "accuracy_x_saving",
        macs_budget: float | None = None,
        horizon: int = 1,
        seed: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        agent_infos: bool = True,
        masks: bool = True,
        **kwargs: Any,
    ) -> None:
        number, mode = checked_number(num_envs), checked_mode(autoreset_mode)
        game = {"actions": actions, "reward": reward, "macs_budget": macs_budget, "horizon": horizon, "seed": seed}
        pattern = pattern_of("table", TableEvaluator, task, game, kwargs)
        super().__init__(number, pattern, horizon, seed, mode, agent_infos)

        env = pattern.parallel_env
        networks = TableNetworks(number, env.evaluator, reward, env.budget, agent_infos)
        self.table, drawn = networks.table, None
        if self._levels and env.budget is not None and agent_infos and masks and self._fills_to is None:
            drawn = ManyMasks(networks.rows, networks.of_budget[:-1] <= env.allowed)
        self._use(networks, drawn)
