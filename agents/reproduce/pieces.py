"""The pieces of a study: each is work that leaves a file, from which others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import dsfp_env
from agents.reporting.long_fine_tune import finish
from agents.reporting.run_folder import write_json
from agents.reproduce import estimate
from agents.reproduce.checks import DIGITS, check_only, check_settings
from agents.reproduce.known import Known, known_pieces
from agents.reproduce.latencies import measure_latencies, read_latencies
from agents.reproduce.results import RESULTS, table_of
from agents.reproduce.searching import Search
from agents.reproduce.settings import StudySettings
from agents.reproduce.study_files import StudyFiles
from agents.reproduce.targets import (
    BASE,
    RANDOM,
    SCORES,
    SEARCH,
    SWEEP,
    UNIFORM,
    Target,
    is_sensitivity,
    names_of,
    piece_of,
    rule_of,
    scored,
)
from dsfp_env.channels.costs import output_only_params
from dsfp_env.common.folders import contents, held
from dsfp_env.common.tensor_files import write_tensors
from dsfp_env.criteria.criterion import Criterion
from dsfp_env.criteria.scoring import Evidence
from dsfp_env.evaluation.allocation import allocate, sweep_of
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.evaluation.plans import Plan, within
from dsfp_env.tasks.loading import BegunTask, begin_task, check_task, load_task
from dsfp_env.tasks.task import Task
from dsfp_env.training.epochs import Epoch
from dsfp_env.training.recipes import FINE_TUNING, Recipe, recipe_from


class _Asked(NamedTuple):
    """What a search or a row is of."""

    kind: str
    target: Target
    seed: int


class Study:
    """One network, pruned in several ways; everything that is found lies in a folder.

    Args:
        settings: What is asked for.
        task: Its task, if it is there already.

    Attributes:
        files: Of the folder.
        first: Pieces that rows stand on, see `pieces`.
        pieces: Name -> the work that leaves ``NAME.json``, in an order in which they can be done.
    """

    def __init__(self, settings: StudySettings, task: Task | None = None) -> None:
        self.settings = settings
        self.files = StudyFiles(settings)
        self.folder = self.files.folder
        self._begun: BegunTask | None = None
        self._known: list[Known] = []
        self._evaluators: dict[str, Evaluator] = {}  # by the piece whose scores they have
        if task is not None:
            self.task = task
        self.first: dict[str, Callable[[], None]] = {BASE: self._base}
        rows: dict[str, Callable[[], None]] = {}
        self._asked: dict[str, _Asked] = {}
        for kind in settings.kinds:
            self.first |= self._what_it_needs(*self._rule_of(kind))
        for rule in settings.warm_start:
            self.first |= self._what_it_needs(rule, None)
        for seed in settings.seeds:
            for target in settings.targets:
                for kind, short in names_of(settings.kinds).items():
                    name = piece_of(short, target, seed)
                    if not self.settings.is_rule(kind):
                        search = f"{SEARCH}{name}"
                        rows[search] = partial(self._search, search, kind, target, seed)
                        self._asked[search] = _Asked(kind, target, seed)
                    rows[name] = partial(self._row, name, kind, target, seed)
                    self._asked[name] = _Asked(kind, target, seed)
        self.pieces: dict[str, Callable[[], None]] = self.first | rows

    def _what_it_needs(self, rule: str, criterion: str | None) -> dict[str, Callable[[], None]]:
        """The pieces that what a rule or a learner says stands on, besides the base."""
        needs: dict[str, Callable[[], None]] = {scored(SCORES, criterion): partial(self._scores, criterion)}
        if is_sensitivity(rule):
            needs[scored(SWEEP, criterion)] = partial(self._sweep, criterion)
        return needs

    def _rule_of(self, kind: str) -> tuple[str, str | None]:
        """The rule of a yardstick, or a learner; and the criterion, if it is not the study's own."""
        rule, criterion = rule_of(kind) if self.settings.is_rule(kind) else (kind, None)
        return rule, None if criterion == self.settings.criterion else criterion

    def check(self) -> None:
        """Refuse settings that cannot be used, or that differ from those of the folder.

        Raises:
            InputError: If so.
        """
        check_task(self._task_name, self._task_options())
        check_settings(self.settings)
        check_only(self.settings, self.pieces)
        self._known = [Known(Path(file), self.files) for file in self.settings.known]
        self.files.check(dict.fromkeys(self.first) | {name: asked.kind for name, asked in self._asked.items()})

    def take_over(self) -> list[str]:
        """Take over what is known from other folders; returns the names of these pieces.

        Raises:
            InputError: If it is not of this network; nothing is taken over then.
        """
        if not self._known:
            return []
        base = self.files.found(BASE) or self._original
        for known in self._known:
            known.check_network(base, self.task)
        taken = known_pieces(self._known, self.files)
        if not self.settings.estimate:
            self._need(BASE)  # the first that is written: rows without it might be of any network
            for name, found in taken.items():
                self.files.write(name, found)
        return list(taken)

    # What every piece stands on.

    @property
    def _task_name(self) -> str:
        settings = self.settings
        own = ":" in settings.data or settings.data == DIGITS[0]
        return settings.data if own else f"{settings.data}-{settings.network}"

    def _task_options(self) -> dict[str, Any]:
        settings, base = self.settings, self.files.weights(BASE)
        weights = str(base) if base.exists() else settings.weights
        options = {
            "network": settings.network if ":" in settings.data else None,
            "download": (settings.download and self._task_name != settings.data) or None,
            "image_size": settings.image_size,
            "weights": weights,
            "recipe": None if weights else settings.pretraining,
        }
        return {name: value for name, value in options.items() if value is not None}

    @cached_property
    def task(self) -> Task:
        """The original network and its data."""
        settings = self.settings
        if self._begun is None:
            task = load_task(self._task_name, settings.data_root, settings.device, **self._task_options())
        else:
            task, self._begun = self._begun.trained(), None
        return settings.controlled(task)

    @property
    def _recipe(self) -> Recipe:
        """Of the fine-tuning at the end."""
        return recipe_from(self.settings.fine_tuning, FINE_TUNING)

    @cached_property
    def measurement(self) -> Measurement:
        """Measures every accuracy of a row, of the original network as of others."""
        return Measurement(self.task)

    def evaluator(self, criterion: str | None = None) -> Evaluator:
        """One that prunes by the scores of a piece: the study's own, unless another criterion is named."""
        name = scored(SCORES, criterion)
        if name not in self._evaluators:
            self._need(BASE)
            self._need(name)
            scores = self.files.tensors(name)

            def stored(evidence: Evidence) -> dict[str, torch.Tensor]:
                return scores

            self._evaluators[name] = self._evaluator_by(stored)
        return self._evaluators[name]

    def _evaluator_by(self, criterion: str | Criterion) -> Evaluator:
        settings, task = self.settings, self._judged
        widths = settings.min_filters, settings.round_to
        return Evaluator(task, criterion, settings.fidelity(task.fidelity), *widths)

    @cached_property
    def _judged(self) -> Task:
        """The task as evaluations see it, with fewer validation images if that was said."""
        count, task = self.settings.validation_images, self.task
        if count is None:
            return task
        return self.settings.controlled(replace(task, validation=task.validation.some(count)))

    def estimate(self, names: Sequence[str]) -> dict[str, float]:
        """Seconds that pieces will take, by what is done; measured here."""
        settings, tuning = self.settings, self._recipe
        if BASE in names and "task" not in vars(self):
            self._begun = begin_task(self._task_name, settings.data_root, settings.device, **self._task_options())
        base = self._begun.recipe if self._begun else None
        task = settings.controlled(self._begun.untrained()) if self._begun and base else self.task
        judged = replace(task, validation=task.validation.some(settings.validation_images))
        fidelity = settings.fidelity(task.fidelity)
        evaluator = Evaluator(settings.controlled(judged), "l1", fidelity, store=False)
        of_search = estimate.of_search(settings.evaluations, settings.finalist_epochs, len(settings.warm_start))
        each = {  # evaluations and epochs, by piece
            name: of_search if name.startswith(SEARCH) else (0, tuning.epochs)
            for name in names
            if name not in self.first
        }
        targets = [self._asked[name].target for name in each]
        longest = dict[int, int]()  # of the fine-tunings with a seed, epochs
        for name, (_, epochs) in each.items():
            longest[self._asked[name].seed] = max(epochs, longest.get(self._asked[name].seed, 0))
        known = {seed: len(contents(self.files.teacher(seed))) for seed in longest}
        sweeps = sum(name.startswith(SWEEP) for name in names)
        work = estimate.Work(
            base=base.epochs if base else 0,
            passes=sweeps * estimate.passes_of_sweep(task),
            evaluations=estimate.counted(targets, [evaluations for evaluations, _ in each.values()]),
            epochs=estimate.counted(targets, [epochs for _, epochs in each.values()]),
            answers=sum(max(0, epochs - known[seed]) for seed, epochs in longest.items()),
        )
        return estimate.measured(task, evaluator, self._plan_of, work, base, tuning).of(work)

    def _plan_of(self, evaluator: Evaluator, target: Target) -> Plan:
        """The uniform plan of a target."""
        if target.of_macs:
            return allocate(evaluator, UNIFORM, macs_budget=target.percent / 100)
        agents = evaluator.task.control.agents
        return within(agents, dict.fromkeys(agents, target.percent))

    def _budget(self, evaluator: Evaluator, target: Target) -> float:
        """The share of the multiply-adds that a target allows."""
        if target.of_macs:
            return target.percent / 100
        return evaluator.costs(self._plan_of(evaluator, target)).macs / self.task.graph.costs().macs

    def _ratios(self, name: str, kind: str, target: Target) -> Plan:
        """The ratios of a row, as a rule says, or as a search found them."""
        if not self.settings.is_rule(kind):
            found: Plan = self._need(f"{SEARCH}{name}")["ratios"]
            return found
        return self._ruled(*self._rule_of(kind), target)

    def _ruled(self, rule: str, criterion: str | None, target: Target) -> Plan:
        """The ratios that a rule says."""
        evaluator = self.evaluator(criterion)
        if rule == UNIFORM:
            return self._plan_of(evaluator, target)
        sweep = self._need(scored(SWEEP, criterion))["accuracies"] if is_sensitivity(rule) else None
        return allocate(evaluator, rule, macs_budget=self._budget(evaluator, target), sweep=sweep)

    def _need(self, name: str) -> dict[str, Any]:
        """What a piece found; it is worked on first if it is not there."""
        if not self.files.of(name).exists():
            self.pieces[name]()
        return self.files.read(name)

    # The pieces.

    def _base(self) -> None:
        write_tensors(self.files.weights(BASE), self.task.network.state_dict())
        self.files.write(BASE, self._original)

    @cached_property
    def _original(self) -> dict[str, Any]:
        """What is found of the original network."""
        task = self.task
        costs, (accuracy,) = task.graph.costs(), self.measurement.accuracies(task.network, task.test)
        return {
            "accuracy": accuracy,
            "pruned_accuracy": accuracy,
            "filters": costs.filters,
            "params": costs.params,
            "output_only_params": costs.params,
            "macs": costs.macs,
            "recipe": self.settings.weights or self.settings.pretraining,
            "filters_kept": {path: layer.out_channels for path, layer in task.graph.layers.items()},
        }

    def _scores(self, criterion: str | None) -> None:
        name, criterion = scored(SCORES, criterion), criterion or self.settings.criterion
        write_tensors(self.files.weights(name), self.task.scores(criterion))
        self.files.write(name, {"criterion": criterion})

    def _sweep(self, criterion: str | None) -> None:
        """See what accuracy is left when one layer is pruned."""
        accuracies = sweep_of(self.evaluator(criterion))
        self.files.write(
            scored(SWEEP, criterion),
            {"criterion": criterion or self.settings.criterion, "accuracies": accuracies},
        )

    def _search(self, name: str, kind: str, target: Target, seed: int) -> None:
        """Find ratios within the multiply-adds of a target: an agent learns them, or they are drawn."""
        evaluator = self._evaluator_by(self.evaluator().criterion)
        budget = self._budget(evaluator, target)
        log = self.files.log(name)
        log.touch()
        with held(log, "give every process pieces of its own with --only"):
            tuned = partial(self._tuned, name, seed) if self.settings.finalist_epochs else None
            first = [self._ruled(rule, None, target) for rule in self.settings.warm_start]
            search = Search(log, evaluator, budget, self.settings.evaluations, seed, tuned, first)
            found = search.draw() if kind == RANDOM else search.learn(kind, self.settings.fill_budget)
            self.files.write(name, {"kind": kind, **found})
            self.files.remove_trainings(name)

    def _tuned(self, name: str, seed: int, number: int, plan: Plan) -> float:
        """The best validation accuracy of a search's finalist in a few epochs, which are as those of a row."""
        network = self.task.graph.slim(self.task.network, self.evaluator().keep(plan))
        history = self._finish(network, f"{name}.{number}", seed, self.settings.finalist_epochs)
        return max(epoch.accuracy or 0.0 for epoch in history)

    def _row(self, name: str, kind: str, target: Target, seed: int) -> None:
        """Prune, measure, fine-tune for long, measure."""
        plan = self._ratios(name, kind, target)
        task, keep = self.task, self.evaluator(self._rule_of(kind)[1]).keep(plan)
        network = task.graph.slim(task.network, keep)
        (pruned_accuracy,) = self.measurement.accuracies(network, task.test)
        history = self._finish(network, name, seed)
        dsfp_env.save_pruned(self.files.weights(name), network, keep, task, {"ratios": plan, "seed": seed})
        validation_accuracy, accuracy = self.measurement.accuracies(network, task.validation, task.test)
        costs, best = task.graph.costs(keep), max(history, key=lambda epoch: epoch.accuracy or 0)
        kept = {path: len(filters) for path, filters in keep.items()}
        self.files.write(name, {
            "kind": kind,
            "ratios": plan,
            "pruned_accuracy": pruned_accuracy,
            "accuracy": accuracy,
            "validation_accuracy": validation_accuracy,
            "best_epoch": best.number,
            "epochs": self._recipe.epochs,
            "epoch_accuracies": [epoch.accuracy for epoch in history],
            "filters": costs.filters,
            "filters_kept": kept,
            "params": costs.params,
            "output_only_params": output_only_params(task.network, task.graph.layers, kept),
            "macs": costs.macs,
        })  # fmt: skip
        self.files.remove_trainings(name)

    def _finish(self, network: nn.Module, name: str, seed: int, epochs: int | None = None) -> list[Epoch]:
        """Fine-tune a slim network in place by the study's recipe, for fewer epochs if that is said."""
        recipe = self._recipe if epochs is None else replace(self._recipe, epochs=epochs)
        return finish(network, self.task, recipe, seed, self.files.teacher(seed), self.files.training(name), name)

    def results(self) -> dict[str, Any]:
        """What is there so far, as `records.Results` says."""
        found = {name: one for name in self.pieces if (one := self.files.found(name)) is not None}
        return {
            "settings": self.files.settings(),
            "versions": self.files.versions() or {},
            "base": found.get(BASE),
            "searches": {name: one for name, one in found.items() if name.startswith(SEARCH)},
            "rows": {
                name: one for name, one in found.items() if name not in self.first and not name.startswith(SEARCH)
            },
            "latencies": read_latencies(self.folder),
        }

    def measure_latencies(self, deployed: str) -> None:
        """Time the original network and those of all rows that are there; see `latencies`."""
        if self.files.of(BASE).exists():
            measure_latencies(self.folder, self.task, BASE, self.results()["rows"], deployed)

    def write_results(self) -> dict[str, Any]:
        """Write what is there so far to a file of its own, for who stops in between; returns it."""
        results = self.results()
        write_json(self.folder / RESULTS, results)
        return results

    def table(self) -> str:
        """What is there so far, as text and a Markdown table."""
        return table_of(self.results())
