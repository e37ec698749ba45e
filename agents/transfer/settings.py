"""What can be asked of ``python -m agents.transfer``, and what its help tells; read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from dsfp_env.evaluation.executors.options import ExecutorSettings

DESCRIPTION = """\
What is learned on some networks, carried to others, beside search that starts from nothing.

    python -m agents.transfer --seeds 0-9 --out runs/transfer

Carried policies learn on the training networks of the suite (`dsfp_env.suite`), with so many evaluations of each.
On every held-out network, of which they have seen nothing, they may then evaluate 1, 10 and 30 joint actions; the
best of these is judged, by its exact regret. The first is what they would do without looking: zero-shot. Searches
get the same numbers of evaluations, and 300.

Each learner, reward and seed leaves a file: stopped and started again, or asked for more seeds, learners or
rewards, the command goes on where it was.
"""
CARRIED = ("carried_bandit", "carried_policy")
FROM_SCRATCH = "bandit_from_scratch"
SEARCHES = ("uniform", "random_search", "coordinate_search", "q_learning", "linucb")


@dataclass(frozen=True)
class TransferSettings(ExecutorSettings):
    """Who is carried where, and what that is compared with."""

    agents: tuple[str, ...] = (*CARRIED, FROM_SCRATCH, *SEARCHES)
    """carried_bandit, carried_policy (PPO), bandit_from_scratch (the first without what was learned elsewhere),
    and learners of agents.registry, which search."""
    training: tuple[str, ...] = ()
    """Networks to learn on: tables or surrogates by name or folder, or training, held_out, large, the parts of the
    suite; the first of these unless given."""
    held_out: tuple[str, ...] = ()
    """Networks to judge on, likewise; the part held_out unless given."""
    rewards: tuple[str, ...] = ("accuracy_x_saving", "budget(macs_budget=0.2)")
    """What a joint action is worth, with its budget, if any, in brackets."""
    seeds: str = "0-9"
    """Of all that is drawn, training included; for example 0-9 or 0,3,7."""
    training_evaluations: int = 300
    """Joint actions of each training network that a carried policy learns from."""
    budgets: tuple[int, ...] = (1, 10, 30)
    """Evaluations of a held-out network, each a run of its own."""
    search_budget: int = 300
    """Evaluations that searches get besides."""
    out: str = "runs/transfer"
    """The folder; a study in it with the same networks and numbers of evaluations goes on."""
