"""Errors of the machine come out, with a sentence; float32 is float32, whatever a GPU would rather do."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_tasks
import torch
import torchvision
from conftest import TinyNet, make_tiny_task
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

import dsfp_env
from dsfp_env import ChannelGraph, Evaluator, InputError, Task
from dsfp_env.channels import probing, tracing, verification
from dsfp_env.common import devices
from dsfp_env.common.choices import choose
from dsfp_env.common.devices import choose_device, has_float64
from dsfp_env.common.repeatable import repeatable
from dsfp_env.datasets import on_disk
from dsfp_env.datasets.decoding import decode_image
from dsfp_env.datasets.reading import read_split
from dsfp_env.environment.lanes import Lane
from dsfp_env.evaluation.latency import LatencyMeter
from dsfp_env.evaluation.rewards import reward_function
from dsfp_env.export import export_onnx, export_program
from dsfp_env.networks import make_network
from dsfp_env.speed import folding
from dsfp_env.speed.layout import bears_channels_last
from dsfp_env.speed.precision import has_bfloat16
from dsfp_env.tasks import task as tasks
from dsfp_env.tasks.loading import load_task
from dsfp_env.toy import ToyEnv
from dsfp_env.training import epochs
from dsfp_env.training.accuracy import measure_metric
from dsfp_env.training.augmentation import augment_as_told
from dsfp_env.training.metrics import Metric
from dsfp_env.training.objectives import Objective
from dsfp_env.training.pretraining import load_published, load_weights
from dsfp_env.training.recipes import Recipe
from dsfp_env.wrappers.table_vector import TableVectorEnv

HALF = {"conv_0": 50.0, "conv_1": 50.0}
ERRORS = {
    "OutOfMemoryError": lambda: torch.OutOfMemoryError("CUDA out of memory."),
    "AcceleratorError": lambda: torch.AcceleratorError("an illegal memory access"),
}


class Fails(TinyNet):
    """Fails as it is told, when it runs for the n-th time."""

    error, runs = None, 0

    def forward(self, x):
        Fails.runs -= 1
        if Fails.runs == 0:
            raise Fails.error
        return super().forward(x)


@pytest.fixture(params=ERRORS)
def error(request):
    try:
        return ERRORS[request.param]()
    except (AttributeError, TypeError):
        pytest.skip("this torch has no such error, or makes none by hand")


def fail(error, after=0):
    """A function that fails, after so many calls of the real one."""

    def made(real):
        calls = [0]

        def failing(*args, **kwargs):
            calls[0] += 1
            if calls[0] > after:
                raise error
            return real(*args, **kwargs)

        return failing

    return made


@pytest.mark.parametrize(
    ("place", "name", "after", "doing"),
    [
        (probing.Probe, "labels", 0, "following"),  # would be "cannot be followed channel by channel"
        (verification, "same_answers", 0, None),
        (verification, "find_fault", 0, None),
        (verification, "cut", 0, None),
    ],
)
def test_a_lack_of_memory_is_no_property_of_a_network(monkeypatch, error, place, name, after, doing):
    network = make_network("vgg16-bn", 10).eval()  # with pools, which are probed
    monkeypatch.setattr(place, name, fail(error, after)(getattr(place, name)))
    with pytest.raises(type(error), match=f"while {doing}" if doing else str(error)):
        ChannelGraph.trace(network, torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("runs", range(1, 9))
def test_wherever_a_forward_pass_lacks_memory_it_comes_out(tiny, error, runs):
    Fails.error, Fails.runs = error, runs
    with pytest.raises(type(error), match=str(error)):
        Task.from_network(Fails(), tiny.train, tiny.validation, tiny.test, device="cpu")
    Fails.runs = 0


def test_a_lack_of_main_memory_comes_out_too():
    Fails.error, Fails.runs = MemoryError("no more"), 1
    with pytest.raises(MemoryError, match=r"no more \(while tracing Fails; if memory is short, make .* smaller\)"):
        ChannelGraph.trace(Fails(), torch.randn(1, 1, 8, 8))
    Fails.runs = 0


def test_folding_lacks_memory(monkeypatch, error, tiny):
    monkeypatch.setattr(folding, "same_logits", fail(error)(None))
    with pytest.raises(type(error), match="while folding normalisations"):
        folding.foldable(tiny.network, tiny.graph.norms, tiny.train.images[:2])


def test_trying_bfloat16_lacks_memory(monkeypatch, error):
    task = make_tiny_task("short")
    monkeypatch.setattr(tasks, "is_worth_hastening", lambda macs: True)
    monkeypatch.setattr(tasks, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(tasks, "compute_logits", fail(error, 1)(tasks.compute_logits))
    with pytest.raises(type(error), match="while trying bfloat16"):
        _ = task.precision


def test_silencing_lacks_memory(monkeypatch, error, tiny):
    monkeypatch.setattr(torch, "vmap", fail(error)(torch.vmap))
    with pytest.raises(type(error), match="while silencing filters of .*max_batch or max_memory"):
        make_tiny_task("silent").scores("output_kl")


class Uncopied(TinyNet):
    """Fails as it is copied."""

    error = None

    def __deepcopy__(self, memo):
        raise Uncopied.error


class Failing(Dataset):
    """A data set that fails."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise self.error


