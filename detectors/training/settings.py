"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from dmnet.core.ranges import (
    Count,
    Decay,
    LearningRate,
    NonNegative,
    Positive,
    PositiveShare,
    Range,
    Seed,
    Settings,
)
from dmnet.detectors.training.data import DataConfig


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How a detector is trained."""

    epochs: Positive = 24
    """passes over the training set"""
    batch: Annotated[int, Range(1, 65_536)] = 8
    """images a step, over all processes together"""
    accumulate: Annotated[int, Range(1, 65_536)] = 1
    """parts in which a process works through its images of a step (saves memory)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW"""
    lr: LearningRate = 0.01
    """learning rate after the warm-up"""
    momentum: Decay = 0.9
    """of SGD"""
    weight_decay: NonNegative = 1e-4
    """on weights only, not on biases and normalisation"""
    warmup_steps: Annotated[int, Range(0, 1_000_000_000)] = 500
    """steps of linear warm-up, at most a tenth of all steps"""
    schedule: Literal["cosine", "steps"] = "cosine"
    """cosine, or a factor at milestones"""
    milestones: tuple[Positive, ...] = (16, 22)
    """epochs after which the rate falls (schedule: steps)"""
    gamma: PositiveShare = 0.1
    """factor at each milestone"""
    clip: NonNegative = 10.0
    """bound of the gradient's norm; 0 none"""
    ema: Decay = 0.999
    """decay of the moving average that is evaluated and kept; 0 none"""
    amp: bool = True
    """half precision on a GPU"""
    cpu_bfloat16: bool = False
    """bfloat16 arithmetic on a CPU that has instructions for it: about twice as quick"""
    channels_last: bool = False
    """keep the channels of a pixel together in memory, on a CPU too: quicker for YOLOv6, no
    matter for YOLOX"""
    eval_every: Positive = 1
    """epochs between evaluations; the last epoch is always evaluated"""
    metric: str = "AP"
    """the score that decides which epoch is best (needs an evaluation)"""
    patience: Count = 0
    """stop after this many evaluations without a gain; 0 never"""
    seed: Seed = 0
    """of everything random"""
    tensorboard: bool = False
    """write TensorBoard files (extra: tensorboard)"""
    data: DataConfig = field(default_factory=DataConfig)
    """what an epoch holds"""
