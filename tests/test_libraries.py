"""Other RL libraries run on the environment; those that are not installed are skipped.

CI has Stable-Baselines3 and torch. The others were run in virtual environments of their own: docs/libraries.md.
"""

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import dsfp_env

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "libraries.md").read_text()


def needs(*libraries):
    missing = [library for library in libraries if importlib.util.find_spec(library) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed: docs/libraries.md says how")


RLLIB = needs("ray", "tree")  # Ray without [rllib] has no tree


def settings(folder):
    """As a user would. RLlib writes below HOME, and repeats itself if hashes do."""
    own = {"HOME": str(folder), "PYTHONHASHSEED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    return {"cwd": folder, "env": {**os.environ, **own}, "text": True}


def run(folder, *command):
    """What a command prints."""
    process = subprocess.run([sys.executable, *map(str, command)], **settings(folder), capture_output=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


def found(printed):
    """Ratios, accuracy and relative MACs, as every example prints them."""
    ratios = ast.literal_eval(re.search(r"ratios in percent: (.*)", printed)[1])
    accuracy, relative_macs = re.search(r"accuracy (.*), relative MACs (.*)", printed).groups()
    return ratios, float(accuracy), float(relative_macs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "macs_budget", "times"),
    [
        pytest.param("cleanrl_style_ppo.py", 1, 2),
        pytest.param("sb3_shared.py --macs-budget 0.2", 0.2, 1, marks=needs("sb3_contrib")),
        pytest.param("rllib_ppo.py --shared", 1, 2, marks=RLLIB),
        pytest.param("rllib_ppo.py", 1, 1, marks=RLLIB),
        pytest.param("rllib_ppo.py --runners 2", 1, 2, marks=RLLIB),
        pytest.param("torchrl_ippo.py", 0.2, 2, marks=needs("torchrl")),
        pytest.param("benchmarl_qmix.py qmix", 0.2, 2, marks=needs("benchmarl")),
        pytest.param("benchmarl_qmix.py vdn", 0.2, 1, marks=needs("benchmarl")),
        pytest.param("benchmarl_qmix.py mappo", 0.2, 1, marks=needs("benchmarl")),
        pytest.param("benchmarl_qmix.py ippo", 0.2, 1, marks=needs("benchmarl")),
    ],
)
def test_example(command, macs_budget, times, digits, tmp_path):
    """What it prints at the end is true, and the same each time."""
    name, *arguments = command.split()
    printed = [run(tmp_path, EXAMPLES / name, *arguments, "--evaluations", 15, "--seed", 3) for _ in range(times)]
    ratios, accuracy, relative_macs = found(printed[0])
    assert "16 evaluations, mean reward" in printed[0]  # up to a whole batch
    evaluator = dsfp_env.Evaluator(digits)
    assert evaluator.costs(ratios).macs / evaluator.original.macs == pytest.approx(relative_macs, abs=0.005)
    assert 0.1 < accuracy <= 1
    assert relative_macs <= macs_budget
    assert macs_budget == 1 or all(ratio % 10 == 0 for ratio in ratios.values())  # levels
    assert found(printed[-1]) == (ratios, accuracy, relative_macs)


def blocks_of(heading):
    """The Python of a section of the page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heading", "number"),
    [
        *(
            pytest.param("Stable-Baselines3", n, marks=[needs("sb3_contrib"), pytest.mark.long])
            for n in (0, 1, 2, 4)
        ),
        pytest.param("Stable-Baselines3", 3, marks=needs("sb3_contrib")),  # workers that are spawned
        pytest.param("SuperSuit", 0, marks=needs("supersuit")),
        pytest.param("Tianshou", 0, marks=needs("tianshou")),
        pytest.param("RLlib", 0, marks=RLLIB),
        pytest.param("TorchRL", 0, marks=needs("torchrl")),
        pytest.param("AgileRL", 0, marks=needs("agilerl")),
    ],
)
@pytest.mark.usefixtures("digits")
def test_block_of_the_page(heading, number, tmp_path):
    """It runs as it stands; nothing but the package itself is registered where workers are spawned."""
    (tmp_path / "block.py").write_text(blocks_of(heading)[number])
    run(tmp_path, "block.py")


def test_no_block_of_the_page_is_forgotten():
    headings = re.findall(r"^## (.*)", PAGE, re.MULTILINE)
    counts = {heading: len(blocks_of(heading)) for heading in headings}
    known = {"Stable-Baselines3": 5, "SuperSuit": 1, "Tianshou": 1, "RLlib": 1, "TorchRL": 1, "AgileRL": 1}
    assert {heading: count for heading, count in counts.items() if count} == known


@pytest.mark.slow
@needs("rl_zoo3")
def test_rl_zoo3_unmodified(tmp_path):
    from stable_baselines3 import PPO

    env = ["--env", "dsfp/LayerPruning-v0", "--gym-packages", "dsfp_env"]
    size = ["-n", "8", "-params", "n_steps:4", "batch_size:4"]
    run(tmp_path, "-m", "rl_zoo3.train", "--algo", "ppo", *env, *size, "-f", "logs", "--seed", "0")
    (model,) = tmp_path.glob("logs/ppo/*/dsfp-LayerPruning-v0.zip")
    assert PPO.load(model).num_timesteps == 8
    assert PPO.load(model).action_space.shape == (4,)


@RLLIB
@pytest.mark.parametrize("horizon", [1, 4])
def test_rllib_sees_whole_episodes(tiny, horizon):
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

    env = ParallelPettingZooEnv(dsfp_env.parallel_env(task=tiny, horizon=horizon))
    observations, _ = env.reset(seed=0)
    for step in range(1, horizon + 1):
        assert env.observation_space.contains(observations)
        observations, rewards, terminations, truncations, _ = env.step(env.action_space.sample())
        assert set(rewards) == {"conv_0", "conv_1"}
        assert (terminations["__all__"], truncations["__all__"]) == (step == horizon, False)


NODES = """
import sys
from ray.cluster_utils import Cluster

node = {"include_dashboard": False, "object_store_memory": 10**8}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **node})
for _ in range(2):
    cluster.add_node(num_cpus=1, **node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def cluster_of_two(folder):
    """The address of a cluster, where each of two nodes has room for a runner, and the head for none."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", NODES], **settings(folder), **pipes) as nodes:
        yield nodes.stdout.readline().strip()  # it ends when its input does


def runners_of(folder):
    """RLlib's processes that make steps, of a cluster that was started with this folder as HOME."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            ours = f"HOME={folder}\0".encode() in (process / "environ").read_bytes()
            if ours and (process / "cmdline").read_bytes().startswith(b"ray::MultiAgentEnvRunner"):
                yield int(process.name)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@RLLIB
def test_rllib_measures_on_the_nodes_of_a_cluster_and_survives_the_loss_of_all_runners(digits, tmp_path):
    example = [sys.executable, EXAMPLES / "rllib_ppo.py", "--runners", "2", "--evaluations", "32", "--shared"]
    with (
        cluster_of_two(tmp_path) as address,
        subprocess.Popen(
            [*example, "--address", address], **settings(tmp_path), stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout.readline().startswith("16 evaluations, ")
        killed = set(runners_of(tmp_path))
        for runner in killed:
            os.kill(runner, signal.SIGKILL)
        printed = process.stdout.read()
    assert process.returncode == 0
    parts = re.findall(r"(\d+) evaluations by process (\d+) on node (\w+)", printed)
    made = {int(number): int(count) for count, number, _ in parts}
    assert len(killed) == len({node for *_, node in parts}) == 2
    assert killed < set(made)  # what they had measured is kept; others have gone on
    assert all(8 <= made[runner] <= 16 for runner in killed)
    assert sum(made.values()) >= 32
    ratios, accuracy, relative_macs = found(printed)
    evaluator = dsfp_env.Evaluator(digits)
    assert evaluator.costs(ratios).macs / evaluator.original.macs == pytest.approx(relative_macs, abs=0.005)
    assert 0.1 < accuracy <= 1


def torchrl_env(tiny, **kwargs):
    from torchrl.envs.libs.pettingzoo import PettingZooWrapper

    pruning = dsfp_env.parallel_env(task=tiny, reward="budget", macs_budget=0.5, **kwargs)
    return PettingZooWrapper(pruning, return_state=True, seed=0)


@needs("torchrl")
@pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested using version")
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("actions", ["levels", "box"])
def test_torchrl_specs_and_rollouts(tiny, actions, horizon):
    from torchrl.envs.utils import check_env_specs

    env = torchrl_env(tiny, actions=actions, horizon=horizon)
    check_env_specs(env)
    assert env.group_map == {"conv": ["conv_0", "conv_1"]}
    rollout = env.rollout(8, break_when_any_done=False)
    after = rollout["next", "conv"]
    assert rollout["next", "state"].shape == (8, 3 * 2 + 5)
    assert rollout["next", "done"].flatten().tolist() == ([False] * (horizon - 1) + [True]) * (8 // horizon)
    assert not after["truncated"].any()
    returns = after["reward"].reshape(-1, horizon, 2).sum(1)
    assert returns.flatten().tolist() == pytest.approx(after["info", "score"][horizon - 1 :: horizon].flatten())
    if actions == "levels":
        allowed = rollout["conv", "action_mask"].gather(-1, rollout["conv", "action"].unsqueeze(-1))
        assert allowed.all()
        assert not rollout["conv", "action_mask"].all()
        assert (after["info", "relative_macs"] <= 0.5).all()
