"""Which agent decides for which layers, and within which bounds; and the layers that nobody decides for.

Unless told otherwise every prunable layer has an agent, ``conv_0``, ``conv_1``, ... in order of execution, and its
ratio may be anything in [10, 90] %. Three things can be said:

- ``layers={"first": None, "conv_2": (20, 60), "features.*": 30}``: a layer is left alone, or bounded, or always
  loses this share, in percent. Where a layer is named twice, what is said later holds.
- ``tie=[["conv_1", "conv_2"], ["blocks.*"]]``: these layers have one agent.
- ``agents_per="set"``: so have layers that are coupled, as they lose the same filters anyway.

Layers are named by agent (``conv_2``), by module path (``features.3``), by a pattern of module paths
(``features.*``), or by a word: ``first`` and ``last``, in order of execution.

**What is said of a layer holds for all that are coupled with it or tied to it**, since none of them can lose
filters without the others. If one is left alone, all are; if several are bounded, what all bounds allow is
allowed. An agent has the name of its first layer, and is numbered as if nothing had been said.

In text, as on a command line: ``first=keep, conv_2=20-60, features.*=30`` and ``conv_1+conv_2, blocks.*``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.ranges import is_finite
from dsfp_env.tasks.ratios import HIGHEST, LOWEST

WORDS = ("first", "last")
AGENTS_PER = ("layer", "set")
KEEP = "keep"  # in text: a layer is left alone

_EXPECTED = "expected None (left alone), a ratio in percent, or bounds such as (20, 60)"
_FREE = (LOWEST, HIGHEST)
_LASTING = (list, tuple, set, frozenset)


class Decider(NamedTuple):
    """What one agent decides."""

    paths: tuple[str, ...]  # module paths of its layers, in order of execution
    lowest: float = LOWEST  # percent
    highest: float = HIGHEST


@dataclass(frozen=True)
class LayerControl:
    """Agents, the layers of each, and the layers of nobody; `controlled` makes one.

    Attributes:
        agents: Agent -> what it decides, in order of execution.
        fixed: Module path -> ratio in percent of the layers that nobody decides for; 0: left alone.
        said: What was given for it, by argument.
    """

    agents: dict[str, Decider]
    fixed: dict[str, float] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)


class Layers(NamedTuple):
    """The prunable layers of a network, as far as they matter here."""

    names: Mapping[str, str]  # agent -> module path, if nothing is said
    sets: Iterable[Sequence[str]]  # module paths that are coupled
    excluded: Mapping[str, str] = {}  # module path of a convolution that cannot be pruned -> why


def controlled(network: Layers, layers: Any = None, tie: Any = None, agents_per: str = "layer") -> LayerControl:
    """Who decides for what; see the top of this file.

    Args:
        network: Its layers.
        layers: Name of a layer, or pattern -> None, a ratio in percent, or bounds in percent.
        tie: Groups of names, each of which has one agent.
        agents_per: ``"layer"`` or ``"set"``.

    Raises:
        InputError: If something cannot be read, names no layer, contradicts itself, or leaves no agent.
    """
    choose("agents_per", agents_per, dict.fromkeys(AGENTS_PER))
    tie = _kept(tie)
    wanted, ties = _wanted(network, layers), _ties(network, tie)
    sets = [list(paths) for paths in network.sets]
    bound = {path: _of_all(group, wanted) for group in _merged(network, [*sets, *ties]) for path in group}
    groups = _merged(network, ties + (sets if agents_per == "set" else []))
    agent_of = {path: agent for agent, path in network.names.items()}
    free = {path: bounds for path, bounds in bound.items() if not isinstance(bounds, float)}
    agents = {agent_of[group[0]]: Decider(tuple(group), *free[group[0]]) for group in groups if group[0] in free}
    if not agents:
        raise InputError(
            f"The layers {shortened(layers)} leave nothing to decide: expected at least one layer free, with all "
            "that are coupled with it or tied to it."
        )
    in_order = {agent: agents[agent] for agent in network.names if agent in agents}
    fixed = {path: bounds for path, bounds in bound.items() if isinstance(bounds, float)}
    given = {"layers": (layers, None), "tie": (tie, None), "agents_per": (agents_per, "layer")}
    return LayerControl(in_order, fixed, {name: said for name, (said, unsaid) in given.items() if said != unsaid})


def control_of(task: Any) -> LayerControl:
    """Who decides for what in a task; one of the user's own need not say, and has an agent for each layer."""
    said: LayerControl | None = getattr(task, "control", None)
    return said or LayerControl({agent: Decider((path,)) for agent, path in task.agents.items()})


