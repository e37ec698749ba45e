"""Prune a network that segments images: python examples/segmentation.py 20 (evaluations).

Or by the command: python train_agents.py --task segmentation:make_task (with examples/ as the current directory,
or on PYTHONPATH).
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import agents
import dsfp_env

IGNORED = 255  # the pixels around a digit's ink, which belong to neither


def digits_on_noise(count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``[N, 1, 16, 16]`` of noise with a digit somewhere, and masks ``[N, 16, 16]``: 1 is ink."""
    digits = torch.tensor(load_digits().images, dtype=torch.float32) / 16
    images, masks = torch.rand(count, 1, 16, 16, generator=rng) / 2, torch.zeros(count, 16, 16, dtype=torch.long)
    for image, mask in zip(images, masks, strict=True):
        index, top, left = (int(torch.randint(high, (1,), generator=rng)) for high in (len(digits), 9, 9))
        digit, there = digits[index], (slice(top, top + 8), slice(left, left + 8))
        image[0][there] = torch.maximum(image[0][there], digit)
        mask[there] = torch.where(digit > 0.5, 1, torch.where(digit > 0.3, IGNORED, 0))
    return images, masks


class UNet(nn.Module):
    """Down once and up again, with the finer maps handed across."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second = block(1, width), block(width, 2 * width)
        self.up, self.last = nn.ConvTranspose2d(2 * width, width, 2, 2), block(2 * width, width)
        self.logits = nn.Conv2d(width, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, 2, H, W]``."""
        fine = self.first(images)
        coarse = self.second(F.max_pool2d(fine, 2))
        return self.logits(self.last(torch.cat([fine, self.up(coarse)], 1)))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution, its normalisation, and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def make_task(data_root: str | None = None, device: str = "auto", seed: int = 0) -> dsfp_env.Task:
    """A trained U-Net and its images, as ``--task segmentation:make_task`` wants it."""
    rng = torch.Generator().manual_seed(seed)
    train, validation, test = (digits_on_noise(count, rng) for count in (400, 150, 150))
    torch.manual_seed(seed)
    network = UNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for batch in torch.cat([torch.randperm(400) for _ in range(6)]).split(50):
        optimizer.zero_grad()
        F.cross_entropy(network(train[0][batch]), train[1][batch], ignore_index=IGNORED).backward()
        optimizer.step()
    fidelity = dsfp_env.Fidelity(batch_size=32, learning_rate=1e-2, precision="float32")  # of small images
    return dsfp_env.Task.from_network(
        network,
        train,
        validation,
        test,
        name="ink",
        device=device,
        fidelity=fidelity,
        metric="miou",
        ignore_index=IGNORED,
    )


def main() -> None:
    """Search, and compare with answers of background only."""
    task = make_task(device="cpu")
    env = dsfp_env.parallel_env(task=task, actions="levels", reward="budget", macs_budget=0.4, criterion="taylor")
    team = agents.CoordinateSearch(env, seed=0)
    ratios = agents.best(agents.train(env, team, evaluations=int(sys.argv[1]), seed=0)).ratios
    masks = task.test.labels[task.test.labels != IGNORED]
    background = (masks == 0).float().mean().item() / 2  # of the two classes, one has no intersection
    for name, plan in {"original": None, "pruned": ratios}.items():
        _, test = env.evaluator.measure_values(plan)
        print(f"{name}: {task.metric.name} {test:.3f}")
    print(f"only background: {background:.3f}; {env.evaluator.costs(ratios)}")


if __name__ == "__main__":
    main()
