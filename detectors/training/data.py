"""Training data: images and crops of them with their annotations, and how they are read.

A crop is a window of an image. Windows are cut from the decoded
parent in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from dmnet.core.boxes import Window
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError
from dmnet.core.files import digest
from dmnet.core.formats import coco, voc
from dmnet.core.formats.crops import CropSet
from dmnet.core.images import MAX_PIXELS, image_id_of, read_image
from dmnet.core.ranges import NonNegative, Pixels, Settings, Share
from dmnet.core.records import Annotations, Image
from dmnet.detectors.training.augmentation import AugmentConfig, Scene


@dataclass(frozen=True)
class DataConfig(Settings):
    """Which samples an epoch holds and how they are read."""

    crop_share: Share | None = None
    """share of crops among the samples of an epoch; none: every image and every crop once"""
    repeat_threshold: Share = 0.0
    """images of classes in fewer than this share of the images are repeated; 0 never"""
    ignored: Literal["mask", "grey"] = "mask"
    """ignored regions: no loss there, or painted grey"""
    max_pixels: Pixels = MAX_PIXELS
    """images with more pixels are refused"""
    shrink: bool = True
    """scale large images down once, to what the network's input and the largest zoom can use"""
    cache_gb: NonNegative = 20.0
    """10^9 bytes that decoded images may take on disk while training; 0: decode in every epoch"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """variation of the training images"""


@dataclass(frozen=True)
class TrainingImage:
    """An image file, or the ``window`` of it, and what is annotated there.

    Boxes of ``annotations`` are relative to the window; its ``ignore`` rows are regions.
    """

    image: Path
    annotations: Annotations
    window: Window | None = None


def read_coco(path: Path, images: Mapping[str, Path]) -> list[TrainingImage]:
    """Whole images of a COCO ground-truth file, in the order of their ids.

    Args:
        path: the JSON file; rows with ``iscrowd`` or ``ignore`` become ignored regions.
        images: image file by image id; what is not among them is left out.

    Raises:
        InputError: damaged, or an unknown category.
    """
    return [
        TrainingImage(images[ann.image_id], ann)
        for ann in coco.read_ground_truth(path)
        if ann.image_id in images
    ]


def read_coco_crops(path: Path, crops: CropSet, images: Mapping[str, Path]) -> list[TrainingImage]:
    """Crops as windows of their parents, in the order of the COCO ids.

    Args:
        path: COCO ground truth of the crops.
        crops: what each crop shows.
        images: image file of the parents by image id; crops of others are left out.

    Raises:
        InputError: damaged, or an image of the ground truth is no crop of ``crops``.
    """
    parents = {parent.id: images.get(parent.image_id) for parent in crops.parents}
    names = crops.unique_names()
    known = {image_id_of(names[crop.id]): crop for crop in crops.crops}
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
        parent = parents[crop.parent_id]
        if parent is not None:
            samples.append(TrainingImage(parent, ann, crop.window))
    return samples


def read_voc(
    folder: Path, images: Mapping[str, Path], classes: Classes = VISDRONE
) -> list[TrainingImage]:
    """Images with Pascal VOC files, in the order of the files' names.

    Raises:
        InputError: a damaged file, or one without an image of the same name.
    """
    samples = []
    for path in sorted(folder.rglob("*.xml")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name not in images:
            raise InputError(path, f"none of the {len(images)} images has this name")
        samples.append(TrainingImage(images[name], voc.read(path, name, classes)[0]))
    return samples


def data_digest(samples: Sequence[TrainingImage]) -> str:
    """Digest of names, windows and annotations, not of the pixels."""
    rows = [
        [s.image.name, s.window, s.annotations.size, s.annotations.boxes.tolist(),
         s.annotations.labels.tolist(), s.annotations.ignore.tolist()]
        for s in samples
    ]  # fmt: skip
    return digest(rows)


def cut_sample(sample: TrainingImage, image: Image) -> Image:
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


def load_scene(sample: TrainingImage, max_pixels: int) -> Scene:
    """Decode a sample.

    Raises:
        InputError: unreadable, of another size than annotated, or larger than ``max_pixels``.
    """
    image = cut_sample(sample, read_image(sample.image, max_pixels))
    return scene_of(sample, np.ascontiguousarray(image))


def scene_of(sample: TrainingImage, image: Image) -> Scene:
    """A sample on its pixels, which may be scaled: the boxes are scaled likewise."""
    ann = sample.annotations
    height, width = ann.size
    ratio = np.array([image.shape[1] / width, image.shape[0] / height] * 2)
    boxes, objects = ann.boxes * ratio, ~ann.ignore
    return Scene(image, boxes[objects], ann.labels[objects], boxes[ann.ignore])
