"""How a run is gone on with, and left: what was measured is remembered, the best so far is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.reporting.journal import Journal, NotThisRun
from agents.reporting.run_folder import RunFolder, read_result
from dsfp_env.common.saying import remark
from dsfp_env.evaluation.evaluator import Evaluator


def go_on(record: RunFolder, evaluator: Evaluator, evaluations: int) -> Journal:
    """Let an evaluator remember what a run before this one has measured.

    Args:
        record: Of the run.
        evaluator: That of its environment.
        evaluations: That the run may make, in all.

    Returns:
        The journal, for what is measured from now on.

    Raises:
        NotThisRun: If times were measured, which are never the same again.
    """
    done, timed = len(record.recorded), evaluator.timed
    if timed and done:
        raise NotThisRun(
            f"The run in {record.folder} measured times, which are never the same again, so it cannot go on: "
            "choose another folder with --out, or remove this one."
        )
    if timed:
        record.repeatable = False
        remark("times are measured, which are never the same again: once stopped, this run cannot go on")
        return record.journal
    if done:
        remark(f"{record.folder}: {done} of {evaluations} evaluations are known; the run goes on from there")
    record.journal.tell(evaluator)
    return record.journal


def leave(record: RunFolder, summary: Mapping[str, Any], evaluations: int) -> str:
    """After Ctrl-C or a failure: write the best of what the search saw so far, unless the result is written.

    Args:
        record: Of the run.
        summary: The settings that a result names.
        evaluations: That the run might have made.

    Returns:
        A sentence about it.
    """
    if read_result(record.folder) is not None:
        return f"\nended; the result was written before, and is whole, in {record.folder}"
    lines = record.so_far()
    said = f"\nended after {len(lines)} of {evaluations} evaluations"
    if lines:
        best = {**max(lines, key=lambda line: line["reward"]), "test_accuracy": None}
        part = {"evaluations": len(lines), "interrupted": True, "best": best}
        record.write_result({**summary, **part})
        said += f"; the best of them (reward {best['reward']:.4f}) and all others are in {record.folder}"
    return f"{said}; the same command goes on from here" if record.repeatable else said
