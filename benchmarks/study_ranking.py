"""What did the reward of a study know? Its rows after a few batches, a few epochs, and the long fine-tune.

    python benchmarks/study_ranking.py runs/reproduce-resnet20

For the rows that are there of a study (`python -m agents.reproduce`), target by target: the validation accuracy of
their ratios after a few batches, as a reward measures it, and after each of the first epochs of their long
fine-tune; and Spearman's correlation of both, and of what they leave of the network, with what the long fine-tune
came to, on validation and on test. Rows that rank filters by another criterion than the study's are left out.

Where searches fine-tuned their finalists here (``--finalist-epochs``), also: how these were ranked by the search.
Nothing is chosen here: the test accuracies are those that the study's table tells.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from ranking import correlation

from agents.reporting.markdown_tables import markdown_table
from agents.reproduce.pieces import Study
from agents.reproduce.results import RESULTS, read_results, rows_of
from agents.reproduce.searching import lines_tried
from agents.reproduce.settings import StudySettings
from dsfp_env.common import command_line
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.evaluator import Evaluator

RESAMPLES = 2000


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    study: Annotated[str, tyro.conf.Positional]
    """The folder of a study."""
    batches: tuple[int, ...] = (0, 10, 40)
    """Of brief fine-tunings."""
    seeds: tuple[int, ...] = (100, 101, 102)
    """Of brief fine-tunings; their mean is taken."""
    epochs: tuple[int, ...] = (1, 2, 5)
    """Of the long fine-tunes; those that they do not have are left out."""


def compare(settings: Settings) -> None:
    """Print a table for every target, and one of the searches."""
    study = study_in(Path(settings.study))
    rows = {key: found for key, found in rows_of(study.results()).items() if "@" not in key[0] and found}
    if not rows:
        raise InputError(f"{settings.study} has no rows yet: expected a study with some, by its own criterion.")
    for target in dict.fromkeys(target for _, target in rows):
        named = {
            f"{name}{f', seed {number}' * (len(found) > 1)}": row
            for (name, of), found in rows.items()
            if of == target
            for number, row in enumerate(found)
        }
        print(f"\n### {target.label}\n\n{table_of(settings, study, named)}")
    for line in searches(study):
        print(line)


def study_in(folder: Path) -> Study:
    """The study of a folder, by what was asked last."""
    said = read_results(folder / RESULTS)["settings"]
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    return Study(StudySettings(**lists, out=str(folder)))


def table_of(settings: Settings, study: Study, rows: dict[str, dict[str, Any]]) -> str:
    """Markdown: a column for each row of the study, and what each measure knew of its end."""
    long = [np.array([row[split] for row in rows.values()]) for split in ("accuracy", "validation_accuracy")]
    measures = {
        f"{count} batches" if count else "recalibrated only": brief(settings, study, rows.values(), count)
        for count in settings.batches
    }
    for number in settings.epochs:
        accuracies = [row.get("epoch_accuracies") or [] for row in rows.values()]  # earlier releases kept none
        if all(1 <= number <= len(of_epochs) for of_epochs in accuracies):
            measures[f"after epoch {number}"] = [100 * of_epochs[number - 1] for of_epochs in accuracies]
    measures["thousands of parameters left"] = [row["params"] / 1e3 for row in rows.values()]
    measures["thousands of multiply-adds left"] = [row["macs"] / 1e3 for row in rows.values()]
    lines = [
        [name, *(f"{value:.1f}" for value in values), *(known(values, accuracies) for accuracies in long)]
        for name, values in measures.items()
    ]
    lines += [[f"long, {split}", *(f"{100 * value:.2f}" for value in accuracies), "", ""]
              for split, accuracies in zip(("test", "validation"), long, strict=True)]  # fmt: skip
    return markdown_table(["", *rows, "with test", "with validation"], lines)


def brief(settings: Settings, study: Study, rows: Any, batches: int) -> list[float]:
    """Validation accuracies in percent after a few batches, on all images, means over seeds."""
    own = study.evaluator()
    fidelity = replace(own.fidelity, batches=batches)
    with Evaluator(study.task, own.criterion, fidelity, own.min_filters, own.round_to) as evaluator:
        found = [evaluator.evaluate_many([row["ratios"] for row in rows], seed) for seed in settings.seeds]
    return list(100 * np.mean([[outcome.accuracy for outcome in outcomes] for outcomes in found], axis=0))


def known(measure: Sequence[float], end: Sequence[float]) -> str:
    """Spearman's correlation with a 95 % interval, of resampled rows."""
    draws = np.random.default_rng(0).integers(len(end), size=(RESAMPLES, len(end)))
    value = correlation(np.array(measure)[None], np.array(end)[None], draws)
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def searches(study: Study) -> list[str]:
    """What searches thought of their finalists, and what a few epochs say."""
    lines = []
    for name, found in study.results()["searches"].items():
        if not (finalists := found.get("finalists")):
            continue
        rewards = {str(line["ratios"]): line["reward"] for line in lines_tried(study.files.log(name))}
        if any(str(one["ratios"]) not in rewards for one in finalists):
            continue  # the search was made elsewhere, and what it tried is not here
        reward = [rewards[str(one["ratios"])] for one in finalists]
        epochs = [one["accuracy"] for one in finalists]
        told = ", ".join(f"{100 * accuracy:.2f}" for accuracy in epochs)
        left = [study.evaluator().costs(one["ratios"]).params for one in finalists]
        lines.append(
            f"\n{name}, finalists, the best first: {told} %; Spearman {known(reward, epochs)} with the search's "
            f"reward, {known(left, epochs)} with the parameters left"
        )
    return lines


if __name__ == "__main__":
    sys.exit(command_line.run(Settings, compare, __doc__))
