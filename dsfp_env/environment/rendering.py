"""A state of the environment as text, and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dsfp_env.evaluation.outcome import Outcome

BAR = 24  # characters


class Frame(NamedTuple):
    """What is drawn."""

    title: str
    layers: Mapping[str, str]  # agent -> module path
    coupled_sets: Mapping[str, int]  # agents with an equal number are pruned together
    outcome: Outcome
    original: Outcome
    score: float


def as_text(frame: Frame) -> str:
    """A table, one row per agent: a bar of what is kept, filters, ratio applied, who is pruned with it."""
    width = max(map(len, frame.layers.values()))
    sizes = Counter(frame.coupled_sets.values())
    lines = [frame.title, _summary(frame)]
    for agent, path in frame.layers.items():
        kept, filters = frame.outcome.filters_kept[agent], frame.original.filters_kept[agent]
        full = round(BAR * kept / filters)
        bar = "█" * full + "░" * (BAR - full)
        ratio = frame.outcome.applied_ratios[agent]
        number = frame.coupled_sets[agent]
        coupled = f", coupled set {number}" if sizes[number] > 1 else ""
        lines.append(
            f"  {agent:<8} {path:<{width}} {bar} {kept:>4} of {filters:<4} filters, {ratio:4.1f} % pruned{coupled}"
        )
    return "\n".join(lines)


def as_image(frame: Frame) -> np.ndarray:
    """The same as bars, ``[480, 720, 3]`` uint8; coupled layers share a colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    agents = list(frame.layers)
    axes.bar(agents, [frame.original.filters_kept[a] for a in agents], color="#dddddd", label="original")
    sizes = Counter(frame.coupled_sets.values())
    shared = [number for number in sizes if sizes[number] > 1]
    colours = {number: f"C{1 + place % 9}" for place, number in enumerate(shared)}
    kept = [frame.outcome.filters_kept[a] for a in agents]
    axes.bar(agents, kept, color=[colours.get(frame.coupled_sets[a], "C0") for a in agents], label="kept")
    axes.set_title(f"{frame.title}\n{_summary(frame)}", fontsize="medium")  # a larger one would be cut
    axes.set_ylabel("filters")
    axes.tick_params(axis="x", rotation=90 if len(agents) > 8 else 0)
    axes.legend(frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _summary(frame: Frame) -> str:
    outcome, original = frame.outcome, frame.original
    return (
        f"accuracy {outcome.accuracy:.1%} (original {original.accuracy:.1%}), MACs {outcome.relative_macs:.1%}, "
        f"parameters {outcome.relative_params:.1%}, score {frame.score:.3f}"
    )
