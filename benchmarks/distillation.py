"""Does distillation end higher than conventional fine-tuning? Rows of a study, trained again without the teacher.

    python benchmarks/distillation.py runs/reproduce-resnet20 --rows uniform

The networks of these rows are cut again from the original and fine-tuned by the study's recipe with the row's seed
(the same images in the same order), but on the labels alone, where DSFP gives the teacher's answers a weight that
falls from 0.9 to 0.1 (III-C). The epoch is chosen by validation, and the test split is looked at once, as for the
row. Every training goes on where it was stopped; what is done lies in the study's folder. Rows that rank filters
by another criterion than the study's are left out.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from study_ranking import study_in

from agents.reporting.run_folder import write_json
from agents.reproduce.pieces import Study
from dsfp_env.common import command_line
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.ranges import MOST_THREADS
from dsfp_env.training import epochs
from dsfp_env.training.distillation import unfreeze
from dsfp_env.training.recipes import FINE_TUNING, recipe_from
from dsfp_env.training.shown import Shown


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    study: Annotated[str, tyro.conf.Positional]
    """The folder of a study."""
    rows: tuple[str, ...] = ("uniform-",)
    """By name, or by the beginning of a name."""
    threads: int = 1
    """CPU threads."""


def compare(settings: Settings) -> None:
    """Train what is not done, and print a table."""
    if not 1 <= settings.threads <= MOST_THREADS:
        raise InputError(f"--threads is {settings.threads}: expected from 1 to {MOST_THREADS}.")
    torch.set_num_threads(settings.threads)
    study = study_in(Path(settings.study))
    rows = study.results()["rows"]
    own = [name for name in rows if name.startswith(settings.rows) and "@" not in name]
    if not own:
        said = " or ".join(settings.rows)
        raise InputError(f"No row of {settings.study} begins with {said}: there are {shortened([*rows])}.")
    print("| row | distilled: test | conventional: test | less | validation: distilled | conventional | less |")
    print("|---|---|---|---|---|---|---|")
    for name in own:
        row = rows[name]
        alone = without_teacher(study, name, row)
        cells = []
        for split in ("accuracy", "validation_accuracy"):
            pair = 100 * row[split], 100 * alone[split]
            cells += [*(f"{value:.2f}" for value in pair), f"{pair[0] - pair[1]:+.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def without_teacher(study: Study, name: str, row: dict[str, Any]) -> dict[str, float]:
    """Accuracies of a row's network after conventional fine-tuning; kept in a file."""
    file = study.folder / "conventional" / f"{name}.json"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        task, shown = study.task, Shown(name)
        network = task.graph.slim(task.network, study.evaluator().keep(row["ratios"]))
        unfreeze(network)
        epochs.train(
            network,
            task.train,
            task.suited(recipe_from(study.settings.fine_tuning, FINE_TUNING)),
            int(name.rpartition("-seed")[2]),
            validation=task.validation,
            on_epoch=shown,
            on_batch=shown.batch,
            checkpoint=file.with_suffix(".training"),
        )
        validation, test = study.measurement.accuracies(network, task.validation, task.test)
        write_json(file, {"validation_accuracy": validation, "accuracy": test})
        file.with_suffix(".training").unlink(missing_ok=True)
    found: dict[str, float] = json.loads(file.read_text())
    return found


if __name__ == "__main__":
    sys.exit(command_line.run(Settings, compare, __doc__))
