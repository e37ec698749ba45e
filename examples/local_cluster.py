"""A Ray cluster of three nodes in this machine; one of them is lost while plans are evaluated, and another joins.

    pip install 'dsfp_env[ray]'
    python examples/local_cluster.py --plans 24

What is printed at the end is what one process comes to, to the last bit. Three nodes on two cores are no faster
than two processes: this is for trying things out.
"""

import argparse
import os

import numpy as np
from ray.cluster_utils import Cluster

import dsfp_env
from dsfp_env.evaluation.executors.ray_cluster import Ray


def main() -> None:
    """Evaluate, lose a node, gain a node, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plans", type=int, default=24)
    args = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    lost, _ = cluster.add_node(**node), cluster.add_node(**node)

    task = dsfp_env.load_task("digits", device="cpu")
    ratios = np.random.default_rng(0).uniform(10, 90, (args.plans, len(task.agents)))
    plans = [dict(zip(task.agents, row.tolist(), strict=True)) for row in ratios]
    with dsfp_env.Evaluator(task, store=False, executor=Ray(address=cluster.address)) as evaluator:
        outcomes = evaluator.start_many(plans, seed=0)
        found = [next(outcomes)]
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(**node)
        found += list(outcomes)
    cluster.shutdown()

    alone = dsfp_env.Evaluator(task, store=False).evaluate_many(plans, seed=0, workers=1)
    best = max(found, key=lambda outcome: outcome.accuracy * (1 - outcome.relative_macs))
    print(f"{len(found)} plans, equal to those of one process: {found == alone}")
    print(f"the best: accuracy {best.accuracy:.4f}, relative MACs {best.relative_macs:.4f}")


if __name__ == "__main__":
    main()
