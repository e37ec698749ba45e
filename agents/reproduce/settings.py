"""What can be asked of ``python -m agents.reproduce``, and what its help tells; read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsfp_env.evaluation.executors.options import ExecutorSettings
from dsfp_env.evaluation.options import EvaluationOptions, WidthOptions
from dsfp_env.tasks.options import LayerOptions

DESCRIPTION = """\
The tables of the DSFP paper (arXiv 2509.05446, tables I and II), run for real and beside its numbers.

    python -m agents.reproduce --network vgg16 --download

trains the original network, scores its filters, prunes it by 50, 60 and 70 % uniformly and with ratios that agents
learn for the same multiply-adds, and fine-tunes every pruned network for long. It is cut into pieces that leave a
file each; stopped and started again it goes on where it was, also within a piece. Several processes may work in
one folder on different pieces (``--only``).

The validation split chooses ratios and epochs; the test split gives the accuracies of the table, and chooses
nothing.
"""


@dataclass(frozen=True)
class StudySettings(LayerOptions, EvaluationOptions, WidthOptions, ExecutorSettings):
    """What is run, and for how long."""

    network: str = "vgg16"
    """vgg16 (table II), alexnet (table I), or any other network."""
    data: str = "cifar10"
    """cifar10, cifar100, or imagefolder:PATH (train/CLASS/*, test/CLASS/*)."""
    rates: tuple[int, ...] = (50, 60, 70)
    """Percent of the filters that uniform pruning takes; the agents get the same multiply-adds."""
    seeds: tuple[int, ...] = (0,)
    """Of the agents and of the fine-tuning. The original network is one for all."""
    agents: tuple[str, ...] = ("q_learning",)
    """Who learns ratios; random_search is a sobering neighbour."""
    evaluations: int = 300
    """Joint actions that each agent may try for each rate."""
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
    """The folder; runs/reproduce-NETWORK unless given."""
    executor: str = field(default="serial", kw_only=True)
    """Where pieces are worked on: serial (in this process), processes (of this machine), or ray (a Ray cluster).
    They leave files, and go on from them, so all nodes of a cluster must see the folder."""
