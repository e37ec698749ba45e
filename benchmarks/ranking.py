"""How well does a short fine-tune rank joint actions as a long one does? Overall, and at equal MACs.

    python benchmarks/ranking.py --out runs/ranking
    python benchmarks/ranking.py --out runs/ranking --report-only

Joint actions of the digits are drawn uniformly from all, and again from each of several narrow bands of MACs. Each
is measured after a few batches of distillation, as a reward measures it (0 batches: recalibration only), and after
many, with other seeds. Printed, and written to ``ranking.md``:

- Spearman's rank correlation of the short measurement's *validation* accuracy with the long one's *test* accuracy,
  a mean over its seeds. One seed: each by itself, then the mean of the correlations. Intervals are of 95 %, from
  resampling joint actions.
- The same with the long one's validation accuracy. Both measurements then see the same images, and share what is
  peculiar to these; a reward is not better for that.
- Within each band, what the joint action that a measurement ranks first is worth after the long one. "The best" is
  chosen by the very accuracies that judge it, so nobody can hope for quite that.

No measurement can rank better than the noise of the reference allows. The long seeds' correlation r with one
another tells how large that is: their mean, of k, has a correlation of about sqrt(k r / (1 + (k - 1) r)) with the
mean of infinitely many (Spearman-Brown). This is called the ceiling. It knows nothing of the other split; the long
measurement's own validation accuracy does. Where all joint actions are nearly equal in the end (see the standard
deviation in the last table) there is little to rank: one image is 0.25 points.

Every measurement is a line of ``measurements.jsonl``, written at once; stopped and started again it goes on. With
the defaults that is at most 280 joint actions, estimated at 15 minutes on two idle cores. (On two that were busy
besides, measurements of 0, 5, 10, 20 and 400 batches took 0.06, 0.13, 0.19, 0.29 and 4.5 s: 25 minutes in all.)
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

import dsfp_env
from agents.reporting.markdown_tables import markdown_table
from agents.reporting.statistics import Interval
from dsfp_env.common import command_line
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.hashing import hash_of
from dsfp_env.common.progress import Progress
from dsfp_env.evaluation.plans import LEVELS
from dsfp_env.evaluation.workers import Workers, available_cores

MEASUREMENTS, REPORT = "measurements.jsonl", "ranking.md"  # in the folder
RECALIBRATED = "0 batches (recalibration only)"


@dataclass(frozen=True)
class Settings:
    """What is measured, and where it is kept."""

    out: Path = Path("runs/ranking")
    """The folder; one that was begun goes on."""
    random: int = 120
    """Joint actions drawn uniformly from all."""
    bands: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3)
    """Middles of bands of MACs, relative to the original network's."""
    width: float = 0.05
    """A band reaches so far to either side of its middle, as a share of it."""
    per_band: int = 40
    """Joint actions drawn from each band; all, if there are fewer."""
    batches: tuple[int, ...] = (0, 5, 10, 20)
    """Of the short fine-tunes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the short fine-tunes. Without batches nothing is random, and the first is all."""
    long_batches: int = 400
    """Of the long fine-tune, the reference."""
    long_seeds: tuple[int, ...] = (100, 101)
    """Of the long fine-tune, none of the short ones'."""
    sample_seed: int = 0
    """Draws the joint actions."""
    resamples: int = 2000
    """Of the bootstrap."""
    workers: int = available_cores()
    """Processes; each measures with one thread."""
    report_only: bool = False
    """Measure nothing; report the joint actions that are measured wholly."""
    quick: bool = False
    """A small run: three joint actions, and two of one band; 0 and 2 batches, the long fine-tune 4."""


Ratios = tuple[int, ...]  # of a joint action, in percent, in the order of the agents


class Key(NamedTuple):
    """One measurement."""

    ratios: Ratios
    batches: int
    seed: int


class Accuracies(NamedTuple):
    """Its result, in [0, 1]."""

    validation: float
    test: float


class Group(NamedTuple):
    """Joint actions that are ranked against each other."""

    name: str
    available: int  # joint actions that these were drawn from
    members: list[Ratios]


