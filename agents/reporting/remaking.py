"""The report of a run made anew, or one of several runs: ``python -m agents.reporting RUN [RUN ...]``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from dsfp_env.common import command_line
from dsfp_env.common.errors import InputError
from dsfp_env.common.saying import say


@dataclass(frozen=True)
class ReportSettings:
    """Whose report is made, and where."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Folders of finished runs. One has its report in its folder; of several one page is made."""
    out: str | None = None
    """The HTML file to write, with the figures of one run beside it; report.html in the folder of the run, or, of
    several, here, unless given."""


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(ReportSettings, remake, __doc__, stopped="stopped; the same command makes it anew")


def remake(settings: ReportSettings) -> None:
    """Write the report.

    Raises:
        InputError: If no run is named, or one cannot be read.
    """
    from agents.reporting.html_report import HTML, write_comparison, write_run  # imports torch
    from agents.reporting.report_data import read_run

    folders = [Path(run) for run in dict.fromkeys(settings.runs)]
    if not folders:
        raise InputError("No run was named: expected folders that train_agents.py has written.")
    path = Path(settings.out or (folders[0] / HTML if len(folders) == 1 else HTML))
    if path.is_dir():
        raise InputError(f"--out is the folder {path}: expected a file, such as {path / HTML}.")
    if len(folders) == 1:
        write_run(read_run(folders[0]), path)
    else:
        write_comparison(folders, path)
    say(f"written to {path}")
