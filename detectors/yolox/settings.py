"""Settings of the YOLOX sizes."""

from __future__ import annotations

from dataclasses import dataclass

from dmnet.core.ranges import Count
from dmnet.detectors.settings import OneStageConfig


@dataclass(frozen=True)
class YoloxConfig(OneStageConfig):
    """Settings of the YOLOX sizes."""

    l1_epochs: Count = 15
    """last epochs in which the sides of the boxes are learnt by their plain difference too"""
