"""How good a surrogate becomes with more measurements: its learning curve, by cross-validation.

    python benchmarks/surrogate_rows.py --survey FOLDER [FOLDER ...] [--model boosted_trees]

All rows of the survey are held out once, in five folds, as when a surrogate is fitted. The model learns from a
share of the other rows: joint actions drawn at random, with all their seeds; a larger share has those of a
smaller one, and more. So all lines of the table are about the same rows. They are means over repeats, each with
other folds and other draws; behind ± is the standard deviation between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from threadpoolctl import threadpool_limits

from dsfp_env.surrogates.fitting import MODELS, Fit, Model, Networks, folds, networks
from dsfp_env.surrogates.trust import FOLDS, agreement, at_equal_costs, groups_of, held_out
from dsfp_env.surveys.files import Survey, read_survey

COLUMNS = {"r2": "R2", "kendall": "Kendall's tau", "rmse": "RMSE", "equal": "tau at equal MACs"}


@dataclass(frozen=True)
class Settings:
    """What is learned from."""

    survey: tuple[Path, ...]
    """Folders of a survey, or of several of one task."""
    model: str = "networks"
    """One of those that `python -m dsfp_env.fit_surrogate` compares: networks, boosted_trees, quadratic, ..."""
    steps: int = 5000
    """Of the training of the networks."""
    shares: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
    """Of the rows that are not held out."""
    repeats: int = 3


def main(settings: Settings) -> None:
    survey = read_survey(settings.survey)
    fit = networks(Networks(steps=settings.steps)) if settings.model == "networks" else MODELS[settings.model]
    torch.set_num_threads(1)
    print(f"{len(survey.seeds):,} rows are held out\n\n| learned from | {' | '.join(COLUMNS.values())} |")
    print(f"|---|{'---|' * len(COLUMNS)}")
    for share in settings.shares:
        with threadpool_limits(1):
            found = [learned(survey, fit, share, seed) for seed in range(settings.repeats)]
        cells = [spread([one[name] for one in found]) for name in COLUMNS]
        rows = share * len(survey.seeds) * (FOLDS - 1) / FOLDS
        print(f"| {rows:,.0f} | {' | '.join(cells)} |", flush=True)


def learned(survey: Survey, fit: Fit, share: float, seed: int) -> dict[str, float]:
    """How well a model predicts that has learned from a share of the rows."""
    lost = survey.classes_lost
    kept = 1 - lost / survey.costs.sizes
    predicted = held_out(of_some(fit, share, seed), kept, survey.accuracy, folds(groups_of(kept), FOLDS, seed))
    macs = survey.costs.costs(lost).macs
    equal = at_equal_costs(survey.accuracy[:, 0], predicted[:, 0], macs)["kendall"]
    return {**agreement(survey.accuracy, predicted), "equal": equal}


def of_some(fit: Fit, share: float, seed: int) -> Fit:
    """The same, of a share of the joint actions."""

    def fit_some(kept: np.ndarray, accuracy: np.ndarray) -> Model:
        groups = groups_of(kept)
        order = np.random.default_rng(seed).permutation(groups.max() + 1)
        chosen = order[groups] < share * len(order)
        return fit(kept[chosen], accuracy[chosen])

    return fit_some


def spread(numbers: list[float]) -> str:
    deviation = f" ± {np.std(numbers, ddof=1):.4f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.4f}{deviation}"


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
