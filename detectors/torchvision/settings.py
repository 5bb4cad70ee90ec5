"""Settings of the torchvision detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dmnet.core.ranges import Factor, Positive, PositiveShare, Range, Settings, Share


@dataclass(frozen=True)
class TorchvisionConfig(Settings):
    """Settings of the torchvision detectors."""

    weights: str = "none"
    """backbone weights: none, imagenet (downloaded by torchvision), or a file; loaded: they come
    with the whole network's weights, as in a weights file of train-detector"""
    norm: Literal["auto", "frozen", "batch", "group"] = "auto"
    """backbone normalisation; auto: frozen with backbone weights, group without"""
    stride_on_first: bool = False
    """the ResNet-50 weights have stride 2 on conv1 of layers 2 to 4 (older convention)"""
    trainable_layers: Annotated[int, Range(0, 5)] = 3
    """last backbone stages that are trained (0 to 5); all without backbone weights"""
    min_size: Annotated[int, Range(32, 16_384)] = 960
    """shorter side of the network's input, pixels"""
    max_size: Annotated[int, Range(32, 16_384)] = 1600
    """bound of the longer side, pixels"""
    max_zoom: Factor = 4.0
    """small crops are enlarged at most this many times"""
    divisor: Annotated[int, Range(1, 4_096)] = 32
    """input sides are padded to a multiple of this, pixels"""
    anchors: tuple[Annotated[float, Range(1, 16_384)], ...] = (16.0, 32.0, 64.0, 128.0, 256.0)
    """anchor side of each of the five levels, pixels of the input (not used by FCOS)"""
    ratios: tuple[Annotated[float, Range(0.001, 1_000)], ...] = (0.5, 1.0, 2.0)
    """anchor height over width"""
    fpn_channels: Annotated[int, Range(0, 4_096)] = 0
    """channels of the feature pyramid; 0: 256, and 128 for the MobileNets"""
    head_channels: Annotated[int, Range(0, 65_536)] = 0
    """width of the box head; 0: 1024, and 256 for the MobileNets"""
    proposals: Annotated[int, Range(1, 100_000)] = 2000
    """Faster R-CNN: proposals per image"""
    roi_samples: Annotated[int, Range(1, 100_000)] = 512
    """Faster R-CNN: proposals per image in the loss"""
    score_threshold: Share = 0.01
    """detections below are dropped"""
    nms: Share = 0.5
    """IoU of the detector's own class-wise NMS"""
    max_detections: Positive = 500
    """detections per image"""
    ignore_share: PositiveShare = 0.5
    """an anchor or proposal with this share inside ignored regions is no background"""
