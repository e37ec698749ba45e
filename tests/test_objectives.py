"""What networks are trained for and judged by: against plain arithmetic, torchmetrics, and two real tasks."""

import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torchmetrics
from conftest import TinyNet
from torch import nn
from torch.nn import functional as F

import agents
import dsfp_env
import train_agents
from dsfp_env import Evaluator, InputError, Metric, Task
from dsfp_env.tabulate import TableSettings, tabulate
from dsfp_env.training.accuracy import measure_metric
from dsfp_env.training.distillation import distillation_loss
from dsfp_env.training.epochs import train
from dsfp_env.training.fine_tuning import distil
from dsfp_env.training.metrics import METRICS, About, metric_of
from dsfp_env.training.objectives import Objective, objective_of
from dsfp_env.training.recipes import FINE_TUNING, Recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import segmentation

LOGITS, LABELS = torch.tensor([[2.0, 1, 0], [0, 1, 2], [1, 2, 0], [3, 0, 0]]), torch.tensor([0, 1, 1, 0])
MASKS = Objective(targets="dense", answers="dense", ignore_index=255)
NUMBERS = Objective(targets="regression", answers="regression")


def value(metric, outputs, targets, classes=3, ignore_index=None):
    """Of two batches, as a split is measured."""
    running = metric_of(metric, lambda: About(classes, ignore_index, targets)).begin()
    for batch in range(0, len(outputs), 2):
        running.update(outputs[batch : batch + 2], targets[batch : batch + 2])
    return running.value()


def test_metrics_of_labels():
    """Images 0, 2 and 3 are right; class 0 always, class 1 once in two."""
    assert value("accuracy", LOGITS, LABELS) == 0.75
    assert value("balanced_accuracy", LOGITS, torch.tensor([0, 1, 1, 0])) == 0.75
    assert value("balanced_accuracy", LOGITS[:3], LABELS[:3]) == 0.75  # of accuracy 2/3
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 9, generator=rng), torch.randint(9, (40,), generator=rng)
    official = torchmetrics.classification.MulticlassAccuracy(num_classes=9, top_k=5, average="micro")
    assert value("top5", logits, labels, 9) == pytest.approx(value(official, logits, labels))


def test_metrics_of_masks():
    """Three positions count: two are right, one of class 1 is taken for class 0, so both unions are 2 or 1."""
    logits = torch.tensor([[[[2.0, 2, 0, 0]], [[0, 0, 2, 2]]]])
    masks = torch.tensor([[[0, 1, 1, 255]]])
    assert value("miou", logits, masks, 2, 255) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert value("accuracy", logits, masks, 2, 255) == pytest.approx(2 / 3)
    rng = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(6, 4, 5, 5, generator=rng), torch.randint(3, (6, 5, 5), generator=rng)
    official = torchmetrics.classification.MulticlassJaccardIndex(num_classes=4, ignore_index=1)
    masks_seen = masks.masked_fill(masks == 1, 255)
    seen = torchmetrics.classification.MulticlassJaccardIndex(num_classes=4, ignore_index=255)
    assert value("miou", logits, masks_seen, 4, 255) == pytest.approx(value(seen, logits, masks_seen), abs=1e-6)
    assert value(official, logits, masks) != value(seen, logits, masks_seen)


def test_errors_count_from_what_the_mean_gets():
    """Targets 0 and 4: the mean, 2, is wrong by 2 each time."""
    targets = torch.tensor([[0.0], [4.0]])
    for name, worst, found in (("mse", 4.0, 1.0), ("mae", 2.0, 1.0)):
        metric = metric_of(name, lambda: About(1, None, targets))
        assert (metric.worst, metric.best) == (worst, 0.0)
        assert value(name, targets + 1, targets) == found
        assert metric.scaled(found) == 1 - found / worst
        assert [metric.scaled(one) for one in (worst, 3 * worst, 0.0)] == [0, 0, 1]
    assert dsfp_env.Metric(len, "anything", worst=10, best=20).scaled(15) == 0.5


