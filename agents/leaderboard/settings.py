"""What can be asked of ``python -m agents.leaderboard``, and what its help tells; read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from dsfp_env.evaluation.executors.options import ExecutorSettings

DESCRIPTION = """\
Learners on a table: how far each is from the optimum, exactly.

    python -m agents.leaderboard --agents all --table digits --seeds 0-99 --evaluations 300 --out runs/leaderboard

A table knows what every joint action is worth, so a run costs what its learner costs, and the **regret** of
whatever it tries is known: the score of the optimum less its own, over what that is on average for a joint action
drawn at random. 0 is the optimum, 1 is chance.

A run leaves the joint actions that its learner tried and the one it plays in the end; what they are worth is
computed from the table. There is one file for each learner and reward, and a run that is in it is not made again:
stopped and started again, or asked for more seeds, learners or rewards, the command goes on where it was.

With ``--surrogate``, a model of what was measured takes the place of the table: for networks with too many joint
actions. The best that a long search knows stands for the optimum, and regrets are of means over seeds.

The learners are those of `agents.registry`, with options as in ``q_learning(step_size=0.5)``, and with difference
credit as in ``q_learning@difference``, or with a batch as in ``q_learning@batch=4``. With a budget of MACs, those
who choose levels choose under masks.
"""
FORMS = ("accuracy_x_saving", "budget(macs_budget=0.1)")


@dataclass(frozen=True)
class LeaderboardSettings(ExecutorSettings):
    """Who is judged, on what, and for how long."""

    agents: tuple[str, ...] = ("all",)
    """Learners by name; all stands for every one in agents.registry."""
    table: str = "digits"
    """One that comes with the package, or the folder of another."""
    surrogate: str | None = None
    """In place of a table: one that comes with the package, or the folder of another."""
    rewards: tuple[str, ...] = FORMS
    """What a joint action is worth, as for train_agents.py, with its budget of MACs, if any, in brackets."""
    seeds: str = "0-99"
    """For example 0-99 or 0,3,7. One that the table was not measured with is answered by one that it was."""
    evaluations: int = 300
    """Joint actions that a run may try."""
    at: tuple[int, ...] = (10, 30, 100, 300)
    """Evaluations after which the tables judge the best so far, such as 50 150 300 1000; always after the last."""
    slow_seeds: int = 3
    """Learners that are slow themselves take only so many of the seeds; 0: all."""
    out: str = "runs/leaderboard"
    """The folder; a leaderboard in it of the same table and number of evaluations goes on."""
