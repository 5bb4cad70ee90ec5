"""Settings of a training through MMDetection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dmnet.core.ranges import (
    Count,
    Positive,
    Processes,
    Range,
    Seed,
    Settings,
    Side,
)


@dataclass(frozen=True)
class MmdetTraining(Settings):
    """Training with MMDetection's Runner."""

    init: str | None = None
    """start from the tensors of this checkpoint that fit (whole detector)"""
    options: tuple[str, ...] = ()
    """changes to the config, key=value each, such as optim_wrapper.optimizer.lr=0.001"""
    input_size: tuple[Side, Side] | None = None
    """width and height, in pixels, of every resize, crop and pad step; none: as the config says"""
    epochs: Count = 0
    """epochs, schedules scaled along; 0: as the config says"""
    batch: Annotated[int, Range(0, 65_536)] = 0
    """images a step; 0: as the config says"""
    loaders: Processes = 0
    """processes that read and augment images"""
    lr: Annotated[float, Range(0, 100)] = 0.0
    """learning rate; 0: as the config says"""
    amp: bool = False
    """mixed precision; needs a GPU"""
    pretrained: Literal["config", "none"] = "config"
    """backbone weights: what the config names (it may download them), or none"""
    seed: Seed = 0
    """seed of weights, order and augmentation"""
    checkpoint_every: Positive = 1
    """epochs from one checkpoint to the next; the last epoch always has one"""
    resume: bool = True
    """go on from the last checkpoint in the working folder"""
