"""The one training loop of all our networks.

Every random number derives from (seed, epoch), and a checkpoint holds everything else, so a
training that was killed goes on at the last finished epoch and ends with the same weights (on a
CPU).
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dmnet.core.errors import CheckpointError, ConfigError, DmnetError, optional
from dmnet.core.threads import ahead
from dmnet.core.training.device import precision_of
from dmnet.core.training.optimizer import Ema, make_optimizer, rate
from dmnet.core.training.processes import Group, no_sync
from dmnet.core.training.progress import Progress
from dmnet.core.training.seeds import seed_epoch
from dmnet.core.training.settings import TrainConfig
from dmnet.core.training.weights import read_payload, to_bytes, write_atomic

Row = dict[str, float | int | str]
"""One epoch of the history."""

Batch = tuple[Any, Any]
"""Images and targets: tensors or lists, of equal length."""

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Scores of a network by name. It gets a copy, so that it may change it."""

Losses = Callable[[nn.Module, Batch, torch.device, torch.dtype | None], dict[str, Tensor]]
"""Losses of one (part of a) batch by name, ``loss`` or ``loss/...``; their sum is minimised. The
type is autocast's; None: float32."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What differs between the networks that are trained."""

    identity: str
    """Digest of all that decides the result; a checkpoint of another one is refused."""
    batches: Callable[[int], DataLoader[Any]]
    """Begins an epoch, counted from 0; gives this process's share of its batches."""
    losses: Losses
    stored: Callable[[Mapping[str, Tensor], Row], bytes]
    """A weights file of a state_dict and of the epoch that it is from."""
    evaluate: Evaluate | None = None
    """Without it the last epoch is kept."""
    lower: AbstractSet[str] = frozenset()
    """Scores of which the least is best."""
    half: torch.dtype = torch.float16
    """Half precision on a GPU."""


@dataclass(frozen=True)
class Trained:
    """What a training leaves: weights files as bytes, and one row an epoch."""

    best: bytes
    """Of the epoch with the best score; of the last one where nothing is evaluated."""
    last: bytes
    history: list[Row]
    best_epoch: int


class _Run:
    """State of one training; `state` and `load` carry it over a restart."""

    def __init__(self, net: nn.Module, task: Task, config: TrainConfig, group: Group) -> None:
        net = net.to(group.device)
        if group.device.type == "cuda" or config.channels_last:
            net = net.to(memory_format=torch.channels_last)
        self.net = group.with_shared_norms(net)
        self.task, self.config, self.group = task, config, group
        self.precision = precision_of(config, group.device, task.half)
        self.ema = Ema(self.net, config.ema) if config.ema > 0 else None
        self.optimizer = make_optimizer(self.net, config)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == torch.float16)
        self.history: list[Row] = []
        self.epoch = 0
        self.best: dict[str, Any] = {"score": -math.inf, "epoch": 0, "weights": {}, "since": 0}
        self.wrapped = group.averaging(self.net)

    def state(self) -> dict[str, Any]:
        return {
            "identity": self.task.identity,
            "epoch": self.epoch,
            "net": self.net.state_dict(),
            "ema": self.ema.state() if self.ema else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def load(self, path: Path) -> None:
        state = read_payload(path)
        if state.get("identity") != self.task.identity:
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

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last evaluations brought no gain."""
        stale = 0 < self.config.patience <= int(self.best["since"])
        return stale or self.epoch >= self.config.epochs

    def step(self, batch: Batch, factor: float) -> dict[str, float]:
        """One optimizer step; the losses, averaged over the parts."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        parts = split_batch(batch, self.config.accumulate)
        for index, part in enumerate(parts):
            share = len(part[0]) / len(batch[0])
            with no_sync(self.wrapped) if index < len(parts) - 1 else nullcontext():
                losses = self.task.losses(self.wrapped, part, self.group.device, self.precision)
                total = torch.stack(list(losses.values())).sum()
                self.scaler.scale(total * share).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * share
        self._apply(sums)
        return sums

    def _apply(self, losses: Mapping[str, float]) -> None:
        if not math.isfinite(sum(losses.values())):
            raise DmnetError(
                f"the loss is not finite in epoch {self.epoch + 1} ({dict(losses)}); lower lr, "
                "raise warmup_steps, set clip where it is 0, or set amp to false"
            )
        if self.config.clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.net)

    def train_epoch(self, batches: DataLoader[Any], progress: Progress) -> Row:
        """All steps of one epoch; the mean of each loss over the images of all processes."""
        self.net.train()
        sums: dict[str, float] = {}
        label, steps = f"epoch {self.epoch + 1}/{self.config.epochs}", len(batches)
        for step, batch in enumerate(progress.epoch(label, ahead(batches), steps)):
            losses = self.step(batch, rate(self.epoch * steps + step, steps, self.config))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch[0])
            progress.step(len(batch[0]), {"loss": sum(losses.values()), **losses})
        means = {name: value / progress.images for name, value in sums.items()}
        mean = self.group.mean({"loss": sum(means.values()), **means})
        return {"epoch": self.epoch + 1, "lr": self.optimizer.param_groups[0]["lr"], **mean}

    def scores(self) -> dict[str, float]:
        """Scores of the kept network, computed by process 0; empty where none are due."""
        config, last = self.config, self.epoch == self.config.epochs
        if self.task.evaluate is None or not (last or self.epoch % config.eval_every == 0):
            return {}
        found: dict[str, float] = {}
        if self.group.rank == 0:
            copied = copy.deepcopy(self.kept).eval()
            found = {name: float(value) for name, value in self.task.evaluate(copied).items()}
        found = self.group.shared(found)
        if config.metric not in found:
            raise ConfigError(
                f"metric: no score is called '{config.metric}'; there are: "
                f"{', '.join(sorted(found))}"
            )
        return found

    def judge(self, scores: Mapping[str, float]) -> None:
        """Keep the weights if they are the best so far; without scores the latest are."""
        name = self.config.metric
        score = float(scores[name]) if scores else float(self.epoch)
        score = -score if scores and name in self.task.lower else score
        self.best["since"] += 1
        if score > self.best["score"] or not self.best["weights"]:
            weights = _on_cpu(self.kept)
            self.best = {"score": score, "epoch": self.epoch, "weights": weights, "since": 0}

    def result(self) -> Trained:
        epoch = int(self.best["epoch"])
        best = self.task.stored(self.best["weights"], self.history[epoch - 1])
        last = self.task.stored(_on_cpu(self.kept), self.history[-1])
        return Trained(best, last, self.history, epoch)


