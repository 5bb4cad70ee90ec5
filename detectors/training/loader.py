"""Batches of augmented samples.

The order of an epoch and every augmentation derive from (seed, epoch, position) alone: neither the
number of loaders nor of processes changes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dmnet.core.training.seeds import item_rng
from dmnet.detectors.base import Target
from dmnet.detectors.training.augmentation import Scene, grey_out, mosaic, vary
from dmnet.detectors.training.data import DataConfig, scene_of
from dmnet.detectors.training.pixels import PixelStore

Ticket = tuple[int, int, int]
"""``(epoch, position in the epoch, index of the sample)``."""

Batch = tuple[list[Tensor], list[Target]]
"""Images uint8 ``[3, h, w]`` and their targets."""


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

    def __init__(self, pixels: PixelStore, config: DataConfig, seed: int, epochs: int) -> None:
        """Hold the annotations; pixels are read when drawn."""
        self.pixels, self.samples, self.config = pixels, pixels.samples, config
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
        is_crop = self.samples[index].window is not None
        scene = vary(scene, augment, rng, is_crop=is_crop)
        image = torch.from_numpy(np.ascontiguousarray(scene.image.transpose(2, 0, 1)))
        seed = torch.tensor(int(rng.integers(2**62)))
        return image, Target(**to_target(scene), seed=seed)

    def _scene(self, index: int) -> Scene:
        scene = scene_of(self.samples[index], self.pixels[index])
        return grey_out(scene) if self.config.ignored == "grey" else scene


def collate(items: list[tuple[Tensor, Target]]) -> Batch:
    """Keep images of different sizes apart."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)


def make_loader(
    data: TrainingData, batches: Sampler[list[Ticket]], loaders: int = 0, *, pin: bool = False
) -> DataLoader[Any]:
    """Loader of batches by so many processes; at most two batches each are in memory."""
    return DataLoader(
        data,
        batch_sampler=batches,
        num_workers=loaders,
        collate_fn=collate,
        pin_memory=pin,
        prefetch_factor=2 if loaders else None,
        multiprocessing_context="spawn" if loaders else None,
        persistent_workers=loaders > 0,
    )
