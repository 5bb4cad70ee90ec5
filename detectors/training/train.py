"""Training of a detector: its batches and losses, for the loop of `dmnet.core.training`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dmnet.core.files import digest
from dmnet.core.training import loop
from dmnet.core.training.loop import Batch, Row, Task, Trained
from dmnet.core.training.processes import process_group
from dmnet.detectors.base import DetectionNet, save_net
from dmnet.detectors.training.data import TrainingImage, data_digest
from dmnet.detectors.training.loader import TrainingData, make_loader
from dmnet.detectors.training.pixels import PixelStore
from dmnet.detectors.training.sampler import EpochBatches
from dmnet.detectors.training.settings import TrainConfig

Evaluate = Callable[[Any], Mapping[str, float]]
"""Scores of a `DetectionNet` by name. It gets a copy, so that it may re-parameterise it."""


def train(
    net: DetectionNet,
    samples: Sequence[TrainingImage],
    config: TrainConfig,
    *,
    evaluate: Evaluate | None = None,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    log_folder: Path | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a network; goes on from ``checkpoint`` if that file exists.

    Args:
        net: the network with its starting weights; changed in place.
        samples: whole images and crops.
        config: how.
        evaluate: gives the scores by name of a network; without it the last epoch is kept.
        checkpoint: written after each epoch, for going on after a kill.
        cache: folder for decoded images, see `PixelStore`; none: decoded in every epoch.
        device: torch device, or ``auto``.
        log_folder: where TensorBoard files go, if they are asked for.
        meta: more JSON-ready facts for the weights file.

    Raises:
        ConfigError: no samples, or settings that do not fit.
        CheckpointError: the checkpoint belongs to another training.
        DmnetError: the loss is not finite.
    """
    facts = {"config": asdict(config), "data": data_digest(samples), **(meta or {})}
    known = [net.architecture, net.classes, net.settings, facts["config"], facts["data"]]
    with process_group(device) as group:
        order = EpochBatches(
            samples, net, config.data, config.batch, config.seed, group.rank, group.world
        )
        pixels = PixelStore(samples, net, config.data, cache)
        data = TrainingData(pixels, config.data, config.seed, config.epochs)
        loader = make_loader(data, order, config.loaders, pin=group.device.type == "cuda")

        def batches(epoch: int) -> DataLoader[Any]:
            order.epoch = epoch
            net.start_epoch(epoch, config.epochs)
            return loader

        def stored(state: Mapping[str, Tensor], row: Row) -> bytes:
            return save_net(net, state, metrics=dict(row), **facts)

        task = Task(digest(known), batches, batch_losses, stored, evaluate)
        return loop.run(net, task, config, group, checkpoint=checkpoint, log_folder=log_folder)


def batch_losses(
    net: nn.Module, batch: Batch, device: torch.device, half: torch.dtype | None
) -> dict[str, Tensor]:
    """Losses of one (part of a) batch; see `dmnet.core.training.loop.Losses`."""
    images, targets = batch
    pixels = [image.to(device, non_blocking=True).float().div_(255) for image in images]
    moved = [
        {key: value.to(device, non_blocking=True) for key, value in target.items()}
        for target in targets
    ]
    with torch.autocast(device.type, half) if half else nullcontext():
        losses: dict[str, Tensor] = net(pixels, moved)
    return {f"loss/{name.removeprefix('loss_')}": value for name, value in losses.items()}
