"""How long a step takes, beside the same work done by others, and where its time goes.

    python benchmarks/step.py
    python benchmarks/step.py --task imagefolder:PATH --network resnet20 --weights FILE --joint-actions 10
    python benchmarks/step.py --quick

Every round runs, one after the other,

    peer    the step as one would write it with Torch-Pruning: deepcopy, dependency graph, prune; DataLoader and
            torchvision's transforms; the teacher asked for every batch; float32; evaluate; count
    loop    the arithmetic alone, as a careful user writes it: a network that is equally slim already, images in
            memory, the teacher's answers known, AdamW fused; in float32 or bfloat16, with channels first or last,
            whichever was the fastest of these on this machine in a short trial (float32 if the step is exact)
    step    env.step
    short   env.step without distillation
    torch   env.step with Fidelity(kernels="torch"), without the compiled kernel

and compares their times within the round. All do the same work: equal filters, the same 256 images to recalibrate,
the same batches in the same order, the same loss and schedule, the same validation images. Without --task the
images are random and the networks untrained, which does not matter for times. With --joint-actions the peer's and
the step's validation accuracies are compared over random joint actions. Then it is said how far the step is from
the time of its multiply-adds alone, at the rate that this machine reaches on a large matrix product. Rounds end
after --minutes for each network, but not before the third.
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch_pruning
import tyro
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import dsfp_env
from dsfp_env.channels.graph import ChannelGraph, Keep
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.evaluation import measurement
from dsfp_env.networks import make_network
from dsfp_env.speed.precision import number_of
from dsfp_env.tasks.task import Task
from dsfp_env.training import distillation
from dsfp_env.training.distillation import Fidelity, TransferSet

Ratios = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """What is timed, on what."""

    networks: tuple[str, ...] = ("vgg16-bn", "resnet20")
    """Without --task: networks for CIFAR-10."""
    task: str | None = None
    """As for train_agents.py."""
    network: str | None = None
    """Of an image folder."""
    weights: str | None = None
    """Of the original network."""
    ratio: float = 50
    """Percent of the filters of every layer."""
    batches: int = 20
    """Of distillation."""
    batch_size: int = 128
    """Of distillation."""
    validation: int = 2000
    """Images."""
    rounds: int = 7
    """At most, after one that is not counted."""
    minutes: float = 4.5
    """For the rounds of a network."""
    threads: int = 0
    """Of the CPU; 0: all."""
    joint_actions: int = 0
    """Random ones, to compare accuracies."""
    quick: bool = False
    """A few seconds on the digits, to see that all of it works."""


class Work(NamedTuple):
    """The work of one step, ready to be done."""

    task: Task
    fidelity: Fidelity  # its precision chosen
    ratios: Ratios
    keep: Keep
    transfer_set: TransferSet
    bytes: LabelledImages  # training images as a data set on disk has them, uint8
    validation_bytes: LabelledImages
    transform: v2.Transform  # back to the images of the task


def main(settings: Settings) -> None:
    if settings.quick:
        settings = replace(settings, task="digits", batches=4, rounds=2, validation=200, joint_actions=2)
    threads = settings.threads or torch.get_num_threads()
    warnings.filterwarnings("ignore", category=UserWarning)
    for task in tasks(settings):
        torch.set_num_threads(task.fidelity.threads or threads)  # the same for all
        fidelity = replace(task.fidelity, batches=settings.batches, batch_size=settings.batch_size)
        compare_times(task, fidelity, settings)
        if settings.joint_actions:
            compare_accuracies(task, fidelity, settings)


def tasks(settings: Settings) -> Iterator[Task]:
    """The tasks to time, with so many validation images."""
    if settings.task:
        options = {"network": settings.network, "weights": settings.weights}
        task = dsfp_env.load_task(settings.task, **{name: value for name, value in options.items() if value})
        yield replace(task, validation=LabelledImages(*(part[: settings.validation] for part in task.validation)))
        return
    for name in settings.networks:
        yield random_task(name, settings.validation)


def random_task(name: str, validation: int, size: int = 32) -> Task:
    """An untrained network with 5,000 random images of so many pixels, and so many to validate."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    splits = [
        LabelledImages(
            torch.randint(256, (count, 3, size, size), generator=rng) / 127.5 - 1,
            torch.randint(10, (count,), generator=rng),
        )
        for count in (5000, validation, 100)
    ]
    return Task.from_network(make_network(name, 10), *splits, name=name)