def coupled_agents(control: LayerControl, sets: Iterable[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Agent -> the other agents that decide for a layer which is coupled with one of its own."""
    agent_of = {path: agent for agent, decides in control.agents.items() for path in decides.paths}
    beside: dict[str, set[str]] = {agent: set() for agent in control.agents}
    for paths in sets:
        members = {agent_of[path] for path in paths if path in agent_of}
        for agent in members:
            beside[agent] |= members - {agent}
    return {agent: tuple(other for other in control.agents if other in beside[agent]) for agent in control.agents}


def parse_layers(text: str) -> dict[str, Any]:
    """``first=keep, conv_2=20-60, features.*=30`` as the argument ``layers``.

    Raises:
        InputError: If it cannot be read.
    """
    said: dict[str, Any] = {}
    for part in filter(str.strip, text.split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        low, dash, high = value.partition("-")
        try:
            if not name or not equals:
                raise ValueError
            said.pop(name, None)  # what is said later holds
            said[name] = None if value == KEEP else (float(low), float(high)) if dash else float(value)
        except ValueError:
            raise InputError(
                f"The layers {text!r} cannot be read at {part.strip()!r}: expected, for example, "
                f"first={KEEP}, conv_2=20-60, features.*=30."
            ) from None
    if not said:
        raise InputError(f"The layers {text!r} name none: expected, for example, first={KEEP}, conv_2=20-60.")
    return said


def parse_tie(text: str) -> list[list[str]]:
    """``conv_1+conv_2, blocks.*`` as the argument ``tie``.

    Raises:
        InputError: If a name is missing.
    """
    groups = [[name.strip() for name in group.split("+")] for group in text.split(",")]
    if not all(all(group) for group in groups):
        raise InputError(f"The ties {text!r} lack a name: expected, for example, conv_1+conv_2, blocks.*.")
    return groups


def _wanted(network: Layers, layers: Any) -> dict[str, float | tuple[float, float]]:
    """Module path -> its ratio or its bounds, of the layers that something is said of."""
    if isinstance(layers, str):
        layers = parse_layers(layers)
    if not isinstance(layers, (Mapping, type(None))):
        raise InputError(
            f"layers is {shortened(layers)}: expected a dictionary, name of a layer -> None (left alone), a ratio "
            "in percent, or bounds such as (20, 60)."
        )
    wanted = {}
    for name, said in (layers or {}).items():
        bounds = _read(name, said)
        for path in _named(network, name, may_be_excluded=bounds == 0.0):
            wanted[path] = bounds
    return wanted


def _kept(tie: Any) -> Any:
    """As it was given, for it is compared and copied later; what can be read once only, and arrays, as lists."""
    tie = _listed(tie)
    if not isinstance(tie, _LASTING):
        return tie
    groups = [_listed(group) for group in tie]
    return tuple(groups) if isinstance(tie, tuple) else groups


def _listed(value: Any) -> Any:
    """What somebody may have given for a list, as one; all else as it came."""
    if isinstance(value, (str, Mapping, *_LASTING)) or not isinstance(value, Iterable):
        return value
    try:
        return list(value)
    except TypeError:  # an array of no dimensions
        return value


def _ties(network: Layers, tie: Any) -> list[list[str]]:
    """The module paths of each group."""
    if isinstance(tie, str):
        tie = parse_tie(tie)
    if not isinstance(tie, (*_LASTING, type(None))):
        raise InputError(f"tie is {shortened(tie)}: expected groups of layers, such as [['conv_1', 'conv_2']].")
    groups = []
    for group in tie or ():
        if not isinstance(group, _LASTING):
            raise InputError(
                f"tie holds {shortened(group)}: expected a group of layers, such as ['conv_1', 'conv_2']."
            )
        groups.append([path for name in group for path in _named(network, name)])
    return [group for group in groups if group]


def _read(name: Any, said: Any) -> float | tuple[float, float]:
    """What is said of a layer, as its ratio or its bounds."""
    if said is None:
        return 0.0
    if _is_ratio(said):
        return float(said)
    if isinstance(said, Sequence) and not isinstance(said, str) and len(said) == 2 and all(map(_is_ratio, said)):
        low, high = map(float, said)
        if low < high:
            return _of_float32(low, -1), _of_float32(high, 1)
    raise InputError(
        f"Of the layer {shortened(name)} is said {shortened(said)}: {_EXPECTED}, within [{LOWEST:g}, {HIGHEST:g}]."
    )


def _of_float32(bound: float, outwards: int) -> float:
    """The nearest number of float32, as actions are, that is no tighter; outwards is -1 or 1."""
    rounded = np.float32(bound)
    if (bound - float(rounded)) * outwards > 0:
        rounded = np.nextafter(rounded, np.float32(outwards * np.inf))
    return float(rounded)


def _is_ratio(said: Any) -> bool:
    return (
        isinstance(said, (int, float, np.integer, np.floating))
        and not isinstance(said, bool)
        and is_finite(said)
        and LOWEST <= float(said) <= HIGHEST
    )


def _named(network: Layers, name: Any, may_be_excluded: bool = False) -> list[str]:
    """The module paths of prunable layers that a name means."""
    if not isinstance(name, str):
        raise InputError(
            f"A layer is called {shortened(name)}: expected its agent, its module path or a pattern, as text."
        )
    paths = list(network.names.values())
    if name in network.names:
        return [network.names[name]]
    if name in paths:
        return [name]
    if name in WORDS:
        return [paths[0 if name == "first" else -1]]
    found = [path for path in paths if fnmatchcase(path, name)]
    excluded = [path for path in network.excluded if fnmatchcase(path, name)]
    if not found and excluded and not may_be_excluded:
        raise InputError(f"{excluded[0]!r} cannot be pruned: {network.excluded[excluded[0]]}.")
    if not found and not excluded:
        choose("layer", name, dict.fromkeys([*WORDS, *network.names, *paths]))
    return found


def _merged(network: Layers, groups: Iterable[Sequence[str]]) -> list[list[str]]:
    """All layers in groups, those that have one in common merged; in order of execution."""
    group_of = {path: [path] for path in network.names.values()}
    for group in groups:
        members = {id(group_of[path]): group_of[path] for path in group}
        together = [path for member in members.values() for path in member]
        group_of |= dict.fromkeys(together, together)
    place = {path: number for number, path in enumerate(group_of)}
    distinct = {id(group): sorted(group, key=place.__getitem__) for group in group_of.values()}
    return sorted(distinct.values(), key=lambda group: place[group[0]])


def _of_all(
    group: Sequence[str], wanted: Mapping[str, float | tuple[float, float]]
) -> float | tuple[float, float]:
    """What holds for all layers of a group: one ratio, or bounds."""
    said = {path: wanted[path] for path in group if path in wanted}
    ratios = {path: ratio for path, ratio in said.items() if isinstance(ratio, float)}
    if ratios:
        if len(set(ratios.values())) > 1:
            (first, one), (second, other) = next(
                ((a, x), (b, y)) for a, x in ratios.items() for b, y in ratios.items() if x != y
            )
            raise InputError(
                f"{first!r} is to lose {one:g} % and {second!r} {other:g} %, but they are coupled or tied, and "
                "lose the same share: expected one ratio for both."
            )
        return next(iter(ratios.values()))
    lows, highs = zip(*(bounds for bounds in (*said.values(), _FREE) if isinstance(bounds, tuple)), strict=True)
    if not max(lows) < min(highs):
        what = " and ".join(f"{path!r} within {bounds}" for path, bounds in said.items())
        raise InputError(
            f"{what} are coupled or tied, and lose the same share: expected bounds that have more than one ratio "
            "in common."
        )
    return max(lows), min(highs)
