"""Does filter fusion (DCFF) help? Compact networks for digits, trained from scratch or fused after training.

    python benchmarks/dcff.py --ratio 0.75 --seeds 8

Accuracy in percent on the validation and the test split together, which choose nothing here; mean and standard
deviation over the seeds. Every network has the same widths, recipe and number of epochs.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
import tyro
from torch import nn

import dsfp_env
from dsfp_env.criteria.similarity import inter_similarity, similarity_scores
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.dcff import fusion
from dsfp_env.dcff.training import FusedConv2d, Skeleton, baked, fusing, skeleton
from dsfp_env.networks import make_network
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.distillation import recalibrate
from dsfp_env.training.epochs import train
from dsfp_env.training.recipes import Recipe


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    ratio: float = 0.5
    """Fraction of the filters of every layer that go."""
    seeds: int = 3
    """How many."""
    epochs: int = 30
    """Of every training."""


def main() -> None:
    """Train, fuse, measure, print."""
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    task = dsfp_env.load_task("digits", device="cpu")
    recipe, ratios = Recipe(epochs=settings.epochs), dict.fromkeys(task.graph.layers, settings.ratio)
    held = LabelledImages(*(torch.cat(pair) for pair in zip(task.validation, task.test, strict=True)))
    whole = Skeleton(make_network("digits_net"), {})
    fused = skeleton(whole.network, task.graph, ratios)
    plain = Skeleton(fused.network, {})
    rows: dict[str, list[float]] = {}

    def note(name: str, network: nn.Module) -> None:
        rows.setdefault(name, []).append(100 * measure_accuracy(network, held))

    for seed in range(settings.seeds):
        for name, schedule in fusion.SCHEDULES.items():
            note(f"from scratch, {name}", trained(fused, task, recipe, seed, schedule))
        note(
            "from scratch, published, scores frozen",
            trained(fused, task, recipe, seed, fusion.published, frozen=True),
        )
        note("from scratch, plain narrow network", trained(plain, task, recipe, seed, fusion.published))
        full = trained(whole, task, recipe, seed, fusion.published)
        note("full width", full)
        for temperature in (1.0, 0.2, 0.05):
            keep = task.graph.keep(ratios, dcff_scores(full, task, temperature))
            for how, source in (("fused", fusion.fused(full, keep, temperature)), ("selected", full)):
                slim = task.graph.slim(source, keep)
                recalibrate(slim, task.train.images)
                note(f"after training, t = {temperature}, {how}", slim)
    for name, values in rows.items():
        print(f"{name:40s} {statistics.mean(values):6.2f} ± {statistics.stdev(values):.2f}")


def trained(
    compact: Skeleton,
    task: dsfp_env.Task,
    recipe: Recipe,
    seed: int,
    schedule: fusion.Schedule,
    frozen: bool = False,
) -> nn.Module:
    """As `train_compact`; ``frozen``: filters are chosen before the first epoch only, as in the released code."""
    network = fusing(compact, seed)
    layers = [module for module in network.modules() if isinstance(module, FusedConv2d)]

    def choose_filters(epoch: int) -> None:
        for layer in layers:
            chosen = layer.chosen.clone()
            layer.choose_filters(temperature := schedule(epoch, recipe.epochs))
            if frozen and epoch:
                log_p = inter_similarity(layer.weight.flatten(1), temperature)
                layer.chosen.copy_(chosen)
                layer.mixture.copy_(log_p.exp()[chosen])

    train(network, task.train, recipe, seed, before_epoch=choose_filters)
    return baked(network)


def dcff_scores(network: nn.Module, task: dsfp_env.Task, temperature: float) -> dict[str, torch.Tensor]:
    """Scores of another network of the task's structure."""
    weights = {path: network.get_submodule(path).get_parameter("weight").flatten(1) for path in task.graph.layers}
    return {path: similarity_scores(inter_similarity(w, temperature)) for path, w in weights.items()}


if __name__ == "__main__":
    main()
