"""Learn a pruning ratio for every convolution of a network.

Loads (or trains) the original network of a task, lets agents choose ratios for a budget of evaluations, compares
the best and the greedy joint action with uniform pruning and random search, prints a table, and writes a folder
with a report, the result, every evaluation, the pruned network and a picture.

With --backend table nothing is measured: learners are judged on a table of all joint actions
(`agents.leaderboard`).
"""

from __future__ import annotations

import sys

from agents.run_settings import RunSettings
from dsfp_env.common import command_line

if __name__ == "__main__":  # help, and an option that is wrong, before torch is imported, which takes seconds
    from agents.learner_help import learner_help

    command_line.answer_early(RunSettings, __doc__, learner_help)

import torch

from agents.main_job.asked import check
from agents.main_job.judging import judge
from agents.main_job.one_run import train_one
from agents.main_job.several_seeds import train_several
from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError
from dsfp_env.environment.backends import BACKENDS


def main() -> int:
    """Run from the command line; returns the exit status."""
    nothing = "ended before the first evaluation of a run; the same command goes on from here"
    return command_line.run(RunSettings, train, __doc__, stopped=nothing)


def train(settings: RunSettings) -> int:
    """Run all seeds, or go on with those that a folder holds; returns 0.

    Raises:
        InputError: If a setting cannot be used, nothing is written then; or if the folder is of another run.
        KeyboardInterrupt: After Ctrl-C, with a sentence that says what was kept.
    """
    choose("backend", settings.backend, dict.fromkeys(BACKENDS))
    if settings.backend == "surrogate":
        raise InputError(
            "--backend is 'surrogate', and this command measures: expected live, or table. Learners on a "
            "surrogate are for `python -m agents.leaderboard --surrogate resnet20`."
        )
    if settings.config is not None:
        raise InputError("config is read from the command line: elsewhere, use dsfp_env.common.config_files.")
    if settings.seeds is not None and settings.seed != RunSettings.seed:
        raise InputError(
            f"--seed is {settings.seed}, and --seeds is {settings.seeds}: expected one of them (--seed 0 is as if "
            "it were not given)."
        )
    if settings.backend == "table":
        judge(settings)
        return 0
    seeds, folder = check(settings)
    torch.set_num_threads(settings.threads)
    if settings.seeds is None:
        train_one(settings, folder)
    else:
        train_several(settings, seeds, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
