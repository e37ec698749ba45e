"""PPO in one file, in the style of CleanRL: every agent acts by the same network, with nothing but torch.

    python examples/cleanrl_style_ppo.py --evaluations 256

Three things are easily done wrong. (1) Episodes may have one step: a batch is a number of steps, not an episode.
(2) What follows a step counts unless the episode was *terminated*, by the value of what was seen then, not of the
start of the next episode; errors are traced back within an episode only, be it terminated or *truncated*.
(3) Actions are drawn around 0 and stretched to the agents' Box: drawn in percent, most would be clipped to 10.
"""

import argparse

import numpy as np
import torch

import dsfp_env

BATCH, EPOCHS, LEARNING_RATE, DISCOUNT, TRACE, CLIP = 16, 10, 3e-3, 1.0, 0.95, 0.2  # BATCH: evaluations per update
parser = argparse.ArgumentParser()
parser.add_argument("--evaluations", type=int, default=256, help=f"budget; rounded up to a multiple of {BATCH}")
parser.add_argument("--horizon", type=int, default=1, help="steps of an episode")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()


def network() -> torch.nn.Sequential:
    """One number for each agent: observations ``[..., agents, features]`` to ``[..., agents]``."""
    inputs = env.observation_space(agents[0]).shape[0]
    layers = torch.nn.Linear(inputs, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1), torch.nn.Flatten(-2)
    return torch.nn.Sequential(*layers)


def row(by_agent: dict) -> torch.Tensor:
    """What agents have, as a tensor ``[agents, ...]``."""
    return torch.tensor(np.array([by_agent[agent] for agent in agents], np.float32))


torch.manual_seed(args.seed)
env = dsfp_env.parallel_env(task="digits", horizon=args.horizon)
agents, box = env.possible_agents, env.action_space("conv_0")
actor, critic, log_std = network(), network(), torch.nn.Parameter(torch.tensor(-0.5))
optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters(), log_std], LEARNING_RATE)
seen = []  # infos of every evaluation
observations, _ = env.reset(seed=args.seed)
while len(seen) < args.evaluations:
    steps = []
    for _ in range(BATCH):
        before = row(observations)
        action = torch.distributions.Normal(actor(before), log_std.exp()).sample()
        ratios = box.low + (action.numpy().clip(-1, 1)[:, None] + 1) / 2 * (box.high - box.low)
        observations, *rest, infos = env.step(dict(zip(agents, ratios, strict=True)))
        steps.append((before, action, row(observations), *map(row, rest)))
        seen.append(infos)
        observations = observations if env.agents else env.reset()[0]
    before, action, after, reward, terminated, truncated = map(torch.stack, zip(*steps, strict=True))
    with torch.no_grad():
        old_log_prob = torch.distributions.Normal(actor(before), log_std.exp()).log_prob(action)
        advantage = reward + DISCOUNT * (1 - terminated) * critic(after) - critic(before)
        for t in reversed(range(BATCH - 1)):
            advantage[t] += DISCOUNT * TRACE * (1 - terminated[t]) * (1 - truncated[t]) * advantage[t + 1]
        target = critic(before) + advantage
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    for _ in range(EPOCHS):
        log_prob = torch.distributions.Normal(actor(before), log_std.exp()).log_prob(action)
        change = (log_prob - old_log_prob).exp()
        gain = torch.minimum(change * advantage, change.clip(1 - CLIP, 1 + CLIP) * advantage)
        optimizer.zero_grad()
        (0.5 * (critic(before) - target).square() - gain).mean().backward()
        optimizer.step()
    print(f"{len(seen)} evaluations, mean reward of the last {BATCH}: {reward.mean():.3f}")
best = max(seen, key=lambda infos: infos[agents[0]]["score"])
print("ratios in percent:", {agent: round(info["ratio"], 1) for agent, info in best.items()})
print(f"accuracy {best[agents[0]]['accuracy']:.4f}, relative MACs {best[agents[0]]['relative_macs']:.4f}")
