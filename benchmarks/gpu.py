"""Ten minutes of a GPU: is it right there, what do flags and cold starts cost, how far is it from the roof?

    python benchmarks/gpu.py --out gpu.jsonl
    python benchmarks/gpu.py --networks resnet20 --minutes 5
    python benchmarks/gpu.py --device cpu --quick  # the same, on little work, anywhere

Every result is a line of JSON, written as soon as it is there, so that what was measured before the time is up is
kept. What is right comes first. A section that fails leaves a line with its error, and the next one begins; those
that would begin after the time is up leave a line that says so. Images are random, of CIFAR's size, and networks
untrained: that does not matter for times, nor for whether equal work gives equal bits. Times are in seconds.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import nn
from torch.nn import functional as F

import dsfp_env
from agents.reporting.baselines import random_plans
from dsfp_env import ChannelGraph, Evaluator, Fidelity, LatencyMeter, Task
from dsfp_env.common.devices import choose_device, finish, fused, processor_name
from dsfp_env.common.hashing import hash_of
from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.common.repeatable import repeatable
from dsfp_env.networks import make_network
from dsfp_env.speed.folding import foldable
from dsfp_env.speed.precision import computing, laid_out
from dsfp_env.training.accuracy import compute_logits

Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda:1, ..."""
    networks: tuple[str, ...] = ("resnet20", "vgg16-bn")
    """For images of CIFAR's size and 10 classes."""
    plans: int = 8
    """Joint actions, where several are evaluated."""
    minutes: float = 10.0
    """After which no section begins."""
    out: str = "gpu.jsonl"
    """Where the lines go, and to the standard output too."""
    quick: bool = False
    """ResNet-20 alone, two batches of few images."""


def main() -> None:
    """Run all sections."""
    settings = tyro.cli(Settings, description=__doc__)
    if settings.quick:
        torch.set_num_threads(1)
    with Path(settings.out).open("w") as file:
        run(settings, Lines(file))


class Lines:
    """Results as lines of JSON, each written at once."""

    def __init__(self, file: Any) -> None:
        self._file, self.start = file, time.perf_counter()

    def write(self, **result: Any) -> None:
        """One line."""
        line = json.dumps({"after": round(time.perf_counter() - self.start, 2), **result})
        print(line, flush=True)
        print(line, file=self._file, flush=True)


def run(settings: Settings, lines: Lines) -> None:
    """Every section, for every network where it is about one."""
    device = choose_device(settings.device)
    subjects = [Subject(name, device, settings) for name in settings.networks[: 1 if settings.quick else None]]
    jobs: list[tuple[str, str, Callable[[], Iterator[Result]]]] = [
        ("versions", "", partial(versions, device)),
        ("rates", "", partial(rates, device, settings.quick)),
    ]
    for section in SECTIONS:
        jobs += [(section.__name__, one.name, partial(section, one)) for one in subjects]
    for section, network, work in jobs:
        about = {"section": section, **({"network": network} if network else {})}
        if time.perf_counter() - lines.start > 60 * settings.minutes:
            lines.write(**about, skipped="the time is up")
            continue
        try:
            for result in work():
                lines.write(**about, **result)
        except Exception as error:  # whatever it is, the other sections are worth having
            lines.write(**about, error=f"{type(error).__name__}: {error}"[:500])


class Subject:
    """A network of a task with random images, made when it is first needed."""

    def __init__(self, name: str, device: torch.device, settings: Settings) -> None:
        self.name, self.device, self.quick = name, device, settings.quick
        self.plans = 2 if settings.quick else settings.plans
        sizes, pixels = ((64, 32, 16), 16) if settings.quick else ((4096, 2000, 256), 32)
        self.batch = 16 if settings.quick else 128
        rng = torch.Generator().manual_seed(0)
        self.splits = [
            (torch.randn(size, 3, pixels, pixels, generator=rng), torch.randint(10, (size,), generator=rng))
            for size in sizes
        ]

    @cached_property
    def network(self) -> nn.Module:
        """With statistics of normalisation that are not 0 and 1; on the CPU."""
        with own_random_numbers(torch.device("cpu"), seed=0):
            network = make_network(self.name, 10)
        with torch.no_grad():
            network.train()(self.splits[0][0][:64])
        return network.eval()

    @cached_property
    def task(self) -> Task:
        """On the device."""
        fidelity = Fidelity(batches=2, batch_size=16, recalibration_images=32) if self.quick else Fidelity()
        return Task.from_network(
            self.network, *self.splits, name=self.name, device=str(self.device), fidelity=fidelity
        )

    def evaluator(self, **options: Any) -> Evaluator:
        """One that takes nothing from the disk."""
        return Evaluator(self.task, "l1", store=False, **options)

    def random_plans(self) -> list[dict[str, float]]:
        """Joint actions, always the same."""
        return random_plans(self.evaluator(), self.plans, "box", np.random.default_rng(0))


