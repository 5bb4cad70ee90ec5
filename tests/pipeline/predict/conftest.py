"""Pictures with known objects, and parts of a model that find exactly those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from dmnet.core.images import encode_png
from dmnet.core.records import DensityMap, Detections, Image
from dmnet.pipeline.cli import main
from dmnet.pipeline.predict import run as running
from dmnet.pipeline.predict.model import Model
from dmnet.pipeline.predict.named import Files
from tests.written import pooled

Predict = Callable[..., int]

RED, BLUE = (220, 40, 40), (40, 60, 220)


def draw(size: tuple[int, int], objects: Sequence[tuple[int, int, int, int, int]]) -> Image:
    """Grey ground with red (label 1) and blue (label 4) rectangles ``x1 y1 x2 y2 label``."""
    image = np.full((*size, 3), 110, np.uint8)
    for x1, y1, x2, y2, label in objects:
        image[y1:y2, x1:x2] = RED if label == 1 else BLUE
    return image


class Finder:
    """Finds the rectangles of `draw`, by colour; counts the images it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        self.seen += [image.shape[:2] for image in images]
        return [self._one(image.astype(int)) for image in images]

    def _one(self, image: np.ndarray) -> Detections:
        rows = []
        for label, channel in ((1, 0), (4, 2)):
            marked, _ = ndimage.label(image[..., channel] - image[..., 1] > 80)
            for rows_of, columns_of in ndimage.find_objects(marked):
                box = [columns_of.start, rows_of.start, columns_of.stop, rows_of.stop]
                rows.append((box, 0.9 if label == 1 else 0.6, label))
        return Detections(
            np.array([row[0] for row in rows], float).reshape(-1, 4),
            np.array([row[1] for row in rows]),
            np.array([row[2] for row in rows], np.int64),
        )


class Counter:
    """A density network that sees the rectangles: one object each, spread over its pixels."""

    def predict(self, image: Image, **how: object) -> DensityMap:
        found = Finder()._one(image.astype(int))
        values = np.zeros(image.shape[:2], np.float32)
        for x1, y1, x2, y2 in found.boxes.astype(int):
            values[y1:y2, x1:x2] += 1 / ((x2 - x1) * (y2 - y1))
        return pooled(DensityMap(values, 1, image.shape[:2]), 4)


@pytest.fixture
def model() -> Model:
    return Model(Finder(), Counter())


def write_png(path: Path, image: Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image))
    return path


@pytest.fixture
def finder() -> Finder:
    return Finder()


@pytest.fixture
def predict(tmp_path: Path, finder: Finder, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """The verb with the colour finder in the place of networks; their files are still needed."""

    def opened(files: Files, *, confidence: float, device: str) -> Model:
        network = None if files.density is None else Counter()
        return Model(finder, network, files.config, confidence)

    monkeypatch.setattr(running, "open_model", opened)
    for name in ("detector.pt", "density.pt"):
        (tmp_path / name).write_bytes(b"weights")

    def call(*words: object, out: str = "out") -> int:
        models = ["--model", tmp_path / "detector.pt", "--density-model", tmp_path / "density.pt"]
        return main(["predict", *map(str, [*words, *models, "--out", tmp_path / out])])

    return call