def compare_times(task: Task, fidelity: Fidelity, settings: Settings) -> None:
    """Time the four ways round by round, and print the ratios."""
    work = prepare(task, fidelity, dict.fromkeys(task.agents, settings.ratio))
    fidelity = work.fidelity
    style = fastest_style(work)
    ways: dict[str, Callable[[], Callable[[], object]]] = {
        "peer": lambda: lambda: peer_step(work),
        "loop": lambda: ready_loop(work, style),
        "step": lambda: ready_step(task, fidelity, work.ratios),
        "short": lambda: ready_step(task, replace(fidelity, batches=0), work.ratios),
    }
    if fidelity.kernels == "compiled":
        ways["torch"] = lambda: ready_step(task, replace(fidelity, kernels="torch"), work.ratios)
    times: dict[str, list[float]] = {name: [] for name in ways}
    parts: list[dict[str, float]] = []
    end = time.perf_counter() + 60 * settings.minutes
    for number in range(settings.rounds + 1):
        if number > 3 and time.perf_counter() > end:
            break
        for name, ready in ways.items():
            run = ready()
            with stopwatch() as watch:
                spent = seconds(run)
            if number:
                times[name].append(spent)
                if name == "step":
                    parts.append(shares(watch, spent))
    how = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(times['step'])} rounds"
    print(f"{task.name}, {type(task.network).__name__}, {fidelity.precision}, ratio {settings.ratio:g} %, {how}\n")
    print(f"The loop computes in {style}.\n")
    print("| | s, median | ratio to the step: min / median / max |\n|---|---|---|")
    for name, column in times.items():
        ratios = sorted(a / b for a, b in zip(column, times["step"], strict=True))
        low, middle, high = ratios[0], statistics.median(ratios), ratios[-1]
        print(f"| {name} | {statistics.median(column):.3f} | {low:.2f} / {middle:.2f} / {high:.2f} |")
    print("\n| part of the step | share, median |\n|---|---|")
    for part in parts[0]:
        print(f"| {part} | {100 * statistics.median(share[part] for share in parts):.1f} % |")
    rate, work_done = product_rate(fidelity.precision), multiply_adds(work)
    times_over = statistics.median(times["step"]) * rate / work_done
    print(
        f"\n{work_done / 1e9:.0f} billion multiply-adds; a matrix product does {rate / 1e9:.0f} billion a second "
        f"here; so the step takes {times_over:.2f} times as long as its arithmetic.\n",
        flush=True,
    )


def multiply_adds(work: Work) -> float:
    """Of a step: a backward pass takes twice those of a forward pass."""
    fidelity, macs = work.fidelity, work.task.graph.costs(work.keep).macs
    trained = fidelity.batches * fidelity.batch_size
    return macs * (fidelity.recalibration_images + 3 * trained + len(work.task.validation.labels))


def product_rate(precision: str) -> float:
    """Multiply-adds a second of a product of two large matrices, as numbers of a precision."""
    size = 2048
    matrix = torch.randn(size, size).to(number_of(precision))
    return size**3 / min(seconds(lambda: matrix @ matrix) for _ in range(5))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare_accuracies(task: Task, fidelity: Fidelity, settings: Settings) -> None:
    """Validation accuracies after the same work, over random joint actions."""
    rng = np.random.default_rng(0)
    ways: dict[str, list[float]] = {"peer": [], "step": [], "step, float32": []}
    changes: dict[str, dict[str, Any]] = {"step": {}, "step, float32": {"precision": "float32"}}
    for _ in range(settings.joint_actions):
        work = prepare(task, fidelity, {agent: float(rng.uniform(10, 90)) for agent in task.agents})
        ways["peer"].append(peer_step(work))
        for name, change in changes.items():
            one = dsfp_env.Evaluator(task, "l1", replace(work.fidelity, **change), store=False)
            ways[name].append(one.evaluate(work.ratios).accuracy)
    print(f"validation accuracy over {settings.joint_actions} random joint actions\n")
    print("| | mean, % | difference to the peer: mean, standard deviation |\n|---|---|---|")
    for name, column in ways.items():
        difference = 100 * (np.array(column) - np.array(ways["peer"]))
        print(f"| {name} | {100 * np.mean(column):.2f} | {difference.mean():+.2f}, {difference.std():.2f} |")
    print(flush=True)