class Measurer:
    """Measures joint actions of a task after so many batches of distillation.

    Args:
        task: The task.
        batches: The numbers of batches that will be asked for.
    """

    def __init__(self, task: dsfp_env.Task, batches: Iterable[int]) -> None:
        fidelities = {count: replace(task.fidelity, batches=count, threads=1) for count in batches}
        self.agents = tuple(task.agents)
        self.evaluators = {
            count: dsfp_env.Evaluator(task, fidelity=fidelity, store=False)
            for count, fidelity in fidelities.items()
        }

    def measure(self, key: Key) -> tuple[Accuracies, float]:
        """The accuracies on both splits, and the seconds that they took."""
        start = time.perf_counter()
        accuracies = Accuracies(*self.evaluators[key.batches].measure_splits(self.plan(key.ratios), key.seed))
        return accuracies, time.perf_counter() - start

    def relative_macs(self) -> dict[Ratios, float]:
        """Of every joint action that there is; nothing needs to be measured for it."""
        evaluator = next(iter(self.evaluators.values()))
        whole = evaluator.task.graph.costs().macs
        every = itertools.product(LEVELS.astype(int).tolist(), repeat=len(self.agents))
        return {ratios: evaluator.costs(self.plan(ratios)).macs / whole for ratios in every}

    def plan(self, ratios: Ratios) -> dict[str, float]:
        """A joint action as evaluators take it."""
        return dict(zip(self.agents, map(float, ratios), strict=True))


def main() -> int:
    return command_line.run(Settings, work, __doc__)


def work(settings: Settings) -> None:
    """Measure what is missing, then report.

    Raises:
        InputError: If the settings cannot be used, or the folder is of another network.
    """
    if settings.quick:
        settings = replace(settings, random=3, bands=(0.1,), per_band=2, batches=(0, 2), long_batches=4)
    check(settings)
    torch.set_num_threads(1)
    task = dsfp_env.load_task("digits", device="cpu")
    measurer = Measurer(task, (*settings.batches, settings.long_batches))
    macs = measurer.relative_macs()
    groups = draw(macs, settings)
    origin = origin_of(task)
    known = read(settings.out / MEASUREMENTS, origin)
    if not settings.report_only:
        measure_missing(measurer, groups, known, origin, settings)
    text = report(groups, macs, known, settings)
    write_whole(settings.out / REPORT, lambda file: file.write(text.encode()))
    print(text, end="")


def check(settings: Settings) -> None:
    """Raises InputError if the settings cannot be used."""
    if not (settings.batches and settings.seeds and settings.long_seeds):
        raise InputError("--batches, --seeds and --long-seeds expect one number or more each.")
    if min(*settings.batches, 0) < 0 or settings.long_batches < 1:
        raise InputError("--batches expects numbers of 0 or more, --long-batches one of 1 or more.")
    if shared := set(settings.seeds) & set(settings.long_seeds):
        raise InputError(f"The seeds {shared} are both short and long ones: expected other --long-seeds.")
    if settings.workers < 1 or settings.resamples < 1 or settings.random < 0 or settings.per_band < 0:
        raise InputError("--workers and --resamples expect 1 or more, --random and --per-band 0 or more.")


def draw(macs: Mapping[Ratios, float], settings: Settings) -> list[Group]:
    """The joint actions to rank; a larger group begins with the smaller one."""
    percent = 100 * settings.width
    choices = [("all MACs", list(macs), settings.random)]
    for middle in settings.bands:
        low, high = middle * (1 - settings.width), middle * (1 + settings.width)
        inside = [ratios for ratios, share in macs.items() if low <= share <= high]
        choices.append((f"MACs {middle:g} ± {percent:g} %", inside, settings.per_band))
    groups = []
    for place, (name, inside, count) in enumerate(choices):
        order = np.random.default_rng([settings.sample_seed, place]).permutation(len(inside))
        groups.append(Group(name, len(inside), [inside[index] for index in order[:count]]))
    return groups


def keys_of(ratios: Ratios, settings: Settings) -> list[Key]:
    """All that is measured of a joint action."""
    short = [Key(ratios, count, seed) for count in settings.batches for seed in seeds_of(count, settings)]
    return [*short, *(Key(ratios, settings.long_batches, seed) for seed in settings.long_seeds)]


def seeds_of(batches: int, settings: Settings) -> tuple[int, ...]:
    """Of a short fine-tune."""
    return settings.seeds if batches else settings.seeds[:1]


def origin_of(task: dsfp_env.Task) -> str:
    """What measurements of one folder have in common: the original network, and how it is fine-tuned."""
    network = hash_of(task.network.state_dict().values())
    return hashlib.sha256(f"{network} {replace(task.fidelity, batches=0)}".encode()).hexdigest()[:16]


