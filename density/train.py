"""Training of a density network: resumable at epoch boundaries, the same weights after a kill."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dmnet.core.errors import CheckpointError, ConfigError, optional
from dmnet.core.images import read_image
from dmnet.core.progress import Progress, ahead
from dmnet.core.records import DensityMap
from dmnet.core.training import (
    Ema,
    has_bfloat16,
    read_payload,
    seed_epoch,
    to_bytes,
    warmup_cosine,
    write_atomic,
)
from dmnet.density.losses import density_loss
from dmnet.density.metrics import MeanMap, count_errors, grid_error
from dmnet.density.mobilenet import MobileNet, load_backbone
from dmnet.density.networks import IMAGENET, Scaling, build, save_network
from dmnet.density.predict import predict
from dmnet.density.samples import Augmentation, Pairs, Sample, Shrunk
from dmnet.density.settings import TrainConfig

log = logging.getLogger(__name__)

Measure = Callable[[int, DensityMap], Mapping[str, tuple[float, float]]]
"""Further measures on a predicted validation map (index, map): name to (numerator, denominator)."""

Row = dict[str, float | int | str]
"""One epoch of the history."""


def scaling_of(config: TrainConfig) -> Scaling:
    """Size and scaling of the network's input."""
    mean, std = IMAGENET if config.network == "mobilenet" else ((128.0,), (64.0,))
    mean, std = config.input_mean or mean, config.input_std or std
    return Scaling(_one(mean), _one(std), config.long_side)


