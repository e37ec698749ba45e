"""Make a surrogate of a survey: a model of what was measured, that answers in no time.

    python -m dsfp_env.fit_surrogate --survey surveys/resnet20 --out surrogates/resnet20

An ensemble of small networks is fitted to all that was measured, and kept with what plans cost. How far it can
be trusted is found out before, by cross-validation, beside boosted trees, a Gaussian process and a quadratic
polynomial: on joint actions that a model has not seen, on learners that it has not seen, near the optimum, and at
equal multiply-adds. That is printed, and kept with the surrogate.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from dsfp_env.common import command_line
from dsfp_env.surrogates.settings import FitSettings

if __name__ == "__main__":  # help, and an option that is wrong, before torch is imported, which takes seconds
    command_line.answer_early(FitSettings, __doc__)

import numpy as np
from threadpoolctl import threadpool_limits

from dsfp_env.common.devices import threads_set
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import check_writable, contents, named
from dsfp_env.common.saying import say
from dsfp_env.surrogates import files
from dsfp_env.surrogates.fitting import MODELS, Networks, fit_ensemble, networks
from dsfp_env.surrogates.trust import trust
from dsfp_env.surveys.files import Survey, read_survey

_OF_THE_TASK = ("task", "splits", "agents", "original", "criterion", "fidelity", "task_seed", "task_hash")
_SEED = 0


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(FitSettings, fit_surrogate, __doc__)


def fit_surrogate(settings: FitSettings) -> None:
    """Fit, and keep.

    Raises:
        InputError: If a setting cannot be used, or the folder holds something else.
    """
    folder = named(settings.out)
    check_writable(folder)
    ours = {files.META, files.COSTS, files.MODEL, files.DATA}
    if {path.name for path in contents(folder)} - ours:
        raise InputError(f"The folder {folder} holds something else: choose another with --out.")
    if not settings.survey:
        raise InputError("--survey names none: expected the folder of a survey, or several of one task.")
    for name in ("members", "width", "steps"):
        if (value := getattr(settings, name)) < 1:
            raise InputError(f"--{name} is {value}: expected 1 or more.")
    survey = read_survey([named(one, "--survey") for one in settings.survey])
    how = Networks(settings.members, settings.width, steps=settings.steps)
    lost = survey.classes_lost
    kept = 1 - lost / survey.costs.sizes
    with threadpool_limits(1), threads_set(1):  # of small networks, threads would wait for each other
        found = _trust(survey, kept, lost, how, settings.quick)
        ensemble = fit_ensemble(kept, survey.accuracy, how, _SEED)
    say(as_text(found))
    meta = {
        "schema": files.SCHEMA,
        **{name: survey.meta[name] for name in (*_OF_THE_TASK, "split_hash", "machines")},
        **({} if settings.name is None else {"task": settings.name}),
        "rows": len(lost),
        "sources": dict(Counter(source.split(",")[0] for source in survey.sources)),
        "trust": found,
    }
    data = {
        "lost": lost.astype(np.uint16),
        "accuracy": survey.accuracy.astype(np.float32),
        "seeds": survey.seeds.astype(np.int16),
    }
    files.write(folder, meta, survey.costs, ensemble, data)
    say(f"written to {folder}")


def _trust(survey: Survey, kept: np.ndarray, lost: np.ndarray, how: Networks, quick: bool) -> dict[str, Any]:
    """How far the ensemble can be trusted."""
    relative_macs = survey.costs.costs(lost).macs / survey.meta["original"]["macs"]
    chosen = {"networks": networks(how)}
    models = chosen if quick else {**MODELS, **chosen}
    sources = ["random"] * len(lost) if quick else survey.sources
    return trust(kept, survey.accuracy, relative_macs, sources, models)


def as_text(found: dict[str, Any]) -> str:
    """What `trust` found, as a table in Markdown."""
    rows = {
        **{f"held out, {name}": numbers for name, numbers in found["cross_validation"].items()},
        "held out, near the optimum": found["near_the_optimum"],
        **{f"learner left out: {name}": numbers for name, numbers in found["learners_left_out"].items()},
    }
    columns = ("rows", "r2", "kendall", "error", "rmse", "test_error")
    lines = [f"|  | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [
        f"| {name} | {' | '.join(str(numbers[column]) for column in columns)} |" for name, numbers in rows.items()
    ]
    equal, noise = found["at_equal_macs"], found["noise"]
    lines += [
        "",
        f"Kendall's tau at equal MACs: {equal['kendall']} ({', '.join(map(str, equal['by_tenth']))}).",
        f"Noise of the seed: {noise['validation']} on validation, {noise['test']} on test, "
        f"correlation {noise['correlation']}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    from dsfp_env import fit_surrogate as by_name

    sys.exit(by_name.main())
