"""The fast ways compute what the exact way computes: bfloat16, folded normalisation, gradients by products."""

import copy
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torchvision
from conftest import TinyNet
from torch import nn
from torch.nn import functional as F

from dsfp_env import Evaluator, InputError, Task
from dsfp_env.channels.graph import ChannelGraph
from dsfp_env.common.devices import threads_set
from dsfp_env.speed import norm_kernel
from dsfp_env.speed.compiled_norms import norms_compiled
from dsfp_env.speed.folding import fold, foldable
from dsfp_env.speed.precision import computing, is_worth_hastening, laid_out, number_of
from dsfp_env.speed.weight_gradients import small_maps_by_products, weight_gradient
from dsfp_env.training.accuracy import compute_logits, measure_accuracy
from dsfp_env.training.distillation import Fidelity

FAST = ("bfloat16", "fast_float32")


@pytest.mark.parametrize("precision", FAST)
def test_fast_and_exact_evaluations_agree(digits, precision):
    plans = [dict.fromkeys(digits.agents, ratio) for ratio in (90.0, 80.0, 65.0, 20.0)]  # from bad to good
    plans.append(dict(zip(digits.agents, (90.0, 50.0, 50.0, 50.0), strict=True)))
    exact, fast = (
        Evaluator(digits, "l1", replace(digits.fidelity, precision=how), store=False)
        for how in ("float32", precision)
    )
    assert (exact.fidelity.precision, fast.fidelity.precision) == ("float32", precision)
    pairs = [(exact.evaluate(plan), fast.evaluate(plan)) for plan in plans]
    for one, other in pairs:
        assert one.filters_kept == other.filters_kept
        assert (one.macs, one.params, one.filters) == (other.macs, other.params, other.filters)
        assert one.accuracy == pytest.approx(other.accuracy, abs=0.04)
    order = [sorted(range(len(plans)), key=lambda i: pair[i].accuracy) for pair in zip(*pairs, strict=True)]
    assert order[0] == order[1]
    images = digits.validation.images
    slow, quick = (compute_logits(e.build(plans[3], seed=1), images) for e in (exact, fast))
    assert (slow - quick).abs().mean() < 0.05 * slow.std()
    assert (slow.argmax(1) == quick.argmax(1)).float().mean() > 0.97


def test_fast_float32_is_float32(digits):
    """One batch, where nothing has had time to diverge: logits, and what the weights become."""
    fidelity = replace(digits.fidelity, batches=1)
    plan = dict.fromkeys(digits.agents, 50.0)
    exact, fast = (
        Evaluator(digits, "l1", replace(fidelity, precision=how), store=False).build(plan, seed=3)
        for how in ("float32", "fast_float32")
    )
    for one, other in zip(exact.state_dict().values(), fast.state_dict().values(), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4)
    images = digits.validation.images
    logits = compute_logits(exact, images)
    folded = fold(exact, digits.teacher.norms)
    assert torch.allclose(compute_logits(folded, images, precision="fast_float32"), logits, rtol=1e-4, atol=1e-4)


