"""Parts of the training loop: processes, optimizer, learning rate, the losses of a batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn

from dmnet.core import training
from dmnet.detectors.base import pick_device
from dmnet.detectors.training.loader import Batch
from dmnet.detectors.training.settings import TrainConfig


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[int, int]]:
    """``(rank, world size)``; joins the group that torchrun describes in the environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), distributed.get_world_size()
    finally:
        distributed.destroy_process_group()


def local_device(device: str) -> torch.device:
    """The device of this process: with several GPUs, the one of its local rank."""
    picked = pick_device(device)
    if picked.type == "cuda" and "LOCAL_RANK" in os.environ:
        picked = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(picked)
    return picked


def shared(value: Any, world: int) -> Any:
    """The value of process 0, in every process."""
    if world == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


# --- parts of a step -----------------------------------------------------------------------------


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters; vectors are not decayed."""
    free = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in free if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in free if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        momentum = config.momentum
        return torch.optim.SGD(groups, lr=config.lr, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.AdamW(groups, lr=config.lr)


def rate(step: int, steps_an_epoch: int, config: TrainConfig) -> float:
    """Learning-rate factor at an optimizer step, counted from 0 over all epochs."""
    total = steps_an_epoch * config.epochs
    warmup = min(config.warmup_steps, max(1, total // 10))
    if config.schedule == "cosine":
        return training.warmup_cosine(step, total, warmup)
    passed = sum(step >= milestone * steps_an_epoch for milestone in config.milestones)
    return min(1.0, (step + 1) / max(1, warmup)) * config.gamma**passed


def precision_of(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """What `TrainConfig.amp` and `TrainConfig.cpu_bfloat16` mean on this machine."""
    if device.type == "cuda":
        return torch.float16 if config.amp else None
    able = config.cpu_bfloat16 and training.has_bfloat16("cpu")
    return torch.bfloat16 if able else None


def batch_losses(
    net: nn.Module, batch: Batch, device: torch.device, precision: torch.dtype | None
) -> dict[str, Tensor]:
    """Losses of one (part of a) batch; ``precision`` is autocast's, None for float32."""
    images, targets = batch
    pixels = [image.to(device, non_blocking=True).float().div_(255) for image in images]
    moved = [
        {key: value.to(device, non_blocking=True) for key, value in target.items()}  # type: ignore[attr-defined]
        for target in targets
    ]
    with torch.autocast(device.type, precision) if precision else nullcontext():
        losses: dict[str, Tensor] = net(pixels, moved)
    return losses


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """At most ``parts`` parts of equal size but for the last."""
    images, targets = batch
    size = -(-len(images) // parts)
    return [(images[i : i + size], targets[i : i + size]) for i in range(0, len(images), size)]
