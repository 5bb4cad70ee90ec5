"""Settings of the YOLOv6 sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dmnet.core.ranges import Count, Range, Share
from dmnet.detectors.settings import OneStageConfig


@dataclass(frozen=True)
class YoloConfig(OneStageConfig):
    """Settings of the YOLOv6 sizes."""

    input_size: Annotated[int, Range(32, 16_384)] = 1280
    """longer side of the network's input, pixels"""
    form: Literal["rep", "plain", "search", "repopt", "int8"] = "rep"
    """training form of the 3x3 blocks: three branches, none, or RepOptimizer's two runs; int8: the
    fused network with 8-bit rounding, made by `quantised`"""
    pool: Literal["sppf", "csp"] = "sppf"
    """pyramid pooling: as first published, or that of version 3"""
    fine: bool = False
    """a level of the head at stride 4 beside those at 8, 16 and 32, for tiny objects (not in the
    papers)"""
    weights: str = "none"
    """starting weights: none, or a file of the same architecture and form; with form repopt those
    of a training with form search, which gives the gradients' multipliers"""
    teacher: str = "none"
    """distillation: weights file of the same architecture, trained without; with form int8 it
    teaches the neck's channels, else classes and sides"""
    atss_epochs: Count = 0
    """first epochs with ATSS instead of task-aligned assignment"""
    min_side: Annotated[float, Range(0, 16_384)] = 8.0
    """objects count as at least this large when cells are assigned, pixels of the input; with 0,
    as published, objects between the cell centres are never learnt"""
    score_threshold: Share = 0.03
    """detections below are dropped"""