def prepare(task: Task, fidelity: Fidelity, ratios: Ratios) -> Work:
    """What the environment knows before its first step, and the same data as others would have them."""
    ours = dsfp_env.Evaluator(task, "l1", fidelity, store=False)
    low = task.train.images.amin((0, 2, 3))
    high = torch.maximum(task.train.images.amax((0, 2, 3)), low + 1e-6)
    scale = 255 / (high - low)[:, None, None]

    def as_bytes(split: LabelledImages) -> LabelledImages:
        levels = ((split.images - low[:, None, None]) * scale).round().clamp(0, 255)
        return LabelledImages(levels.to(torch.uint8), split.labels)

    mean, deviation = (-low / (high - low)).tolist(), (1 / (high - low)).tolist()
    return Work(
        task,
        ours.fidelity,
        ratios,
        ours.keep(ratios),
        task.transfer_set(ours.fidelity, 0),
        as_bytes(task.train),
        as_bytes(task.validation),
        v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, deviation)]),
    )


def ready_step(task: Task, fidelity: Fidelity, ratios: Ratios) -> Callable[[], object]:
    """An environment that has seen other joint actions, but not this one."""
    env = dsfp_env.parallel_env(task=task, criterion="l1", fidelity=fidelity, store=False)
    env.reset(seed=0)
    actions = {agent: np.array([ratio], np.float32) for agent, ratio in ratios.items()}
    return lambda: env.step(actions)


class Style(NamedTuple):
    """How a careful user's loop computes."""

    number: torch.dtype
    layout: torch.memory_format

    def __str__(self) -> str:
        return f"{self.number} with {self.layout}".replace("torch.", "")

    def of(self, images: torch.Tensor) -> torch.Tensor:
        """Images as it likes them."""
        return images.to(self.number, memory_format=self.layout)


def fastest_style(work: Work) -> Style:
    """The style whose short loop, two batches and 256 validation images, is the fastest here."""
    validation = LabelledImages(*(part[:256] for part in work.task.validation))
    transfer_set = TransferSet(*(part[:2] for part in work.transfer_set))
    short = work._replace(task=replace(work.task, validation=validation), transfer_set=transfer_set)
    styles = [
        Style(number, layout)
        for number in (torch.float32, *([torch.bfloat16] if work.fidelity.precision != "float32" else []))
        for layout in (torch.contiguous_format, torch.channels_last)
    ]
    return min(styles, key=lambda style: min(seconds(ready_loop(short, style)) for _ in range(3)))


def ready_loop(work: Work, style: Style) -> Callable[[], object]:
    """The arithmetic on a network that is slim already, and images that are where and what they should be."""
    student = work.task.graph.slim(work.task.network, work.keep)
    student = student.to(memory_format=style.layout)
    images = style.of(work.task.train.images[: len(work.transfer_set.indices) * 200])
    # the same number of batches of the same size, of images that need not be the same ones
    order = torch.arange(work.transfer_set.indices.numel()).view_as(work.transfer_set.indices) % len(images)
    labels = work.task.train.labels
    calibration = style.of(work.task.train.images[: work.fidelity.recalibration_images])
    validation = style.of(work.task.validation.images)

    def loop() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=style.number is torch.bfloat16):
            recalibrate(student, calibration)
            batches = ((images[batch], labels[batch]) for batch in order)
            distil(student, batches, iter(work.transfer_set.teacher_logits), work.fidelity, fused=True)
            with torch.no_grad():
                logits = torch.cat([student(batch) for batch in validation.split(500)])
        (logits.argmax(1) == work.task.validation.labels).float().mean().item()

    return loop


def peer_step(work: Work) -> float:
    """The step as one would write it with Torch-Pruning; the validation accuracy."""
    device = work.task.device
    example = work.task.train.images[:1]
    teacher, student = work.task.network, copy.deepcopy(work.task.network)
    dependencies = torch_pruning.DependencyGraph().build_dependency(student, example)
    pruned: set[str] = set()
    for path, layer in work.task.graph.layers.items():
        if path in pruned:
            continue
        pruned |= {path, *layer.coupled_with}
        gone = sorted(set(range(layer.out_channels)) - set(work.keep[path].tolist()))
        module = student.get_submodule(path)
        dependencies.get_pruning_group(module, torch_pruning.prune_conv_out_channels, idxs=gone).prune()
    correct_weights(student, work)
    recalibrate(student, work.task.train.images[: work.fidelity.recalibration_images])
    indices = work.transfer_set.indices.tolist()
    loader = DataLoader(Images(work.bytes, work.transform), batch_sampler=indices)
    batches = [(images.to(device), labels.to(device)) for images, labels in loader]

    def answers() -> Iterator[torch.Tensor]:
        for images, _ in batches:
            with torch.no_grad():
                logits = teacher(images)
            yield logits

    distil(student, iter(batches), answers(), work.fidelity)
    correct = 0
    with torch.no_grad():
        for images, labels in DataLoader(Images(work.validation_bytes, work.transform), batch_size=256):
            correct += int((student(images.to(device)).argmax(1) == labels.to(device)).sum())
    torch_pruning.utils.count_ops_and_params(student, example)
    return correct / len(work.validation_bytes.labels)