def versions(device: torch.device) -> Iterator[Result]:
    """What there is, and the flags as torch has them."""
    cudnn = torch.backends.cudnn
    found: Result = {
        "dsfp_env": dsfp_env.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "processor": processor_name(device),
        "threads": torch.get_num_threads(),
        "tf32_convolutions": cudnn.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": cudnn.deterministic,
        "benchmark": cudnn.benchmark,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "cuda": torch.version.cuda,
            "cudnn": cudnn.version(),
            "capability": torch.cuda.get_device_capability(device),
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
        }
    yield found


def rates(device: torch.device, quick: bool) -> Iterator[Result]:
    """The roof: multiply-adds a second of large products, bytes a second of a copy, seconds of an empty launch."""
    size = 256 if quick else 8192 if device.type == "cuda" else 2048
    for dtype in (torch.float32, torch.bfloat16):
        one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        with repeatable():
            seconds = median(device, partial(torch.matmul, one, other))
        yield {"what": f"product, {dtype}", "size": size, "macs_per_second": size**3 / seconds}
    source = torch.zeros(size, size, device=device)
    seconds = median(device, source.clone)
    yield {"what": "copy", "bytes_per_second": 2 * source.nbytes / seconds}
    single = torch.zeros(1, device=device)
    many = 1000
    seconds = median(device, lambda: [single.add_(1) for _ in range(many)])
    yield {"what": "launch", "seconds": seconds / many}


def exact(subject: Subject) -> Iterator[Result]:
    """What TF32 does to answers, and whether layers, folding and scores are the CPU's all the same."""
    images = subject.splits[0][0][:64]
    there = make_network(subject.name, 10)
    there.load_state_dict(subject.network.state_dict())
    there.to(subject.device).eval()
    expected = compute_logits(subject.network, images)
    largest = float(expected.abs().max())
    for tf32 in (True, False):
        with tf32_set(tf32):
            logits = compute_logits(there, images).cpu()
        yield {"tf32": tf32, "largest_difference": float((logits - expected).abs().max()) / largest}
    graphs = [ChannelGraph.trace(subject.network, images[:1])]
    with tf32_set(True):  # as torch comes; ours must not care
        graphs.append(ChannelGraph.trace(there, images[:1].to(subject.device)))
        folded = foldable(there, graphs[1].norms, images[:2].to(subject.device))
    yield {
        "layers": len(graphs[1].layers),
        "layers_equal": list(graphs[0].layers) == list(graphs[1].layers),
        "folded": len(folded),
        "norms": len(graphs[1].norms),
    }


def repeats(subject: Subject) -> Iterator[Result]:
    """Whether equal seeds give equal bits, and what that costs."""
    evaluator = subject.evaluator()
    (plan,) = subject.random_plans()[:1]
    hashes = {hash_of(evaluator.build(plan, seed=1).state_dict().values()) for _ in range(2)}
    yield {"equal_bits": len(hashes) == 1, "precision": evaluator.fidelity.precision}
    for deterministic, benchmark in ((True, False), (False, False), (False, True)):
        with flags_set(deterministic, benchmark):
            seconds = median(subject.device, training_step(subject, subject.network))
        yield {"deterministic": deterministic, "benchmark": benchmark, "training_step": seconds}


def plans(subject: Subject) -> Iterator[Result]:
    """An evaluation, cold (widths that were not seen before) and warm (the same again), by `round_to`."""
    for round_to in (1, 8, 16):
        evaluator = subject.evaluator(round_to=round_to)
        measure = evaluator.measurement.measure
        evaluator.measurement.prepare()
        kept = [evaluator.keep(plan) for plan in subject.random_plans()]
        times: dict[str, list[float]] = {"cold": [], "warm": []}
        for keep in kept:
            for name in times:
                times[name].append(timed(subject.device, partial(measure, keep)))
        widths = {len(filters) for keep in kept for filters in keep.values()}
        medians = {name: statistics.median(column) for name, column in times.items()}
        yield {"round_to": round_to, "widths": len(widths), "first": times["cold"][0], **medians}


