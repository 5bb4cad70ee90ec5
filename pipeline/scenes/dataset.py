"""A folder of scenes in the layout of VisDrone-DET."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from dmnet.core.formats.visdrone import write_annotations
from dmnet.core.images import encode_jpeg
from dmnet.core.records import Annotations, Image
from dmnet.pipeline.scenes.scene import SceneConfig, make_scene


def scene_seed(split: str, index: int) -> int:
    """Seed of one picture: it depends on nothing but its split and its place there."""
    words = np.random.SeedSequence([zlib.crc32(split.encode()), index]).generate_state(1)
    return int(words[0])


def make_item(split: str, index: int, config: SceneConfig) -> tuple[Image, Annotations]:
    """Picture ``index`` of a split, with its ``image_id``; independent of all others."""
    image, annotations = make_scene(scene_seed(split, index), config)
    return image, replace(annotations, image_id=f"{split}_{index:05d}")


def write_item(
    root: Path, split: str, image: Image, annotations: Annotations, quality: int
) -> Path:
    """Write ``images/ID.jpg`` and ``annotations/ID.txt`` of one picture; returns the image path."""
    folder = root / f"VisDrone2019-DET-{split}"
    picture = folder / "images" / f"{annotations.image_id}.jpg"
    rows = folder / "annotations" / f"{annotations.image_id}.txt"
    for path in (picture, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(encode_jpeg(image, quality))
    rows.write_text(write_annotations(annotations))
    return picture