def test_a_metric_of_torchmetrics_says_its_range_and_is_left_alone():
    given = torchmetrics.classification.MulticlassAccuracy(num_classes=3, average="micro")
    metric = metric_of(given, None)
    assert (metric.name, metric.worst, metric.best) == ("MulticlassAccuracy", 0, 1)
    assert value(given, LOGITS, LABELS) == 0.75
    assert given.update_count == 0
    with pytest.raises(InputError, match="MeanSquaredError does not say its range .*worst=..., best=..."):
        metric_of(torchmetrics.MeanSquaredError(), None)
    error = Metric(torchmetrics.MeanSquaredError(), "mse", worst=4.0, best=0.0)
    assert error.scaled(value(error, torch.ones(2, 1), torch.zeros(2, 1))) == 0.75


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        ("accurracy", "Unknown metric 'accurracy'. Did you mean 'accuracy'"),
        ("top5", "'top5' came for 3 logits .* more than 5 classes"),
        ("mse", "'mse' is of float targets, and they are classes"),
        (3, "metric 'int' is of type int: expected a function"),
        (lambda outputs, targets: math.nan, "gave nan: expected a finite number"),
        (lambda outputs, targets: outputs, "gave a tensor of shape .4, 3.: expected a finite number"),
        (lambda outputs, targets: 75.0, "gave 75, which is better than the best, 1: expected dsfp_env.Metric"),
        (lambda outputs: 1.0, r"failed \(TypeError: .*for \(4, 3\) torch.float32 and \(4,\) torch.int64"),
    ],
)
def test_bad_metrics_get_a_sentence(metric, sentence):
    with pytest.raises(InputError, match=sentence):
        value(metric, LOGITS, LABELS)
    with pytest.raises(InputError, match="worst=1.0 to best=1.0: expected two different finite numbers"):
        Metric(len, "nothing", 1.0, 1.0)


def test_a_metric_that_cannot_tell_networks_apart_is_refused(tiny):
    splits = tiny.train, tiny.validation, tiny.test
    worse = Metric(lambda outputs, targets: -1.0, "worse")
    task = Task.from_network(tiny.network, *splits, device="cpu", metric=worse)
    with pytest.raises(InputError, match="worse of the original network is no better than the worst, 0"):
        _ = Evaluator(task).original


def test_the_loss_of_masks_leaves_out_what_is_ignored():
    rng = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(2, 3, 2, 2, generator=rng), torch.randint(3, (2, 2, 2), generator=rng)
    masks[0, 0] = 255
    per_position = -logits.log_softmax(1).gather(1, masks.clamp(max=2)[:, None])[:, 0]
    assert MASKS.loss(logits, masks).item() == pytest.approx(per_position[masks != 255].mean().item())
    by_image = [one[mask != 255].mean() for one, mask in zip(per_position, masks, strict=True)]
    assert MASKS.summed_loss(logits, masks).item() == pytest.approx(sum(by_image).item())


def test_distillation_by_form():
    """Of masks, as if each position were an image; of numbers, the squared difference; or the user's own."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 2, 2, generator=rng)
    flat = [one.movedim(1, -1).flatten(0, -2) for one in (student, teacher)]
    labels = torch.randint(3, (2, 2, 2), generator=rng)
    as_images = distillation_loss(*flat, labels.flatten(), distillation_weight=0.3)
    assert distillation_loss(
        student, teacher, labels, distillation_weight=0.3, objective=MASKS
    ).item() == pytest.approx(as_images.item(), rel=1e-5)
    one, other, target = torch.zeros(4, 2), torch.ones(4, 2), torch.full((4, 2), 3.0)
    given = partial(distillation_loss, one, other, target, distillation_weight=0.25)
    assert given(objective=NUMBERS).item() == 0.75 * 9 + 0.25 * 1
    own = replace(NUMBERS, own_loss=F.l1_loss, own_distillation=lambda a, b: (a - b).abs().sum())
    assert given(objective=own).item() == 0.75 * 3 + 0.25 * 8
    assert given(objective=replace(NUMBERS, distils=False)).item() == 9


@pytest.mark.parametrize(
    ("objective", "shape"), [(Objective(), (3,)), (MASKS, (3, 2, 2)), (NUMBERS, (2,)), (NUMBERS, (2, 3))]
)
def test_sampled_gradients_are_the_divergence_to_second_order(objective, shape):
    """Half the mean square of a step's effect on many draws, against the divergence of that step."""
    rng = torch.Generator().manual_seed(0)
    outputs, step = torch.randn(2, *shape, generator=rng).double()
    many = outputs.expand(20_000, *shape).clone().requires_grad_()
    (gradients,) = torch.autograd.grad(objective.sampled_loss(many, rng), many)
    second_order = (gradients * step).flatten(1).sum(1).square().mean().item() / 2
    small = 1e-3
    exact = objective.divergence(outputs[None], (outputs + small * step)[None, None]).item() / small**2
    assert second_order == pytest.approx(exact, rel=0.05)


