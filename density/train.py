"""Training of a density network: its batches and loss, for the loop of `dmnet.core.training`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from dmnet.core.errors import ConfigError
from dmnet.core.files import digest
from dmnet.core.training import loop
from dmnet.core.training.loop import Batch, Row, Task, Trained
from dmnet.core.training.processes import Group, process_group, shared_part
from dmnet.core.training.seeds import generator_of, seed_epoch
from dmnet.core.training.start import take
from dmnet.core.training.weights import read_weights
from dmnet.density.judge import LOWER, Measure, evaluate
from dmnet.density.losses import density_loss
from dmnet.density.networks import IMAGENET, build, save_network
from dmnet.density.samples import FILLER, Augmentation, AugmentedPairs, DensityPair, Shrunk
from dmnet.density.scale import Scaling
from dmnet.density.settings import TrainConfig


def scaling_of(config: TrainConfig) -> Scaling:
    """Size and scaling of the network's input."""
    mean, std = IMAGENET if config.network == "mobilenet" else ((128.0,), (64.0,))
    mean, std = config.input_mean or mean, config.input_std or std
    return Scaling(_one(mean), _one(std), config.long_side)


def _one(values: tuple[float, ...]) -> float | tuple[float, ...]:
    """A single number for a row of one."""
    return values[0] if len(values) == 1 else values


def train(
    samples: Sequence[DensityPair],
    val_samples: Sequence[DensityPair],
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    log_folder: Path | None = None,
    measure: Measure | None = None,
) -> Trained:
    """Train a density network, going on from ``checkpoint`` if it exists.

    Args:
        samples: training images; read one by one when needed.
        val_samples: validation images, predicted whole; may be empty.
        config: settings.
        checkpoint: written after each epoch in one step. A killed training that is started again
            ends with the same weights (bit for bit on a CPU with the same number of threads).
        device: torch device, or ``auto``.
        log_folder: where TensorBoard files go, if they are asked for.
        measure: further measures on validation maps; the sums of numerators and denominators over
            the set are divided.

    Raises:
        ConfigError: there is no training image, or settings do not fit.
        CheckpointError: ``checkpoint`` is damaged or belongs to another training.
        DmnetError: the loss is not finite.
    """
    if not samples:
        raise ConfigError("there is no image to train the density network on")
    net, scaling = starting(config), scaling_of(config)
    shrunk = Shrunk(samples, config.long_side, config.stride)
    names = [[pair.image.name for pair in part] for part in (samples, val_samples)]

    def judged(network: nn.Module) -> dict[str, float]:
        unscale(network, config.target_scale)
        return evaluate(network, val_samples, scaling, device=str(group.device), measure=measure)

    def stored(state: Mapping[str, Tensor], row: Row) -> bytes:
        finished = copy.deepcopy(net).cpu()
        finished.load_state_dict(state)
        unscale(finished, config.target_scale)
        return save_network(finished, config.network, config.width, scaling, asdict(config))

    with process_group(device) as group:
        task = Task(
            identity=digest([asdict(config), names]),
            batches=partial(epoch_batches, shrunk, config, int(cast(Any, net.multiple)), group),
            losses=partial(batch_losses, config),
            stored=stored,
            evaluate=judged if val_samples else None,
            lower=LOWER,
            half=torch.bfloat16,
        )
        return loop.run(net, task, config, group, checkpoint=checkpoint, log_folder=log_folder)


def starting(config: TrainConfig) -> nn.Module:
    """The network with its starting weights, its answer scaled as in training."""
    seed_epoch(config.seed, 0)
    net = build(config.network, config.width, config.stride, config.own)
    if config.random_weights == "he":
        _he(net)
    if config.init is not None:
        path = Path(config.init)
        start = take(net, read_weights(path)[0], path, config.network)
        if any(name.startswith("head.") for name in start.taken):
            unscale(net, 1 / config.target_scale)
    return net


def _he(network: nn.Module) -> None:
    """Random weights, but for the last layer: the first answer is 0 everywhere, not noise."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for parameter in network.get_submodule("head").parameters():
        nn.init.zeros_(parameter)


def unscale(network: nn.Module, scale: float) -> None:
    """From the answers of training to objects per cell: the last layer is divided by the scale."""
    with torch.no_grad():
        for parameter in network.get_submodule("head").parameters():
            parameter.div_(scale)


def epoch_order(count: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of the batches of an epoch in random order; the last one may be smaller."""
    generator = generator_of(seed, epoch + 1)
    torch.empty((), dtype=torch.int64).random_(generator=generator)  # so that old weights repeat
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return [order[i : i + batch] for i in range(0, count, batch)]


def epoch_batches(
    samples: Shrunk, config: TrainConfig, multiple: int, group: Group, epoch: int
) -> DataLoader[Any]:
    """This process's share of the batches of an epoch."""
    samples.fill(config.data.cache_gb)
    how = Augmentation(config.crop, config.data.augment, multiple, config.stride)
    order = epoch_order(len(samples), config.batch, config.seed, epoch)
    return DataLoader(
        AugmentedPairs(samples, how, scaling_of(config), config.seed, epoch),
        batch_sampler=[group.share(rows) for rows in order],
        num_workers=config.loaders,
    )


def batch_losses(
    config: TrainConfig,
    net: nn.Module,
    batch: Batch,
    device: torch.device,
    half: torch.dtype | None,
) -> dict[str, Tensor]:
    """Error of cells and windows, see `density_loss`; its sums stay in float32."""
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    images, targets = batch[0].to(device, memory_format=layout), batch[1].to(device)
    with torch.autocast(device.type, half) if half else nullcontext():
        predicted = net(images)
    answers, targets, part = counting(predicted.float(), targets)
    loss = density_loss(
        answers,
        targets,
        kind=config.loss,
        windows=config.windows,
        window_weight=config.window_weight,
        balance=config.balance,
        leak=config.leak,
        scale=config.target_scale,
    )
    return {"loss": loss * part}


def counting(predicted: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
    """Answers and targets of the pictures that count, and the part of this process in the mean.

    Only where several processes train together do some pictures just fill up a batch.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return predicted, targets, 1.0
    real = targets.flatten(1).amin(1) > FILLER
    part = shared_part(real.sum().float())
    if bool(real.any()):
        return predicted[real], targets[real], part
    return predicted * 0, targets * 0, 0.0
