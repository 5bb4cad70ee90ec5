"""Tiny networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dmnet.detectors.yolov6.model import YoloConfig, YoloV6
from dmnet.detectors.yolov6.sizes import SIZES, Size

NARROW = {
    "yolov6-n": Size(0.33, 0.125, iou="siou"),
    "yolov6-m": Size(0.60, 0.125, csp=2 / 3, bins=16),
    "yolov6-l": Size(0.33, 0.125, csp=1 / 2, act="silu", bins=16),
}


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_net() -> Callable[..., YoloV6]:
    """``make_net(name, classes=3, narrow=True, **settings)`` with an input of 64 pixels."""

    def make(name: str, classes: int = 3, narrow: bool = True, **settings: Any) -> YoloV6:
        config = YoloConfig(**{"input_size": 64, **settings})
        return YoloV6(name, config, classes, NARROW[name] if narrow else SIZES[name])

    return make


@pytest.fixture
def stir() -> Callable[[nn.Module], None]:
    """Random statistics and factors in all normalisations, as after some training."""

    def apply(module: nn.Module) -> None:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.2)

    return apply
