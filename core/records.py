"""The nouns of the pipeline: what one image, one crop and one density map are."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import Boxes, Window, as_boxes, from_xywh, to_xywh
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import optional

Size = tuple[int, int]
"""``(height, width)`` in pixels."""

Image = NDArray[np.uint8]
"""``(height, width, 3)`` uint8, RGB."""

Key = TypeVar("Key", bound=Hashable)

Labels = NDArray[np.int64]
"""``(N,)`` int64 category ids."""


_COLUMNS = ("labels", "score", "truncation", "occlusion")


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

    >>> truth = Annotations.of("a", (40, 60), [[5, 5, 15, 25], [0, 0, 60, 9]], [4, 0])
    >>> len(truth), len(truth.objects), truth.classes.scored[4]
    (2, 1, 'car')
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
        for name in _COLUMNS:
            column = _column(getattr(self, name), len(self.boxes), np.int64, name)
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        """Number of rows, ignored regions and others included."""
        return len(self.boxes)

    def __getitem__(self, index: NDArray[np.generic] | slice) -> Annotations:
        """Select rows by mask, indices or slice."""
        return replace(self, **{name: getattr(self, name)[index] for name in ("boxes", *_COLUMNS)})

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
    """Boxes ``(N, 4)``, scores ``(N,)`` float64 and labels ``(N,)`` of one image or crop.

    >>> found = Detections([[5, 5, 15, 25], [0, 0, 9, 9]], [0.9, 0.4], [4, 1])
    >>> found[found.scores > 0.5].boxes.tolist()
    [[5.0, 5.0, 15.0, 25.0]]
    >>> found.to_coco(image_id=7)[0]
    {'image_id': 7, 'category_id': 4, 'bbox': [5.0, 5.0, 10.0, 20.0], 'score': 0.9}
    >>> Detections.from_coco(found.to_coco(7)).labels.tolist()
    [4, 1]
    """

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

    def __repr__(self) -> str:
        """How many of what, not every number."""
        labels = np.unique(self.labels).tolist()
        return f"Detections({len(self)} boxes, labels {labels})"

    def to_coco(self, image_id: int, classes: Classes = VISDRONE) -> list[dict[str, Any]]:
        """COCO result rows, boxes as ``x, y, width, height``."""
        ids = [classes.ids_of[label] for label in self.labels.tolist()]
        columns = zip(ids, to_xywh(self.boxes).tolist(), self.scores.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            for category, box, score in columns
        ]

    @staticmethod
    def from_coco(rows: Sequence[Mapping[str, Any]], classes: Classes = VISDRONE) -> Detections:
        """From COCO result rows (or annotations, which count with score 1) of one image.

        Raises:
            KeyError: a category that is none of the classes, or a row without box.
        """
        return Detections(
            from_xywh([row["bbox"] for row in rows]),
            np.array([row.get("score", 1.0) for row in rows], np.float64),
            np.array([classes.labels_of[row["category_id"]] for row in rows], np.int64),
        )

    def to_supervision(self, classes: Classes = VISDRONE) -> Any:
        """As ``supervision.Detections``, class names in ``data["class_name"]``.

        Raises:
            MissingExtraError: the extra ``viz`` is not installed.
        """
        names = [classes.every.get(label, str(label)) for label in self.labels.tolist()]
        return optional("supervision", "viz").Detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels.copy(),
            data={"class_name": np.array(names, dtype=str)},
        )

    @staticmethod
    def from_supervision(found: Any) -> Detections:
        """From ``supervision.Detections``; ``class_id`` is the label, absent scores are 1."""
        scores = np.ones(len(found)) if found.confidence is None else found.confidence
        labels = np.ones(len(found), np.int64) if found.class_id is None else found.class_id
        return Detections(found.xyxy, scores, labels)

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


class DetectionTable(Mapping[Key, Detections]):
    """Detections of many images, 48 bytes a row: put in and taken out image by image.

    >>> table = DetectionTable([("a", Detections([[5, 5, 15, 25]], [0.9], [4]))])
    >>> table["a"], len(table)
    (Detections(1 boxes, labels [4]), 1)
    """

    def __init__(self, rows: Iterable[tuple[Key, Detections]] = ()) -> None:
        """Hold the detections of these images."""
        self._place: dict[Key, int] = {}
        self._values, self._ends = array("d"), array("q", [0])
        for key, found in rows:
            self.add(key, found)

    def add(self, key: Key, found: Detections) -> None:
        """Copy the detections of an image that is not in yet."""
        self._place[key] = len(self._place)
        columns = [found.boxes, found.scores[:, None], found.labels[:, None]]
        self._values.frombytes(np.concatenate(columns, axis=1).tobytes())
        self._ends.append(len(self._values))

    def __getitem__(self, key: Key) -> Detections:
        """The detections of an image."""
        place = self._place[key]
        values = self._values[self._ends[place] : self._ends[place + 1]]
        rows = np.array(values, np.float64).reshape(-1, 6)
        return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))

    def __iter__(self) -> Iterator[Key]:
        """The images, in the order in which they came."""
        return iter(self._place)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._place)


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

    >>> import numpy as np
    >>> full = DensityMap(np.full((8, 12), 0.25, np.float32), 1, (8, 12))
    >>> full.count
    24.0
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
