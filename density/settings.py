"""Settings of a training of the density network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dmnet.core.ranges import (
    Decay,
    Factor,
    LearningRate,
    Margin,
    NonNegative,
    Positive,
    Range,
    Seed,
    Settings,
    Share,
)


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Training of the density network."""

    network: Literal["mcnn", "unet", "mobilenet"] = "mcnn"
    """The network."""
    backbone: str | None = None
    """mobilenet: weights file of torchvision's mobilenet_v2 to start the encoder from; none: random
    ones."""
    long_side: Margin = 0
    """Larger images are shrunk until their longer side has this many pixels, in training and in
    prediction; 0: never."""
    stride: Literal[4, 8] = 4
    """Pixels of a side of an output cell, in the shrunk image; mcnn has 4."""
    width: Annotated[int, Range(1, 1_024)] = 16
    """unet: channels of the first level (64 as published); the others have a fixed width."""
    init: Literal["he", "paper"] = "he"
    """First weights: he (He et al. 2015; 0 in the last layer), or paper: N(0, 0.01) for mcnn."""
    epochs: Positive = 60
    """Passes over the training set."""
    batch: Annotated[int, Range(1, 65_536)] = 8
    """Images a step."""
    crop: Annotated[int, Range(0, 16_384)] = 256
    """Side of the random training crops in pixels, a multiple of 16; 0 takes whole images."""
    flips: bool = True
    """Flip left-right and top-bottom at random."""
    scale_jitter: Annotated[float, Range(0, 9)] = 0.25
    """Crops are rescaled by a random factor between 1 / (1 + this) and 1 + this."""
    photometric: Decay = 0.0
    """Brightness and contrast change at random by up to this share, each colour by a quarter of
    it."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """adam: AdamW; sgd: with momentum."""
    lr: LearningRate = 5e-4
    """Greatest learning rate."""
    momentum: Decay = 0.95
    """Momentum of sgd."""
    weight_decay: NonNegative = 1e-4
    """Weight decay."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    warmup: NonNegative = 1.0
    """Epochs of linear warm-up."""
    loss: Literal["mse", "l1"] = "mse"
    """Per cell, summed over an image, mean over the batch."""
    windows: tuple[Annotated[int, Range(2, 1_024)], ...] = ()
    """The counts of square windows of so many cells a side count in the loss too: cropping compares
    such counts with a threshold."""
    window_weight: NonNegative = 1.0
    """Weight of each size of windows in the loss; the cells have 1."""
    balance: Annotated[float, Range(0, 10)] = 0.0
    """The error of a window with n objects is divided by (1 + n) to the power of this: above 0,
    crowds do not drown what is nearly empty."""
    leak: Share = 1.0
    """Negative answers, which prediction sets to 0, are multiplied by this before the loss: below 1
    counts do not grow by the noise where nothing is."""
    target_scale: Factor = 100.0
    """Targets are multiplied by this in training only (cells hold about 0.01 objects, whose squared
    errors vanish); the stored network gives objects per cell."""
    grad_clip: NonNegative = 10.0
    """Greatest norm of the gradient; 0 for no limit."""
    ema: Decay = 0.99
    """Decay of the moving average of the weights, which is judged and stored; 0 for none."""
    amp: bool = True
    """bfloat16 arithmetic on a GPU that has it."""
    cpu_bfloat16: bool = False
    """bfloat16 arithmetic on a CPU that has instructions for it: about twice as quick."""
    input_mean: tuple[Annotated[float, Range(-1_000_000, 1_000_000)], ...] | None = None
    """Subtracted from RGB 0..255: one number, or one a channel; none: 128, and for mobilenet what
    its encoder was trained with."""
    input_std: tuple[Factor, ...] | None = None
    """Divides what is left; none: 64, and for mobilenet what its encoder was trained with."""
    cache_mb: Annotated[int, Range(0, 10_000_000)] = 1000
    """Shrunk images and targets are kept in memory up to this many megabytes; what has no room is
    read again in every epoch."""
    eval_every: Positive = 1
    """Epochs between validations; the last epoch is always validated."""
    seed: Seed = 0
    """Seed of weights, order and augmentation."""

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
        if self.backbone is not None and self.network != "mobilenet":
            raise ValueError(f"backbone is for mobilenet; {self.network} has none")
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
