"""A task: a trained network, the images it was trained for, and what can be removed from it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn

from dsfp_env.channels.graph import ChannelGraph
from dsfp_env.channels.lent import unwrapped
from dsfp_env.common.devices import choose_device, with_gradients
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.one_at_a_time import alone, computed_once
from dsfp_env.common.ranges import is_finite
from dsfp_env.criteria.scoring import Criterion, Scores, score_network
from dsfp_env.datasets.labelled_images import LabelledImages, Splits
from dsfp_env.datasets.reading import read_split
from dsfp_env.speed.layout import settle_layout
from dsfp_env.speed.precision import has_bfloat16, is_worth_hastening, without_bfloat16
from dsfp_env.tasks.fingerprints import fingerprint
from dsfp_env.tasks.layer_control import LayerControl, Layers, controlled, coupled_agents
from dsfp_env.training.accuracy import compute_logits
from dsfp_env.training.augmentation import movable
from dsfp_env.training.distillation import Fidelity, TransferSet, default_fidelity
from dsfp_env.training.metrics import Metric
from dsfp_env.training.objectives import AUTO, Objective, check_targets, objective_of, on_device
from dsfp_env.training.recipes import Recipe, suited
from dsfp_env.training.teacher import Teacher

MOST_READERS = 256  # processes that read a data set


@dataclass(frozen=True, eq=False)
class Task:
    """What the agents work on. Nothing in it changes.

    Every prunable convolution has one agent, ``conv_0``, ``conv_1``, ... in order of execution, unless
    `with_layers` was told otherwise.
    """

    name: str
    network: nn.Module  # the trained original, in evaluation mode, on the device of the splits
    train: LabelledImages  # for scores, recalibration and distillation
    validation: LabelledImages  # for rewards
    test: LabelledImages  # for the report at the end of a run
    graph: ChannelGraph
    fidelity: Fidelity = field(default_factory=Fidelity)  # of an evaluation, unless told otherwise
    architecture: tuple[str, int] | None = None  # what `networks.make_network` needs to make such a network
    objective: Objective = field(default_factory=Objective)  # what the networks are trained for and judged by
    augment: Any = None  # of (image, target): varies those of a long training
    flips: bool = False  # whether mirror images are like the images
    _scores: dict[str | Criterion, Scores] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    @alone()
    def from_network(
        cls,
        network: nn.Module,
        train: Any,
        validation: Any,
        test: Any,
        name: str = "mine",
        device: str = "auto",
        fidelity: Fidelity | None = None,
        architecture: tuple[str, int] | None = None,
        *,
        metric: Any = None,
        loss: Any = None,
        distillation: Any = AUTO,
        ignore_index: int | None = None,
        transform: Any = None,
        augment: Any = None,
        flips: bool = False,
        memory_share: float = 0.5,
        workers: int = 0,
    ) -> Task:
        """A task of the user's own.

        Args:
            network: A trained network that maps an image batch to logits, or to one tensor of other answers; it
                is copied, not changed. The copy is computed in float32 (faster where a `Fidelity` says so),
                whatever the type of its parameters.
            train: A torch ``Dataset`` of (image tensor, int label) pairs, a ``DataLoader``, a pair of tensors
                ``(images [N, C, H, W], labels [N])``, or an iterable of pairs or batches, which is read into
                memory. In place of labels: masks ``[N, H, W]``, for logits ``[N, classes, H, W]``; numbers
                ``[N, ...]``, for answers of that shape; or, with a loss and a metric, any tensor ``[N, ...]``.
            validation: The same, for rewards. It must be no part of ``test``.
            test: The same, for the report at the end of a run.
            name: For tables and files.
            device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
            fidelity: The work of one evaluation, if not `distillation.default_fidelity`.
            architecture: Name and number of classes for `networks.make_network`, if that makes such a network;
                then pruned networks can be loaded without the task.
            metric: What is maximised: a name in `training.metrics.METRICS`, a `Metric`, a function of (outputs,
                targets) from 0 to 1, or an object as torchmetrics has them. Unless given: accuracy, for masks the
                mean intersection over union, for numbers the squared error.
            loss: What the networks are trained for: a function of (outputs, targets) that gives the mean over the
                images, a scalar. Unless given: cross entropy, for numbers the squared error.
            distillation: ``"classification"``, ``"dense"``, ``"regression"``, or a function of (student's answers,
                teacher's answers) that gives a scalar; None: no teacher. Unless given, what fits; see
                `training.objectives`.
            ignore_index: In masks, the value of positions that do not count.
            transform: Of a batch of images as they come: makes them what the network takes, as
                ``torchvision.transforms.v2.Compose`` does. It must not be random.
            augment: Of (image, target): varies them in a long training (`fine_tuning.distil`), in place of shifts
                and mirror images, as the random transforms of torchvision v2 do.
            flips: Whether mirror images are like the images, so that long trainings may use them.
            memory_share: Of the memory that is free, the share that a split may take, as float32; what is larger
                stays where it is and is read batch by batch (`datasets.reading`).
            workers: Processes that read data sets ahead.

        Raises:
            InputError: If a split cannot be read or does not fit the network, the network cannot be traced, or
                none of its convolutions can lose filters; or if what was said of metric, loss or distillation does
                not fit.
        """
        place = choose_device(device)
        _check_words(name, fidelity, architecture)
        _check_how(ignore_index, flips, memory_share, workers)
        parts = zip(Splits._fields, (train, validation, test), strict=True)
        read = partial(read_split, transform=transform, memory_share=memory_share, workers=workers)
        splits = Splits(*(read(part, split, place) for split, part in parts))
        network = _ready(network, place)
        graph = ChannelGraph.trace(network, splits.train.images[:1])
        settle_layout(network, splits.train.images[:2])
        if not graph.layers:
            reasons = "; ".join(f"{path}: {why}" for path, why in graph.excluded.items())
            raise InputError(f"{type(network).__name__} has no convolution that can lose filters ({reasons}).")
        outputs = _answers(network, splits.train.images[:2])
        splits = Splits(*(_shaped_as(outputs, part) for part in splits))
        objective = objective_of(
            outputs,
            splits.train.labels,
            metric=metric,
            loss=on_device(loss, place),
            distillation=distillation,
            ignore_index=ignore_index,
        )
        for split, (_, targets) in zip(Splits._fields, splits, strict=True):
            check_targets(split, outputs, targets, objective)
        return cls(
            name,
            network,
            *splits,
            graph,
            fidelity or default_fidelity(network),
            architecture,
            objective,
            augment,
            flips,
        )

    @property
    def device(self) -> torch.device:
        """Where the network and the splits are."""
        return self.train.images.device

    @property
    def metric(self) -> Metric:
        """What is maximised, with its name, its worst and its best value; outcomes call it accuracy, scaled."""
        return self.objective.metric

    def suited(self, recipe: Recipe) -> Recipe:
        """A recipe with the shifts and mirror images that suit the images, where it does not say them."""
        objective = self.objective
        moves = movable(self.train.labels, objective.ignore_index, objective.own_loss is not None)
        return suited(recipe, self.train.images.shape[-1] if moves else 0, self.flips and moves)

    def with_layers(self, layers: Any = None, tie: Any = None, agents_per: str = "layer") -> Task:
        """The same task with other agents: some layers left alone or bounded, several with one agent.

        Args:
            layers: Name of a layer, or pattern -> None (left alone), a ratio in percent, or bounds in percent.
            tie: Groups of names; the layers of a group have one agent.
            agents_per: ``"layer"``, or ``"set"``: one agent for the layers that are coupled.

        Returns:
            A task of the same network, data and scores. How layers are named and what holds where they are coupled
            is said at the top of `tasks.layer_control`.

        Raises:
            InputError: If something cannot be read, names no layer, contradicts itself, or leaves no agent.
        """
        others = {"agents", "coupled_agents", "control"}
        twin = object.__new__(type(self))
        vars(twin).update({name: value for name, value in vars(self).items() if name not in others})
        vars(twin)["control"] = controlled(self._layers, layers, tie, agents_per)
        return twin

    @cached_property
    def control(self) -> LayerControl:
        """Which agent decides for which layers, and within which bounds."""
        return controlled(self._layers)

    @cached_property
    def coupled_agents(self) -> dict[str, tuple[str, ...]]:
        """Agent -> the agents of the layers that are pruned together with its own."""
        return coupled_agents(self.control, self.graph.sets)

    @cached_property
    def agents(self) -> dict[str, str]:
        """Agent -> module path of its convolution; of the first, if it decides for several."""
        return {agent: decides.paths[0] for agent, decides in self.control.agents.items()}

    @property
    def _layers(self) -> Layers:
        names = {f"conv_{index}": path for index, path in enumerate(self.graph.layers)}
        return Layers(names, self.graph.sets, self.graph.excluded)

    @alone()
    @with_gradients()
    def scores(self, criterion: str | Criterion = "dsfp") -> Scores:
        """Filter scores by module path, computed once per criterion; see `score_filters`."""
        try:
            known = criterion in self._scores
        except TypeError:  # it cannot be a key, and is no criterion
            known = False
        if not known:
            self._scores[criterion] = score_filters(self, criterion)
        return self._scores[criterion]

    @cached_property
    def fingerprint(self) -> str | None:
        """Hash of what an evaluation sees of the task; None if it cannot be told. See `fingerprints`."""
        return fingerprint(self.network, self.train, self.validation, self.objective)

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        return self  # nothing in it changes

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "fingerprint"}  # of today's sources
        named = {name: scores for name, scores in self._scores.items() if isinstance(name, str)}
        return {**state, "_scores": named}  # a criterion of the user's own may not pickle

    @cached_property
    def teacher(self) -> Teacher:
        """The original network as it answers to the batches of a distillation."""
        return Teacher(self.network, self.train.images, self.graph.norms)

    @computed_once
    @with_gradients()
    def precision(self) -> str:
        """What ``Fidelity(precision="auto")`` means here.

        That is bfloat16, if the device has units for it and the network bears it: the largest logit of nearly all
        of a few images stays the largest; see `Objective.agree`. Else it is fast float32, on the CPU. A network
        that is too small to gain by them stays exact.
        """
        if not is_worth_hastening(self.graph.costs().macs):
            return "float32"
        float32 = without_bfloat16(self.device)
        if not has_bfloat16(self.device):
            return float32
        images = self.train.images[:64]
        exact = compute_logits(self.network, images)
        try:
            rounded = compute_logits(self.network, images, precision="bfloat16")
        except RuntimeError as error:  # an operation that there is not
            raise_if_of_the_machine(error, "trying bfloat16")
            return float32
        return "bfloat16" if self.objective.agree(exact, rounded) else float32

    def transfer_set(self, fidelity: Fidelity, seed: int) -> TransferSet:
        """The batches of distillation for a seed, with the original network's answers; see `training.teacher`."""
        return self.teacher.transfer_set(fidelity, seed)


@alone()
def score_filters(
    task: Task,
    criterion: str | Criterion = "dsfp",
    *,
    num_batches: int = 8,
    batch_size: int = 128,
    seed: int = 0,
) -> Scores:
    """Score every filter of every prunable layer of a task.

    Args:
        task: Gives the network, its channel graph and the training split.
        criterion: A name in `criteria.scoring.CRITERIA`, with options if there are any, as in
            ``"dsfp(kl=fisher, end=highest)"``; ``"package.module:function"``; or a function from
            `criteria.criterion.Evidence` to module path -> scores ``[out_channels]``, higher = keep.
        num_batches: Batches of training images to look at (fewer, if the split has fewer).
        batch_size: Images in a batch.
        seed: Chooses the batches, and drives ``random``.

    Raises:
        InputError: If the criterion is unknown, or its scores have the wrong shape or are not finite.
    """
    if not isinstance(task, Task):
        raise InputError(f"The task is {shortened(task)}: expected a dsfp_env.Task.")
    return score_network(
        task.network,
        task.graph.layers,
        task.train,
        criterion,
        num_batches=num_batches,
        batch_size=batch_size,
        seed=seed,
        objective=task.objective,
    )


def _check_words(name: Any, fidelity: Any, architecture: Any) -> None:
    """Refuse what is said of a task, if it is of another type."""
    if not isinstance(name, str):
        raise InputError(f"The name of the task is {shortened(name)}: expected text.")
    if fidelity is not None and not isinstance(fidelity, Fidelity):
        raise InputError(
            f"The fidelity of the task is {shortened(fidelity)}: expected a dsfp_env.Fidelity, or None."
        )
    pair = isinstance(architecture, (tuple, list)) and [type(one) for one in architecture] == [str, int]
    if architecture is not None and not pair:
        raise InputError(
            f"The architecture of the task is {shortened(architecture)}: expected the name of a network and its "
            "number of classes, or None."
        )


def _check_how(ignore_index: Any, flips: Any, memory_share: Any, workers: Any) -> None:
    """Refuse numbers and truth values that are none."""
    whole = isinstance(ignore_index, Integral) and not isinstance(ignore_index, bool)
    if ignore_index is not None and not (whole and abs(ignore_index) < 2**63):
        raise InputError(f"ignore_index is {shortened(ignore_index)}: expected a whole number, or None.")
    if not isinstance(flips, bool):
        raise InputError(f"flips is {shortened(flips)}: expected True or False.")
    if not isinstance(memory_share, Real) or not is_finite(memory_share) or not 0 < float(memory_share) < 1:
        raise InputError(f"memory_share is {shortened(memory_share)}: expected a number in (0, 1).")
    if not isinstance(workers, Integral) or isinstance(workers, bool) or not 0 <= int(workers) <= MOST_READERS:
        raise InputError(f"workers is {shortened(workers)}: expected a number of processes, 0 to {MOST_READERS}.")


def _answers(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a network answers to a few images, ``[n, ...]`` float32."""
    with torch.no_grad():
        answers = network(images)
    if not isinstance(answers, torch.Tensor) or answers.shape[:1] != images.shape[:1] or answers.is_complex():
        came = f"a {type(answers).__name__}"
        if isinstance(answers, torch.Tensor):
            came = f"{'complex ' * answers.is_complex()}shape {tuple(answers.shape)}"
        raise InputError(
            f"{type(network).__name__} answers {came} to {len(images)} images: expected logits [N, classes], or "
            "one tensor [N, ...] of other answers. Give a module whose forward returns them; ChannelGraph takes "
            "any."
        )
    return answers.float()


def _shaped_as(answers: torch.Tensor, split: LabelledImages) -> LabelledImages:
    """A split whose targets have the shape of the answers, if both are one number for an image."""
    targets = split.labels
    if targets.is_floating_point() and answers[0].numel() == targets[0].numel() == 1:
        targets = targets.view(len(targets), *answers.shape[1:])
    return split._replace(labels=targets)


def _ready(network: nn.Module, place: torch.device) -> nn.Module:
    """A copy of a network on a device, in evaluation mode, in float32."""
    copied = copy.deepcopy(unwrapped(network)).to(place).eval()
    for tensor in (*copied.parameters(), *copied.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32)
    return copied
