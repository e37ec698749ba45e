"""Independent PPO with TorchRL on the digits, within a budget of a fifth of the multiply-adds.

    pip install torchrl
    python examples/torchrl_ippo.py --evaluations 256

The agents ``conv_0``, ``conv_1``, ... are one group, ``"conv"``, with stacked tensors ``[steps, agents, ...]``,
and share a network, which tells layers apart by their features in the observation. Levels beyond the budget are
masked: TorchRL takes the masks from the infos and gives them as ``("conv", "action_mask")``.
"""

import argparse

import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs.libs.pettingzoo import PettingZooWrapper
from torchrl.envs.utils import check_env_specs
from torchrl.modules import MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss, ValueEstimators

import dsfp_env

BATCH, EPOCHS = 16, 10  # evaluations between updates, passes over them
parser = argparse.ArgumentParser()
parser.add_argument("--evaluations", type=int, default=256, help=f"budget; rounded up to a multiple of {BATCH}")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)
pruning = dsfp_env.parallel_env(task="digits", actions="levels", reward="budget", macs_budget=0.2)
env = PettingZooWrapper(pruning, seed=args.seed)
check_env_specs(env)  # takes a step, beside the budget

policy, value = (nn.Sequential(nn.LazyLinear(64), nn.Tanh(), nn.LazyLinear(size)) for size in (9, 1))
actor = ProbabilisticActor(
    TensorDictModule(policy, [("conv", "observation")], [("conv", "logits")]),
    in_keys={"logits": ("conv", "logits"), "mask": ("conv", "action_mask")},
    out_keys=[("conv", "action")],
    distribution_class=MaskedCategorical,
    return_log_prob=True,
)
critic = ValueOperator(value, [("conv", "observation")], [("conv", "state_value")])
actor(critic(env.reset()))  # gives the lazy layers their sizes
loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01)
names = {name: name for name in ("action", "reward", "done", "terminated")}
names |= {"value": "state_value", "sample_log_prob": "action_log_prob"}
loss.set_keys(**{key: ("conv", name) for key, name in names.items()})
loss.make_value_estimator(ValueEstimators.GAE, gamma=1.0, lmbda=0.95)
optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)

seen = []  # infos of every evaluation
for batch in Collector(env, actor, frames_per_batch=BATCH, total_frames=args.evaluations):
    loss.value_estimator(batch)
    for _ in range(EPOCHS):
        losses = loss(batch)
        optimizer.zero_grad()
        sum(losses[f"loss_{part}"] for part in ("objective", "critic", "entropy")).backward()
        optimizer.step()
    seen.extend(batch["next", "conv", "info"])
    print(
        f"{len(seen)} evaluations, mean reward of the last {BATCH}: {batch['next', 'conv', 'reward'].mean():.3f}"
    )

best = max(seen, key=lambda infos: infos["score"][0])
print("ratios in percent:", dict(zip(pruning.possible_agents, best["ratio"].tolist(), strict=True)))
print(f"accuracy {best['accuracy'][0]:.4f}, relative MACs {best['relative_macs'][0]:.4f}")
