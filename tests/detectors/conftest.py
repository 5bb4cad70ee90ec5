"""Tiny scenes: coloured rectangles on noise, written as PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dmnet.core.images import encode_png
from dmnet.core.records import Annotations
from dmnet.detectors.training.data import Sample

MakeScenes = Callable[..., list[Sample]]
COLOURS = {4: (210, 60, 50), 1: (50, 80, 220)}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def _place(rng: np.random.Generator, size: int, count: int) -> list[list[int]]:
    boxes: list[list[int]] = []
    for _ in range(count):
        w, h = rng.integers(10, 26, 2).tolist()
        x, y = int(rng.integers(0, size - w)), int(rng.integers(0, size - h))
        new = [x, y, x + w, y + h]
        apart = (new[0] > b[2] + 2 or b[0] > new[2] + 2 or new[1] > b[3] + 2 or b[1] > new[3] + 2
                 for b in boxes)  # fmt: skip
        if all(apart):
            boxes.append(new)
    return boxes


@pytest.fixture
def scenes(tmp_path: Path) -> MakeScenes:
    """``scenes(count, size, objects, seed)``: samples of square images."""

    def make(count: int, size: int = 64, objects: int = 4, seed: int = 0) -> list[Sample]:
        rng = np.random.default_rng(seed)
        samples = []
        for index in range(count):
            image = np.clip(rng.normal(90, 12, (size, size, 3)), 0, 255).astype(np.uint8)
            boxes = _place(rng, size, objects)
            labels = [list(COLOURS)[k] for k in rng.integers(0, 2, len(boxes))]
            for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
                image[y1:y2, x1:x2] = COLOURS[label]
            path = tmp_path / f"scene{seed}_{index:03d}.png"
            path.write_bytes(encode_png(image))
            samples.append(Sample(path, Annotations.of(path.stem, (size, size), boxes, labels)))
        return samples

    return make
