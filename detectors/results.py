"""A COCO results JSON made elsewhere counts as a detector.

It knows images by id, not by pixels, so it is asked by image and has no `predict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.config import build
from dmnet.core.errors import InputError
from dmnet.core.formats.coco_results import read_results
from dmnet.core.ranges import Range, Settings
from dmnet.core.records import Detections


@dataclass(frozen=True)
class ResultsConfig(Settings):
    """Settings of a results file."""

    score_threshold: Annotated[float, Range(-1_000_000, 1_000_000)] = 0.0
    """rows below are dropped"""


class ResultsDetector:
    """Detections of a file by COCO image id."""

    def __init__(self, found: Mapping[int, Detections], source: Path) -> None:
        """Hold what `load` read; rows are put by descending score, equal ones keep their order."""
        self.source = source
        self._found = {
            image_id: det[np.argsort(-det.scores, kind="stable")] for image_id, det in found.items()
        }

    def for_image(self, image_id: int) -> Detections:
        """Detections of one image; an image without rows has none."""
        return self._found.get(image_id, Detections.empty())

    def check(self, known: Mapping[int, Any]) -> None:
        """Make sure that the file speaks of the same images.

        Raises:
            InputError: an image id that is not among ``known``, or none that is.
        """
        strange = sorted(self._found.keys() - known.keys())
        if strange:
            raise InputError(
                self.source,
                f"image_id {strange[0]} is not in the image list ({len(strange)} such ids); "
                "results and ground truth must number the images alike: 1-based in the order of "
                "sorted file names",
            )

    def predict(self, images: object) -> list[Detections]:
        """Refuse: pixels do not tell the image id.

        Raises:
            InputError: always.
        """
        raise InputError(self.source, "a results file is read by image id, it cannot see images")


def load(
    path: Path,
    settings: Mapping[str, Any],
    device: str = "cpu",
    classes: Classes = VISDRONE,
) -> ResultsDetector:
    """Read a results file with the category ids of ``classes``; ``device`` is not used.

    Raises:
        InputError: no COCO results, or a row that does not fit; names the row.
    """
    config = build(ResultsConfig, settings, "results")
    found = read_results(path, classes=classes)
    kept = {key: det[det.scores >= config.score_threshold] for key, det in found.items()}
    return ResultsDetector(kept, path)
