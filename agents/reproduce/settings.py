"""What can be asked of ``python -m agents.reproduce``, and what its help tells; read without importing torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from typing import Annotated, Any

import tyro

from agents.reproduce.targets import RANDOM, UNIFORM, Target, kinds_of, targets_of
from dsfp_env.evaluation.executors.options import ExecutorSettings
from dsfp_env.evaluation.options import EvaluationOptions, WidthOptions
from dsfp_env.tasks.options import LayerOptions

DESCRIPTION = """\
The tables of the DSFP paper (arXiv 2509.05446, tables I and II), run for real and beside its numbers.

    python -m agents.reproduce --network vgg16 --download

trains the original network, scores its filters, prunes it by 50, 60 and 70 % uniformly and with ratios that agents
learn for the same multiply-adds, and fine-tunes every pruned network for long. It is cut into pieces that leave a
file each; stopped and started again it goes on where it was, also within a piece. Several processes may work in
one folder on different pieces (--only), or one command with several (--executor processes). How long all of it
takes is said before it starts. What came out is one file, results.json, of which --from makes the table and the
figures again.

    python -m agents.reproduce --quick

shows the same on scikit-learn's digits, in minutes: the shape of the tables, and none of the paper's numbers.

The validation split chooses ratios and epochs; the test split gives the accuracies of the table, and chooses
nothing.
"""

# What --quick means, where nothing else is said.
QUICK: dict[str, Any] = {
    "network": "digits_net",
    "data": "digits",
    "pretraining": "digits",
    "fine_tuning": "plain(epochs=20)",
    "evaluations": 40,
    "yardsticks": ("erk", "global_ranking", "sensitivity", "random_search_equal_macs", "uniform@fisher"),
}
RATES = (50, 60, 70)


@dataclass(frozen=True)
class StudySettings(LayerOptions, EvaluationOptions, WidthOptions, ExecutorSettings):
    """What is run, and for how long."""

    network: str = "vgg16"
    """vgg16 (table II), alexnet (table I), or any other network."""
    data: str = "cifar10"
    """cifar10, cifar100, imagefolder:PATH (train/CLASS/*, test/CLASS/*), or digits (with --network digits_net)."""
    rates: tuple[int, ...] | None = None
    """Percent of the filters that uniform pruning takes; all others get the same multiply-adds. 50 60 70 unless
    given, and none beside --macs-budgets."""
    seeds: tuple[int, ...] = (0,)
    """Of the agents and of the fine-tuning. The original network is one for all."""
    agents: tuple[str, ...] = ("q_learning",)
    """Who learns ratios; nobody, if none is named: then rules and random search are compared."""
    evaluations: int = 300
    """Joint actions that each agent may try for each rate or budget; random search too."""
    pretraining: str = "paper"
    """How the original network is trained: paper (350 epochs), fast (20), or with changes: 'fast(epochs=10)'."""
    fine_tuning: str = "paper"
    """The fine-tune at the end: paper (300 epochs), short (10), or with changes: 'short(epochs=5)'."""
    image_size: int | None = None
    """Of an image folder: height and width to scale and cut images to."""
    weights: str | None = None
    """A file with the trained original network, in place of training it."""
    only: tuple[str, ...] = ()
    """Pieces to work on, by name or by the beginning of a name; all unless given."""
    data_root: str | None = None
    """Where the downloaded data lies."""
    download: bool = False
    """Download the data if it is not there."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, ..."""
    threads: int = 1
    """CPU threads."""
    out: str | None = None
    """The folder; runs/reproduce-NETWORK unless given. Other rates, budgets, seeds, agents and yardsticks may be
    asked of it than before, and what it has is not made anew."""
    macs_budgets: tuple[float, ...] = field(default=(), kw_only=True)
    """Shares of the original network's multiply-adds that may be left, such as 0.5 0.25 0.15."""
    yardsticks: tuple[str, ...] = field(default=(), kw_only=True)
    """Beside uniform pruning, at the same multiply-adds: erk, global_ranking, sensitivity (rules of the
    literature), random_search_equal_macs; and any rule with another criterion, such as uniform@fisher."""
    validation_images: int | None = field(default=None, kw_only=True)
    """So many of the validation images, drawn at random, tell an evaluation its accuracy; all unless given. All
    choose the epoch of a long fine-tune."""
    fill_budget: bool = field(default=False, kw_only=True)
    """Bring every joint action that an agent tries to the multiply-adds that are allowed, by one common shift, as
    those of random search are; else agents also learn how much to prune, and end below what is allowed."""
    finalist_epochs: int | None = field(default=None, kw_only=True)
    """Fine-tune the best of every search, ten at most, for so many epochs by the recipe of --fine-tuning, and take
    the one that validates best then; else they are evaluated again, with other seeds, as the search did it."""
    warm_start: tuple[str, ...] = field(default=(), kw_only=True)
    """Rules, such as sensitivity, whose plans every search tries first, as two of its evaluations if they are two;
    agents learn from them as from their own. They are among those that a search ends with, whatever it saw."""
    quick: bool = field(default=False, kw_only=True)
    """Show it all on scikit-learn's digits, in minutes: other settings than these change when they are said."""
    figures: bool = field(default=False, kw_only=True)
    """Draw the figures too: filters kept, accuracy against rate, before and after fine-tuning, as SVG and PDF."""
    estimate: bool = field(default=False, kw_only=True)
    """Say how long what is left will take, measured by a few batches, and stop."""
    deployed: str | None = field(default=None, kw_only=True)
    """How the networks will be used, such as 'batch_size=8, threads=2, channels_last=True': then the original and
    those of all rows are timed in the end, in turn; with 'statistic=minimum' where others use the machine."""
    results: Annotated[str | None, tyro.conf.arg(name="from")] = field(default=None, kw_only=True)
    """A results.json: make its table, and with --figures its figures, and nothing else."""
    known: tuple[str, ...] = field(default=(), kw_only=True)
    """One results.json or several, of the same study from other folders or machines: the searches and rows in them
    are taken over and not made anew; of one that is in two, the first. Wants --weights, the original network of
    that study, unless it is in the folder. Networks of rows are not in them, so they are not timed."""
    executor: str = field(default="serial", kw_only=True)
    """Where pieces are worked on: serial (in this process), processes (of this machine), or ray (a Ray cluster).
    They leave files, and go on from them, so all nodes of a cluster must see the folder."""

    def __post_init__(self) -> None:
        if self.known is None or isinstance(self.known, str | PathLike):  # none, or one alone
            object.__setattr__(self, "known", () if self.known is None else (self.known,))
        if self.rates is None:
            object.__setattr__(self, "rates", () if self.macs_budgets else RATES)

    @property
    def targets(self) -> list[Target]:
        """What networks are pruned to."""
        return targets_of(self.rates or (), self.macs_budgets)

    @property
    def kinds(self) -> list[str]:
        """Who says how much every layer loses, in the order of the table."""
        return kinds_of(self.yardsticks, self.agents)

    def is_rule(self, kind: str) -> bool:
        """Whether ratios follow from a rule, so that nothing is searched."""
        return kind in (UNIFORM, *self.yardsticks) and kind != RANDOM

    def settled(self, said: Collection[str] = ()) -> StudySettings:
        """These settings, with what ``quick`` means in its place.

        Args:
            said: Settings that hold even where they are the usual ones; others that are not the usual hold too.
        """
        if not self.quick:
            return self
        usual = {one.name: one.default for one in fields(self)}
        unsaid = [name for name in QUICK if name not in said and getattr(self, name) == usual[name]]
        return replace(self, **{name: QUICK[name] for name in unsaid}, quick=False)
