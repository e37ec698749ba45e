"""RLlib's PPO on the digits, with live evaluations in this process, or on a cluster's workers.

    pip install '.[rllib]'        (it wants gymnasium 1.2.2, so give it a virtual environment of its own)
    python examples/rllib_ppo.py --evaluations 256 --shared
    python examples/rllib_ppo.py --evaluations 256 --runners 2                    (two processes of this machine)
    python examples/rllib_ppo.py --evaluations 1024 --runners 32 --address auto   (on a cluster that is there)

RLlib counts steps of the environment, and a step is one evaluation, whatever the number of agents. There is a
policy for every convolution, or one for all of them, which tells layers apart by their features.

Every runner loads the task where it is, and measures there. What it has measured is known here at once, so one
that ends takes nothing along but the evaluation that it was at; the others go on, and RLlib starts another.
Batches are whole, so the budget is rounded up; while a runner is missing, one may be nearly twice as large.

RLlib gives every runner a seed of its own, and goes through agents in the order of a set: equal seeds agree for
equal numbers of runners, if Python's hashes do. Start this, and a cluster's nodes, with ``PYTHONHASHSEED=0``.
"""

import argparse
import os
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import dsfp_env
from dsfp_env.evaluation.executors.ray_cluster import Ray

BATCH = 16  # evaluations between updates, at least; RLlib's default is 4000


class Record:
    """What all runners have measured: an actor of Ray, on this machine."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def add(self, where: str, infos: dict[str, Any]) -> None:
        """One evaluation more."""
        self.seen.append((where, infos))

    def since(self, start: int) -> list[tuple[str, dict[str, Any]]]:
        """Where evaluations were made, and their infos by agent, from number `start` on."""
        return self.seen[start:]


def remember(record: Any, *, episode: Any, **_: Any) -> None:
    """Called by RLlib after every step, in the process that made it."""
    where = f"process {os.getpid()} on node {ray.get_runtime_context().get_node_id()[:8]}"
    ray.get(record.add.remote(where, episode.get_infos(-1)))


def digits(_: Any = None) -> ParallelPettingZooEnv:
    """Called by RLlib in every process that is to make steps."""
    torch.set_num_threads(1)  # what is measured depends on it, and so does the original network
    return ParallelPettingZooEnv(dsfp_env.parallel_env(task="digits", device="cpu"))


def main() -> None:
    """Learn, and print the best that was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--evaluations", type=int, default=256, help="budget; rounded up to whole batches")
    parser.add_argument("--shared", action="store_true", help="one policy for all convolutions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runners", type=int, default=0, help="processes that measure; 0: this one")
    parser.add_argument("--address", help="auto or host:port; unless given, a cluster of this machine alone")
    args = parser.parse_args()
    runners = max(args.runners, 1)
    batch = -(-BATCH // runners) * runners  # as many for each

    cluster = Ray(args.runners or None, args.address)
    cluster.begin(len).stop()  # connects, and compares versions, sources and processors of all nodes
    if (room := int(ray.cluster_resources().get("CPU", 0))) < args.runners:
        print(f"the cluster has {room} CPUs for {args.runners} runners: waiting for more", flush=True)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    record = ray.remote(Record).options(num_cpus=0, scheduling_strategy=here).remote()
    register_env("layer_pruning", digits)
    agents = digits().par_env.possible_agents
    config = (
        PPOConfig()
        .environment("layer_pruning", disable_env_checking=True)  # a check would be an evaluation
        .env_runners(num_env_runners=args.runners, num_cpus_per_env_runner=1, sample_timeout_s=None)
        .multi_agent(
            policies=["all"] if args.shared else agents,
            policy_mapping_fn=lambda agent, episode, **_: "all" if args.shared else agent,
        )
        .training(train_batch_size_per_learner=batch, minibatch_size=batch, num_epochs=10, lr=3e-3)
        .callbacks(on_episode_step=partial(remember, record))
        .fault_tolerance(restart_failed_env_runners=True)
        .debugging(seed=args.seed)
    )
    algorithm = config.build_algo()
    seen: list[tuple[str, dict[str, Any]]] = []
    while len(seen) < args.evaluations:
        algorithm.train()
        new = ray.get(record.since.remote(len(seen)))
        seen += new
        if new:  # else all runners have ended, and others are being started
            mean = np.mean([infos[agents[0]]["score"] for _, infos in new])
            print(f"{len(seen)} evaluations, mean reward of the last {len(new)}: {mean:.3f}", flush=True)
    algorithm.stop()
    cluster.stop()

    for where, count in sorted(Counter(where for where, _ in seen).items()):
        print(f"{count} evaluations by {where}")
    best = max((infos for _, infos in seen), key=lambda infos: infos[agents[0]]["score"])
    print("ratios in percent:", {agent: round(best[agent]["ratio"], 1) for agent in agents})
    print(f"accuracy {best[agents[0]]['accuracy']:.4f}, relative MACs {best[agents[0]]['relative_macs']:.4f}")


if __name__ == "__main__":
    main()
