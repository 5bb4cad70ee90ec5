"""Training data: samples, and how one is read and varied.

A sample is an image, or a window of one, with its annotations. Windows are cut from the decoded
parent in memory. The order of an epoch and every augmentation derive from (seed, epoch, position)
alone: neither the number of loader workers nor of processes changes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dmnet.core.artifact import inside
from dmnet.core.boxes import Window
from dmnet.core.errors import InputError
from dmnet.core.files import digest
from dmnet.core.formats import coco, voc
from dmnet.core.formats.crops import CropSet
from dmnet.core.images import MAX_PIXELS, SUFFIXES, read_image
from dmnet.core.records import Annotations
from dmnet.core.training import item_rng
from dmnet.detectors.base import Target
from dmnet.detectors.training.augmentation import AugmentConfig, Scene, grey_out, mosaic, vary

Ticket = tuple[int, int, int]
"""``(epoch, position in the epoch, index of the sample)``."""

Batch = tuple[list[Tensor], list[Target]]
"""Images uint8 ``[3, h, w]`` and their targets."""


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
    """loader processes; 0 reads in the training process"""
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
    known = {PurePosixPath(crop.file_name).stem: crop for crop in crops.crops}
    samples = []
    for ann in coco.read_ground_truth(path):
        crop = known.get(ann.image_id)
        if crop is None:
            raise InputError(path, f"image {ann.image_id!r} is not in the list of crops")
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


def load_scene(sample: Sample, max_pixels: int) -> Scene:
    """Decode a sample.

    Raises:
        InputError: unreadable, of another size than annotated, or larger than ``max_pixels``.
    """
    image = read_image(sample.image, max_pixels)
    if sample.window is not None:
        x1, y1, x2, y2 = sample.window
        image = np.ascontiguousarray(image[y1:y2, x1:x2])
    ann = sample.annotations
    if image.shape[:2] != ann.size:
        raise InputError(
            sample.image,
            f"shows {image.shape[1]}x{image.shape[0]} pixels, its annotations say "
            f"{ann.size[1]}x{ann.size[0]}; convert the annotations of these images again",
        )
    objects = ~ann.ignore
    return Scene(image, ann.boxes[objects], ann.labels[objects], ann.boxes[ann.ignore])


def to_target(scene: Scene) -> Target:
    """Boxes of a scene as tensors; boxes below half a pixel are left out."""
    sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
    keep = (sides >= 0.5).all(axis=1)
    return Target(
        boxes=torch.from_numpy(scene.boxes[keep]).float(),
        labels=torch.from_numpy(scene.labels[keep]),
        ignore=torch.from_numpy(scene.ignore).float(),
    )


class TrainingData(Dataset[tuple[Tensor, Target]]):
    """Samples by `Ticket`, augmented."""

    def __init__(
        self, samples: Sequence[Sample], config: DataConfig, seed: int, epochs: int
    ) -> None:
        """Hold the annotations; images are decoded when drawn."""
        self.samples, self.config = list(samples), config
        self.seed, self.last_mosaic = seed, epochs - config.augment.mosaic_off

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, ticket: Ticket) -> tuple[Tensor, Target]:
        """Image uint8 ``[3, h, w]`` and its target."""
        epoch, position, index = ticket
        rng = item_rng(self.seed, epoch, position)
        augment = self.config.augment
        scene = self._scene(index)
        if epoch < self.last_mosaic and rng.random() < augment.mosaic:
            others = rng.integers(len(self.samples), size=3).tolist()
            scene = mosaic(
                [scene, *(self._scene(other) for other in others)], rng, augment.min_visible
            )
        scene = vary(scene, augment, rng)
        image = torch.from_numpy(np.ascontiguousarray(scene.image.transpose(2, 0, 1)))
        return image, to_target(scene)

    def _scene(self, index: int) -> Scene:
        scene = load_scene(self.samples[index], self.config.max_pixels)
        return grey_out(scene) if self.config.ignored == "grey" else scene


def collate(items: list[tuple[Tensor, Target]]) -> Batch:
    """Keep images of different sizes apart."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)


def make_loader(data: TrainingData, batches: Sampler[list[Ticket]], pin: bool) -> DataLoader[Any]:
    """Loader of `Batch`; at most two batches a worker are in memory."""
    workers = data.config.workers
    return DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
    )
