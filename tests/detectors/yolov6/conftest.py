"""Tiny networks and pictures with known objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmnet.detectors.base import Target
from dmnet.detectors.yolov6.model import YoloConfig, YoloV6
from dmnet.detectors.yolov6.sizes import SIZES, Size

NARROW = {
    "yolov6-n": Size(0.33, 0.125, iou="siou"),
    "yolov6-m": Size(0.60, 0.125, csp=2 / 3, bins=16),
    "yolov6-l": Size(0.33, 0.125, csp=1 / 2, act="silu", bins=16),
}
COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220))


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


def target(boxes: object = (), labels: object = (), ignore: object = ()) -> Target:
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64).reshape(-1),
        ignore=torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4),
    )


@pytest.fixture
def make_target() -> Callable[..., Target]:
    return target


def _place(rng: np.random.Generator, side: int, taken: list[list[int]]) -> list[int] | None:
    for _ in range(50):
        width, height = rng.integers(12, 40, 2)
        x, y = rng.integers(0, side - width), rng.integers(0, side - height)
        box = [int(x), int(y), int(x + width), int(y + height)]
        if all(
            min(box[2], b[2]) <= max(box[0], b[0]) or min(box[3], b[3]) <= max(box[1], b[1])
            for b in taken
        ):
            return box
    return None


@pytest.fixture
def scenes(rng: np.random.Generator) -> tuple[list[Tensor], list[Target]]:
    """Eight pictures of 96 pixels with up to five coloured rectangles; the class is the colour."""
    images, targets = [], []
    for _ in range(8):
        picture = 90 + rng.integers(0, 20, (96, 96, 3))
        boxes: list[list[int]] = []
        labels = []
        for _ in range(5):
            box = _place(rng, 96, boxes)
            if box is None:
                continue
            labels.append(int(rng.integers(1, 4)))
            picture[box[1] : box[3], box[0] : box[2]] = COLOURS[labels[-1] - 1]
            boxes.append(box)
        images.append(torch.from_numpy(picture).permute(2, 0, 1).float() / 255)
        targets.append(target(boxes, labels))
    return images, targets
