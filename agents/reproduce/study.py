"""A study: pieces that leave a file each, done in turn or by workers, and the table of what is there."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

import agents
import dsfp_env
from agents.registry import choose_agent
from agents.reporting.baselines import within
from agents.reporting.finals import choose_best
from agents.reporting.journal import ANOTHER
from agents.reporting.run_folder import check_free, missing, other_settings, versions, withdraw, write_json
from agents.reproduce import records
from agents.reproduce.paper_table import paper_table
from agents.reproduce.settings import DESCRIPTION, StudySettings
from agents.trial import check_learners
from dsfp_env.channels.costs import output_only_params
from dsfp_env.common import command_line
from dsfp_env.common.devices import choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import append_line
from dsfp_env.common.folders import check_writable, named, shared
from dsfp_env.common.json_files import lines_of, read_file, read_line
from dsfp_env.common.progress import Progress
from dsfp_env.common.progress import shown as shown_one_by_one
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.ranges import MOST_THREADS
from dsfp_env.common.saying import say
from dsfp_env.common.tensor_files import read_tensors, write_tensors
from dsfp_env.common.versions import check_versions
from dsfp_env.criteria.criterion import Criterion
from dsfp_env.criteria.scoring import Evidence
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.options import WHERE
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import Plan
from dsfp_env.tasks.loading import check_task, load_task
from dsfp_env.tasks.task import Task
from dsfp_env.training.epochs import shown
from dsfp_env.training.fine_tuning import TeacherMemory, distil
from dsfp_env.training.recipes import FINE_TUNING, recipe_from

FIRST, SEARCH = ("base", "scores"), "search-"  # names of pieces, and how one begins
# Settings that may change from one start in a folder to the next.
HOW = ("only", "data_root", "download", "device", "threads", "out", "weights", *WHERE)


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(StudySettings, reproduce, DESCRIPTION)


def reproduce(settings: StudySettings) -> None:
    """Work on the pieces that are left, printing what is left and the table.

    Raises:
        InputError: If a setting cannot be used, or the folder is of other settings. If nothing was done before, no
            trace is left.
    """
    study = Study(settings)
    made = missing(study.folder)
    study.check()
    with shared(study.folder):
        try:
            _work(study)
        except InputError:
            withdraw(study.folder, made)
            raise


def _work(study: Study) -> None:
    """Work on the pieces that are left, printing what is left and the table."""
    settings = study.settings
    torch.set_num_threads(settings.threads)
    left = [name for name in study.pieces if not study.file(name).exists()]
    for name in study.pieces.keys() - left:  # of a process that was killed just before it removed it
        study.training(name).unlink(missing_ok=True)
    chosen = [name for name in left if not settings.only or name.startswith(settings.only)]
    done = f"{len(study.pieces) - len(left)} of {len(study.pieces)} pieces are done"
    say(f"{done}; now: {', '.join(chosen) or 'nothing'}")
    work, groups = Pieces(settings, study), grouped(chosen)
    for group in [group for group in groups if group[0] in FIRST]:  # what all others stand on
        groups.remove(group)
        work.do(group)
    if groups and settings.executor != "serial":
        work.do(tuple(name for name in FIRST if not study.file(name).exists()))
    for _ in as_done(work.do, {group: group for group in groups}, settings.place()):
        pass
    say(f"\n{study.table()}")
    if left := [name for name in study.pieces if not study.file(name).exists()]:
        say(f"\nleft: {', '.join(left)}")


def grouped(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Pieces, those together that are worked on one after another: a row with the search that finds its ratios."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in names:
        row = name.removeprefix(SEARCH)
        groups[row] = (*groups.get(row, ()), name)
    return list(groups.values())


class Pieces:
    """Works on pieces of a study, here or elsewhere.

    Args:
        settings: Of the study.
        study: In this process.
    """

    def __init__(self, settings: StudySettings, study: Study) -> None:
        self._settings = replace(settings, out=str(study.folder.resolve()))
        self._study: Study | None = study

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_study": None}

    def do(self, names: Sequence[str]) -> None:
        """Work on pieces, one after another.

        Raises:
            InputError: If their folder cannot be seen from here.
        """
        if self._study is None:
            torch.set_num_threads(self._settings.threads)
            self._study = Study(self._settings)
            if not (self._study.folder / "settings.json").exists():
                raise InputError(
                    f"The folder {self._study.folder} is not there on {platform.node()}: pieces of a study leave "
                    "files, so expected one with --out that all nodes see."
                )
        for name in names:
            say(f"\n{name}")
            start = time.monotonic()
            self._study.pieces[name]()
            say(f"{name}: done in {time.monotonic() - start:.0f} s")


class Study:
    """One network, pruned in several ways; everything that is found lies in a folder.

    Attributes:
        pieces: Name -> the work that leaves ``NAME.json``, in an order in which they can be done.
    """

    def __init__(self, settings: StudySettings) -> None:
        self.settings = settings
        self.folder = named(f"runs/reproduce-{settings.network}" if settings.out is None else settings.out)
        self.pieces: dict[str, Callable[[], None]] = {"base": self._base, "scores": self._scores}
        for seed in settings.seeds:
            for rate in settings.rates:
                for kind in ("uniform", *settings.agents):
                    name = _name(kind, rate, seed)
                    if kind != "uniform":
                        search = f"{SEARCH}{name}"
                        self.pieces[search] = partial(self._search, search, kind, rate, seed)
                    self.pieces[name] = partial(self._row, name, kind, rate, seed)

    def file(self, name: str) -> Path:
        """Where a piece leaves what it found."""
        return self.folder / f"{name}.json"

    def training(self, name: str) -> Path:
        """Where a piece keeps the fine-tuning that it is at."""
        return self.folder / f"{name}.training"

    def check(self) -> None:
        """Refuse settings that cannot be used, or that differ from those of the folder.

        Raises:
            InputError: If so.
        """
        settings = self.settings
        check_task(self._task_name, self._task_options())
        recipe_from(settings.fine_tuning, FINE_TUNING)
        settings.check_layers()
        settings.check_evaluation()
        settings.check_widths()
        check_learners(settings.agents, settings.evaluations)
        settings.place().check(choose_device(settings.device))
        if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
            raise InputError(f"--seeds are {settings.seeds}: expected one or more, each 0 or more, and once.")
        for seed in settings.seeds:
            check_seed(seed, "One of --seeds")
        if not all(10 <= rate <= 90 for rate in settings.rates):
            raise InputError(f"--rates are {settings.rates}: expected percentages in [10, 90].")
        if not 1 <= settings.threads <= MOST_THREADS:
            raise InputError(f"--threads is {settings.threads}: expected from 1 to {MOST_THREADS}.")
        for word in settings.only:
            if not any(name.startswith(word) for name in self.pieces):
                raise InputError(f"--only {word}: there is no such piece; there are: {', '.join(self.pieces)}.")
        self._check_folder()

    def _check_folder(self) -> None:
        """Refuse a folder of other settings, or with files that cannot be used; a free one is begun."""
        wanted = json.loads(json.dumps({k: v for k, v in asdict(self.settings).items() if k not in HOW}))
        usual = {one.name: one.default for one in fields(self.settings) if one.name in wanted}
        check_writable(self.folder)
        file = self.folder / "settings.json"
        if not file.exists():
            check_free(self.folder)
            write_json(file, {**wanted, "versions": versions()})
        there = {**usual, **read_file(file, records.Settings, ANOTHER)}  # an earlier release had fewer
        begun_with = there.pop("versions", None)
        if sentence := other_settings(self.folder, "a study", there, wanted, usual):
            raise InputError(sentence)
        if begun_with is not None and any(not self.file(name).exists() for name in self.pieces):
            check_versions(f"The study in {self.folder}", begun_with, versions())
        for name in self.pieces:
            self._found(name)
            _lines(self.folder / f"{name}.jsonl")
        for name in ("base", "scores"):
            if self.file(name).exists():
                self._tensors(name)

    # What every piece stands on.

    @property
    def _task_name(self) -> str:
        settings = self.settings
        return settings.data if ":" in settings.data else f"{settings.data}-{settings.network}"

    def _task_options(self) -> dict[str, Any]:
        settings, base = self.settings, self.folder / "base.safetensors"
        weights = str(base) if base.exists() else settings.weights
        named = {"network": settings.network} if ":" in settings.data else {"download": settings.download or None}
        recipe = None if weights else settings.pretraining
        options = {**named, "image_size": settings.image_size, "weights": weights, "recipe": recipe}
        return {name: value for name, value in options.items() if value is not None}

    @cached_property
    def task(self) -> Task:
        """The original network and its data."""
        settings = self.settings
        task = load_task(self._task_name, settings.data_root, settings.device, **self._task_options())
        return settings.controlled(task)

    @cached_property
    def measurement(self) -> Measurement:
        """Measures every accuracy of a row, of the original network as of others."""
        return Measurement(self.task)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Prunes by the scores of the piece ``scores``."""
        self._need("base")
        self._need("scores")
        scores = self._tensors("scores")

        def stored(evidence: Evidence) -> dict[str, torch.Tensor]:
            return scores

        return self._evaluator_by(stored)

    def _evaluator_by(self, criterion: str | Criterion) -> Evaluator:
        settings, task = self.settings, self.task
        widths = settings.min_filters, settings.round_to
        return Evaluator(task, criterion, settings.fidelity(task.fidelity), *widths)

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors that a piece left; those of earlier releases have no checksum."""
        path = self.folder / f"{name}.safetensors"
        try:
            return read_tensors(path, signed=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be used ({error}): remove it and {self.file(name)}, and they are made anew."
            ) from error

    def _uniform(self, rate: int) -> Plan:
        return within(self.task.control.agents, dict.fromkeys(self.task.agents, float(rate)))

    def _need(self, name: str) -> dict[str, Any]:
        """What a piece found; it is worked on first if it is not there."""
        if not self.file(name).exists():
            self.pieces[name]()
        return self._read(name)

    def _read(self, name: str) -> dict[str, Any]:
        file = self.file(name)
        return read_file(file, records.schema_of(name), f"remove {file}, and it is made anew")

    # The pieces.

    def _base(self) -> None:
        task = self.task
        write_tensors(self.folder / "base.safetensors", task.network.state_dict())
        costs, (accuracy,) = task.graph.costs(), self.measurement.accuracies(task.network, task.test)
        self._write("base", {
            "accuracy": accuracy,
            "pruned_accuracy": accuracy,
            "filters": costs.filters,
            "params": costs.params,
            "output_only_params": costs.params,
            "macs": costs.macs,
            "recipe": self.settings.weights or self.settings.pretraining,
        })  # fmt: skip

    def _scores(self) -> None:
        scores = self.task.scores(self.settings.criterion)
        write_tensors(self.folder / "scores.safetensors", scores)
        self._write("scores", {"criterion": self.settings.criterion})

    def _search(self, name: str, agent: str, rate: int, seed: int) -> None:
        """Let an agent learn ratios for the multiply-adds of uniform pruning."""
        entry, evaluations = choose_agent(agent), self.settings.evaluations
        budget = self.evaluator.costs(self._uniform(rate)).macs / self.task.graph.costs().macs
        evaluator = self._evaluator_by(self.evaluator.criterion)
        env = dsfp_env.parallel_env(
            evaluator=evaluator, actions=entry.actions, reward="budget", macs_budget=budget
        )
        tried: list[dict[str, Any]] = []
        log = self.folder / f"{name}.jsonl"
        before = _lines(log)
        for line in before:  # the agents are repeatable: they will ask for the same again
            evaluator.remember(line["ratios"], seed, line["accuracy"])
        progress = Progress(name, evaluations)

        def note(evaluation: agents.Evaluation) -> None:
            info = next(iter(evaluation.infos.values()))
            found = {"accuracy": info["accuracy"], "macs": info["macs"], "reward": evaluation.score}
            tried.append({"ratios": evaluation.ratios, **found})
            if len(tried) > len(before):
                append_line(log, json.dumps(tried[-1]))
            elif tried[-1] != before[len(tried) - 1]:
                raise InputError(
                    f"Line {len(tried)} of {log} is not what this search comes to: it was changed, or other code "
                    "made it. Remove the file, and the search is made anew."
                )
            progress.advance(evaluation.score)

        team = entry.make(env, seed, evaluations)
        agents.train(env, team, evaluations, seed=seed, on_evaluation=note)
        progress.close()
        allowed = budget * self.task.graph.costs().macs
        within = [line for line in tried if line["macs"] <= allowed] or tried

        def start_many(plans: Sequence[Plan], seed: int) -> Iterator[Outcome]:
            return shown_one_by_one(f"{name}, the best again", evaluator.start_many(plans, seed, 1), len(plans))

        ratios, rewards = [line["ratios"] for line in within], [line["reward"] for line in within]
        best = choose_best(ratios, rewards, env.score, start_many, seed)
        self._write(
            name, {"ratios": best, "macs_budget": budget, "within_budget": len(within), "tried": len(tried)}
        )

    def _row(self, name: str, kind: str, rate: int, seed: int) -> None:
        """Prune, measure, fine-tune for long, measure."""
        plan = self._uniform(rate) if kind == "uniform" else self._need(f"search-{name}")["ratios"]
        task, keep = self.task, self.evaluator.keep(plan)
        network = task.graph.slim(task.network, keep)
        (pruned_accuracy,) = self.measurement.accuracies(network, task.test)
        recipe = task.suited(recipe_from(self.settings.fine_tuning, FINE_TUNING))
        checkpoint = self.training(name)
        teacher = TeacherMemory(task.network, recipe, self.folder / f"teacher-seed{seed}")
        history = distil(
            network,
            teacher,
            task.train,
            task.validation,
            recipe,
            seed,
            on_epoch=shown(name),
            checkpoint=checkpoint,
            objective=task.objective,
            augment=task.augment,
        )
        dsfp_env.save_pruned(
            self.folder / f"{name}.safetensors", network, keep, task, {"ratios": plan, "seed": seed}
        )
        validation_accuracy, accuracy = self.measurement.accuracies(network, task.validation, task.test)
        costs, best = task.graph.costs(keep), max(history, key=lambda epoch: epoch.accuracy or 0)
        kept = {path: len(filters) for path, filters in keep.items()}
        self._write(name, {
            "ratios": plan,
            "pruned_accuracy": pruned_accuracy,
            "accuracy": accuracy,
            "validation_accuracy": validation_accuracy,
            "best_epoch": best.number,
            "epochs": recipe.epochs,
            "filters": costs.filters,
            "filters_kept": kept,
            "params": costs.params,
            "output_only_params": output_only_params(task.network, task.graph.layers, kept),
            "macs": costs.macs,
        })  # fmt: skip
        checkpoint.unlink(missing_ok=True)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.file(name), content)

    def table(self) -> str:
        """What is there so far, as a Markdown table."""
        base = self._found("base")
        rows = {
            f"{kind} {rate} %": (rate, [self._found(_name(kind, rate, seed)) for seed in self.settings.seeds])
            for rate in self.settings.rates
            for kind in ("uniform", *self.settings.agents)
        }
        return paper_table(self.settings.network, base, rows)

    def _found(self, name: str) -> dict[str, Any] | None:
        return self._read(name) if self.file(name).exists() else None


def _name(kind: str, rate: int, seed: int) -> str:
    """Of the piece that makes a row of the table; also of files, so without the colon of package.module:Class."""
    return f"{kind.replace(':', '.')}-{rate}-seed{seed}"


def _lines(file: Path) -> list[dict[str, Any]]:
    """What was tried, if the file is there; a line that was cut short is dropped from it.

    Raises:
        InputError: If a line is not one that a search wrote.
    """
    otherwise = "remove the file, and the search is made anew"
    lines = enumerate(lines_of(file, otherwise), start=1)
    return [read_line(line, number, file, records.Tried, otherwise) for number, line in lines]