def _one(values: tuple[float, ...]) -> float | tuple[float, ...]:
    """A single number for a row of one."""
    return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves: weights files as bytes, and one row an epoch."""

    best: bytes
    """The weights with the least validation MAE (the last where there is no validation set)."""
    last: bytes
    """The weights after the last epoch."""
    history: list[Row]
    """``epoch``, ``lr``, ``loss`` and, with a validation set, ``val_mae``, ``val_rmse``,
    ``val_game`` and the further measures."""


@dataclass
class _State:
    """Everything that changes while training."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    epoch: int = 0
    best_mae: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and stored."""
        return self.ema.model if self.ema else self.network


def train(
    samples: Sequence[Sample],
    val_samples: Sequence[Sample],
    config: TrainConfig,
    *,
    checkpoint: Path,
    device: str = "cpu",
    workers: int = 0,
    log_dir: Path | None = None,
    measure: Measure | None = None,
) -> TrainResult:
    """Train a density network, going on from ``checkpoint`` if it exists.

    Args:
        samples: training images; read one by one when needed.
        val_samples: validation images, predicted whole after each epoch; may be empty.
        config: settings.
        checkpoint: written after each epoch in one step. A killed training that is started again
            ends with the same weights (bit for bit on a CPU with the same number of threads).
        device: ``cpu`` or ``cuda``.
        workers: processes that read and augment; the result does not depend on it.
        log_dir: folder for TensorBoard, or None.
        measure: further measures on validation maps; the sums of numerators and denominators over
            the set are divided.

    Raises:
        ConfigError: there is no training image.
        CheckpointError: ``checkpoint`` is damaged or belongs to other settings.
        MissingExtraError: ``log_dir`` is given and tensorboard is not installed.
    """
    if not samples:
        raise ConfigError("there is no image to train the density network on")
    board = _board(log_dir)
    state = _start(config, device)
    if checkpoint.exists():
        _resume(state, checkpoint, config)
    shrunk = Shrunk(samples, config.long_side, config.stride)
    if state.epoch < config.epochs:
        shrunk.fill(config.cache_mb)
    progress = Progress((config.epochs - state.epoch) * -(-len(shrunk) // config.batch))
    for epoch in range(state.epoch, config.epochs):
        loss, lr = _epoch(state, shrunk, config, epoch, device, workers, progress)
        row: Row = {"epoch": epoch + 1, "lr": lr, "loss": loss}
        finished = _finished(state.judged, config.target_scale)
        if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
            row |= evaluate(
                finished, val_samples, scaling_of(config), device=device, measure=measure
            )
        _record(state, row, finished)
        write_atomic(checkpoint, _payload(state, config))
        for key, value in row.items():
            if board is not None and key != "epoch":
                board.add_scalar(key, value, epoch + 1)
        log.info("%s", ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if board is not None:
        board.close()
    return _result(state, config)


def evaluate(
    network: nn.Module,
    samples: Sequence[Sample],
    scaling: Scaling,
    *,
    device: str = "cpu",
    measure: Measure | None = None,
) -> Row:
    """Count MAE, RMSE, GAME(2) and further measures over whole images; empty for an empty set."""
    if not samples:
        return {}
    predicted, true, grid = [], [], []
    sums: dict[str, tuple[float, float]] = {}
    for index, sample in enumerate(tqdm(samples, desc="validation", leave=False, disable=None)):
        found = predict(network, read_image(sample.image), scaling, device=device)
        known = sample.density()
        predicted.append(found.count)
        true.append(known.count)
        grid.append(grid_error(found, known))
        for name, (part, whole) in (measure(index, found) if measure else {}).items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + part, before[1] + whole)
    mae, rmse = count_errors(predicted, true)
    ratios = {name: part / whole if whole else 0.0 for name, (part, whole) in sums.items()}
    return {"val_mae": mae, "val_rmse": rmse, "val_game": sum(grid) / len(grid), **ratios}


def baselines(samples: Sequence[Sample], val_samples: Sequence[Sample]) -> Row:
    """What constant answers learnt from ``samples`` reach on ``val_samples``; empty without them.

    ``mean_count_mae`` and ``mean_count_rmse``: every image holds the mean count (the mean map has
    the same count); ``mean_map_game``: GAME(2) of the mean map.

    Raises:
        InputError: an unreadable map.
    """
    if not val_samples:
        return {}
    mean = MeanMap.fit(sample.density() for sample in samples)
    counts, grid = [], []
    for sample in val_samples:
        known = sample.density()
        counts.append(known.count)
        grid.append(grid_error(mean.at(known.size, known.stride), known))
    mae, rmse = count_errors([mean.count] * len(counts), counts)
    return {
        "mean_count_mae": mae,
        "mean_count_rmse": rmse,
        "mean_map_game": sum(grid) / len(grid),
    }


def _board(log_dir: Path | None) -> Any:
    """A TensorBoard writer, or None if none is asked for."""
    if log_dir is None:
        return None
    optional("tensorboard", "tensorboard")
    return optional("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(log_dir))


def _start(config: TrainConfig, device: str) -> _State:
    seed_epoch(config.seed, 0)
    network = build(config.network, config.width, config.stride)
    if config.init == "he":
        _he(network)
    if isinstance(network, MobileNet) and config.backbone is not None:
        load_backbone(network, Path(config.backbone))
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            network.parameters(), config.lr, weight_decay=config.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            network.parameters(),
            config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return _State(network, optimizer, Ema(network, config.ema) if config.ema else None)


def _he(network: nn.Module) -> None:
    """Random weights, but for the last layer: the first answer is 0 everywhere, not noise."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for parameter in network.get_submodule("head").parameters():
        nn.init.zeros_(parameter)


