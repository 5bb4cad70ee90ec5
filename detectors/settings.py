"""Settings that the one-stage networks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dmnet.core.ranges import Factor, Positive, Range, Settings, Share


@dataclass(frozen=True)
class OneStageConfig(Settings):
    """How images enter a one-stage network, and which detections leave it."""

    input_size: Annotated[int, Range(32, 16_384)] = 640
    """longer side of the network's input, pixels"""
    max_zoom: Factor = 4.0
    """small crops are enlarged at most this many times"""
    border: Annotated[int, Range(0, 4_096)] = 0
    """grey border around each image, pixels within input_size; a mosaic teaches the network to
    expect one, so without mosaic in the last epochs 0 is best, else half a stride (16)"""
    score_threshold: Share = 0.01
    """detections below are dropped"""
    nms: Share = 0.65
    """IoU of the detector's own class-wise NMS"""
    max_detections: Positive = 500
    """detections per image"""


def fixed(side: int) -> str:
    """Why a detector does not take an input of another size."""
    return (
        f"detect.whole_side {side}: the input of this detector is fixed; set it to 0, or take a "
        "file whose input may have any size"
    )
