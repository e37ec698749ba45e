"""BenchMARL's QMIX, VDN, MAPPO or IPPO on the digits, within a budget of a fifth of the multiply-adds.

    pip install benchmarl        (it wants torchrl below 0.12, so give it a virtual environment of its own)
    python examples/benchmarl_qmix.py qmix --evaluations 256

A class tells BenchMARL how to make the environment. Its unit, a frame, is a step: one evaluation. QMIX and MAPPO
learn what the team is worth from ``env.state()``. Levels beyond the budget are masked.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarl.algorithms import IppoConfig, MappoConfig, QmixConfig, VdnConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from tensordict import TensorDictBase
from torchrl.envs.libs.pettingzoo import PettingZooWrapper

import dsfp_env

ALGORITHMS = {"qmix": QmixConfig, "vdn": VdnConfig, "mappo": MappoConfig, "ippo": IppoConfig}
BATCH = 16  # evaluations between updates; BenchMARL's default is 6000
parser = argparse.ArgumentParser()
parser.add_argument("algorithm", choices=ALGORITHMS)
parser.add_argument("--evaluations", type=int, default=256, help=f"budget; rounded up to a multiple of {BATCH}")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
evaluator = dsfp_env.Evaluator(dsfp_env.load_task("digits"))  # BenchMARL makes two environments
seen: list[TensorDictBase] = []  # infos of every evaluation


class LayerPruning(PettingZooClass):
    """A task of PettingZoo's kind, of which BenchMARL knows only some by name."""

    def get_env_fun(self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any) -> Callable:
        """How to make the environment."""
        env = dsfp_env.parallel_env(evaluator=evaluator, actions="levels", **self.config)
        return lambda: PettingZooWrapper(env, return_state=True, seed=seed, device=device)

    def supports_discrete_actions(self) -> bool:
        """Levels are discrete."""
        return True


class Remember(Callback):
    """Keeps what was found."""

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Called before every update, with ``[environments, steps]``."""
        seen.extend(batch.reshape(-1)["next", "conv", "info"])
        mean = batch["next", "conv", "reward"].mean()
        print(f"{len(seen)} evaluations, mean reward of the last {BATCH}: {mean:.3f}")


batches = {"collected_frames_per_batch": BATCH, "n_envs_per_worker": 1}
settings = replace(
    ExperimentConfig.get_from_yaml(),
    **{f"{kind}_policy_{name}": value for kind in ("on", "off") for name, value in batches.items()},
    max_n_frames=args.evaluations, lr=3e-3, on_policy_minibatch_size=BATCH, on_policy_n_minibatch_iters=10,
    off_policy_train_batch_size=32, off_policy_n_optimizer_steps=20, off_policy_memory_size=1000,
    evaluation=False, loggers=[], create_json=False, save_folder=tempfile.mkdtemp(),
)  # fmt: skip
task = LayerPruning("digits", {"reward": "budget", "macs_budget": 0.2, "max_cycles": 1})
algorithm, network = ALGORITHMS[args.algorithm].get_from_yaml(), MlpConfig.get_from_yaml()
Experiment(task, algorithm, network, args.seed, settings, callbacks=[Remember()]).run()

best = max(seen, key=lambda infos: infos["score"][0])
print("ratios in percent:", dict(zip(evaluator.task.agents, best["ratio"].tolist(), strict=True)))
print(f"accuracy {best['accuracy'][0]:.4f}, relative MACs {best['relative_macs'][0]:.4f}")
