"""What a recipe means by its optimiser and its schedule."""

from __future__ import annotations

import torch
from torch import nn

from dsfp_env.common.devices import fused
from dsfp_env.training.recipes import Recipe


def optimizer_of(network: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """That of all weights of a network on a device."""
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=fused(device),
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=0.9,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused(device),
    )


def schedule_of(
    optimizer: torch.optim.Optimizer, recipe: Recipe, updates: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """A schedule that is advanced after every update; so many make an epoch."""
    schedules = torch.optim.lr_scheduler
    if recipe.schedule == "one_cycle":
        return schedules.OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.epochs * updates)
    if recipe.schedule == "warm_restarts":
        return schedules.CosineAnnealingWarmRestarts(optimizer, recipe.first_cycle * updates, recipe.cycle_growth)
    milestones = [recipe.epochs * updates // 2, recipe.epochs * updates * 3 // 4]
    return schedules.MultiStepLR(optimizer, milestones)
