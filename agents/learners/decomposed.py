"""The networks of value decomposition: utilities of agents, and their mixture (VDN, QMIX)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

COSINES = 5  # over the levels


class Utilities(nn.Module):
    """What agents see ``[..., agents, features]`` -> what their levels are worth ``[..., agents, levels]``."""

    cosines: Tensor
    who: Tensor

    def __init__(self, num_agents: int, num_features: int, num_levels: int, hidden: int) -> None:
        super().__init__()
        places = (torch.arange(num_levels) + 0.5) * torch.pi / num_levels
        orders = torch.arange(min(COSINES, num_levels))
        self.register_buffer("cosines", torch.cos(orders[:, None] * places))  # [cosines, levels]
        self.register_buffer("who", torch.eye(num_agents))
        self.layers = nn.Sequential(
            nn.Linear(num_features + num_agents, hidden), nn.ReLU(), nn.Linear(hidden, len(orders))
        )

        for parameter in self.layers[-1].parameters():  # at first all levels are worth the same
            nn.init.zeros_(parameter)

    def forward(self, seen: Tensor) -> Tensor:
        """See the class."""
        who = self.who.expand(*seen.shape[:-2], *self.who.shape)
        utilities: Tensor = self.layers(torch.cat([seen, who], -1)) @ self.cosines
        return utilities


class Sum(nn.Module):
    """VDN's mixture: utilities ``[..., agents]`` -> ``[...]``."""

    def __init__(self, num_agents: int, num_features: int, hidden: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(()))

    def forward(self, utilities: Tensor, seen: Tensor) -> Tensor:
        """See the class."""
        return utilities.sum(-1) + self.constant


class Monotone(nn.Module):
    """QMIX's mixture: utilities ``[..., agents]`` and the state -> ``[...]``; it rises with every utility."""

    def __init__(self, num_agents: int, num_features: int, hidden: int) -> None:
        super().__init__()
        size, self.width = num_agents * num_features, 8
        self.weights = nn.Linear(size, num_agents * self.width)
        self.offsets = nn.Linear(size, self.width)
        self.weights_out = nn.Linear(size, self.width)
        self.offset_out = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, utilities: Tensor, seen: Tensor) -> Tensor:
        """See the class."""
        state = seen.flatten(-2)
        weights = self.weights(state).abs().unflatten(-1, (-1, self.width))
        inner = nn.functional.elu((utilities[..., None, :] @ weights).squeeze(-2) + self.offsets(state))
        mixed: Tensor = (inner * self.weights_out(state).abs()).sum(-1) + self.offset_out(state).squeeze(-1)
        return mixed


MIXTURES: dict[str, type[nn.Module]] = {"sum": Sum, "monotone": Monotone}


class Decomposed(nn.Module):
    """Utilities and their mixture."""

    def __init__(self, utilities: Utilities, mixture: nn.Module) -> None:
        super().__init__()
        self.utilities, self.mixture = utilities, mixture

    def worth(self, seen: Tensor, levels: Tensor) -> Tensor:
        """Of joint actions ``[..., agents]``: ``[...]``."""
        chosen = self.utilities(seen).gather(-1, levels[..., None]).squeeze(-1)
        worth: Tensor = self.mixture(chosen, seen)
        return worth

    def best_worth(self, seen: Tensor) -> Tensor:
        """Of each agent's best level: ``[...]``."""
        best: Tensor = self.mixture(self.utilities(seen).amax(-1), seen)
        return best