def test_half_precision_must_answer_alike():
    exact = torch.tensor([[100.0], [101.0], [102.0], [103.0]])
    assert NUMBERS.agree(exact, exact + 0.01)
    assert not NUMBERS.agree(exact, exact.bfloat16().float() + 0.2)
    assert not NUMBERS.agree(exact, exact.where(exact > 100, math.nan))
    positions = torch.zeros(1, 2, 10, 10)
    positions[:, 1] = 1
    few, many = positions.clone(), positions.clone()
    few[0, 0, 0, 0], many[0, 0, 0] = 2, 2  # of 100 positions, 1 and 10
    assert MASKS.agree(positions, few)
    assert not MASKS.agree(positions, many)


class Answering(nn.Module):
    """A convolution that can lose filters, then answers of some shape."""

    def __init__(self, shape):
        super().__init__()
        self.conv, self.norm, self.shape = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), shape
        self.head = nn.Linear(4, math.prod(shape))

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3))).view(-1, *self.shape)


def own_task(shape, targets, **said):
    torch.manual_seed(0)
    images = torch.randn(12, 1, 8, 8)
    fidelity = dsfp_env.Fidelity(recalibration_images=12, batches=2, batch_size=6, precision="float32")
    parts = (images, targets), (images[:6], targets[:6]), (images[6:], targets[6:])
    return Task.from_network(Answering(shape), *parts, device="cpu", fidelity=fidelity, **said)


INTEGERS, FLOATS = torch.arange(12) % 2, torch.linspace(0, 1, 12)


@pytest.mark.parametrize(
    ("shape", "targets", "said", "sentence"),
    [
        ((3,), FLOATS, {}, r"answers \(3,\) for an image whose target is torch.float32 of shape \(\).*loss= and"),
        ((1,), INTEGERS, {}, r"expected logits \[N, classes\] for integer labels"),
        ((3,), INTEGERS, {"loss": "cross"}, "loss is of type str: expected a function"),
        (
            (3,),
            INTEGERS,
            {"loss": lambda o, t: F.cross_entropy(o, t, reduction="none")},
            r"loss gave shape \(2,\)",
        ),
        ((3,), INTEGERS, {"loss": lambda o, t: o.sum() * math.nan}, "loss is nan for the first images"),
        (
            (3,),
            INTEGERS,
            {"loss": lambda o, t: (o.argmax(1) != t).float().mean()},
            "No gradient comes out of the loss",
        ),
        ((3,), INTEGERS, {"loss": F.l1_loss}, r"loss failed \(.*\(2, 3\) torch.float32 and \(2,\)"),
        ((3,), INTEGERS, {"distillation": "soft"}, "Unknown distillation 'soft'"),
        ((3,), INTEGERS, {"distillation": "dense"}, "'dense' came for answers .*'classification' for"),
        ((3,), INTEGERS, {"ignore_index": 255}, "ignore_index is 255, and the targets are labels"),
        ((3,), INTEGERS, {"metric": "mse"}, "try 'accuracy'"),
        ((1,), FLOATS, {"metric": "miou"}, "try 'mse'"),
        ((1,), torch.ones(12), {}, "All training targets are the same"),
        ((1,), FLOATS * math.nan, {}, "NaN or infinite targets"),
        ((3, 2, 2), torch.full((12, 2, 2), 255), {}, "labels run from 255 to 255.*give ignore_index=255"),
        (
            (3, 2, 2),
            torch.full((12, 2, 2), 255),
            {"ignore_index": 255},
            "All train targets are 255, which is ignored",
        ),
    ],
)
def test_what_does_not_fit_gets_a_sentence(shape, targets, said, sentence):
    with pytest.raises(InputError, match=sentence):
        own_task(shape, targets, **said)


