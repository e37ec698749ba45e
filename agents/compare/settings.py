"""What can be asked of ``python -m agents.compare``, and what its help tells; read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from agents.run_settings import BudgetOptions
from dsfp_env.evaluation.executors.options import ExecutorSettings
from dsfp_env.evaluation.options import EvaluationOptions, WidthOptions
from dsfp_env.tasks.options import TaskOptions

DESCRIPTION = """\
Learners side by side: every one with every budget of evaluations and every seed, on real evaluations.

    python -m agents.compare --agents all --budgets 50 150 300 --seeds 0-4 --out runs/compare

Each run, one learner with one budget and one seed, leaves a file; stopped and started again, the command goes on
where it was. A seed is a split of the data, an original network, a fine-tuning seed and a learner's seed, the same
for all learners, who share what is measured. At the end of a run its best joint action (the highest reward seen)
and its greedy one (what the learner believes best) are measured again with fine-tuning seeds that no search has
seen: the highest reward of a search is partly luck.

The learners are those of `agents.registry`, with options as in ``q_learning(step_size=0.5)``, and with difference
credit as in ``q_learning@difference``, or with a batch as in ``q_learning@batch=4``.
"""


@dataclass(frozen=True)
class ComparisonSettings(TaskOptions, EvaluationOptions, WidthOptions, BudgetOptions, ExecutorSettings):
    """Who is compared, on what, and for how long."""

    agents: tuple[str, ...] = ("all",)
    """Learners by name; all stands for every one in agents.registry."""
    budgets: tuple[int, ...] = (50, 150, 300)
    """Evaluations that a run may make."""
    seeds: str = "0-4"
    """For example 0-4 or 0,3,7."""
    reward: str = "accuracy_x_saving"
    """As for train_agents.py, but the same whether there is a budget or not."""
    macs_budget: float | None = None
    """As for train_agents.py."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    out: str = "runs/compare"
    """The folder; a comparison in it with the same settings goes on."""
