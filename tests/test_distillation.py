"""The loss against its formula, and what recalibration and fine-tuning do."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from dsfp_env import Fidelity, InputError, Task
from dsfp_env.datasets.labelled_images import LabelledImages, draw_batches
from dsfp_env.training.accuracy import compute_logits, measure_accuracy
from dsfp_env.training.adamw import AdamW, cosine
from dsfp_env.training.distillation import default_fidelity, distillation_loss, fine_tune, recalibrate


def softmax(logits):
    powers = [math.exp(z) for z in logits]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_loss_against_plain_arithmetic(weight):
    """(1 - w) CE + w T^2 KL(teacher_T || student_T), for two images and three classes."""
    student, teacher, labels = [[1.0, 2.0, -1.0], [0.5, 0.0, 0.0]], [[2.0, 0.0, 1.0], [3.0, 1.0, 1.0]], [1, 0]
    temperature, smoothing = 4.0, 0.1
    hard = soft = 0.0
    for s, t, label in zip(student, teacher, labels, strict=True):
        target = [smoothing / 3 + (1 - smoothing) * (k == label) for k in range(3)]
        hard -= sum(y * math.log(p) for y, p in zip(target, softmax(s), strict=True)) / 2
        p, q = softmax([z / temperature for z in t]), softmax([z / temperature for z in s])
        soft += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
    loss = distillation_loss(
        torch.tensor(student),
        torch.tensor(teacher),
        torch.tensor(labels),
        distillation_weight=weight,
        temperature=temperature,
        label_smoothing=smoothing,
    )
    assert loss.item() == pytest.approx((1 - weight) * hard + weight * temperature**2 * soft, rel=1e-5)


def test_recalibration_takes_the_statistics_of_the_images():
    images = torch.randn(64, 3, 4, 4) * 5 + 2
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    recalibrate(network, images)
    norm = network[0]
    assert torch.allclose(norm.running_mean, images.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, images.var((0, 2, 3)), rtol=1e-3)
    assert norm.momentum == 0.1
    assert not norm.training


def test_fine_tuning_recovers_accuracy_and_depends_on_the_seed_alone(digits):
    pruned = digits.graph.slim(
        digits.network, digits.graph.keep(dict.fromkeys(digits.graph.layers, 0.6), digits.scores("l1"))
    )
    accuracies, logits = [measure_accuracy(pruned, digits.validation)], []
    for seed in (0, 0, 1):
        student = copy.deepcopy(pruned)
        recalibrate(student, digits.train.images[:256])
        torch.rand(seed + 1)  # the global generator must not matter
        state = torch.random.get_rng_state()
        fine_tune(student, digits.train, digits.transfer_set(digits.fidelity, seed), digits.fidelity, seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        accuracies.append(measure_accuracy(student, digits.validation))
        logits.append(compute_logits(student, digits.validation.images))
    assert accuracies[1] > accuracies[0] + 0.3
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_no_batches_changes_nothing(tiny):
    student = copy.deepcopy(tiny.network)
    fidelity = replace(tiny.fidelity, batches=0)
    fine_tune(student, tiny.train, tiny.transfer_set(fidelity, 0), fidelity, 0)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), tiny.network.parameters(), strict=True))


def test_batches_are_passes_over_shuffled_images():
    batches = draw_batches(10, 3, 7, seed=0)
    assert batches.shape == (7, 3)
    for start in (0, 3):  # three batches of three make a pass over nine of the ten images
        assert len(set(batches[start : start + 3].flatten().tolist())) == 9
    assert draw_batches(4, 16, 2, seed=0).shape == (2, 4)  # fewer images than a batch


def test_accuracy_is_a_fraction_of_images():
    split = LabelledImages(torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0]]), torch.tensor([0, 1, 1, 0]))
    assert measure_accuracy(nn.Identity(), split) == 0.75


def test_networks_without_normalisation_are_fine_tuned_more_gently(tiny):
    assert default_fidelity(tiny.network) == Fidelity()
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    assert default_fidelity(plain) == Fidelity(learning_rate=3e-4)
    assert Task.from_network(plain, tiny.train, tiny.validation, tiny.test).fidelity == Fidelity(
        learning_rate=3e-4
    )


@pytest.mark.parametrize(
    "wrong", [{"batches": -1}, {"batch_size": 1}, {"learning_rate": 0.0}, {"label_smoothing": 1.0}]
)
def test_a_bad_fidelity_gets_a_sentence(wrong):
    with pytest.raises(InputError, match=f"Fidelity.{next(iter(wrong))} is .*expected"):
        Fidelity(**wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_takes_the_steps_of_torch_to_the_last_bit(dtype):
    """Sizes that fill no vector; a parameter that learns late, one that never does."""
    weights = [torch.randn(size, dtype=dtype) for size in ((17, 3, 3, 3), (10, 7), (5,), (2,))]
    found = []
    for ours in (False, True):
        late, *others = parameters = [nn.Parameter(weight.clone()) for weight in weights]
        if ours:
            optimizer = AdamW(parameters, 0.01)
        else:
            optimizer = torch.optim.AdamW(parameters, 6e-3, weight_decay=0.01, fused=True)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
        for step, rate in enumerate(cosine(6e-3, 9)):
            optimizer.zero_grad()
            learning = others[:2] if step < 3 else [late, *others[:2]]
            sum((one - step).pow(3).sum() for one in learning).backward()
            if ours:
                optimizer.step(rate)
            else:
                optimizer.step()
                schedule.step()
        found.append(parameters)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert torch.equal(found[1][3], weights[3])
    assert not torch.equal(found[1][0], weights[0])
