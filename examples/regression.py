"""Prune a network that answers numbers: python examples/regression.py 20 (evaluations).

It says where the ink of a digit has its centre. Or by the command: python train_agents.py --task
regression:make_task (with examples/ as the current directory, or on PYTHONPATH).
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import agents
import dsfp_env


def digits_somewhere(count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``[N, 1, 16, 16]`` with a digit somewhere, and its centre of mass ``[N, 2]``, each in [-1, 1]."""
    digits = torch.tensor(load_digits().images, dtype=torch.float32) / 16
    images = torch.zeros(count, 1, 16, 16)
    for image in images:
        index, top, left = (int(torch.randint(high, (1,), generator=rng)) for high in (len(digits), 9, 9))
        image[0, top : top + 8, left : left + 8] = digits[index]
    places = torch.linspace(-1, 1, 16)
    ink = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    centres = torch.stack([ink.sum(2) @ places, ink.sum(1) @ places], 1)
    return images + torch.rand(images.shape, generator=rng) / 4, centres


def make_task(data_root: str | None = None, device: str = "auto", seed: int = 0) -> dsfp_env.Task:
    """A trained network and its images, as ``--task regression:make_task`` wants it."""
    rng = torch.Generator().manual_seed(seed)
    train, validation, test = (digits_somewhere(count, rng) for count in (600, 200, 200))
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 2)),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for batch in torch.cat([torch.randperm(600) for _ in range(10)]).split(50):
        optimizer.zero_grad()
        F.mse_loss(network(train[0][batch]), train[1][batch]).backward()
        optimizer.step()
    fidelity = dsfp_env.Fidelity(batch_size=32, learning_rate=3e-3, precision="float32")  # of small images
    return dsfp_env.Task.from_network(
        network, train, validation, test, name="centre", device=device, fidelity=fidelity, metric="mse"
    )


def main() -> None:
    """Search, and compare with the mean of the centres as an answer to every image."""
    task = make_task(device="cpu")
    env = dsfp_env.parallel_env(task=task, actions="levels", reward="budget", macs_budget=0.4, criterion="taylor")
    team = agents.CoordinateSearch(env, seed=0)
    ratios = agents.best(agents.train(env, team, evaluations=int(sys.argv[1]), seed=0)).ratios
    for name, plan in {"original": None, "pruned": ratios}.items():
        _, test = env.evaluator.measure_values(plan)
        print(f"{name}: {task.metric.name} {test:.4f}")
    print(f"always the mean: {task.metric.worst:.4f}; {env.evaluator.costs(ratios)}")


if __name__ == "__main__":
    main()
