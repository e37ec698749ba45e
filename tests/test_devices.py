"""Errors of the machine come out, with a sentence; float32 is float32, whatever a GPU would rather do."""

import subprocess
import sys

import pytest
import torch
from conftest import TinyNet, make_tiny_task
from torch import nn

from dsfp_env import ChannelGraph, Evaluator, InputError, Task
from dsfp_env.channels import probing, verification
from dsfp_env.common.devices import repeatable
from dsfp_env.networks import make_network
from dsfp_env.speed import folding
from dsfp_env.tasks import task as tasks

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
    network = make_network("resnet20", 10).eval()
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
    monkeypatch.setattr(tasks, "suits_bfloat16", lambda device, macs: True)
    monkeypatch.setattr(tasks, "compute_logits", fail(error, 1)(tasks.compute_logits))
    with pytest.raises(type(error), match="while trying bfloat16"):
        _ = task.precision


def test_silencing_lacks_memory(monkeypatch, error, tiny):
    monkeypatch.setattr(torch, "vmap", fail(error)(torch.vmap))
    with pytest.raises(type(error), match="while silencing filters of .*max_batch or max_memory"):
        make_tiny_task("silent").scores("output_kl")


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
from dsfp_env.common.devices import repeatable

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
