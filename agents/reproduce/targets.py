"""What networks of a study are pruned to, who says how, and what pieces and rows are called.

| part of a name | is                                                                   | examples                |
|----------------|----------------------------------------------------------------------|-------------------------|
| kind           | a rule of `allocation`, random search, or a learner; `@` a criterion | `uniform`, `erk@fisher` |
| piece          | what rows stand on, a search, or a row                               | `base`, `scores-l1`     |
| target         | percent of the filters that uniform pruning takes, or of MACs left   | `50`, `macs25`          |
| seed           | of the search and of the fine-tuning                                 | `seed0`                 |

A kind may have options, such as `linucb(alpha=0.5)`; names do without them, see `names_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import count
from typing import Any, NamedTuple

UNIFORM, RANDOM = "uniform", "random_search_equal_macs"
BASE, SCORES, SWEEP, SEARCH = "base", "scores", "sweep", "search-"  # names of pieces, and how they begin
_MOST_LISTED = 12


class Target(NamedTuple):
    """How much is pruned."""

    percent: float  # of the filters that uniform pruning takes, or of the multiply-adds that are left
    of_macs: bool = False

    @property
    def name(self) -> str:
        """In names of files."""
        return f"macs{self.percent:g}" if self.of_macs else f"{self.percent:g}"

    @property
    def label(self) -> str:
        """In tables."""
        return f"{self.percent:g} % of the MACs" if self.of_macs else f"{self.percent:g} %"


def targets_of(rates: Iterable[int], macs_budgets: Iterable[float]) -> list[Target]:
    """The targets that settings mean, rates first."""
    return [*map(Target, rates), *(Target(100 * share, of_macs=True) for share in macs_budgets)]


def kinds_of(yardsticks: Iterable[str], agents: Iterable[str]) -> list[str]:
    """Who says how much every layer loses: uniform pruning first, then yardsticks, then learners."""
    return list(dict.fromkeys((UNIFORM, *yardsticks, *agents)))


def names_of(kinds: Collection[str]) -> dict[str, str]:
    """Kind -> what it is called in tables and files: without options; numbered, if that is another's."""
    names = {kind: kind for kind in kinds if "(" not in kind}
    for kind in kinds:
        if kind not in names:
            short = "@".join(part.partition("(")[0] for part in kind.split("@"))
            numbered = (short if number == 1 else f"{short}-{number}" for number in count(1))
            names[kind] = next(name for name in numbered if name not in names.values())
    return {kind: names[kind] for kind in kinds}


def names_in(settings: Mapping[str, Any]) -> dict[str, str]:
    """`names_of` the kinds that settings ask for, as JSON has them."""
    return names_of(kinds_of(settings["yardsticks"], settings["agents"]))


def piece_of(name: str, target: Target, seed: int) -> str:
    """The piece that makes a row; also a file, so without the colon of package.module:Class."""
    return f"{name.replace(':', '.')}-{target.name}-seed{seed}"


def scored(piece: str, criterion: str | None) -> str:
    """A piece that scores filters, or stands on their scores, by a criterion; None is the study's own."""
    return piece if criterion is None else f"{piece}-{criterion.replace(':', '.')}"


def rule_of(yardstick: str) -> tuple[str, str | None]:
    """The rule of a yardstick, and the criterion that it is said to rank filters by."""
    rule, at, criterion = yardstick.partition("@")
    return rule, criterion if at else None


def is_sensitivity(rule: str) -> bool:
    """Whether a rule, said with options or without, stands on a sweep of single layers."""
    return rule.partition("(")[0].strip() == "sensitivity"


def listed(names: Collection[str]) -> str:
    """Names of pieces for a sentence: the first ones, if there are many."""
    first, more = list(names)[:_MOST_LISTED], len(names) - _MOST_LISTED
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")
