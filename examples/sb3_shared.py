"""Stable-Baselines3's PPO on the digits: one policy for all convolutions, four environments at once.

    python examples/sb3_shared.py --evaluations 256

To Stable-Baselines3 every agent of every environment is an environment of its own, and what each does is a
timestep: here four timesteps are one evaluation. With ``--macs-budget 0.2`` the agents choose levels, those
beyond the budget are masked, and the learner is MaskablePPO: ``pip install sb3-contrib``.
"""

import argparse
from typing import Any

import dsfp_env
from dsfp_env.wrappers import ParallelVecEnv

ENVS, STEPS = 4, 4  # of each environment between updates; PPO's default is 2048
BATCH = ENVS * STEPS  # evaluations between updates
parser = argparse.ArgumentParser()
parser.add_argument("--evaluations", type=int, default=256, help=f"budget; rounded up to a multiple of {BATCH}")
parser.add_argument("--macs-budget", type=float, help="relative MACs allowed")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

settings: dict[str, Any] = {}
if args.macs_budget is None:
    from stable_baselines3 import PPO
else:
    from sb3_contrib import MaskablePPO as PPO

    settings = {"actions": "levels", "reward": "budget", "macs_budget": args.macs_budget}
evaluator = dsfp_env.Evaluator(dsfp_env.load_task("digits"))  # one for all, so that they evaluate at once
envs = ParallelVecEnv([dsfp_env.parallel_env(evaluator=evaluator, **settings) for _ in range(ENVS)])
agents = envs.possible_agents
seen: list[list[dict[str, Any]]] = []  # infos of every evaluation, one for each agent


def remember(local_variables: dict[str, Any], _: dict[str, Any]) -> bool:
    """Called by Stable-Baselines3 after every step of all environments; says whether to go on."""
    infos = local_variables["infos"]
    seen.extend(infos[i : i + len(agents)] for i in range(0, len(infos), len(agents)))
    if len(seen) % BATCH == 0:
        mean = sum(infos[0]["score"] for infos in seen[-BATCH:]) / BATCH
        print(f"{len(seen)} evaluations, mean reward of the last {BATCH}: {mean:.3f}")
    return True


batch_size = BATCH * len(agents)  # timesteps
model = PPO("MlpPolicy", envs, n_steps=STEPS, batch_size=batch_size, learning_rate=3e-3, seed=args.seed)
model.learn(args.evaluations * len(agents), callback=remember)
envs.close()

best = max(seen, key=lambda infos: infos[0]["score"])
print("ratios in percent:", {agent: round(info["ratio"], 1) for agent, info in zip(agents, best, strict=True)})
print(f"accuracy {best[0]['accuracy']:.4f}, relative MACs {best[0]['relative_macs']:.4f}")