def test_bfloat16_answers_are_those_of_float32_but_for_rounding(digits):
    images = digits.validation.images
    exact = compute_logits(digits.network, images)
    rounded = compute_logits(digits.network, images, precision="bfloat16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).abs().max() < 0.05 * exact.abs().max()
    assert measure_accuracy(digits.network, digits.validation, "bfloat16") == pytest.approx(
        measure_accuracy(digits.network, digits.validation), abs=0.005
    )
    assert laid_out(images, "float32") is images
    assert laid_out(images[:, 0, 0], "bfloat16").shape == (400, 8)  # not every network reads images


def test_what_auto_means(tiny, monkeypatch):
    """Small networks stay exact; one that cannot bear bfloat16 does too."""
    splits = tiny.train, tiny.validation, tiny.test
    assert not is_worth_hastening(macs=100_000)
    assert Evaluator(tiny).fidelity.precision == "float32"
    monkeypatch.setattr("dsfp_env.tasks.task.is_worth_hastening", lambda macs: True)
    for units, precision in ((False, "fast_float32"), (True, "bfloat16")):
        monkeypatch.setattr("dsfp_env.tasks.task.has_bfloat16", lambda device, units=units: units)
        assert Task.from_network(TinyNet(), *splits).precision == precision

    class Delicate(TinyNet):
        def forward(self, images):
            logits = super().forward(images)
            return logits if logits.dtype == torch.float32 else torch.full_like(logits, torch.nan)

    assert Task.from_network(Delicate(), *splits).precision == "fast_float32"
    with pytest.raises(
        InputError, match=r"Fidelity.precision is 'float16': expected one of auto, bfloat16, fast_float32, float32"
    ):
        Fidelity(precision="float16")


def test_a_transfer_set_is_made_once_and_belongs_to_its_seed(tiny):
    fidelity = Fidelity(batches=3, batch_size=8, precision="float32")
    first = tiny.transfer_set(fidelity, seed=5)
    assert first.indices.shape == (3, 8)
    assert torch.allclose(first.teacher_logits[1], tiny.network(tiny.train.images[first.indices[1]]), atol=1e-5)
    assert tiny.transfer_set(fidelity, seed=5) is first
    assert not torch.equal(tiny.transfer_set(fidelity, seed=6).indices, first.indices)
    rounded = tiny.transfer_set(replace(fidelity, precision="bfloat16"), seed=5)
    assert torch.equal(rounded.indices, first.indices)
    assert torch.allclose(rounded.teacher_logits, first.teacher_logits, atol=0.05)
    assert len(tiny.transfer_set(replace(fidelity, batches=0), seed=5).indices) == 0
    for seed in range(40):  # old ones are forgotten
        tiny.transfer_set(fidelity, seed)
    assert len(tiny.teacher._transfer_sets) <= 16


class Norms(nn.Module):
    """Normalisations that can be folded (a, after a transposed convolution too), and some that cannot."""

    def __init__(self):
        super().__init__()
        self.a, self.a_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.up, self.up_norm = nn.ConvTranspose2d(6, 6, 2, 2), nn.BatchNorm2d(6)
        self.seen, self.seen_norm = nn.Conv2d(6, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.batch, self.batch_norm = nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.a_norm(self.a(x)))
        x = F.relu(self.up_norm(self.up(x)))
        y = self.seen(x)
        x = F.relu(self.seen_norm(y) + y)  # the convolution's output is used twice
        x = F.relu(self.batch_norm(self.batch(x)))
        return self.head(x.mean((2, 3)))


def test_normalisations_are_folded_where_that_changes_nothing():
    torch.manual_seed(0)
    network, images = Norms(), torch.randn(4, 3, 8, 8)
    for _ in range(3):
        network(images * 2 + 1)  # statistics that matter
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    network.eval()
    norms = foldable(network, ChannelGraph.trace(network, images).norms, images)
    assert norms == {"a": "a_norm", "up": "up_norm"}
    folded = fold(network, norms)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 2
    assert torch.allclose(folded(images), network(images), atol=1e-5)
    assert folded.head.weight.data_ptr() == network.head.weight.data_ptr()


@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding", "dilation"),
    [
        (4, 4, 3, 1, 1, 1),
        (5, 3, 3, 2, 1, 1),
        (2, 2, 3, 1, 1, 1),
        (1, 1, 3, 1, 1, 1),
        (7, 6, 5, 2, 2, 1),
        (6, 6, 3, 1, 2, 2),
        (4, 4, 1, 2, 0, 1),
        (3, 5, 2, 1, 0, 1),
        (2, 2, 5, 1, 2, 1),
    ],
)
def test_weight_gradient_by_products(height, width, kernel, stride, padding, dilation):
    torch.manual_seed(0)
    images = torch.randn(3, 4, height, width, dtype=torch.float64)
    weight = torch.randn(6, 4, kernel, kernel, dtype=torch.float64, requires_grad=True)
    how = (stride, stride), (padding, padding), (dilation, dilation)
    written = F.conv2d(images, weight, None, *how)
    gradient = torch.randn_like(written)
    written.backward(gradient)
    assert torch.allclose(weight_gradient(images, gradient, (kernel, kernel), *how), weight.grad)


@pytest.mark.parametrize("precision", FAST)
def test_small_maps_get_the_gradients_that_they_would_get(precision):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1, bias=False)
    )
    images = torch.randn(8, 64, 4, 4)
    gradients, calls = [], []
    for shortcut in (False, True):
        network.zero_grad()
        given = images.clone().requires_grad_()
        with computing(precision, images.device):
            if shortcut:
                with small_maps_by_products(network, number_of(precision)):
                    answer = network(given)
            else:
                answer = network(given)
        calls.append(type(answer.grad_fn).__name__)
        answer.float().square().mean().backward()
        gradients.append([given.grad, *(parameter.grad for parameter in network.parameters())])
    assert calls[1] == "_SmallMapBackward" != calls[0]
    for usual, ours in zip(*gradients, strict=True):
        assert torch.allclose(usual, ours, rtol=0.05, atol=0.02 * usual.abs().max().item())
    assert not [module for module in network.modules() if "forward" in vars(module)]  # as it was


needs_compiler = pytest.mark.skipif(not shutil.which("gcc"), reason="needs a C compiler")