def _epoch(
    state: _State,
    samples: Shrunk,
    config: TrainConfig,
    epoch: int,
    device: str,
    workers: int,
    progress: Progress,
) -> tuple[float, float]:
    """Train for one epoch; mean loss per image, and the last learning rate."""
    multiple = int(cast(Any, state.network.multiple))
    how = Augmentation(
        config.crop, config.flips, config.scale_jitter, multiple, config.photometric, config.stride
    )
    steps = -(-len(samples) // config.batch)
    loader = DataLoader(
        Pairs(samples, how, scaling_of(config), config.seed, epoch),
        batch_size=config.batch,
        shuffle=True,
        generator=seed_epoch(config.seed, epoch + 1),
        num_workers=workers,
    )
    state.network.train()
    total, lr = 0.0, config.lr
    batches = progress.epoch(f"epoch {epoch + 1}/{config.epochs}", ahead(loader), steps)
    for step, (images, targets) in enumerate(batches):
        lr = config.lr * _factor(config, epoch * steps + step, steps)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        images = images.to(device, memory_format=torch.channels_last)
        loss = _loss(state.network, images, targets.to(device), config)
        _step(state, loss, config)
        value = float(loss.detach())
        total += value * len(images)
        progress.step(len(images), {"loss": value})
    mean = total / len(samples)
    if not math.isfinite(mean):
        raise ConfigError(
            f"the loss became {mean} in epoch {epoch + 1}; lower train_density.lr or set "
            "train_density.grad_clip"
        )
    return mean, lr


def _factor(config: TrainConfig, step: int, steps: int) -> float:
    warmup = round(config.warmup * steps)
    if config.schedule == "constant":
        return min(1.0, (step + 1) / warmup) if warmup else 1.0
    return warmup_cosine(step, config.epochs * steps, warmup)


def _loss(network: nn.Module, images: Tensor, targets: Tensor, config: TrainConfig) -> Tensor:
    """Error of cells and windows, see `density_loss`."""
    wanted = config.amp if images.is_cuda else config.cpu_bfloat16
    half = wanted and has_bfloat16(str(images.device))
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half):
        predicted = network(images)
    return density_loss(
        predicted.float(),
        targets,
        kind=config.loss,
        windows=config.windows,
        window_weight=config.window_weight,
        balance=config.balance,
        leak=config.leak,
        scale=config.target_scale,
    )


def _step(state: _State, loss: Tensor, config: TrainConfig) -> None:
    state.optimizer.zero_grad()
    torch.autograd.backward(loss)
    if config.grad_clip:
        nn.utils.clip_grad_norm_(state.network.parameters(), config.grad_clip)
    state.optimizer.step()
    if state.ema:
        state.ema.update(state.network)


def _finished(network: nn.Module, target_scale: float) -> nn.Module:
    """A copy that gives objects per cell: the scale of the targets goes into the last layer."""
    finished = copy.deepcopy(network).eval()
    with torch.no_grad():
        for parameter in finished.get_submodule("head").parameters():
            parameter.div_(target_scale)
    return finished


def _record(state: _State, row: Row, finished: nn.Module) -> None:
    state.epoch += 1
    state.history.append(row)
    mae = float(row.get("val_mae", math.inf))
    if mae < state.best_mae or math.isinf(state.best_mae):  # the latest until one is validated
        state.best_mae = mae
        state.best = {k: v.detach().cpu().clone() for k, v in finished.state_dict().items()}


def _settings(config: TrainConfig) -> str:
    return json.dumps(dataclasses.asdict(config), sort_keys=True)


def _payload(state: _State, config: TrainConfig) -> bytes:
    return to_bytes(
        {
            "network": state.network.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "ema": state.ema.state() if state.ema else {},
            "epoch": state.epoch,
            "best_mae": state.best_mae,
            "best": state.best,
            "history": json.dumps(state.history),
            "config": _settings(config),
        }
    )


def _resume(state: _State, path: Path, config: TrainConfig) -> None:
    payload = read_payload(path)
    stored = payload.get("config")
    if stored != _settings(config):
        raise CheckpointError(
            path, "belongs to a training with other settings; delete it to start anew"
        )
    state.network.load_state_dict(payload["network"])
    state.optimizer.load_state_dict(payload["optimizer"])
    if state.ema:
        state.ema.load(payload["ema"])
    state.epoch, state.best_mae = int(payload["epoch"]), float(payload["best_mae"])
    state.best, state.history = payload["best"], json.loads(payload["history"])
    log.info("going on from epoch %d of %s", state.epoch, path)


def _result(state: _State, config: TrainConfig) -> TrainResult:
    last = _finished(state.judged, config.target_scale)
    best = copy.deepcopy(last)
    best.load_state_dict(state.best)
    meta = dataclasses.asdict(config)
    files = [
        save_network(n, config.network, config.width, scaling_of(config), meta)
        for n in (best, last)
    ]
    return TrainResult(files[0], files[1], state.history)