def as_one(subject: Subject) -> Iterator[Result]:
    """An evaluation of 50 % of every layer, batch by batch, and each launched as one if bits are equal."""
    evaluator = subject.evaluator()
    measurement, keep = evaluator.measurement, evaluator.keep(dict.fromkeys(subject.task.agents, 50.0))
    ways = (False, True) if measurement.graphed else (False,)
    for graphed in ways * 2:
        measurement.graphed = graphed
        seconds = median(subject.device, partial(measurement.measure, keep))
        yield {"launched_as_one": graphed, "seconds": seconds}


def steps(subject: Subject) -> Iterator[Result]:
    """A batch of training of the whole network, by precision and layout of the weights; `rates` has the roof."""
    macs = ChannelGraph.trace(subject.network, subject.splits[0][0][:1]).costs().macs
    for precision in ("float32", "bfloat16"):
        for layout in (torch.contiguous_format, torch.channels_last):
            seconds = median(subject.device, training_step(subject, subject.network, precision, layout))
            yield {
                "precision": precision,
                "weights": str(layout).removeprefix("torch."),
                "batch_size": subject.batch,
                "seconds": seconds,
                "macs_per_second": 3 * macs * subject.batch / seconds,  # forward, and twice that backward
            }


def workers(subject: Subject) -> Iterator[Result]:
    """Evaluations a second of one, two and four processes, each of which has a copy of all that is on the GPU."""
    chosen, outcomes = subject.random_plans(), []
    for count in (1, 2) if subject.quick else (1, 2, 4):
        with subject.evaluator() as evaluator:
            start = timed(subject.device, partial(evaluator.evaluate_many, chosen[:2], 1, count))
            began = time.perf_counter()
            outcomes.append(evaluator.evaluate_many(chosen, 0, count))
            seconds = time.perf_counter() - began
        yield {"workers": count, "evaluations_per_second": len(chosen) / seconds, "first_two": start}
    yield {"outcomes_equal": all(one == outcomes[0] for one in outcomes)}


def scoring(subject: Subject) -> Iterator[Result]:
    """Seconds of the scores of all filters, by criterion."""
    options = {"num_batches": 1, "batch_size": 8} if subject.quick else {"num_batches": 2, "batch_size": 128}
    for criterion in ("l1", "fpgm", "taylor", "fisher", "fisher_kl", "activation_kl", "output_kl"):
        work = partial(dsfp_env.score_filters, subject.task, criterion, **options)
        seconds = timed(subject.device, work)
        yield {"criterion": criterion, "seconds": seconds, **options}


def latency(subject: Subject) -> Iterator[Result]:
    """A forward pass of the whole network and of one with half of its filters, by batch size."""
    evaluator, images = subject.evaluator(), subject.task.validation.images
    half = subject.task.graph.slim(subject.task.network, evaluator.keep(dict.fromkeys(subject.task.agents, 50.0)))
    for batch_size in (1, 16) if subject.quick else (1, 128, 512):
        meter = LatencyMeter(batch_size=batch_size, min_run_time=0.05 if subject.quick else 0.5)
        found = [meter.measure(network, images) for network in (subject.task.network, half)]
        yield {
            "batch_size": batch_size,
            **{name: time.seconds for name, time in zip(("whole", "half"), found, strict=True)},
        }


SECTIONS: tuple[Callable[[Subject], Iterator[Result]], ...] = (
    exact,
    repeats,
    plans,
    as_one,
    steps,
    workers,
    scoring,
    latency,
)


def training_step(
    subject: Subject,
    network: nn.Module,
    precision: str = "bfloat16",
    layout: torch.memory_format = torch.channels_last,
) -> Callable[[], None]:
    """A step of AdamW on a batch, with a copy of the network."""
    student = make_network(subject.name, 10)
    student.load_state_dict(network.state_dict())
    student.to(subject.device, memory_format=layout).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=fused(subject.device))
    images, labels = (tensor[: subject.batch].to(subject.device) for tensor in subject.splits[0])

    def step() -> None:
        optimizer.zero_grad()
        with computing(precision, subject.device):
            logits = student(laid_out(images, precision, student))
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def timed(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds of some work, to its end on the device."""
    finish(device)
    start = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - start


def median(device: torch.device, work: Callable[[], Any]) -> float:
    """Median seconds of some work, after two rounds that do not count; slow work is repeated less."""
    timed(device, work)
    rounds = 3 if timed(device, work) > 0.1 else 15
    return statistics.median(timed(device, work) for _ in range(rounds))


@contextmanager
def tf32_set(on: bool) -> Iterator[None]:
    """Within this context, convolutions and products of float32 may be rounded to TF32, or not."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = on
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


@contextmanager
def flags_set(deterministic: bool, benchmark: bool) -> Iterator[None]:
    """Within this context, cuDNN chooses its kernels so."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


if __name__ == "__main__":
    main()