def fails_there(monkeypatch, error, *places):
    for place, name in places:
        monkeypatch.setattr(place, name, fail(error)(getattr(place, name)))


def a_device(monkeypatch, error, tmp_path, tiny):
    fails_there(monkeypatch, error, (torch, "empty"))
    choose_device("cpu")


def a_type_of_numbers(monkeypatch, error, tmp_path, tiny):
    fails_there(monkeypatch, error, (torch, "zeros"))
    has_float64.__wrapped__(torch.device("cpu"))


def a_move(monkeypatch, error, tmp_path, tiny):
    fails_there(monkeypatch, error, (torch.Tensor, "to"))
    tiny.train.to(torch.device("cpu"))


def a_data_set(monkeypatch, error, tmp_path, tiny):
    read_split(Failing(error), "train")


def cifar_files_there(monkeypatch, error, tmp_path, tiny):
    fails_there(monkeypatch, error, (on_disk, "CIFAR10"))
    on_disk.CIFAR10.__name__ = "CIFAR10"
    on_disk.cifar("cifar10", tmp_path)


def weights_of_torch(monkeypatch, error, tmp_path, tiny):
    (tmp_path / "weights.pt").touch()
    fails_there(monkeypatch, error, (torch, "load"))
    load_weights(TinyNet(), tmp_path / "weights.pt")


def weights_of_torchvision(monkeypatch, error, tmp_path, tiny):
    fails_there(monkeypatch, error, (torchvision.models, "get_model"))
    load_published(TinyNet(), "torchvision.resnet18", "DEFAULT")


def weights_that_fit(monkeypatch, error, tmp_path, tiny):
    torch.save(TinyNet().state_dict(), tmp_path / "weights.pt")
    fails_there(monkeypatch, error, (nn.Module, "load_state_dict"))
    load_weights(TinyNet(), tmp_path / "weights.pt")


def a_checkpoint(monkeypatch, error, tmp_path, tiny):
    epochs.train(TinyNet(), tiny.train, Recipe(epochs=1), 0, checkpoint=tmp_path / "state")
    fails_there(monkeypatch, error, (torch, "load"))
    epochs.train(TinyNet(), tiny.train, Recipe(epochs=1), 0, checkpoint=tmp_path / "state")


def a_copy(monkeypatch, error, tmp_path, tiny):
    Uncopied.error = error
    tracing.share_parameters(Uncopied())


def a_program(monkeypatch, error, tmp_path, tiny):
    fails_there(monkeypatch, error, (torch.export, "export"))
    export_program(TinyNet(), tiny.train.images[:1])


def an_onnx_file(monkeypatch, error, tmp_path, tiny):
    pytest.importorskip("onnxscript")
    fails_there(monkeypatch, error, (torch.onnx, "export"))
    export_onnx(tmp_path / "net.onnx", TinyNet(), tiny.train.images[:1])


def a_removal(monkeypatch, error, tmp_path, tiny):
    graph = SimpleNamespace(layers={}, sets=[], keep=lambda ratios, scores: {}, slim=fail(error)(None))
    verification._why_not(graph, None, TinyNet(), None, [], 0.5)


def memory_formats(monkeypatch, error, tmp_path, tiny):
    Fails.error, Fails.runs = error, 1
    bears_channels_last(Fails(), tiny.train.images[:2])


def a_reward(monkeypatch, error, tmp_path, tiny):
    reward_function(fail(error)(None))(None, None)


def a_metric(monkeypatch, error, tmp_path, tiny):
    measure_metric(tiny.network, tiny.validation, Metric(fail(error)(None), "own"))


def a_loss(monkeypatch, error, tmp_path, tiny):
    Objective(own_loss=fail(error)(None)).loss(torch.zeros(1, 2), torch.zeros(1))


def a_variation(monkeypatch, error, tmp_path, tiny):
    augment_as_told(*tiny.train, fail(error)(None), torch.Generator())


def a_transform(monkeypatch, error, tmp_path, tiny):
    read_split(tuple(tiny.train), "train", transform=fail(error)(None))


def batches(monkeypatch, error, tmp_path, tiny):
    fails_there(monkeypatch, error, (torch, "cat"))
    read_split([tuple(tiny.train)], "train")


