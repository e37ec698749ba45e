"""AdamW along a cosine to 0: torch's numbers, to the last bit, without what torch does around its kernel.

Of a network of a few thousand weights the kernel is the smallest part of a step: collecting the parameters,
checking them and counting their steps take ten times as long. On a GPU it is torch's own, such that its steps can
be recorded as a graph: rates and counts are read there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import nn

from dsfp_env.common.devices import fused

_BETAS, _EPS = (0.9, 0.999), 1e-8


class AdamW:
    """Trains parameters, with a learning rate for every step.

    Args:
        parameters: Of a network, on one device.
        weight_decay: As torch has it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self._parameters, self._weight_decay = list(parameters), weight_decay
        plain = all(one.device.type == "cpu" and one.dtype == torch.float32 for one in self._parameters)
        self._usual = None if plain else _usual(self._parameters, weight_decay)
        self._means = [torch.zeros_like(one) for one in self._parameters if plain]
        self._squares = [torch.zeros_like(one) for one in self._parameters if plain]
        self._counts = [0] * len(self._parameters)  # of the steps of each

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for one in self._parameters:
            one.grad = None

    @torch.no_grad()
    def step(self, rate: float | torch.Tensor) -> None:
        """Take a step with those parameters that have a gradient.

        Args:
            rate: The learning rate; a tensor of the device on a GPU, a number elsewhere.
        """
        if self._usual is not None:
            self._usual.param_groups[0]["lr"] = rate
            self._usual.step()
            return
        gradients = {place: one.grad for place, one in enumerate(self._parameters) if one.grad is not None}
        learning = list(gradients)
        for place in learning:
            self._counts[place] += 1
        counts = {count: torch.tensor(float(count)) for count in set(self._counts)}
        torch._fused_adamw_(
            [self._parameters[place] for place in learning],
            list(gradients.values()),
            [self._means[place] for place in learning],
            [self._squares[place] for place in learning],
            [],
            [counts[self._counts[place]] for place in learning],
            lr=rate,  # type: ignore[arg-type]
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            weight_decay=self._weight_decay,
            eps=_EPS,
            amsgrad=False,
            maximize=False,
        )


@lru_cache
def cosine(rate: float, steps: int) -> tuple[float, ...]:
    """The learning rates of so many steps, as torch's schedule computes them, each from the one before."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], rate)
    schedule, rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps), []
    for _ in range(steps):
        rates.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return tuple(rates)


def _usual(parameters: list[nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """Torch's own, whose rate is set before every step."""
    device = parameters[0].device if parameters else torch.device("cpu")
    return torch.optim.AdamW(
        parameters,
        betas=_BETAS,
        eps=_EPS,
        weight_decay=weight_decay,
        fused=fused(device),
        capturable=device.type == "cuda",
    )
