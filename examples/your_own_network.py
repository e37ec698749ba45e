"""Prune a network of your own: python examples/your_own_network.py 20 pruned.safetensors (evaluations, file)."""

import sys

import torch
import torchvision
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split

import agents
import dsfp_env

# Your data: torch Datasets of (image, label). Here scikit-learn's digits.
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
data = TensorDataset(images, torch.tensor(digits.target))
train, validation, test = random_split(data, [1000, 400, 397], torch.Generator().manual_seed(0))

# Your network, trained. Here torchvision's ResNet with one block per stage, for small grey images.
torch.manual_seed(0)
network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)
network.conv1, network.maxpool = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False), torch.nn.Identity()
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
for _ in range(3):
    for x, y in torch.utils.data.DataLoader(train, batch_size=50, shuffle=True):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

# One agent per convolution learns how much of it can go; then the best network is built and saved. ("taylor" needs
# one backward pass; the default "dsfp" one forward pass for each of the 2,000 filters.)
evaluations, path = int(sys.argv[1]), sys.argv[2]
task = dsfp_env.Task.from_network(network, train, validation, test, name="mine", device="cpu")
env = dsfp_env.parallel_env(task=task, actions="levels", reward="budget", macs_budget=0.5, criterion="taylor")
team = agents.Independent(agents.QLearning, env, seed=0)
best = agents.best(agents.train(env, team, evaluations=evaluations, seed=0))
ratios = best.ratios
dsfp_env.save_pruned(path, env.evaluator.build(ratios), env.evaluator.keep(ratios), task)
print(env.evaluator.original.accuracy, "->", best.infos["conv_0"]["accuracy"], env.evaluator.costs(ratios))
