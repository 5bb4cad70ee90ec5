"""What every training is told: the same words for density networks and detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dmnet.core.ranges import (
    Count,
    Decay,
    LearningRate,
    NonNegative,
    Positive,
    PositiveShare,
    Processes,
    Range,
    Seed,
    Settings,
    Share,
)

Zoom = Annotated[float, Range(0.01, 100)]
"""A scale."""

Steps = Annotated[int, Range(0, 1_000_000_000)]
"""Steps of an optimizer."""


@dataclass(frozen=True)
class AugmentConfig(Settings):
    """How training images are varied."""

    flip: Share = 0.5
    """probability of mirroring left-right"""
    flip_vertical: Share = 0.0
    """probability of mirroring top-bottom (pictures taken straight downwards)"""
    zoom: tuple[Zoom, Zoom] = (0.8, 1.5)
    """bounds of the scale jitter"""
    photometric: Share = 0.25
    """strength of the change of brightness, contrast and colour; 0 none"""


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How a network is trained."""

    init: str | None = None
    """start from the tensors of this file that fit: weights of an earlier training, or a backbone's
    state_dict"""
    epochs: Positive = 24
    """passes over the training set"""
    batch: Annotated[int, Range(1, 65_536)] = 8
    """images a step, over all processes together"""
    accumulate: Annotated[int, Range(1, 65_536)] = 1
    """parts in which a process works through its images of a step (saves memory)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW"""
    lr: LearningRate = 0.01
    """learning rate after the warm-up"""
    momentum: Decay = 0.9
    """of SGD"""
    nesterov: bool = True
    """momentum of SGD as Nesterov has it"""
    weight_decay: NonNegative = 1e-4
    """decay of the weights"""
    decay_vectors: bool = False
    """decay biases and normalisation too"""
    warmup_steps: Steps = 500
    """steps of linear warm-up, at most a tenth of all steps"""
    warmup_epochs: NonNegative = 0.0
    """epochs of linear warm-up, beside those steps"""
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    """learning rate after the warm-up; steps: a factor at milestones"""
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
    channels_last: bool = True
    """keep the channels of a pixel together in memory, on a CPU too: quicker, and the same weights
    but for rounding"""
    eval_every: Positive = 1
    """epochs between evaluations; the last epoch is always evaluated"""
    metric: str = "AP"
    """the score that decides which epoch is best (needs an evaluation)"""
    patience: Count = 0
    """stop after this many evaluations without a gain; 0 never"""
    loaders: Processes = 0
    """processes that read and augment images; 0: a thread beside the training. The result does not
    depend on it"""
    seed: Seed = 0
    """of everything random"""
    tensorboard: bool = False
    """write TensorBoard files (extra: tensorboard)"""
