"""Optimizer, learning rate, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dmnet.core.training.settings import TrainConfig


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters."""
    free = [p for p in net.parameters() if p.requires_grad]
    decay = config.weight_decay
    groups = [
        {"params": [p for p in free if p.ndim > 1], "weight_decay": decay},
        {
            "params": [p for p in free if p.ndim <= 1],
            "weight_decay": decay if config.decay_vectors else 0.0,
        },
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True
    )


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.01) -> float:
    """Learning-rate factor: linear from 0 over ``warmup`` steps, then cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def rate(step: int, steps_an_epoch: int, config: TrainConfig) -> float:
    """Learning-rate factor at an optimizer step, counted from 0 over all epochs."""
    total = steps_an_epoch * config.epochs
    warmup = min(config.warmup_steps, max(1, total // 10))
    warmup += round(config.warmup_epochs * steps_an_epoch)
    if config.schedule == "cosine":
        return warmup_cosine(step, total, warmup)
    milestones = config.milestones if config.schedule == "steps" else ()
    passed = sum(step >= milestone * steps_an_epoch for milestone in milestones)
    return min(1.0, (step + 1) / max(1, warmup)) * config.gamma**passed


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


class Ema:
    """Exponential moving average of a model's weights; ``decay`` ramps up at first."""

    def __init__(self, model: nn.Module, decay: float = 0.999, ramp: int = 100) -> None:
        """Copy the model; ``decay`` 0 keeps the average equal to the model."""
        self.model = copy.deepcopy(model).eval()
        self.decay, self.ramp, self.updates = decay, ramp, 0
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``; integer buffers are copied."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp))
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        moved = [pair for pair in pairs if pair[0].dtype.is_floating_point]
        torch._foreach_lerp_([own for own, _ in moved], [new for _, new in moved], 1 - decay)
        for own, new in pairs:
            if not own.dtype.is_floating_point:
                own.copy_(new)

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])
