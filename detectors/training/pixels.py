"""Pixels of training samples: scaled to what the network can use, decoded once and kept on disk.

What a sample looks like follows from the settings alone. Whether its pixels come from the disk
store or from the image file, and which process or thread asked for them, changes nothing.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dmnet.core.errors import InputError
from dmnet.core.files import digest, write_atomic
from dmnet.core.images import read_image
from dmnet.core.records import Image, Size
from dmnet.detectors.base import DetectionNet
from dmnet.detectors.training.data import DataConfig, TrainingImage, cut_sample

_log = logging.getLogger(__name__)


def useful_size(size: Size, net: DetectionNet, zoom: float) -> Size:
    """Size at which an image is kept so that a zoom by ``zoom`` need not enlarge it; never larger.

    Args:
        size: ``(h, w)`` of the image.
        net: the network; it scales images to its `DetectionNet.input_shape`.
        zoom: greatest factor of the scale jitter.
    """
    scale = max(1.0, zoom) * max(net.input_shape(size)) / max(size)
    if scale >= 1:
        return size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def room(folder: Path, gigabytes: float) -> float:
    """Bytes that a store there may have: as allowed, and at most 90 % of what the disk has left."""
    folder.mkdir(parents=True, exist_ok=True)
    held = sum(path.stat().st_size for path in folder.glob("*.raw"))
    return min(gigabytes * 1e9, held + 0.9 * shutil.disk_usage(folder).free)


class PixelStore:
    """Pixels of samples by index.

    With a folder, each image file is decoded once: one file there holds the pixels of all samples
    of an image, one after the other. Images beyond `DataConfig.cache_gb` are decoded every time.
    """

    def __init__(
        self,
        samples: Sequence[TrainingImage],
        net: DetectionNet,
        config: DataConfig,
        folder: Path | None = None,
    ) -> None:
        """Plan the store; nothing is decoded before it is asked for.

        Args:
            samples: whole images and windows.
            net: says what sizes it can use.
            config: how samples are read.
            folder: of the store; none: every sample is decoded when it is asked for.
        """
        self.samples, self.max_pixels = list(samples), config.max_pixels
        self.sizes = [s.annotations.size for s in self.samples]
        if config.shrink:
            zooms = [config.augment.bounds(s.window is not None)[1] for s in self.samples]
            self.sizes = [useful_size(s, net, z) for s, z in zip(self.sizes, zooms, strict=True)]
        self.members: dict[Path, list[int]] = {}
        for index, sample in enumerate(self.samples):
            self.members.setdefault(sample.image, []).append(index)
        self.bytes = [3 * height * width for height, width in self.sizes]
        self.files: dict[Path, Path] = {}
        if folder is not None:
            self._plan(folder, room(folder, config.cache_gb))

    def _plan(self, folder: Path, bound: float) -> None:
        """Which images the store holds: the first ones that fit into ``bound`` bytes."""
        total = 0
        for image, indices in self.members.items():
            total += sum(self.bytes[i] for i in indices)
            if total > bound:
                _log.warning(
                    "%d of %d images are decoded anew in every epoch: data.cache_gb and the disk "
                    "leave room for %.2g GB of %.2g GB", len(self.members) - len(self.files),
                    len(self.members), bound / 1e9, sum(self.bytes) / 1e9,
                )  # fmt: skip
                break
            if image.exists():
                self.files[image] = folder / f"{image.stem[:80]}-{self._key(image, indices)}.raw"

    def _key(self, image: Path, indices: Sequence[int]) -> str:
        state = image.stat()
        rows = [
            [self.samples[i].window, self.samples[i].annotations.size, self.sizes[i]]
            for i in indices
        ]
        return digest([str(image), state.st_size, state.st_mtime_ns, rows])

    def __getitem__(self, index: int) -> Image:
        """``(h, w, 3)`` uint8 of one sample.

        Raises:
            InputError: see `cut_sample`.
        """
        image = self.samples[index].image
        stored = self.files.get(image)
        if stored is None:
            return self._cut(read_image(image, self.max_pixels), index)
        if not stored.exists():
            self._store(image, stored)
        before = sum(self.bytes[i] for i in self.members[image] if i < index)
        pixels = np.fromfile(stored, np.uint8, self.bytes[index], offset=before)
        return pixels.reshape(*self.sizes[index], 3)

    def _cut(self, image: Image, index: int) -> Image:
        pixels = cut_sample(self.samples[index], image)
        height, width = self.sizes[index]
        if pixels.shape[:2] != (height, width):
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(pixels)

    def _store(self, image: Path, stored: Path) -> None:
        decoded = read_image(image, self.max_pixels)
        write_atomic(stored, (self._cut(decoded, i).tobytes() for i in self.members[image]))

    def fill(self) -> dict[Path, str]:
        """Decode every image once; the reasons of those that cannot be decoded.

        Raises:
            InputError: an image that can be decoded has another size than annotated.
        """
        aside = {}
        for image, indices in tqdm(self.members.items(), "decoding images", disable=None):
            stored = self.files.get(image)
            if stored is not None and stored.exists():
                continue
            try:
                decoded = read_image(image, self.max_pixels)
            except InputError as error:
                aside[image] = str(error)
                continue
            parts = (self._cut(decoded, i) for i in indices)
            if stored is None:
                list(parts)
            else:
                write_atomic(stored, (part.tobytes() for part in parts))
        return aside
