"""Detections of one image and of its crops, as small JSON files.

Rows are ``[x, y, width, height, score, category]``, in pixels of what was looked at. Boxes are
rounded to 1/1000 pixel, as in COCO results. `write`: a list of such tables. `write_windows`: each
table beside its window, so that nothing is ever paired by position.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmnet.core import limits
from dmnet.core.boxes import Window, from_xywh, to_xywh
from dmnet.core.errors import InputError
from dmnet.core.reading import read_json
from dmnet.core.records import Detections


def write(sources: Sequence[Detections]) -> bytes:
    """Render; rows keep their order."""
    return (json.dumps([rows_of(found) for found in sources]) + "\n").encode()


def rows_of(found: Detections) -> list[list[float | int]]:
    """Detections as rows, JSON-ready."""
    boxes = np.round(to_xywh(found.boxes), 3).tolist()
    columns = zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True)
    return [[*box, score, label] for box, score, label in columns]


def write_windows(found: Iterable[tuple[Window, Detections]]) -> bytes:
    """Render windows with their detections, one a line, in order."""
    rows = (json.dumps({"window": list(w), "detections": rows_of(d)}) for w, d in found)
    return ("[" + ",\n".join(rows) + "]\n").encode()


def read(path: Path) -> list[Detections]:
    """Read what `write` made.

    Raises:
        InputError: the file is missing or damaged.
    """
    loaded = read_json(path)
    try:
        return [of_rows(rows) for rows in loaded]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(path, f"not a file of detections ({error})") from error


def read_windows(path: Path) -> Mapping[Window, Detections]:
    """Read what `write_windows` made: detections by window.

    Raises:
        InputError: the file is missing or damaged.
    """
    loaded = read_json(path)
    try:
        found = {}
        for row in loaded:
            x1, y1, x2, y2 = map(int, row["window"])
            found[x1, y1, x2, y2] = of_rows(row["detections"])
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(path, f"not a file of windows and detections ({error!r})") from error
    return found


def of_rows(rows: Any) -> Detections:
    """Detections of rows.

    Raises:
        ValueError, TypeError, OverflowError: they are something else, or too many.
    """
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 6)
    if len(table) > limits.OBJECTS:
        raise ValueError(f"more than {limits.OBJECTS:,} detections")
    if not (np.abs(table) < 2**53).all():
        raise ValueError("a value is not finite")
    return Detections(from_xywh(table[:, :4]), table[:, 4], table[:, 5].astype(np.int64))
