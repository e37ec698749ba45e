"""What a command says about an evaluation: a part of its settings, that can be read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dsfp_env.common.errors import InputError

if TYPE_CHECKING:
    from dsfp_env.training.distillation import Fidelity


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What a command says about an evaluation; the settings of a command inherit it."""

    criterion: str = "dsfp"
    """Which filters go first: dsfp, taylor, taylor_activation, fisher, l1, random, ... (docs/criteria.md has
    them all), with options as in 'dsfp(kl=fisher, end=highest)', or package.module:function."""
    kd_batches: int | None = None
    """Batches of knowledge distillation in an evaluation; the task's own number unless given."""
    precision: str | None = None
    """Of an evaluation: float32 (exactly as torch does), fast_float32 (other last digits), bfloat16 (where there
    are units for it), or auto (what is fastest and suits the network); the task's own unless given."""
    kernels: str | None = None
    """Of batch normalisation on the CPU, unless exact: compiled (on first use), torch, or auto (compiled where
    there is a C compiler)."""

    def fidelity(self, usual: Fidelity) -> Fidelity:
        """The work of an evaluation: as usual, but for what was said.

        Raises:
            InputError: If something that was said cannot be used.
        """
        said = {"batches": self.kd_batches, "precision": self.precision, "kernels": self.kernels}
        changes: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        return replace(usual, **changes)

    def check_evaluation(self) -> None:
        """Refuse what can be told to be wrong before anything is loaded.

        Raises:
            InputError: If something is.
        """
        from dsfp_env.criteria.scoring import parse_criterion  # imports torch
        from dsfp_env.training.distillation import Fidelity

        parse_criterion(self.criterion)
        self.fidelity(Fidelity())


@dataclass(frozen=True, kw_only=True)
class WidthOptions:
    """What a command says about the widths of layers; the settings of a command inherit it."""

    min_filters: int = 1
    """Filters that every layer keeps at least."""
    round_to: int = 1
    """Layers that lose filters keep a multiple of this, for hardware."""

    def check_widths(self) -> None:
        """Refuse numbers that cannot be used.

        Raises:
            InputError: If one is below 1.
        """
        for name in ("min_filters", "round_to"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}: expected 1 or more.")
