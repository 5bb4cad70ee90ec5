"""The nouns of the pipeline: what one image, one crop and one density map are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import Boxes, Window, as_boxes
from dmnet.core.classes import VISDRONE, Classes

Size = tuple[int, int]
"""``(height, width)`` in pixels."""

Image = NDArray[np.uint8]
"""``(height, width, 3)`` uint8, RGB."""

Labels = NDArray[np.int64]
"""``(N,)`` int64 category ids."""


def _column(values: object, length: int, dtype: type, name: str) -> NDArray[np.generic]:
    column: NDArray[np.generic] = np.asarray(values, dtype=dtype)
    if column.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {column.shape}")
    return column


@dataclass(frozen=True)
class Annotations:
    """Ground truth of one image, rows in file order.

    ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` labels of ``classes`` (0: a region without
    annotation), ``score`` ``(N,)`` int64 (0: not to be evaluated), ``truncation`` and ``occlusion``
    ``(N,)`` int64.
    """

    image_id: str
    size: Size
    boxes: Boxes
    labels: Labels
    score: NDArray[np.int64]
    truncation: NDArray[np.int64]
    occlusion: NDArray[np.int64]
    classes: Classes = VISDRONE

    def __post_init__(self) -> None:
        """Check once that the columns are parallel."""
        object.__setattr__(self, "boxes", as_boxes(self.boxes))
        for name in ("labels", "score", "truncation", "occlusion"):
            object.__setattr__(
                self, name, _column(getattr(self, name), len(self.boxes), np.int64, name)
            )

    def __len__(self) -> int:
        """Number of rows, ignored regions and others included."""
        return len(self.boxes)

    def __getitem__(self, index: NDArray[np.generic] | slice) -> Annotations:
        """Select rows by mask, indices or slice."""
        return replace(
            self,
            boxes=self.boxes[index],
            labels=self.labels[index],
            score=self.score[index],
            truncation=self.truncation[index],
            occlusion=self.occlusion[index],
        )

    @property
    def ignore(self) -> NDArray[np.bool_]:
        """Rows that are no objects: score 0, or a label that is no class; shape ``(N,)``."""
        return np.asarray((self.score == 0) | ~self.classes.is_object(self.labels))

    @property
    def objects(self) -> Annotations:
        """The rows that are objects."""
        return self[~self.ignore]

    @classmethod
    def of(
        cls,
        image_id: str,
        size: Size,
        boxes: object,
        labels: object,
        score: object = None,
        classes: Classes = VISDRONE,
    ) -> Annotations:
        """Build from boxes and labels alone; score 1 for the classes, else 0, unless given."""
        array = as_boxes(boxes)  # type: ignore[arg-type]
        label = np.asarray(labels, dtype=np.int64).reshape(-1)
        if score is None:
            score = classes.is_object(label).astype(np.int64)
        zero = np.zeros(len(array), dtype=np.int64)
        given = np.asarray(score, np.int64)
        return cls(image_id, size, array, label, given, zero, zero.copy(), classes)


@dataclass(frozen=True)
class Detections:
    """Boxes ``(N, 4)``, scores ``(N,)`` float64 and labels ``(N,)`` of one image or crop."""

    boxes: Boxes = field(default_factory=lambda: np.zeros((0, 4)))
    scores: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    labels: Labels = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        """Check shapes and finiteness once.

        Raises:
            ValueError: columns of different length, or a value that is not finite.
        """
        object.__setattr__(self, "boxes", as_boxes(self.boxes))
        count = len(self.boxes)
        object.__setattr__(self, "scores", _column(self.scores, count, np.float64, "scores"))
        object.__setattr__(self, "labels", _column(self.labels, count, np.int64, "labels"))
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes and scores must be finite")

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.boxes)

    def __getitem__(self, index: NDArray[np.generic] | slice) -> Detections:
        """Select by mask, indices or slice."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index])

    @staticmethod
    def empty() -> Detections:
        """No detections."""
        return Detections()

    @staticmethod
    def concat(parts: list[Detections]) -> Detections:
        """Join in the given order."""
        if not parts:
            return Detections()
        return Detections(
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.labels for p in parts]),
        )


@dataclass(frozen=True)
class Crop:
    """A window of an image.

    ``to_image`` and ``to_crop`` are exact inverses.
    """

    image_id: str
    window: Window

    def __post_init__(self) -> None:
        """Check that the window has an area."""
        x1, y1, x2, y2 = self.window
        if not (x1 < x2 and y1 < y2):
            raise ValueError(f"window must have x1 < x2 and y1 < y2, got {self.window}")

    @property
    def size(self) -> Size:
        """``(height, width)`` of the crop."""
        x1, y1, x2, y2 = self.window
        return y2 - y1, x2 - x1

    def to_image(self, boxes: Boxes) -> Boxes:
        """Shift boxes from crop to image coordinates; a new array."""
        x1, y1 = self.window[:2]
        return boxes + np.array([x1, y1, x1, y1], dtype=np.float64)

    def to_crop(self, boxes: Boxes) -> Boxes:
        """Shift boxes from image to crop coordinates, without clipping; a new array."""
        x1, y1 = self.window[:2]
        return boxes - np.array([x1, y1, x1, y1], dtype=np.float64)


@dataclass(frozen=True)
class DensityMap:
    """Objects per cell.

    ``values`` ``(h, w)`` float32, finite and >= 0; one cell covers ``stride x stride`` pixels;
    ``size`` is the ``(height, width)`` of the image, with ``h == ceil(height / stride)``.
    """

    values: NDArray[np.float32]
    stride: int
    size: Size

    def __post_init__(self) -> None:
        """Check shape and stride.

        Raises:
            ValueError: the values are not 2-D or do not fit ``size`` at this stride.
        """
        expected = tuple(-(-side // self.stride) for side in self.size)
        if self.values.ndim != 2 or self.values.shape != expected:
            raise ValueError(
                f"a map at stride {self.stride} of a {self.size[0]}x{self.size[1]} (h x w) image "
                f"must have shape {expected}, got {self.values.shape}"
            )

    @property
    def count(self) -> float:
        """Number of objects: the sum over all cells."""
        return float(self.values.sum(dtype=np.float64))

    def pooled(self, stride: int) -> DensityMap:
        """Sum-pool a full-size map to ``stride``; the count is kept, the border cells are partial.

        Raises:
            ValueError: this map is not a full-size one.
        """
        if self.stride != 1:
            raise ValueError(f"only a map at stride 1 can be pooled, this one is at {self.stride}")
        rows = np.arange(0, self.size[0], stride)
        cols = np.arange(0, self.size[1], stride)
        wide = np.add.reduceat(self.values, rows, axis=0, dtype=np.float64)
        both = np.add.reduceat(wide, cols, axis=1)
        return DensityMap(both.astype(np.float32), stride, self.size)

    def full(self, keep: str = "count") -> DensityMap:
        """Repeat each cell over its pixels.

        Args:
            keep: ``count`` divides by the number of pixels a cell covers inside the image, so the
                sum is kept; ``value`` repeats the value as older software does (sums grow by
                stride^2).
        """
        if self.stride == 1:
            return self
        s, (h, w) = self.stride, self.size
        big = np.repeat(np.repeat(self.values, s, axis=0), s, axis=1)[:h, :w]
        if keep == "count":
            tall = np.minimum(s, h - np.arange(0, h, s)).repeat(s)[:h].astype(np.float32)
            wide = np.minimum(s, w - np.arange(0, w, s)).repeat(s)[:w].astype(np.float32)
            big = big / (tall[:, None] * wide[None, :])
        elif keep != "value":
            raise ValueError(f"keep must be 'count' or 'value', got {keep!r}")
        return DensityMap(np.ascontiguousarray(big, dtype=np.float32), 1, self.size)
