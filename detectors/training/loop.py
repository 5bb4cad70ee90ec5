"""The one training loop of all our networks.

Every random number derives from (seed, epoch), and a checkpoint holds everything else, so a
training that was killed goes on at the last finished epoch and ends with the same weights (on a
CPU). Under torchrun each process takes its share of every batch; the gradients are averaged, so the
number of processes does not change what a batch is.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dmnet.core import training
from dmnet.core.errors import CheckpointError, ConfigError, DmnetError, optional
from dmnet.core.files import digest
from dmnet.core.progress import Progress, ahead
from dmnet.detectors.base import DetectionNet, save_net
from dmnet.detectors.training.data import Sample, data_digest
from dmnet.detectors.training.loader import Batch, TrainingData, make_loader
from dmnet.detectors.training.pixels import PixelStore
from dmnet.detectors.training.sampler import EpochBatches
from dmnet.detectors.training.settings import TrainConfig
from dmnet.detectors.training.steps import (
    batch_losses,
    local_device,
    make_optimizer,
    precision_of,
    process_group,
    rate,
    shared,
    split_batch,
)

Row = dict[str, float | int | str]
Evaluate = Callable[[DetectionNet], Mapping[str, float]]
"""Scores of a network by name. It gets a copy, so that it may re-parameterise it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the best weights as a file's bytes, and one row an epoch."""

    weights: bytes
    history: list[Row]
    best_epoch: int


