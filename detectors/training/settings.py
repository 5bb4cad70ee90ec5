"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dmnet.detectors.training.data import DataConfig


@dataclass(frozen=True)
class TrainConfig:
    """How a detector is trained."""

    epochs: int = 24
    """passes over the training set"""
    batch: int = 8
    """images a step, over all processes together"""
    accumulate: int = 1
    """parts in which a process works through its images of a step (saves memory)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW"""
    lr: float = 0.01
    """learning rate after the warm-up"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 1e-4
    """on weights only, not on biases and normalisation"""
    warmup_steps: int = 500
    """steps of linear warm-up, at most a tenth of all steps"""
    schedule: Literal["cosine", "steps"] = "cosine"
    """cosine, or a factor at milestones"""
    milestones: tuple[int, ...] = (16, 22)
    """epochs after which the rate falls (schedule: steps)"""
    gamma: float = 0.1
    """factor at each milestone"""
    clip: float = 10.0
    """bound of the gradient's norm; 0 none"""
    ema: float = 0.999
    """decay of the moving average that is evaluated and kept; 0 none"""
    amp: bool = True
    """half precision on a GPU"""
    cpu_bfloat16: bool = False
    """bfloat16 arithmetic on a CPU that has instructions for it: about twice as quick"""
    eval_every: int = 1
    """epochs between evaluations; the last epoch is always evaluated"""
    metric: str = "AP"
    """the score that decides which epoch is best (needs an evaluation)"""
    patience: int = 0
    """stop after this many evaluations without a gain; 0 never"""
    seed: int = 0
    """of everything random"""
    tensorboard: bool = False
    """write TensorBoard files (extra: tensorboard)"""
    data: DataConfig = field(default_factory=DataConfig)
    """what an epoch holds"""
