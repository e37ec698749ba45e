"""One controller with a joint action: the environment as a Gymnasium one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from dsfp_env.common.errors import InputError
from dsfp_env.environment.actions import ratios_of_centred
from dsfp_env.environment.infos import team_info
from dsfp_env.layer_pruning_v0 import parallel_env


def given_or_made(env: Any, kwargs: Mapping[str, Any]) -> Any:
    """A parallel environment that is there already, or else one that is made.

    Raises:
        InputError: If both are asked for.
    """
    if env is not None and kwargs:
        raise InputError(f"An environment came together with {', '.join(kwargs)}: expected one or the other.")
    return parallel_env(**kwargs) if env is None else env


def check_shared(env: Any) -> None:
    """Refuse an environment whose agents have rewards of their own.

    Raises:
        InputError: If so.
    """
    if getattr(env, "credit", "shared") != "shared":
        raise InputError(
            f"The credit is {env.credit!r}, but one controller takes all actions and has one reward: expected "
            "credit='shared'."
        )


def bounds_of(spaces: Iterable[Box]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest ratios of agents, ``[agents]`` each, in percent."""
    lowest, highest = zip(*((space.low.item(), space.high.item()) for space in spaces), strict=True)
    return np.array(lowest), np.array(highest)


class JointActionEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """`LayerPruningEnv` under the control of one agent, registered as ``dsfp/LayerPruning-v0``.

    Observations are the state. With ``actions="box"`` the action space is ``Box(-1, 1, (agents,))``: -1 is 10 %
    and 1 is 90 %, or the bounds of the agent. (Policies that draw around 0, as Stable-Baselines3's do, would play
    the bound of a Box(10, 90) for ever.) With ``actions="levels"`` it is ``MultiDiscrete([9] * agents)``, or fewer
    where an agent has fewer.

    The info has what all agents are told (`infos.TEAM`), and by agent what the parallel environment tells it.

    Args:
        env: A parallel environment that is there already, such as a `LayerPruningEnv`, wrapped or not.
        **kwargs: To make one, if there is none; see `layer_pruning_v0.parallel_env`.

    Raises:
        InputError: If an argument is not what was expected, or each agent gets a credit of its own.
    """

    metadata = {"render_modes": ["human", "ansi", "rgb_array"], "render_fps": 1}  # noqa: RUF012 - Gymnasium's way

    def __init__(self, env: Any = None, **kwargs: Any) -> None:
        self.parallel_env = given_or_made(env, kwargs)
        check_shared(self.parallel_env)
        self.render_mode = self.parallel_env.render_mode
        self.observation_space: Space[np.ndarray] = self.parallel_env.state_space
        agents = self.parallel_env.possible_agents
        spaces = [self.parallel_env.action_space(agent) for agent in agents]
        self._levels = all(isinstance(space, Discrete) for space in spaces)
        self._masks = np.ones(sum(int(space.n) for space in spaces) if self._levels else 0, bool)
        self._bounds = () if self._levels else bounds_of(spaces)
        self.action_space: Space[np.ndarray] = (
            MultiDiscrete([int(space.n) for space in spaces])
            if self._levels
            else Box(-1.0, 1.0, (len(agents),), np.float32)
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see `LayerPruningEnv.reset`.

        Returns:
            The state, ``[3 * agents + 5]`` float32 in [0, 1], and the info.
        """
        super().reset(seed=seed)
        _, infos = self.parallel_env.reset(seed=seed, options=options)
        if "action_mask" in next(iter(infos.values())):
            self._masks = np.concatenate([info["action_mask"] for info in infos.values()]).astype(bool)
        return self.parallel_env.state(), team_info(infos) | infos

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Prune by one joint action; see `LayerPruningEnv.step`.

        Args:
            action: ``[agents]``, float in [-1, 1], or levels from 0.

        Returns:
            The state as at `reset`, the reward, whether the episode is over, False, and the info.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset, and after the end of an episode.
            InputError: If the action is not in its space; nothing has changed then.
        """
        _, rewards, terminations, truncations, infos = self.parallel_env.step(self.by_agent(action))
        one = self.parallel_env.possible_agents[0]  # rewards and ends are shared
        return (
            self.parallel_env.state(),
            rewards[one],
            terminations[one],
            truncations[one],
            team_info(infos) | infos,
        )

    def action_masks(self) -> np.ndarray:
        """The levels that may be chosen in this episode, ``[levels of all agents]`` bool, as MaskablePPO asks.

        Whatever is chosen under them is within the budget of MACs; see `masks`. Without a budget all may be.

        Raises:
            InputError: If actions are no levels.
        """
        if not self._levels:
            raise InputError("Masks are for levels, and actions are 'box': expected actions='levels'.")
        return self._masks.copy()

    def render(self) -> Any:
        """As the parallel environment does."""
        return self.parallel_env.render()

    def close(self) -> None:
        """Close the parallel environment."""
        self.parallel_env.close()

    def by_agent(self, action: np.ndarray) -> dict[str, Any]:
        """The joint action of the parallel environment that an action ``[agents]`` means."""
        levels_or_ratios = np.asarray(action)
        if not self._levels:
            levels_or_ratios = ratios_of_centred(action, *self._bounds)[:, None]  # [agents, 1]
        return dict(zip(self.parallel_env.possible_agents, levels_or_ratios, strict=True))