class Images(Dataset[Any]):
    """Images as bytes, transformed when they are asked for."""

    def __init__(self, split: LabelledImages, transform: v2.Transform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.split.images[index]), int(self.split.labels[index])


def correct_weights(student: nn.Module, work: Work) -> None:
    """Torch-Pruning removes the wrong channels where shortcuts are padded (tests/test_torch_pruning.py)."""
    student.load_state_dict(work.task.graph.slim(work.task.network, work.keep).state_dict())


def recalibrate(network: nn.Module, images: torch.Tensor) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    with torch.no_grad():
        network(images)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1


def distil(
    student: nn.Module,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    answers: Iterator[torch.Tensor],
    fidelity: Fidelity,
    fused: bool | None = None,
) -> None:
    """The short fine-tune, written out."""
    optimizer = torch.optim.AdamW(
        student.parameters(), fidelity.learning_rate, weight_decay=fidelity.weight_decay, fused=fused
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, fidelity.batches)
    first, last = fidelity.first_distillation_weight, fidelity.last_distillation_weight
    temperature = fidelity.temperature
    student.train()
    for number, ((images, labels), teacher) in enumerate(zip(batches, answers, strict=True)):
        weight = first + (last - first) * number / max(1, fidelity.batches - 1)
        logits = student(images)
        hard = F.cross_entropy(logits, labels, label_smoothing=fidelity.label_smoothing)
        soft = F.kl_div(
            F.log_softmax(logits / temperature, 1), F.softmax(teacher / temperature, 1), reduction="batchmean"
        )
        loss = (1 - weight) * hard + weight * temperature**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    student.eval()


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Seconds in some functions of ours and of torch's while the context lasts, by name."""
    spent: dict[str, float] = {}
    places = {
        "select": (ChannelGraph, "keep"),
        "slice": (ChannelGraph, "slim"),
        "count": (ChannelGraph, "costs"),
        "recalibrate": (measurement, "recalibrate"),
        "fine_tune": (measurement, "fine_tune"),
        "fold": (measurement, "fold"),
        "evaluate": (measurement, "measure_metric"),
        "loss": (distillation, "distillation_loss"),
        "backward": (torch.Tensor, "backward"),
        "optimiser": (torch.optim.AdamW, "step"),
    }
    originals = {name: getattr(owner, attribute) for name, (owner, attribute) in places.items()}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **keywords)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
            return result

        return run

    for name, (owner, attribute) in places.items():
        setattr(owner, attribute, timed(name, originals[name]))
    try:
        yield spent
    finally:
        for name, (owner, attribute) in places.items():
            setattr(owner, attribute, originals[name])


def shares(spent: dict[str, float], total: float) -> dict[str, float]:
    """Parts of a step as fractions of it; what is not arithmetic is summed up in the last."""
    found = {name: part / total for name, part in spent.items()}
    tuning = found.pop("fine_tune", 0.0)
    forward = tuning - sum(found.get(name, 0.0) for name in ("loss", "backward", "optimiser"))
    arithmetic = found.get("recalibrate", 0.0) + tuning + found.get("evaluate", 0.0)
    rest = 1 - arithmetic - sum(found.get(name, 0.0) for name in ("select", "slice", "count", "fold"))
    order = (
        "select",
        "slice",
        "recalibrate",
        "forward",
        "loss",
        "backward",
        "optimiser",
        "fold",
        "evaluate",
        "count",
    )
    found |= {"forward": forward}
    return {name: found.get(name, 0.0) for name in order} | {
        "environment: decode, reward, observe": rest,
        "all that is not arithmetic": 1 - arithmetic,
    }


if __name__ == "__main__":
    main(tyro.cli(Settings))
