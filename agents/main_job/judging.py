"""The main command with ``--backend table``: its settings as those of a leaderboard."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from functools import partial

from agents.leaderboard import runs as leaderboard
from agents.main_job.asked import folder_name, reward_name
from agents.registry import in_batches
from agents.reporting.budget_options import budget_of
from agents.reporting.default_folder import default_folder
from agents.run_settings import RunSettings
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.executors.options import WHERE, said

WITH_A_TABLE = (  # settings that mean something there
    *("task", "agent", "backend", "evaluations", "batch", "seed", "seeds"),
    *("reward", "macs_budget", "params_budget", "out"),
    *WHERE,
)


def judge(settings: RunSettings) -> None:
    """Make a leaderboard on a table.

    Raises:
        InputError: If a setting cannot be used.
    """
    asked = board_settings(settings)
    try:
        leaderboard.leaderboard(asked)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"stopped; the same command goes on from here, in {asked.out}") from error


def board_settings(settings: RunSettings) -> leaderboard.LeaderboardSettings:
    """Those of the leaderboard that is asked for.

    Raises:
        InputError: If a setting means nothing there.
    """
    for field in dataclasses.fields(RunSettings):
        value = getattr(settings, field.name)
        if field.name not in WITH_A_TABLE and value != field.default:
            raise InputError(
                f"--{field.name.replace('_', '-')} is {value!r}, which --backend table cannot do: expected "
                f"{field.default!r} with it."
            )
    asked_budget = budget_of(settings)
    given = settings.reward is not None or asked_budget is not None
    budget = "" if asked_budget is None else f"({asked_budget.of}_budget={asked_budget.share})"
    asked = leaderboard.LeaderboardSettings(
        agents=(in_batches(settings.agent, settings.batch),),
        table=settings.task,
        rewards=(f"{reward_name(settings)}{budget}",) if given else leaderboard.FORMS,
        seeds=settings.seeds or str(settings.seed),
        evaluations=settings.evaluations,
        **said(settings),
    )
    same = {name: value for name, value in asdict(asked).items() if name not in ("out", *WHERE)}
    unfinished = partial(leaderboard.goes_on_in, settings=same)
    out = str(default_folder(folder_name(settings), unfinished)) if settings.out is None else settings.out
    return dataclasses.replace(asked, out=out)