def hits(outputs, targets):
    """A metric of targets of the user's own: a box, and whether there is one."""
    near = (outputs[:, :4] - targets[:, :4]).abs().amax(1) < 10
    return (near & (targets[:, 5] == 0)).double().mean()


def box_loss(outputs, targets):
    return F.smooth_l1_loss(outputs[:, :4], targets[:, :4]) + F.binary_cross_entropy_with_logits(
        outputs[:, 4], targets[:, 4]
    )


@pytest.mark.parametrize(
    ("shape", "targets", "said"),
    [
        ((1,), FLOATS, {}),  # numbers [N] and answers [N, 1] are numbers of one shape
        ((1,), FLOATS, {"metric": "mae"}),
        ((2,), torch.stack([FLOATS, 1 - FLOATS], 1), {"loss": F.l1_loss, "distillation": None}),
        ((3,), INTEGERS, {"metric": "balanced_accuracy", "loss": nn.CrossEntropyLoss(torch.tensor([1.0, 2, 3]))}),
        ((3, 2, 2), INTEGERS[:, None, None].expand(-1, 2, 2), {}),
        (
            (5,),
            torch.cat([torch.rand(12, 4), torch.ones(12, 1), torch.zeros(12, 1)], 1),
            {"metric": hits, "loss": box_loss},
        ),
    ],
)
def test_targets_of_all_kinds_are_scored_pruned_and_measured(shape, targets, said):
    task = own_task(shape, targets, **said)
    for criterion in ("dsfp", "dsfp(kl=fisher)", "fisher", "taylor_bn", "taylor_activation"):
        evaluator = Evaluator(task, criterion)
        accuracy = evaluator.evaluate({"conv_0": 50.0}).accuracy
        assert 0 <= accuracy <= 1
    values = evaluator.measure_values({"conv_0": 50.0})
    assert task.metric.scaled(values[0]) == accuracy
    assert task.fingerprint is not None


def test_what_is_learned_is_in_the_fingerprint():
    prints = [
        own_task((3,), INTEGERS, **said).fingerprint
        for said in (
            {},
            {"metric": "balanced_accuracy"},
            {"distillation": None},
            {"loss": partial(F.cross_entropy, label_smoothing=0.1)},
            {"loss": partial(F.cross_entropy, label_smoothing=0.2)},
            {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 2, 3]))},
            {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 2, 4]))},
            {"metric": torchmetrics.classification.MulticlassAccuracy(num_classes=3)},
            {"metric": torchmetrics.classification.MulticlassAccuracy(num_classes=3, average="micro")},
        )
    ]
    assert len(set(prints)) == len(prints)
    assert None not in prints
    namespace = {"F": F}
    exec("def loss(outputs, targets):\n    return F.cross_entropy(outputs, targets)", namespace)
    assert own_task((3,), INTEGERS, loss=namespace["loss"]).fingerprint is None  # its source is nowhere


def test_a_loss_that_does_not_pickle_is_measured_in_this_process():
    task = own_task((3,), INTEGERS, loss=lambda outputs, targets: F.cross_entropy(outputs, targets))
    plans = [{"conv_0": ratio} for ratio in (25.0, 50.0)]
    with (
        Evaluator(task, "l1", store=False) as evaluator,
        pytest.warns(UserWarning, match="so can a loss or a metric that is a function there"),
    ):
        assert len(evaluator.evaluate_many(plans, workers=2)) == 2


