"""YOLO txt: ``class cx cy width height``, one row an object, one file per image.

Coordinates are shares of the image's width and height. The class index is the label minus 1. A
sixth column (a confidence) is not read. The format has no place for rows that are not to be scored
(ignored regions, others, score 0) and none for truncation and occlusion: such rows are left out,
and read objects have score 1, truncation 0 and occlusion 0.

Source: https://docs.ultralytics.com/datasets/detect/.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError
from dmnet.core.formats.rows import fit, read_rows, whole
from dmnet.core.records import Annotations, Size

DIGITS = 9
"""Decimals of a share: 1e-9 of an image's side, far below the 1/1000 pixel read back."""


def write(ann: Annotations) -> str:
    """Render the scored objects of one image, in their order.

    Boxes in whole pixels (and down to 1/1000 pixel) come back exactly from `read`.
    """
    rows = ann[~ann.ignore]
    height, width = ann.size
    middle = (rows.boxes[:, :2] + rows.boxes[:, 2:]) / 2 / (width, height)
    side = (rows.boxes[:, 2:] - rows.boxes[:, :2]) / (width, height)
    values = np.concatenate([rows.labels[:, None] - 1, middle, side], axis=1)
    share = f"%.{DIGITS}f"
    line = " ".join(["%d", *[share] * 4]) + "\n"
    return (line * len(rows)) % tuple(values.ravel().tolist())


def read(
    path: Path, image_id: str, size: Size, classes: Classes = VISDRONE
) -> tuple[Annotations, list[str]]:
    """Read one file; coordinates are rounded to 1/1000 pixel.

    Args:
        path: the label file.
        image_id: file stem of the image.
        size: ``(height, width)`` of the image.
        classes: of the data set.

    Returns:
        The annotations, rows in file order, and warnings about boxes that were dropped or clipped.

    Raises:
        InputError: a row that is not five (or six) finite numbers, or a class index that does not
            exist; names the line.
    """
    values, lines = read_rows(path, 5, "class cx cy width height", optional=1)
    index = whole(path, values[:, 0], lines, "class")
    bad = np.flatnonzero((index < 0) | (index >= len(classes)))
    if len(bad):
        reason = f"class index {index[bad[0]]} does not exist; there are 0 to {len(classes) - 1}"
        raise InputError(path, reason, int(lines[bad[0]]))
    height, width = size
    middle = values[:, 1:3] * (width, height)
    half = values[:, 3:5] * (width, height) / 2
    raw = np.round(np.concatenate([middle - half, middle + half], axis=1), 3)
    boxes, keep, warnings = fit(raw, size, lambda i: f"{path}:{lines[i]}")
    return Annotations.of(image_id, size, boxes, index + 1, classes=classes)[keep], warnings
