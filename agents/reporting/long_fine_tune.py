"""The long fine-tune at the end of a run: of the best plan, and of its yardsticks at equal cost.

Networks are cut anew from the original and fine-tuned by one recipe with one seed, as the paper does when the
ratios are found. The validation split chooses the epoch, and the test split is looked at once. Each training keeps
its state in the run folder after every epoch, so that a run that is stopped goes on from there; with the result
all that is removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from agents.reporting.finals import in_own_units
from agents.reporting.journal import Journal
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.plans import Plan
from dsfp_env.tasks.task import Task
from dsfp_env.training.epochs import Epoch
from dsfp_env.training.fine_tuning import TeacherMemory, distil
from dsfp_env.training.recipes import FINE_TUNING, Recipe, recipe_from
from dsfp_env.training.shown import Shown

YARDSTICKS = ("uniform", "random_search_equal_macs", "random_search_equal_params", "random_search_equal_latency")
_TEACHER, _STATE = "teacher", "training"


def finish(
    network: nn.Module, task: Task, recipe: Recipe, seed: int, teacher: Path, checkpoint: Path, label: str
) -> list[Epoch]:
    """Distil the original network of a task into a slim one, in place, showing how far that is.

    Args:
        network: The slim one.
        task: With the original one.
        recipe: It is suited to the images.
        seed: Of all that is drawn.
        teacher: A folder for what the original network answers: of this task, this recipe and this seed.
        checkpoint: A file for the state after every epoch, from which it goes on.
        label: What is shown.

    Returns:
        What every epoch brought.
    """
    recipe, shown = task.suited(recipe), Shown(label)
    return distil(
        network,
        TeacherMemory(task.network, recipe, teacher),
        task.train,
        task.validation,
        recipe,
        seed,
        objective=task.objective,
        augment=task.augment,
        on_epoch=shown,
        on_batch=shown.batch,
        checkpoint=checkpoint,
    )


class LongFineTune:
    """Fine-tunes the networks of a run.

    Args:
        folder: Of the run; states are kept there.
        evaluator: Of the run.
        recipe: In text, see `recipes.FINE_TUNING`.
        seed: Of the run.
    """

    def __init__(self, folder: Path, evaluator: Evaluator, recipe: str, seed: int) -> None:
        self._folder, self._evaluator, self._text, self._seed = folder, evaluator, recipe, seed
        self._recipe = recipe_from(recipe, FINE_TUNING)

    def results(self, result: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
        """What the best plan of a result, and its yardsticks at equal cost, come to; noted in the journal."""
        entries = {"best": result["best"]} | {
            name: result["baselines"][name] for name in YARDSTICKS if name in result["baselines"]
        }
        networks = {name: self._result(name, entry["ratios"], journal) for name, entry in entries.items()}
        return {"recipe": self._text, "networks": networks}

    def network(self, plan: Plan, label: str = "best") -> tuple[nn.Module, list[Epoch]]:
        """The network pruned by a plan, fine-tuned, and what every epoch brought; at once if that is done."""
        evaluator, task = self._evaluator, self._evaluator.task
        network = task.graph.slim(task.network, evaluator.keep(plan))
        teacher, state = self._folder / _TEACHER, self._folder / f"{_name(plan)}.{_STATE}"
        shown = f"long fine-tune, {label.replace('_', ' ')}"
        history = finish(network, task, self._recipe, self._seed, teacher, state, shown)
        return network, history

    def _result(self, name: str, plan: Plan, journal: Journal) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            network, history = self.network(plan, name)
            task = self._evaluator.task
            validation, test = self._evaluator.measurement.values(network, task.validation, task.test)
            return {
                "validation_accuracy": task.metric.scaled(validation),
                "test_accuracy": task.metric.scaled(test),
                "best_epoch": max(history, key=lambda epoch: epoch.accuracy or 0).number,
                "epochs": self._recipe.epochs,
                **in_own_units(self._evaluator, [(validation, test)]),
            }

        return dict(journal.once(["fine_tuned", plan, self._text, self._seed], work))


def remove_states(folder: Path) -> None:
    """Remove what is only for going on, when a result is written."""
    for state in folder.glob(f"*.{_STATE}"):
        state.unlink(missing_ok=True)
    shutil.rmtree(folder / _TEACHER, ignore_errors=True)


def _name(plan: Plan) -> str:
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]