def a_module_of_ones_own(monkeypatch, error, tmp_path, tiny):
    fails_there(monkeypatch, error, (importlib, "import_module"))
    choose("reward", "package.module:function", {}, importable=True)


def an_image(monkeypatch, error, tmp_path, tiny):
    (tmp_path / "image.png").touch()
    fails_there(monkeypatch, error, (Image, "open"))
    decode_image(tmp_path / "image.png")


class Unread:
    """Fails as it is made an array, or is copied."""

    def __init__(self, error):
        self.error = error

    def __array__(self, *how, **where):
        raise self.error

    def __deepcopy__(self, memo):
        raise self.error


def an_action(monkeypatch, error, tmp_path, tiny):
    env = ToyEnv("box")
    env.reset()
    env.step(dict.fromkeys(env.agents, Unread(error)))


def actions_of_many(monkeypatch, error, tmp_path, tiny):
    env = TableVectorEnv(2)
    env.reset()
    env.step(Unread(error))


def levels_of_a_table(monkeypatch, error, tmp_path, tiny):
    dsfp_env.load_table("digits").rows(Unread(error))


def an_environment(monkeypatch, error, tmp_path, tiny):
    env = ToyEnv()
    env.something = Unread(error)
    Lane(env).reset()


def a_pass(monkeypatch, error, tmp_path, tiny):
    LatencyMeter()._warm(SimpleNamespace(timeit=fail(error)(None)))


def a_task(monkeypatch, error, tmp_path, tiny):
    monkeypatch.setattr(tiny_tasks, "tiny", fail(error)(None))
    load_task("tiny_tasks:tiny", device="cpu", seed=7)


def a_criterion(monkeypatch, error, tmp_path, tiny):
    make_tiny_task("own").scores(fail(error)(None))


HANDLERS = {
    a_pass: "timing a forward pass",
    a_task: "making the task 'tiny_tasks:tiny'",
    a_criterion: "computing the criterion ",
    an_action: "reading an action",
    actions_of_many: "reading actions",
    levels_of_a_table: "reading levels",
    an_environment: "copying the environment",
    a_reward: "computing the reward ",
    a_metric: "computing the metric 'own'",
    a_loss: "computing the loss",
    a_variation: "varying images",
    a_transform: "transforming the train images",
    batches: "reading the train split",
    a_module_of_ones_own: "importing the ",
    an_image: "reading .*image.png",
    a_device: "trying the device 'cpu'",
    a_type_of_numbers: "trying float64 on cpu",
    a_move: "bringing 64 images of 0.00024 MiB each to cpu, where all splits stay; .* make the splits smaller",
    a_data_set: "reading the train dataset",
    cifar_files_there: "reading CIFAR10",
    weights_of_torch: "reading .*weights.pt",
    weights_of_torchvision: "loading resnet18",
    weights_that_fit: "loading .*weights.pt",
    a_checkpoint: "reading .*state",
    a_copy: "copying Uncopied",
    a_program: "exporting TinyNet",
    an_onnx_file: "exporting TinyNet",
    a_removal: "verifying a removal",
    memory_formats: "trying memory formats",
}
ELSEWHERE = (
    "reading ",
    "following ",
    "tracing ",
    "silencing filters of ",
    "folding normalisations",
    "trying bfloat16",
)


@pytest.mark.parametrize("work", HANDLERS)
def test_wherever_all_errors_are_caught_those_of_the_machine_come_out(monkeypatch, error, work, tmp_path, tiny):
    with pytest.raises(type(error), match=f"while {HANDLERS[work]}"):
        work(monkeypatch, error, tmp_path, tiny)


def test_no_handler_is_forgotten():
    sources = "".join(file.read_text() for file in Path(dsfp_env.__file__).parent.rglob("*.py"))
    handlers = re.findall(r"  raise_if_of_the_machine\(error, f?\"([^\"{]*)", sources)
    assert len(handlers) == sources.count("  raise_if_of_the_machine(")
    for doing in handlers:
        assert any(tested.startswith(doing) for tested in (*HANDLERS.values(), *ELSEWHERE)), doing


def test_other_errors_are_the_networks():
    class Odd(nn.Sequential):
        def forward(self, x):
            raise RuntimeError("I am odd")

    with pytest.raises(InputError, match="I am odd"):
        ChannelGraph.trace(Odd(nn.Conv2d(1, 2, 3)), torch.randn(1, 1, 8, 8))


def flags():
    cudnn = torch.backends.cudnn
    return cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, torch.get_float32_matmul_precision()


class Notes(TinyNet):
    """Notes the flags under which it runs."""

    seen = set()  # noqa: RUF012

    def forward(self, x):
        Notes.seen.add((*flags(), x.dtype))
        return super().forward(x)


