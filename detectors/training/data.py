"""Training data: samples, and how they are read.

A sample is an image, or a window of one, with its annotations. Windows are cut from the decoded
parent in memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from dmnet.core.artifact import inside
from dmnet.core.boxes import Window
from dmnet.core.errors import InputError
from dmnet.core.files import digest
from dmnet.core.formats import coco, voc
from dmnet.core.formats.crops import CropSet
from dmnet.core.images import MAX_PIXELS, SUFFIXES, read_image
from dmnet.core.records import Annotations, Image
from dmnet.detectors.training.augmentation import AugmentConfig, Scene


@dataclass(frozen=True)
class DataConfig:
    """Which samples an epoch holds and how they are read."""

    crop_share: float | None = None
    """share of crops among the samples of an epoch; none: every image and every crop once"""
    repeat_threshold: float = 0.0
    """images of classes in fewer than this share of the images are repeated; 0 never"""
    ignored: Literal["mask", "grey"] = "mask"
    """ignored regions: no loss there, or painted grey"""
    max_pixels: int = MAX_PIXELS
    """images with more pixels are refused"""
    workers: int = 0
    """loader processes; 0: a thread beside the training"""
    shrink: bool = True
    """scale large images down once, to what the network's input and the largest zoom can use"""
    cache_gb: float = 20.0
    """10^9 bytes that decoded images may take on disk while training; 0: decode in every epoch"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """variation of the training images"""


@dataclass(frozen=True)
class Sample:
    """An image file, or the ``window`` of it, and what is annotated there.

    Boxes of ``annotations`` are relative to the window; its ``ignore`` rows are regions.
    """

    image: Path
    annotations: Annotations
    window: Window | None = None


def read_coco(path: Path, images: Path) -> list[Sample]:
    """Whole images of a COCO ground-truth file, in the order of their ids.

    Args:
        path: the JSON file; rows with ``iscrowd`` or ``ignore`` become ignored regions.
        images: the folder that ``file_name`` is relative to.

    Raises:
        InputError: damaged, an unknown category, or a name that leaves the folder.
    """
    annotations = coco.read_ground_truth(path)
    rows = json.loads(path.read_text(encoding="utf-8"))["images"]
    names = {PurePosixPath(row["file_name"]).stem: row["file_name"] for row in rows}
    return [Sample(inside(images, names[ann.image_id]), ann) for ann in annotations]


def read_coco_crops(path: Path, crops: CropSet, images: Path) -> list[Sample]:
    """Crops as windows of their parents, in the order of the COCO ids.

    Args:
        path: COCO ground truth of the crops.
        crops: what each crop shows.
        images: the folder of the parents.

    Raises:
        InputError: damaged, or an image of the ground truth is no crop of ``crops``.
    """
    parents = {parent.id: inside(images, parent.file_name) for parent in crops.parents}
    names = crops.unique_names()
    known = {PurePosixPath(names[crop.id]).stem: crop for crop in crops.crops}
    samples = []
    for ann in coco.read_ground_truth(path):
        crop = known.get(ann.image_id)
        if crop is None:
            raise InputError(path, f"image {ann.image_id!r} is not in the list of crops")
        x1, y1, x2, y2 = crop.window
        if ann.size != (y2 - y1, x2 - x1):
            raise InputError(
                path, f"image {ann.image_id!r} is {ann.size} (h, w), its window {crop.window}"
            )
        samples.append(Sample(parents[crop.parent_id], ann, crop.window))
    return samples


def read_voc(folder: Path, images: Path) -> list[Sample]:
    """Images with Pascal VOC files, in the order of the files' names.

    Raises:
        InputError: a damaged file, or one without an image of the same name.
    """
    listed = sorted(images.iterdir(), reverse=True)  # of two suffixes the first in order wins
    found = {file.stem: file for file in listed if file.suffix.lower() in SUFFIXES}
    samples = []
    for path in sorted(folder.glob("*.xml")):
        if path.stem not in found:
            raise InputError(path, f"no image of this name in {images}")
        samples.append(Sample(found[path.stem], voc.read(path)[0]))
    return samples


def data_digest(samples: Sequence[Sample]) -> str:
    """Digest of names, windows and annotations, not of the pixels."""
    rows = [
        [s.image.name, s.window, s.annotations.size, s.annotations.boxes.tolist(),
         s.annotations.labels.tolist(), s.annotations.ignore.tolist()]
        for s in samples
    ]  # fmt: skip
    return digest(rows)


def cut_sample(sample: Sample, image: Image) -> Image:
    """What a sample shows of its decoded image file.

    Raises:
        InputError: of another size than annotated.
    """
    if sample.window is not None:
        x1, y1, x2, y2 = sample.window
        image = image[y1:y2, x1:x2]
    ann = sample.annotations
    if image.shape[:2] != ann.size:
        raise InputError(
            sample.image,
            f"shows {image.shape[1]}x{image.shape[0]} pixels, its annotations say "
            f"{ann.size[1]}x{ann.size[0]}; convert the annotations of these images again",
        )
    return image


def load_scene(sample: Sample, max_pixels: int) -> Scene:
    """Decode a sample.

    Raises:
        InputError: unreadable, of another size than annotated, or larger than ``max_pixels``.
    """
    image = cut_sample(sample, read_image(sample.image, max_pixels))
    return scene_of(sample, np.ascontiguousarray(image))


def scene_of(sample: Sample, image: Image) -> Scene:
    """A sample on its pixels, which may be scaled: the boxes are scaled likewise."""
    ann = sample.annotations
    height, width = ann.size
    ratio = np.array([image.shape[1] / width, image.shape[0] / height] * 2)
    boxes, objects = ann.boxes * ratio, ~ann.ignore
    return Scene(image, boxes[objects], ann.labels[objects], boxes[ann.ignore])
