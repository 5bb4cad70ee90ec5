"""Detections of one image and of its crops, as one small JSON file an image.

A list with one entry a source, each a list of rows ``[x, y, width, height, score, category]``, in
pixels of that source. Boxes are rounded to 1/1000 pixel, as in COCO results.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmnet.core.boxes import from_xywh, to_xywh
from dmnet.core.errors import InputError
from dmnet.core.records import Detections


def write(sources: Sequence[Detections]) -> bytes:
    """Render; rows keep their order."""
    return (json.dumps([_rows(found) for found in sources]) + "\n").encode()


def _rows(found: Detections) -> list[list[float | int]]:
    boxes = np.round(to_xywh(found.boxes), 3).tolist()
    columns = zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True)
    return [[*box, score, label] for box, score, label in columns]


def read(path: Path) -> list[Detections]:
    """Read what `write` made.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        loaded = json.loads(path.read_bytes())
        tables = [np.asarray(rows, dtype=np.float64).reshape(-1, 6) for rows in loaded]
        return [Detections(from_xywh(t[:, :4]), t[:, 4], t[:, 5].astype(np.int64)) for t in tables]
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
        raise InputError(path, f"not a file of detections ({error})") from error
