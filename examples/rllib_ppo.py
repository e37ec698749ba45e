"""RLlib's PPO on the digits: a policy for every convolution, or one for all of them.

    pip install 'ray[rllib]'        (it wants gymnasium 1.2.2, so give it a virtual environment of its own)
    python examples/rllib_ppo.py --evaluations 256 --shared

RLlib counts steps of the environment, and a step is one evaluation, whatever the number of agents. But the return
that it reports is the sum over agents, who share a reward: here it is divided by their number. The one policy
tells layers apart by their features in the observation. RLlib goes through agents in the order of a set, so equal
seeds agree only if Python's hashes do: start it with ``PYTHONHASHSEED=0 python ...``.
"""

import argparse
from typing import Any

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

import dsfp_env

BATCH = 16  # evaluations between updates; RLlib's default is 4000
parser = argparse.ArgumentParser()
parser.add_argument("--evaluations", type=int, default=256, help=f"budget; rounded up to a multiple of {BATCH}")
parser.add_argument("--shared", action="store_true", help="one policy for all convolutions")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

env = dsfp_env.parallel_env(task="digits")
agents = env.possible_agents
seen: list[dict[str, Any]] = []  # infos of every evaluation


def remember(*, episode: Any, **_: Any) -> None:
    """Called by RLlib after every step."""
    seen.append(episode.get_infos(-1))


register_env("layer_pruning", lambda _: ParallelPettingZooEnv(env))
config = (
    PPOConfig()
    .environment("layer_pruning")
    .env_runners(num_env_runners=0)  # steps are made in this process
    .multi_agent(
        policies=["all"] if args.shared else agents,
        policy_mapping_fn=lambda agent, episode, **_: "all" if args.shared else agent,
    )
    .training(train_batch_size_per_learner=BATCH, minibatch_size=BATCH, num_epochs=10, lr=3e-3)
    .callbacks(on_episode_step=remember)
    .debugging(seed=args.seed)
)
algorithm = config.build_algo()
while len(seen) < args.evaluations:
    mean = algorithm.train()["env_runners"]["episode_return_mean"] / len(agents)
    print(f"{len(seen)} evaluations, mean reward of late: {mean:.3f}")
algorithm.stop()

best = max(seen, key=lambda infos: infos[agents[0]]["score"])
print("ratios in percent:", {agent: round(best[agent]["ratio"], 1) for agent in agents})
print(f"accuracy {best[agents[0]]['accuracy']:.4f}, relative MACs {best[agents[0]]['relative_macs']:.4f}")