def _on_cpu(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in net.state_dict().items()}


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """At most ``parts`` parts of equal size but for the last."""
    images, targets = batch
    size = -(-len(images) // parts)
    return [(images[i : i + size], targets[i : i + size]) for i in range(0, len(images), size)]


def run(
    net: nn.Module,
    task: Task,
    config: TrainConfig,
    group: Group,
    *,
    checkpoint: Path | None = None,
    log_folder: Path | None = None,
) -> Trained:
    """Train a network; goes on from ``checkpoint`` if that file exists.

    Args:
        net: the network with its starting weights; changed in place.
        task: what is trained, and how it is judged.
        config: settings.
        group: the processes that train together.
        checkpoint: written after each epoch in one step, for going on after a kill.
        log_folder: where TensorBoard files go, if they are asked for.

    Raises:
        CheckpointError: the checkpoint is damaged, or belongs to another training.
        ConfigError: settings that do not fit.
        DmnetError: the loss is not finite.
        MissingExtraError: TensorBoard is asked for and not installed.
    """
    if config.batch % group.world:
        raise ConfigError(
            f"batch: {config.batch} images cannot be shared evenly by {group.world} processes"
        )
    with ExitStack() as stack:
        board: Any = _board(config, log_folder, stack) if group.rank == 0 else None
        state = _Run(net, task, config, group)
        if checkpoint is not None and checkpoint.exists():
            state.load(checkpoint)
        progress = None
        while not state.finished:
            seed_epoch(config.seed + group.rank, state.epoch)
            batches = task.batches(state.epoch)
            left = config.epochs - state.epoch
            progress = progress or Progress(len(batches) * left)
            row = state.train_epoch(batches, progress)
            state.epoch += 1
            scores = state.scores()
            if scores or task.evaluate is None:
                state.judge(scores)
            state.history.append({**row, **scores})
            _log.info(", ".join(f"{k} {v:.4g}" for k, v in state.history[-1].items()))
            for name, value in state.history[-1].items() if board is not None else ():
                board.add_scalar(name, value, state.epoch)
            if group.rank == 0 and checkpoint is not None:
                write_atomic(checkpoint, to_bytes(state.state()))
        return state.result()


def _board(config: TrainConfig, folder: Path | None, stack: ExitStack) -> Any:
    """A TensorBoard writer, or None where none is asked for."""
    if not config.tensorboard:
        return None
    if folder is None:
        raise ConfigError("tensorboard: needs a folder for its files")
    optional("tensorboard", "tensorboard")
    board = optional("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder))
    return stack.enter_context(board)
