"""Tiny scenes: coloured rectangles on noise, as PNG files or as tensors; and their AP50."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from dmnet.core.images import encode_png
from dmnet.core.records import Annotations
from dmnet.detectors.base import Found, Target
from dmnet.detectors.training.data import TrainingImage

MakeScenes = Callable[..., list[TrainingImage]]
COLOURS = {4: (210, 60, 50), 1: (50, 80, 220)}
DRAWN = ((220, 40, 40), (40, 220, 40), (40, 40, 220))


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

    def make(count: int, size: int = 64, objects: int = 4, seed: int = 0) -> list[TrainingImage]:
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
            samples.append(
                TrainingImage(path, Annotations.of(path.stem, (size, size), boxes, labels))
            )
        return samples

    return make


# --- drawings ------------------------------------------------------------------------------------


def target(boxes: object = (), labels: object = (), ignore: object = ()) -> Target:
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64).reshape(-1),
        ignore=torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4),
    )


@pytest.fixture
def make_target() -> Callable[..., Target]:
    return target


def _free_box(rng: np.random.Generator, side: int, taken: list[list[int]]) -> list[int] | None:
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
def drawings(rng: np.random.Generator) -> tuple[list[Tensor], list[Target]]:
    """Eight pictures of 96 pixels with up to five coloured rectangles; the class is the colour."""
    images, targets = [], []
    for _ in range(8):
        picture = 90 + rng.integers(0, 20, (96, 96, 3))
        boxes: list[list[int]] = []
        labels = []
        for _ in range(5):
            box = _free_box(rng, 96, boxes)
            if box is None:
                continue
            labels.append(int(rng.integers(1, 4)))
            picture[box[1] : box[3], box[0] : box[2]] = DRAWN[labels[-1] - 1]
            boxes.append(box)
        images.append(torch.from_numpy(picture).permute(2, 0, 1).float() / 255)
        targets.append(target(boxes, labels))
    return images, targets


@pytest.fixture
def ap50() -> Callable[[Sequence[Found], Sequence[Target]], float]:
    """AP50 of detections, by pycocotools."""
    return _ap50


def _ap50(found: Sequence[Found], targets: Sequence[Target]) -> float:
    truth, results = [], []
    for i, (one, target) in enumerate(zip(found, targets, strict=True)):
        for (x1, y1, x2, y2), label in zip(
            target["boxes"].tolist(), target["labels"].tolist(), strict=True
        ):
            row = {"image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            area = (x2 - x1) * (y2 - y1)
            truth.append({**row, "id": len(truth) + 1, "area": area, "iscrowd": 0})
        columns = (one[key].tolist() for key in ("boxes", "labels", "scores"))  # type: ignore[literal-required]
        for (x1, y1, x2, y2), label, score in zip(*columns, strict=True):
            row = {"image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            results.append({**row, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(found))],
            "categories": [{"id": c} for c in (1, 2, 3)],
            "annotations": truth,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[1])
