"""Settings of a training of the density network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from dmnet.core.plugins import Choice
from dmnet.core.ranges import (
    Decay,
    Factor,
    LearningRate,
    Margin,
    NonNegative,
    Positive,
    Range,
    Settings,
    Share,
)
from dmnet.core.training import settings
from dmnet.core.training.settings import Steps, Zoom
from dmnet.density.names import NETWORKS


@dataclass(frozen=True)
class AugmentConfig(settings.AugmentConfig):
    """How training images are varied; zoom changes how much a training crop shows."""

    flip_vertical: Share = 0.5
    zoom: tuple[Zoom, Zoom] = (0.8, 1.25)
    photometric: Share = 0.0
    """brightness and contrast change by up to this share, each colour by a quarter of it; 0 none"""


@dataclass(frozen=True)
class DataConfig(Settings):
    """How training images are read."""

    cache_gb: NonNegative = 1.0
    """10^9 bytes of memory that shrunk images and targets may take while training; what has no room
    is read again in every epoch"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """variation of the training images"""


@dataclass(frozen=True)
class TrainConfig(settings.TrainConfig):
    """Training of the density network; what has no text here means what it means everywhere."""

    epochs: Positive = 60
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: LearningRate = 5e-4
    momentum: Decay = 0.95
    nesterov: bool = False
    decay_vectors: bool = True
    warmup_steps: Steps = 0
    warmup_epochs: NonNegative = 1.0
    ema: Decay = 0.99
    channels_last: bool = True
    metric: str = "val_mae"
    """the score that decides which epoch is best: val_mae, val_rmse, val_game (the least), or
    val_region_recall"""
    network: Annotated[str, Choice(NETWORKS)] = "mcnn"
    """mcnn, unet, mobilenet, or module:function of an outside package"""
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """settings of an outside network"""
    random_weights: Literal["he", "paper"] = "he"
    """weights that init does not give: he (He et al. 2015; 0 in the last layer), or paper: what the
    network's authors have, N(0, 0.01) for mcnn"""
    long_side: Margin = 0
    """larger images are shrunk until their longer side has this many pixels, in training and in
    prediction; 0: never"""
    stride: Literal[4, 8] = 4
    """pixels of a side of an output cell, in the shrunk image; mcnn has 4"""
    width: Annotated[int, Range(1, 1_024)] = 16
    """unet: channels of the first level (64 as published); the others have a fixed width"""
    crop: Annotated[int, Range(0, 16_384)] = 256
    """side of the random training crops in pixels, a multiple of 16; 0 takes whole images"""
    loss: Literal["mse", "l1"] = "mse"
    """per cell, summed over an image, mean over the batch"""
    windows: tuple[Annotated[int, Range(2, 1_024)], ...] = ()
    """the counts of square windows of so many cells a side count in the loss too: cropping compares
    such counts with a threshold"""
    window_weight: NonNegative = 1.0
    """weight of each size of windows in the loss; the cells have 1"""
    balance: Annotated[float, Range(0, 10)] = 0.0
    """the error of a window with n objects is divided by (1 + n) to the power of this: above 0,
    crowds do not drown what is nearly empty"""
    leak: Share = 1.0
    """negative answers, which prediction sets to 0, are multiplied by this before the loss: below 1
    counts do not grow by the noise where nothing is"""
    target_scale: Factor = 100.0
    """targets are multiplied by this in training only (cells hold about 0.01 objects, whose squared
    errors vanish); the stored network gives objects per cell"""
    input_mean: tuple[Annotated[float, Range(-1_000_000, 1_000_000)], ...] | None = None
    """subtracted from RGB 0..255: one number, or one a channel; none: 128, and for mobilenet what
    its encoder was trained with"""
    input_std: tuple[Factor, ...] | None = None
    """divides what is left; none: 64, and for mobilenet what its encoder was trained with"""
    data: DataConfig = field(default_factory=DataConfig)
    """how images are read and varied"""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: settings that cannot be trained with.
        """
        super().__post_init__()
        self._check_network()
        if self.crop % 16:
            raise ValueError(f"crop must be 0 or a multiple of 16, got {self.crop}")
        if self.crop == 0 and self.batch != 1:
            raise ValueError("crop 0 needs batch 1: whole images differ in size")
        self._check_windows()

    def _check_network(self) -> None:
        if self.network == "mcnn" and self.stride != 4:
            raise ValueError(f"stride of mcnn is 4, got {self.stride}")
        if self.own and self.network in NETWORKS:
            raise ValueError(f"own has to be empty here, got {', '.join(self.own)}")
        for name in ("input_mean", "input_std"):
            values = getattr(self, name)
            if values is not None and len(values) not in (1, 3):
                raise ValueError(f"{name} must be one number or three, got {len(values)}")

    def _check_windows(self) -> None:
        if self.crop and max(self.windows, default=0) * self.stride > self.crop:
            raise ValueError(
                f"windows of {max(self.windows)} cells of {self.stride} pixels are larger than "
                f"crop, {self.crop} pixels"
            )
