"""The metric of a run as its reader knows it: by its name, in its own units; accuracy in percent.

Searches, rewards and the lines of `evaluations.jsonl` see a metric scaled to [0, 1], see `metrics`. What people
read is in its own units: as measured where that was kept, and otherwise told back from the scaled value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SHORT = {"miou": "mIoU", "mse": "MSE", "mae": "MAE", "top5": "top-5 accuracy"}  # of metrics by name


@dataclass(frozen=True)
class MetricUnits:
    """A metric.

    Attributes:
        name: In words.
        worst: The value that counts 0.
        best: The value that counts 1.
        is_accuracy: Whether it is the share of right answers.
    """

    name: str = "accuracy"
    worst: float = 0.0
    best: float = 1.0
    is_accuracy: bool = True

    @property
    def capitalised(self) -> str:
        """The name as a sentence begins with it; one that has a capital stays as it is."""
        return f"{self.name[:1].upper()}{self.name[1:]}" if self.name.islower() else self.name

    @property
    def axis(self) -> str:
        """The name beside an axis."""
        return self.name if self.best > self.worst else f"{self.name} (less is better)"

    @property
    def scaled_name(self) -> str:
        """What the value in [0, 1] is called."""
        return self.name if self.is_accuracy else f"{self.name} (scaled to 0 to 1)"

    def of_scaled(self, scaled: float) -> float:
        """The value of one in [0, 1], in which whatever is worse than the worst is the worst."""
        return scaled if self.is_accuracy else self.worst + scaled * (self.best - self.worst)

    def value(self, entry: Mapping[str, Any], split: str) -> float:
        """Of a network or a joint action, on ``"validation"`` or ``"test"``."""
        measured = entry.get(f"{split}_metric")
        return self.of_scaled(float(entry[f"{split}_accuracy"])) if measured is None else float(measured)

    def text(self, entry: Mapping[str, Any], split: str) -> str:
        """The value as a table has it: percent of accuracy, three digits of anything else."""
        value = self.value(entry, split)
        return f"{value:.1%}" if self.is_accuracy else f"{value:#.3g}".rstrip(".")


def units_of(result: Mapping[str, Any]) -> MetricUnits:
    """Those of a run, from its `result.json`."""
    if not (metric := result.get("metric")):
        return MetricUnits()
    name = str(metric["name"])
    return MetricUnits(SHORT.get(name, name.replace("_", " ")), metric["worst"], metric["best"], False)


def common_units(results: Iterable[Mapping[str, Any]]) -> MetricUnits | None:
    """Those of several runs; the worst may differ, as that of errors does. None if their metrics differ."""
    found = {(units.axis, units.is_accuracy): units for units in map(units_of, results)}
    return next(iter(found.values())) if len(found) == 1 else None
