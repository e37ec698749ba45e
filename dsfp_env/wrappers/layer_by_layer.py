"""One controller that decides for one layer a step: the environment as a Gymnasium one, turn by turn.

That is AMC's view of pruning (He et al. 2018): an episode goes along the layers, and what it was worth is known at
its end. With a horizon it goes along them as many times, so it has ``agents * horizon`` steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete, Space

from dsfp_env.common.errors import InputError
from dsfp_env.environment.actions import ratios_of_centred
from dsfp_env.environment.infos import Infos, team_info
from dsfp_env.environment.turns import Turns
from dsfp_env.wrappers.joint_action import check_shared, given_or_made
from dsfp_env.wrappers.slot_spaces import centred


class LayerByLayerEnv(gymnasium.Env[np.ndarray, Any]):
    """`LayerPruningEnv` under one controller, a layer a step; registered as ``dsfp/LayerByLayer-v0``.

    An observation is that of the agent whose turn it is, with what was chosen before it and what that leaves of
    the budget: ``[m + 3 * agents + 2]`` in [0, 1], see `environment.turns`. With ``actions="box"`` the action
    space is ``Box(-1, 1, (1,))``: -1 is 10 % and 1 is 90 %, or the bounds of the agent. With ``actions="levels"``
    it is ``Discrete(9)``; an agent that has fewer plays its highest where it is told a higher one.

    The reward is 0 until the last layer of a round, where it is the change in score. The info is that of the last
    outcome, as `JointActionEnv` gives it, and ``agent``: whose turn it is, None at the end. With levels it has the
    ``action_mask`` of that agent.

    Args:
        env: A parallel environment that is there already, such as a `LayerPruningEnv`, wrapped or not.
        order: In which layers are decided for: ``"execution"``, ``"reverse"``, or all agents, each once.
        **kwargs: To make one, if there is none; see `layer_pruning_v0.parallel_env`.

    Attributes:
        turns: Whose turn it is, what was chosen, and the names of the entries of an observation.

    Raises:
        InputError: If an argument is not what was expected, or each agent gets a credit of its own.
    """

    metadata = {"render_modes": ["human", "ansi", "rgb_array"], "render_fps": 1}  # noqa: RUF012 - Gymnasium's way

    def __init__(self, env: Any = None, order: str | Iterable[str] = "execution", **kwargs: Any) -> None:
        self.parallel_env = given_or_made(env, kwargs)
        check_shared(self.parallel_env)
        self.turns = Turns(self.parallel_env, order)
        self.render_mode = self.parallel_env.render_mode
        self.observation_space: Space[np.ndarray] = self.turns.space
        self._spaces = {agent: self.parallel_env.action_space(agent) for agent in self.turns.order}
        self.action_space: Space[Any] = centred(list(self._spaces.values()))
        self._infos: Infos = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see `LayerPruningEnv.reset`.

        Returns:
            What the first agent sees, ``[m + 3 * agents + 2]`` float32 in [0, 1], and the info.
        """
        super().reset(seed=seed)
        return self._begin(*self.parallel_env.reset(seed=seed, options=options)), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide for the layer whose turn it is; after the last one, see `LayerPruningEnv.step`.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset, and after the end of an episode.
            InputError: If the action is not in its space; nothing has changed then.
        """
        if self.turns.agent is None:
            raise ResetNeeded("step was called before reset, or after the end: call env.reset(seed=...) first.")
        if not self.turns.is_last:
            self.choose(action)
            return self.turns.seen(self._agent), 0.0, False, False, self._info()
        told = self.parallel_env.step(self.with_last(action))
        observations, rewards, terminations, truncations, infos = told
        one = self.parallel_env.possible_agents[0]  # rewards and ends are shared
        return self._begin(observations, infos), rewards[one], terminations[one], truncations[one], self._info()

    def action_masks(self) -> np.ndarray:
        """The levels that may be chosen for the layer whose turn it is, ``[levels]`` bool, as MaskablePPO asks.

        Whoever chooses under them ends within the budget; see `masks`. Without a budget all may be chosen.

        Raises:
            InputError: If actions are no levels.
        """
        if not isinstance(self.action_space, Discrete):
            raise InputError("Masks are for levels, and actions are 'box': expected actions='levels'.")
        allowed = np.zeros(self.action_space.n, bool)
        mask = self.turns.mask(self._agent)
        allowed[: len(mask)] = mask
        return allowed

    def choose(self, action: Any) -> None:
        """Decide for the layer whose turn it is, and take no step; see `Turns.choose`."""
        self.turns.choose(self._own(action))

    def with_last(self, action: Any) -> dict[str, Any]:
        """The joint action of the parallel environment that the last choice of a round makes.

        Raises:
            InputError: If the action is not in its space.
        """
        return self.turns.with_last(self._own(action))

    def render(self) -> Any:
        """As the parallel environment does, of the last outcome."""
        return self.parallel_env.render()

    def close(self) -> None:
        """Close the parallel environment."""
        self.parallel_env.close()

    def _begin(self, observations: Mapping[str, np.ndarray], infos: Infos) -> np.ndarray:
        """A round; its infos are told without the masks for choosing at once."""
        self._infos = {
            agent: {key: value for key, value in info.items() if key != "action_mask"}
            for agent, info in infos.items()
        }
        self.turns.begin(observations, infos, over=not self.parallel_env.agents)
        return self.turns.seen(self._agent)

    def _info(self) -> dict[str, Any]:
        agents = {agent: {**info} for agent, info in self._infos.items()}
        mask = {"action_mask": self.turns.mask(self._agent)} if self.turns.levels else {}
        return {"agent": self.turns.agent, **team_info(self._infos), **mask, **agents}

    @property
    def _agent(self) -> str:
        """Whose turn it is; the first at the end."""
        return self.turns.agent or self.turns.order[0]

    def _own(self, action: Any) -> Any:
        """An action of the one space as an action of the agent whose turn it is."""
        assert self.turns.agent is not None
        space = self._spaces[self.turns.agent]
        if isinstance(space, Discrete):
            return min(int(action), int(space.n) - 1) if self.action_space.contains(action) else action
        return ratios_of_centred(action, space.low, space.high)
