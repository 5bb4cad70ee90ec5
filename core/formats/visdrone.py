"""VisDrone txt: ``left,top,width,height,score,category,truncation,occlusion``, one row an object.

Ground truth and results share the columns. Source: VisDrone-DET toolkit, data format.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import from_xywh, to_xywh
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError
from dmnet.core.formats.rows import fit, read_rows, whole
from dmnet.core.records import Annotations, Detections, Size

COLUMNS = "left,top,width,height,score,category,truncation,occlusion"

MAX_RESULTS = 500
"""Rows of a result file, all classes together."""


def read_annotations(
    path: Path, image_id: str, size: Size, classes: Classes = VISDRONE
) -> tuple[Annotations, list[str]]:
    """Read one ground-truth file.

    Rows with width or height <= 0 and boxes wholly outside the image are dropped, boxes that
    reach beyond it are clipped; each gives a warning ``file:line: ...``. An empty file is an image
    without objects.

    Args:
        path: the annotation file.
        image_id: id of the image.
        size: ``(height, width)`` of the image.
        classes: whose labels the categories are.

    Returns:
        The annotations, rows in file order, and the warnings.

    Raises:
        InputError: a row that is not eight finite numbers, an unknown category, or a score,
            truncation or occlusion that is not a whole number; names file and line.
    """
    values, lines = read_rows(path, 8, COLUMNS)
    score, labels, truncation, occlusion = (
        whole(path, values[:, index], lines, name)
        for index, name in enumerate(("score", "category", "truncation", "occlusion"), start=4)
    )
    check_categories(path, labels, lines, classes)
    boxes, keep, warnings = fit(
        np.round(from_xywh(values[:, :4]), 6), size, lambda i: f"{path}:{lines[i]}"
    )
    found = Annotations(image_id, size, boxes, labels, score, truncation, occlusion, classes)
    return found[keep], warnings


def check_categories(
    path: Path, labels: NDArray[np.int64], lines: NDArray[np.int64], classes: Classes
) -> None:
    """Refuse labels ``(N,)`` that the classes do not have.

    Raises:
        InputError: names file and line of the first one.
    """
    last = max(classes.every)
    bad = np.flatnonzero((labels < 0) | (labels > last))
    if len(bad):
        data = "VisDrone" if classes.names == VISDRONE.names else "the data set"
        reason = f"category {labels[bad[0]]} does not exist; {data} has 0 to {last}"
        raise InputError(path, reason, int(lines[bad[0]]))


def write_annotations(ann: Annotations) -> str:
    """Render a ground-truth file, rows in their order; `read_annotations` gives them back."""
    extras = np.stack([ann.score, ann.labels, ann.truncation, ann.occlusion], axis=1).tolist()
    return "".join(
        ",".join([*map(number, box), *map(str, extra)]) + "\n"
        for box, extra in zip(_xywh(ann.boxes), extras, strict=True)
    )


def text(ann: Annotations, file_name: str) -> str:
    """`write_annotations`, whatever the image file is called."""
    return write_annotations(ann)


def result_rows(path: Path, classes: Classes = VISDRONE) -> NDArray[np.float64]:
    """Rows ``(N, 6)`` of one result file: left, top, width, height, score, category.

    The columns are separated by commas or spaces; rows keep the order of the file. Fractional
    boxes and scores are accepted, truncation and occlusion are not read.

    Raises:
        InputError: a row that is not eight finite numbers, a negative width or height, or a
            category that does not exist; names file and line.
    """
    values, lines = read_rows(path, 8, COLUMNS)
    check_categories(path, whole(path, values[:, 5], lines, "category"), lines, classes)
    bad = np.flatnonzero((values[:, 2:4] < 0).any(axis=1))
    if len(bad):
        raise InputError(path, "negative width or height", int(lines[bad[0]]))
    return values[:, :6]


def write_results(det: Detections, limit: int | None = MAX_RESULTS) -> str:
    """Render a result file: descending score, ties in input order, at most ``limit`` rows.

    The official evaluation reads 500 per image; None writes all.

    Boxes are rounded to 1/1000 pixel; scores are written in full, so that rounding makes no ties.
    """
    best = np.argsort(-det.scores, kind="stable")[:limit]
    det = det[best]
    rows = zip(_xywh(det.boxes), det.scores.tolist(), det.labels.tolist(), strict=True)
    return "".join(
        ",".join([*map(number, box), number(score), str(label), "-1", "-1"]) + "\n"
        for box, score, label in rows
    )


def _xywh(boxes: NDArray[np.float64]) -> list[list[float]]:
    rows: list[list[float]] = np.round(to_xywh(boxes), 3).tolist()
    return rows


def number(value: float) -> str:
    """Shortest exact text of a number; whole numbers without a decimal point."""
    return str(int(value)) if value.is_integer() else repr(value)