@needs_compiler
@pytest.mark.parametrize("number", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("behind", [(), (nn.ReLU(),), (nn.ReLU(inplace=True), nn.MaxPool2d(2))])
@pytest.mark.parametrize(("channels", "size"), [(3, 7), (8, 16), (300, 2)])  # the last strip may be short
def test_compiled_normalisation_is_that_of_torch(threads, behind, channels, size, number):
    """Answers, gradients and running statistics."""
    torch.manual_seed(channels)
    images = (torch.randn(5, channels, size, size) * 3 + 10).to(number)
    images = images.contiguous(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    network = nn.Sequential(norm, *behind)
    start, found = copy.deepcopy(norm.state_dict()), []
    for compiled in (False, True):
        norm.load_state_dict(start)
        norm.zero_grad()
        given = images.clone().requires_grad_()
        with threads_set(threads), norms_compiled(network, images.float(), number) if compiled else nullcontext():
            answer = network(given)
            target = torch.randn(answer.shape, generator=torch.Generator().manual_seed(0))
            (answer * target).sum().backward()
        left_to_it = size % 2 == 0 or len(behind) < 2
        assert type(answer.grad_fn).__name__.startswith("_BatchNorm") == (compiled and left_to_it)
        grads = given.grad, norm.weight.grad, norm.bias.grad
        found.append([tensor.clone().float() for tensor in (answer.detach(), *grads, *norm.buffers())])
    for usual, ours in zip(*found, strict=True):
        assert (usual - ours).norm() <= (0.005 if number is torch.bfloat16 else 1e-5) * usual.norm()
    assert norm.num_batches_tracked == 1
    assert not [module for module in network.modules() if "forward" in vars(module)]


@needs_compiler
def test_a_relu_that_others_look_at_is_left_alone():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

        def forward(self, x):
            seen = []
            for module in self.body:
                x = module(x)
                seen.append(x.mean((2, 3)))
            return torch.cat(seen, 1)

    for network, name in ((Looks(), "ReluBackward0"), (Looks().body, "_BatchNormBackward")):
        seen = []
        body = getattr(network, "body", network)
        body[2].register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        images = torch.randn(2, 1, 8, 8)
        with norms_compiled(network.train(), images, torch.bfloat16), computing("bfloat16", images.device):
            network(laid_out(images, "bfloat16"))
        assert type(seen[-1].grad_fn).__name__ == name


@needs_compiler
def test_residual_blocks_train_as_they_would(monkeypatch):
    """bn2's output becomes the sum in place before the ReLU has it; bn1's goes there as it is."""
    torch.manual_seed(0)
    network, images = torchvision.models.resnet18(num_classes=10), torch.randn(8, 3, 32, 32)
    seen, run = {}, norm_kernel._run_forward

    def spy(library, images, weight, bias, eps, behind):
        seen[id(weight)] = behind
        return run(library, images, weight, bias, eps, behind)

    monkeypatch.setattr(norm_kernel, "_run_forward", spy)
    found = []
    for precision, compiled in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
        student = copy.deepcopy(network).train()
        norms = {name: norm for name, norm in student.named_modules() if isinstance(norm, nn.BatchNorm2d)}
        with (
            norms_compiled(student, images, torch.bfloat16) if compiled else nullcontext(),
            computing(precision, images.device),
        ):
            logits = student(laid_out(images, precision)).float()
        F.cross_entropy(logits, torch.arange(8)).backward()
        found.append((logits.detach(), student.conv1.weight.grad, student.layer4[1].conv2.weight.grad))
    assert {name[-3:]: seen[id(norm.weight)] for name, norm in norms.items() if "layer1" in name} == {
        "bn1": norm_kernel.RECTIFIED,
        "bn2": norm_kernel.ALONE,
    }
    for exact, usual, ours in zip(*found, strict=True):
        assert (ours - exact).norm() < 1.3 * (usual - exact).norm()


def test_without_a_compiler_torch_does_it(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    norm_kernel.kernel.cache_clear()
    try:
        fidelity = replace(tiny.fidelity, precision="bfloat16")
        assert Evaluator(tiny, fidelity=fidelity).fidelity.kernels == "torch"
        with pytest.raises(InputError, match="needs a C compiler with OpenMP"):
            Evaluator(tiny, fidelity=replace(fidelity, kernels="compiled"), store=False).evaluate(
                dict.fromkeys(tiny.agents, 50.0)
            )
    finally:
        norm_kernel.kernel.cache_clear()
    with pytest.raises(InputError, match="Fidelity.kernels is 'triton': expected one of auto, compiled, torch"):
        Fidelity(kernels="triton")


def test_exact_evaluations_do_not_take_the_short_way():
    network = nn.Conv2d(64, 64, 3, padding=1)
    with small_maps_by_products(network, torch.bfloat16):
        assert type(network(torch.randn(2, 64, 4, 4)).grad_fn).__name__ == "ConvolutionBackward0"