def test_the_best_epoch_is_that_of_the_metric():
    """An error: the epoch with the lowest is kept, though later ones are worse."""
    torch.manual_seed(0)
    images = torch.randn(64, 4)
    split = dsfp_env.datasets.LabelledImages(images, images[:, :1] * 2)
    metric = Metric(lambda outputs, targets: F.mse_loss(outputs, targets), "mse", worst=50.0, best=0.0)
    network = nn.Linear(4, 1)

    def loss(batch):
        return F.mse_loss(batch.logits, batch.labels if batch.done < 5 / 16 else -batch.labels)

    recipe = Recipe(epochs=16, batch_size=16, learning_rate=0.3)
    learned = replace(NUMBERS, metric=metric)
    history = train(network, split, recipe, 0, loss=loss, validation=split, objective=learned)
    accuracies = [epoch.accuracy for epoch in history]
    assert max(accuracies) > accuracies[-1] + 0.1
    assert F.mse_loss(network(images), split.labels).item() == pytest.approx(50 * (1 - max(accuracies)), abs=1e-3)


@pytest.fixture(scope="module")
def ink():
    return segmentation.make_task(device="cpu")


def test_segmentation_is_searched(ink):
    """The best of a few joint actions at 40 % of the MACs keeps what the U-Net can, unlike one of background."""
    env = dsfp_env.parallel_env(
        task=ink, actions="levels", reward="budget", macs_budget=0.4, criterion="fisher", store=False
    )
    team = agents.CoordinateSearch(env, seed=0)
    best = agents.best(agents.train(env, team, evaluations=6, seed=0))
    background = (ink.test.labels == 0).sum() / (ink.test.labels != segmentation.IGNORED).sum() / 2
    validation, test = env.evaluator.measure_values(best.ratios)
    assert env.evaluator.original.accuracy > 0.95
    assert best.infos["conv_0"]["accuracy"] == ink.metric.scaled(validation)
    assert best.infos["conv_0"]["relative_macs"] < 0.45
    assert test > background + 0.3
    assert ink.graph.excluded.keys() == {"logits"}


def test_the_long_fine_tune_learns_masks(ink):
    """With shifted images, whose masks move along; the recipe suits 16x16 images that are not mirrored."""
    recipe = ink.suited(replace(FINE_TUNING["short"], epochs=2, batch_size=50, precision="float32"))
    assert (recipe.shift, recipe.flip) == (2, False)
    keep = ink.graph.keep(dict.fromkeys(ink.graph.layers, 0.5), ink.scores("l1"))
    student = ink.graph.slim(ink.network, keep)
    before = measure_metric(student, ink.validation, ink.metric)
    history = distil(student, ink.network, ink.train, ink.validation, recipe, 0, objective=ink.objective)
    after = measure_metric(student, ink.validation, ink.metric)
    assert after == max(epoch.accuracy for epoch in history)
    assert after > before + 0.2


def test_regression_is_searched_by_the_command(tmp_path, capsys):
    settings = train_agents.RunSettings(
        task="regression:make_task",
        agent="coordinate_search",
        evaluations=4,
        criterion="taylor",
        store=False,
        workers=1,
        out=str(tmp_path / "run"),
    )
    assert train_agents.train(settings) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    metric, best, original = result["metric"], result["best"], result["original"]
    assert (metric["name"], metric["best"]) == ("mse", 0.0)
    scaled = 1 - best["test_metric"] / metric["worst"]
    assert best["test_accuracy"] == pytest.approx(scaled)  # 0: always the mean of the centres
    assert original["test_metric"] < best["test_metric"] < metric["worst"] / 2
    table = capsys.readouterr().out
    assert f"MSE {'test':>32}" in table
    assert f"{best['test_metric']:#.3g}" in table


def test_a_table_counts_right_images(tmp_path):
    with pytest.raises(InputError, match="metric of the task 'centre' is 'mse', and a table counts images"):
        tabulate(TableSettings(task="regression:make_task", out=str(tmp_path / "table"), workers=1))


def test_objectives_say_what_they_are():
    assert objective_of(LOGITS, LABELS) == Objective()
    assert set(METRICS) == {"accuracy", "balanced_accuracy", "top5", "miou", "mse", "mae"}
    task = Task.from_network(
        TinyNet(), *[(torch.zeros(4, 1, 8, 8), torch.arange(4) % 3)] * 3, device="cpu", metric="balanced_accuracy"
    )
    assert (task.metric.name, task.metric.is_accuracy) == ("balanced_accuracy", False)
