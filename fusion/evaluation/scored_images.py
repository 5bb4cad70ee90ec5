"""One image of a set to be scored: ground truth and detections as their files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dmnet.core.boxes import from_xywh, to_xywh
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import ConfigError
from dmnet.core.overlaps import Floats
from dmnet.core.records import Annotations, Detections, Size


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """Ground truth and detections of one image.

    ``truth`` ``(N, 6)`` and ``found`` ``(M, 6)`` float64: left, top, width, height, score,
    category; rows in file order. ``size`` ``(height, width)``, None where it is not known.
    ``areas`` ``(N,)``: the ground truth's areas where they are not width x height.

    Widths are kept as the files give them: adding the left edge and subtracting it again would
    move boxes across a threshold.
    """

    truth: Floats
    found: Floats
    size: Size | None = None
    image_id: str = ""
    areas: Floats | None = None

    def annotations(self, classes: Classes) -> Annotations:
        """The ground truth as a record."""
        zero = np.zeros(len(self.truth), dtype=np.int64)
        boxes, label = from_xywh(self.truth[:, :4]), self.truth[:, 5].astype(np.int64)
        score = self.truth[:, 4].astype(np.int64)
        size = self.size or (0, 0)
        return Annotations(self.image_id, size, boxes, label, score, zero, zero, classes)

    def detections(self) -> Detections:
        """The detections as a record."""
        boxes, label = from_xywh(self.found[:, :4]), self.found[:, 5].astype(np.int64)
        return Detections(boxes, self.found[:, 4], label)


def scored_image(truth: Annotations, found: Detections) -> ScoredImage:
    """Join the records of one image; boxes to a millionth of a pixel.

    Rounding gives back the decimal widths that adding and subtracting the left edge has blurred.
    """
    gt = [np.round(to_xywh(truth.boxes), 6), truth.score[:, None], truth.labels[:, None]]
    return ScoredImage(np.concatenate(gt, axis=1), _found_rows(found), truth.size, truth.image_id)


def _found_rows(found: Detections) -> Floats:
    dt = [np.round(to_xywh(found.boxes), 6), found.scores[:, None], found.labels[:, None]]
    return np.concatenate(dt, axis=1)


def with_found(
    images: Sequence[ScoredImage], results: Mapping[str, Detections]
) -> list[ScoredImage]:
    """The same images with other detections; they share their ground truth."""
    none = Detections.empty()
    return [
        replace(image, found=_found_rows(results.get(image.image_id, none))) for image in images
    ]


def scored_images(
    truths: Sequence[Annotations], results: Mapping[str, Detections]
) -> list[ScoredImage]:
    """Images of a set, in the order of ``truths``; images without an entry have no detections."""
    none = Detections.empty()
    return [scored_image(truth, results.get(truth.image_id, none)) for truth in truths]


def classes_of(truths: Sequence[Annotations]) -> Classes:
    """The classes of a set; VisDrone's where it is empty.

    Raises:
        ConfigError: two images are annotated in different classes.
    """
    first = truths[0].classes if truths else VISDRONE
    for truth in truths:
        if truth.classes is not first and truth.classes != first:
            raise ConfigError(
                f"{truths[0].image_id} is annotated in the classes {first}, {truth.image_id} in "
                f"{truth.classes}: they cannot be scored together"
            )
    return first


@dataclass(frozen=True)
class TruthSet:
    """Ground truth of a set: images without detections yet, in the order of their names.

    ``numbers`` gives the position of each COCO image id, ``warnings`` what was dropped, ``files``
    the image files by image id.
    """

    path: Path
    images: tuple[ScoredImage, ...]
    numbers: Mapping[int, int]
    classes: Classes
    is_json: bool
    warnings: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