def read(path: Path, origin: str) -> dict[Key, Accuracies]:
    """What was measured before; half a line, left by a process that was killed, is taken away."""
    if not path.exists():
        return {}
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    known = {}
    for line in map(json.loads, whole.splitlines()):
        if line["origin"] != origin:
            raise InputError(f"{path} is of another original network or fine-tuning: choose another --out.")
        key = Key(tuple(line["ratios"]), line["batches"], line["seed"])
        known[key] = Accuracies(line["validation"], line["test"])
    return known


def measure_missing(
    measurer: Measurer, groups: Sequence[Group], known: dict[Key, Accuracies], origin: str, settings: Settings
) -> None:
    """Add to what is known, in memory and on disk. After a part of the time a part of every group is whole."""
    turns = itertools.chain(*itertools.zip_longest(*(group.members for group in groups)))
    members = dict.fromkeys(ratios for ratios in turns if ratios is not None)  # each once
    missing = [key for ratios in members for key in keys_of(ratios, settings) if key not in known]
    if not missing:
        return
    settings.out.mkdir(parents=True, exist_ok=True)
    workers = Workers(measurer.measure, min(settings.workers, len(missing)))
    try:
        with (
            closing(Progress("measurements", len(missing))) as progress,
            open(settings.out / MEASUREMENTS, "a") as file,
        ):
            futures = {workers.submit(key): key for key in missing}
            for future in as_completed(futures):
                key = futures[future]
                known[key], seconds = future.result()
                line = {"origin": origin, **key._asdict(), **known[key]._asdict(), "seconds": round(seconds, 4)}
                file.write(json.dumps(line) + "\n")
                file.flush()
                progress.advance()
    finally:
        workers.stop()


class Ranking(NamedTuple):
    """A group as it is measured, n joint actions."""

    group: Group
    predictors: dict[str, np.ndarray]  # [k, n]; the k are taken one at a time
    validation: np.ndarray  # after the long fine-tune, [seeds, n]
    test: np.ndarray  # [seeds, n]


def report(
    groups: Sequence[Group], macs: Mapping[Ratios, float], known: Mapping[Key, Accuracies], settings: Settings
) -> str:
    """Markdown.

    Raises:
        InputError: If no group has two joint actions that are measured.
    """
    rankings = [
        ranked(group._replace(members=whole), macs, known, settings)
        for group in groups
        if len(whole := [one for one in group.members if all(key in known for key in keys_of(one, settings))]) > 1
    ]
    if not rankings:
        raise InputError(f"{settings.out} has no two joint actions that are measured: leave --report-only out.")
    long = f"{settings.long_batches} batches"
    parts = [
        f"Reference: {long}, mean over the seeds {settings.long_seeds}. Short measurements: validation accuracy.",
        f"Spearman correlation with the test accuracy after {long} [95 % interval]:",
        correlations(rankings, "test", settings),
        f"The same with the validation accuracy after {long}:",
        correlations(rankings, "validation", settings),
        f"Test accuracy in percent after {long} of the joint action that is chosen, and its distance to the best:",
        choices([ranking for ranking in rankings if ranking.group.name != groups[0].name] or rankings),
    ]
    return "\n\n".join(parts) + "\n"


def ranked(
    group: Group, macs: Mapping[Ratios, float], known: Mapping[Key, Accuracies], settings: Settings
) -> Ranking:
    """What is known of a group of joint actions, all of them measured."""

    def column(split: str, batches: int, seeds: Sequence[int]) -> np.ndarray:
        of_seed = [[getattr(known[Key(one, batches, seed)], split) for one in group.members] for seed in seeds]
        return np.array(of_seed)

    predictors = {"relative MACs alone": np.array([[macs[ratios] for ratios in group.members]])}
    for batches in settings.batches:
        found = column("validation", batches, seeds_of(batches, settings))
        if batches == 0:
            predictors[RECALIBRATED] = found
            continue
        predictors[f"{batches} batches, one seed"] = found
        if len(found) > 1:
            predictors[f"{batches} batches, mean of {len(found)} seeds"] = mean_of(found)
    validation, test = (column(split, settings.long_batches, settings.long_seeds) for split in Accuracies._fields)
    return Ranking(group, predictors, validation, test)