def test_what_must_be_exact_is_computed_without_tf32_and_repeatably(tiny):
    torch.set_float32_matmul_precision("medium")
    before = flags()
    try:
        with repeatable():
            assert flags() == (False, True, False, "highest")
        with repeatable(exact=False):
            assert flags() == (before[0], True, False, "medium")
        assert flags() == before

        splits = tiny.train, tiny.validation, tiny.test
        Notes.seen.clear()
        ChannelGraph.trace(Notes(), torch.randn(1, 1, 8, 8))
        assert Notes.seen == {(False, True, False, "highest", torch.float32)}
        task = Task.from_network(Notes(), *splits, device="cpu", fidelity=tiny.fidelity)
        for work in (
            lambda: task.scores("dsfp"),
            lambda: task.teacher.norms,
            lambda: Evaluator(task, store=False).evaluate(HALF),
            lambda: Evaluator(task, store=False).original,
        ):
            Notes.seen.clear()
            work()
            assert Notes.seen == {(False, True, False, "highest", torch.float32)}
        assert flags() == before
    finally:
        torch.set_float32_matmul_precision("highest")


SET = {
    "nothing": "pass",
    "old, of the GPU": "backends.cuda.matmul.allow_tf32 = True",
    "old": "torch.set_float32_matmul_precision('medium')",
    "new, everywhere": "backends.fp32_precision = 'tf32'",
    "new, one of two": "backends.cudnn.conv.fp32_precision = 'ieee'",
    "new, of the CPU": "backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "both": "backends.cudnn.allow_tf32 = False; backends.cuda.matmul.fp32_precision = 'tf32'",
}
SCRIPT = """
import torch
from torch import backends
from dsfp_env.common.repeatable import repeatable

def now():
    places = backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul
    return [place.fp32_precision for place in places]

{}
before = now()
with repeatable():
    assert not {{"tf32", "bf16"}} & set(now()), now()
assert now() == before, (now(), before)
"""


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch has only the old names")
@pytest.mark.parametrize("name", SET)
def test_float32_is_exact_and_left_as_it_was_by_whichever_names_it_was_set(name):
    """In a process of its own: torch refuses the old names once the new ones are used."""
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(SET[name])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def rounded(tensor):
    """As TF32: 10 bits of the mantissa."""
    bits = tensor.detach().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.fixture
def tf32(monkeypatch):
    """Convolutions as on a GPU: what they take is rounded, unless torch is told to be exact."""
    convolve = nn.Conv2d._conv_forward

    def forward(self, images, weight, bias):
        if torch.backends.cudnn.allow_tf32:
            images, weight = rounded(images), rounded(weight)
        return convolve(self, images, weight, bias)

    def switch(on):
        monkeypatch.setattr(nn.Conv2d, "_conv_forward", forward if on else convolve)

    return switch


@pytest.fixture(scope="module")
def vgg():
    """With statistics of its own, so that rounding shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, images = make_network("vgg16-bn", 10), torch.randn(64, 3, 32, 32)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
        with torch.no_grad():
            network.train()(images)
    return network.eval(), images


def test_what_a_gpu_would_round_is_exact(tf32, vgg):
    assert torch.backends.cudnn.allow_tf32  # torch's own choice
    network, images = vgg
    found = {}
    for on in (False, True):
        tf32(on)
        graph = ChannelGraph.trace(network, images[:1])
        folded = folding.foldable(network, graph.norms, images[:2])
        with torch.no_grad(), repeatable():
            found[on] = list(graph.layers), folded, network(images[:2])
    assert found[True][:2] == found[False][:2]
    assert len(found[True][0]) == len(found[True][1]) == 13
    assert torch.equal(found[True][2], found[False][2])
    with torch.no_grad():  # it would show
        assert not verification.same_logits(network(images[:2]), found[True][2])


def test_scores_and_evaluations_are_exact_where_a_gpu_would_round(tf32, tiny):
    found = []
    for on in (False, True):
        tf32(on)
        task = make_tiny_task("exact")
        evaluator = Evaluator(task, store=False)
        found.append((evaluator.original, evaluator.evaluate(HALF), evaluator.build(HALF), task.scores("dsfp")))
    assert found[0][:2] == found[1][:2]
    states = [network.state_dict().values() for _, _, network, _ in found]
    assert all(map(torch.equal, *states))
    assert all(map(torch.equal, *(scores.values() for *_, scores in found)))


def test_what_is_named_cuda(monkeypatch):
    """Asked without a GPU, by answering for torch."""
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91000)
    assert devices.device_name(device) == "cuda Some GPU, cuDNN 91000"
    assert devices.fused(device)
    for capability, suits in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert has_bfloat16(device) == suits
    current = devices.made_current(torch.device("cuda", 1))
    assert isinstance(current, torch.cuda.device)
    assert current.idx == 1