class _Run:
    """State of one training; `state` and `load` carry it over a restart."""

    def __init__(
        self, net: DetectionNet, config: TrainConfig, device: torch.device, world: int
    ) -> None:
        self.net, self.config, self.device, self.world = net.to(device), config, device, world
        self.precision = precision_of(config, device)
        if device.type == "cuda" or config.channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        if device.type == "cuda" and world > 1:
            self.net = nn.SyncBatchNorm.convert_sync_batchnorm(self.net)  # type: ignore[no-untyped-call]
        self.ema = training.Ema(self.net, config.ema) if config.ema > 0 else None
        self.optimizer = make_optimizer(self.net, config)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == torch.float16)
        self.history: list[Row] = []
        self.epoch = 0
        self.best: dict[str, Any] = {"score": -math.inf, "epoch": 0, "weights": {}, "since": 0}
        ddp = world > 1
        self.wrapped: nn.Module = DistributedDataParallel(self.net) if ddp else self.net

    def state(self, identity: str) -> dict[str, Any]:
        return {
            "identity": identity,
            "epoch": self.epoch,
            "net": self.net.state_dict(),
            "ema": self.ema.state() if self.ema else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def load(self, path: Path, identity: str) -> None:
        state = training.read_payload(path)
        if state.get("identity") != identity:
            raise CheckpointError(
                path,
                "belongs to a training with other settings or data; remove it to start anew, "
                "or set them as they were to go on",
            )
        self.net.load_state_dict(state["net"])
        if self.ema:
            self.ema.load(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history, self.best = list(state["history"]), dict(state["best"])
        self.epoch = int(state["epoch"])
        _log.info("%s: going on after epoch %d", path, self.epoch)

    @property
    def kept(self) -> nn.Module:
        """The network that is evaluated and stored."""
        return self.ema.model if self.ema else self.net

    def step(self, batch: Batch, factor: float) -> dict[str, float]:
        """One optimizer step; the losses, averaged over the parts."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        parts = split_batch(batch, self.config.accumulate)
        for index, part in enumerate(parts):
            share = len(part[0]) / len(batch[0])
            with self._no_sync(index < len(parts) - 1):
                losses = batch_losses(self.wrapped, part, self.device, self.precision)
                total = torch.stack(list(losses.values())).sum()
                self.scaler.scale(total * share).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                key = "loss/" + name.removeprefix("loss_")
                sums[key] = sums.get(key, 0.0) + float(value.detach()) * share
        self._apply(sums)
        return sums

    def _no_sync(self, waiting: bool) -> AbstractContextManager[Any]:
        """Gradients of all but the last part stay in the process."""
        if waiting and isinstance(self.wrapped, DistributedDataParallel):
            return self.wrapped.no_sync()
        return nullcontext()

    def _apply(self, losses: Mapping[str, float]) -> None:
        if not math.isfinite(sum(losses.values())):
            raise DmnetError(
                f"the loss is not finite in epoch {self.epoch + 1} ({dict(losses)}); "
                "lower lr, raise warmup_steps, or set amp to false"
            )
        if self.config.clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.net)

    def train_epoch(self, loader: Any, steps: int, rank: int, progress: Progress) -> Row:
        """All steps of one epoch; the mean of each loss (of this process)."""
        training.seed_epoch(self.config.seed + rank, self.epoch)
        self.net.train()
        self.net.start_epoch(self.epoch, self.config.epochs)
        sums: dict[str, float] = {}
        label = f"epoch {self.epoch + 1}/{self.config.epochs}"
        for step, batch in enumerate(progress.epoch(label, ahead(loader), steps)):
            losses = self.step(batch, rate(self.epoch * steps + step, steps, self.config))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value / steps
            progress.step(len(batch[0]), {"loss": sum(losses.values()), **losses})
        row: Row = {"epoch": self.epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
        mean = self._mean_over_processes({"loss": sum(sums.values()), **sums})
        return {**row, **mean}

    def _mean_over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if self.world == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return dict(zip(values, (tensor / self.world).tolist(), strict=True))

    def judge(self, scores: Mapping[str, float]) -> None:
        """Keep the weights if they are the best so far; without scores the latest are."""
        score = float(scores[self.config.metric]) if scores else float(self.epoch)
        self.best["since"] += 1
        if score > self.best["score"] or not self.best["weights"]:
            cpu = {k: v.detach().cpu().clone() for k, v in self.kept.state_dict().items()}
            self.best = {"score": score, "epoch": self.epoch, "weights": cpu, "since": 0}


def _scores(run: _Run, evaluate: Evaluate | None, rank: int) -> dict[str, float]:
    """Scores of the kept network, computed by process 0."""
    config, last = run.config, run.epoch == run.config.epochs
    if evaluate is None or not (last or run.epoch % config.eval_every == 0):
        return {}
    found: dict[str, float] = {}
    if rank == 0:
        copied = copy.deepcopy(run.kept).eval()
        assert isinstance(copied, DetectionNet)
        found = {name: float(value) for name, value in evaluate(copied).items()}
    found = dict(shared(found, run.world))
    if config.metric not in found:
        raise ConfigError(
            f"metric: no score is called '{config.metric}'; there are: {', '.join(sorted(found))}"
        )
    return found


def train(
    net: DetectionNet,
    samples: Sequence[Sample],
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
    place = local_device(device)
    facts = {"config": asdict(config), "data": data_digest(samples), **(meta or {})}
    identity = digest([net.architecture, net.classes, net.settings, facts["config"], facts["data"]])
    with ExitStack() as stack:
        rank, world = stack.enter_context(process_group(place))
        batches = EpochBatches(samples, net, config.data, config.batch, config.seed, rank, world)
        run = _Run(net, config, place, world)
        if checkpoint is not None and checkpoint.exists():
            run.load(checkpoint, identity)
        pixels = PixelStore(samples, net, config.data, cache)
        data = TrainingData(pixels, config.data, config.seed, config.epochs)
        loader = make_loader(data, batches, pin=place.type == "cuda")
        writer = _writer(config, log_folder, rank, stack)
        progress = Progress(len(batches) * (config.epochs - run.epoch))
        while run.epoch < config.epochs and not _stale(run):
            batches.epoch = run.epoch
            row = run.train_epoch(loader, len(batches), rank, progress)
            run.epoch += 1
            scores = _scores(run, evaluate, rank)
            if scores or evaluate is None:
                run.judge(scores)
            run.history.append({**row, **scores})
            _log.info(", ".join(f"{k} {v:.4g}" for k, v in run.history[-1].items()))
            writer(run.history[-1])
            if rank == 0 and checkpoint is not None:
                training.write_atomic(checkpoint, training.to_bytes(run.state(identity)))
        metrics = {k: v for k, v in run.history[run.best["epoch"] - 1].items()}
        weights = save_net(run.net, run.best["weights"], metrics=metrics, **facts)
        return Trained(weights, run.history, run.best["epoch"])


def _stale(run: _Run) -> bool:
    """Whether the last evaluations brought no gain."""
    return 0 < run.config.patience <= int(run.best["since"])


def _writer(
    config: TrainConfig, folder: Path | None, rank: int, stack: ExitStack
) -> Callable[[Row], None]:
    """Writes history rows to TensorBoard, or nowhere."""
    if not config.tensorboard or rank != 0:
        return lambda row: None
    if folder is None:
        raise ConfigError("tensorboard: needs a folder for its files")
    optional("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    board = stack.enter_context(SummaryWriter(str(folder)))

    def write(row: Row) -> None:
        for name, value in row.items():
            board.add_scalar(name, value, int(row["epoch"]))

    return write
