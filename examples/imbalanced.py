"""A task of your own for the command: a network whose classes are imbalanced, trained with weights.

    python train_agents.py --task imbalanced:make_task --layers first=keep --round-to 8 --macs-budget 0.3 \
        --evaluations 100 --fine-tune 'plain(epochs=10)' --export onnx

with examples/ as the current directory, or on PYTHONPATH. What is maximised is balanced accuracy.
"""

import itertools

import torch
from sklearn.datasets import load_digits
from torch import nn

import dsfp_env

RARE = 5  # digits from this one upwards are rare
KEPT = 0.15  # of the images of a rare one


class Net(nn.Module):
    """Four convolutions of 16 to 48 filters."""

    def __init__(self) -> None:
        super().__init__()
        widths = [1, 16, 32, 32, 48]
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
                for inputs, outputs in itertools.pairwise(widths)
            )
        )
        self.classifier = nn.Linear(widths[-1], 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, 10]``."""
        return self.classifier(self.features(images).mean((2, 3)))


def imbalanced_digits(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Train, validation and test: images ``[N, 1, 8, 8]`` and labels ``[N]``; few of the rare digits."""
    digits, rng = load_digits(), torch.Generator().manual_seed(seed)
    labels = torch.from_numpy(digits.target)
    kept = (labels < RARE) | (torch.rand(len(labels), generator=rng) < KEPT)
    order = kept.nonzero()[:, 0]
    order = order[torch.randperm(len(order), generator=rng)]
    images = torch.tensor(digits.images[order.numpy()], dtype=torch.float32)[:, None] / 16
    parts = order.tensor_split([len(order) // 2, len(order) * 3 // 4])
    return [(one, labels[part]) for one, part in zip(images.split([len(p) for p in parts]), parts, strict=True)]


def weighted_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy in which an image of a rare digit counts as much more as there are fewer."""
    weights = torch.where(torch.arange(10) < RARE, 1.0, 1 / KEPT).to(logits.device)
    return nn.functional.cross_entropy(logits, labels, weights)


def make_task(data_root: str | None = None, device: str = "auto", seed: int = 0) -> dsfp_env.Task:
    """The trained network and its images, as ``--task imbalanced:make_task`` wants it."""
    train, validation, test = imbalanced_digits(seed)
    torch.manual_seed(seed)
    network = Net()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for batch in torch.cat([torch.randperm(len(train[1])) for _ in range(15)]).split(32):
        optimizer.zero_grad()
        weighted_loss(network(train[0][batch]), train[1][batch]).backward()
        optimizer.step()
    return dsfp_env.Task.from_network(
        network,
        train,
        validation,
        test,
        name="imbalanced",
        device=device,
        fidelity=dsfp_env.Fidelity(batch_size=32, learning_rate=6e-3, precision="float32"),
        metric="balanced_accuracy",
        loss=weighted_loss,
    )
