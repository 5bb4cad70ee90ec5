"""Settings of the training of a detector."""

from __future__ import annotations

from dataclasses import dataclass, field

from dmnet.core.training import settings
from dmnet.detectors.training.data import DataConfig


@dataclass(frozen=True)
class TrainConfig(settings.TrainConfig):
    """How a detector is trained."""

    data: DataConfig = field(default_factory=DataConfig)
    """what an epoch holds"""
