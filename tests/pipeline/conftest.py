"""A tiny data set, drawn on the spot, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.formats import visdrone
from dmnet.core.images import encode_jpeg
from dmnet.core.records import Annotations
from dmnet.pipeline.cli import main

Run = Callable[..., int]

COLOURS = {1: (220, 60, 60), 4: (60, 90, 220), 9: (240, 220, 80)}
SIDES = {1: (12, 16), 4: (28, 18), 9: (60, 36)}


def draw_scene(seed: int, size: tuple[int, int] = (240, 320)) -> tuple[np.ndarray, Annotations]:
    """Noise with a cluster of coloured rectangles of three classes, and one ignored region."""
    rng = np.random.default_rng(seed)
    height, width = size
    image = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    boxes, labels = [], []
    centre = rng.uniform([0.3 * width, 0.3 * height], [0.7 * width, 0.7 * height])
    for label in rng.choice(list(SIDES), 9).tolist():
        w, h = SIDES[label]
        x, y = (centre + rng.normal(0, 35, 2)).astype(int).clip(0, [width - w, height - h]).tolist()
        image[y : y + h, x : x + w] = COLOURS[label]
        boxes.append([x, y, x + w, y + h])
        labels.append(label)
    boxes.append([0, 0, 30, 20])
    labels.append(0)
    return image, Annotations.of("", size, boxes, labels)


def write_split(root: Path, split: str, seeds: range, size: tuple[int, int] = (240, 320)) -> Path:
    folder = root / f"VisDrone2019-DET-{split}"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        image, annotations = draw_scene(seed, size)
        (folder / "images" / f"{seed:03d}.jpg").write_bytes(encode_jpeg(image))
        (folder / "annotations" / f"{seed:03d}.txt").write_text(
            visdrone.write_annotations(annotations)
        )
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four training and three validation images."""
    root = tmp_path / "data"
    write_split(root, "train", range(4))
    write_split(root, "val", range(100, 103))
    return root


@pytest.fixture
def dmnet(tmp_path: Path, data: Path) -> Run:
    """Run a verb on the tiny data; returns the exit code."""

    def run(verb: str, *options: str, split: str = "val") -> int:
        places = ["--data", str(data), "--artifacts", str(tmp_path / "artifacts"), "--split", split]
        return main([verb, *places, *options])

    return run


def tree(folder: Path) -> dict[str, bytes]:
    """Contents of an artifact without what holds times: journal, header, log, lock."""
    hidden = {"stage.json", "items.jsonl", "log.txt", ".lock"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in hidden
    }