def correlations(rankings: Sequence[Ranking], split: str, settings: Settings) -> str:
    """Markdown: Spearman's correlations of all predictors with the long fine-tune's accuracy, by group."""
    columns = []
    for place, ranking in enumerate(rankings):
        reference = getattr(ranking, split)
        rng = np.random.default_rng([settings.sample_seed, place])
        size = len(ranking.group.members)
        resamples = rng.integers(size, size=(settings.resamples, size))  # the same for all rows
        cells = {
            name: correlation(predictor, mean_of(reference), resamples)
            for name, predictor in ranking.predictors.items()
        }
        if split == "test":
            name = f"{settings.long_batches} batches, validation"
            cells[name] = correlation(mean_of(ranking.validation), mean_of(reference), resamples)
        if len(reference) > 1:
            first, second = np.array(list(itertools.combinations(reference, 2))).swapaxes(0, 1)
            together = correlation(first, second, resamples)
            cells["two long seeds with each other"] = together
            cells["ceiling"] = Interval(*(ceiling(value, len(reference)) for value in together))
        columns.append(
            {name: f"{cell.value:.2f} [{cell.low:.2f}, {cell.high:.2f}]" for name, cell in cells.items()}
        )
    return table([ranking.group for ranking in rankings], columns)


def choices(rankings: Sequence[Ranking]) -> str:
    """Markdown: what is got by choosing the joint action that a measurement ranks first, by group."""
    columns = []
    for ranking in rankings:
        test = mean_of(ranking.test)[0]
        predictors = {**ranking.predictors, "long fine-tune, validation": mean_of(ranking.validation)}
        cells = {"the best": f"{100 * test.max():.1f}"}
        for name, predictor in predictors.items():
            chosen = 100 * worth_of_first(predictor, test)
            cells[name] = f"{chosen:.1f} (−{100 * test.max() - chosen:.1f})"
        cells["the mean"] = f"{100 * test.mean():.1f} (−{100 * (test.max() - test.mean()):.1f})"
        cells["standard deviation"] = f"{100 * test.std():.1f}"
        cells["standard deviation"] = f"{100 * test.std():.1f}"
        columns.append(cells)
    return table([ranking.group for ranking in rankings], columns)


def worth_of_first(predictor: np.ndarray, worth: np.ndarray) -> float:
    """Mean of ``worth [n]`` over the joint actions that ``predictor [k, n]`` ranks first, each of k by itself."""
    return float(np.mean([worth[one == one.max()].mean() for one in predictor]))


def mean_of(accuracies: np.ndarray) -> np.ndarray:
    """The mean over seeds, ``[seeds, n]`` -> ``[1, n]``; equal sums stay equal."""
    return accuracies.mean(0, keepdims=True).round(9)


def correlation(predictor: np.ndarray, reference: np.ndarray, resamples: np.ndarray) -> Interval:
    """Spearman's correlation, and its 95 % bootstrap interval.

    Args:
        predictor: ``[k, n]``; the correlations of k are averaged.
        reference: ``[1, n]``, or ``[k, n]``: one for each.
        resamples: Indices of joint actions, ``[resamples, n]``. Those in which all are equal do not count.
    """
    value = float(spearman(predictor, reference).mean())
    draws = spearman(predictor[:, resamples], reference[:, resamples]).mean(0)
    draws = draws[np.isfinite(draws)]
    low, high = np.percentile(draws, [2.5, 97.5]) if len(draws) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def ceiling(correlation: float, seeds: int) -> float:
    """The correlation that a mean over seeds has with the truth, if two seeds have this one with each other."""
    known = max(correlation, 0.0)  # NaN stays NaN
    return float(np.sqrt(seeds * known / (1 + (seeds - 1) * known)))


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's correlation along the last axis; ties get their average rank; NaN if all of one are equal."""
    x, y = rankdata(x, axis=-1), rankdata(y, axis=-1)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    squares = (x * x).sum(-1) * (y * y).sum(-1)
    products = (x * y).sum(-1)
    return np.divide(products, np.sqrt(squares), out=np.full(products.shape, np.nan), where=squares > 0)


def table(groups: Sequence[Group], columns: Sequence[Mapping[str, str]]) -> str:
    """Markdown: a column for each group."""
    header = [f"{group.name}: {len(group.members)} of {group.available}" for group in groups]
    return markdown_table(["", *header], [[name, *(column[name] for column in columns)] for name in columns[0]])


if __name__ == "__main__":
    sys.exit(main())
