"""What was found in one picture, as a file: enough to write every output again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dmnet.core.boxes import Window, from_xywh, to_xywh
from dmnet.core.errors import InputError
from dmnet.core.formats.parts import of_rows, rows_of
from dmnet.core.reading import read_json
from dmnet.core.records import Detections, Size
from dmnet.pipeline.predict.result import Result


@dataclass(frozen=True)
class Found:
    """Detections from the floor on, windows, and the density network's count."""

    size: Size
    detections: Detections
    windows: tuple[Window, ...] = ()
    count: float | None = None
    """Sum of the density map; None where the slicer needs none."""
    parts: Mapping[str, Detections] = field(default_factory=dict)
    """See `Result.parts`."""

    @classmethod
    def of(cls, result: Result) -> Found:
        """Keep what outlasts the pixels; boxes to 1/1000 pixel, as a file holds them."""
        count = result.count if result.density is None else round(result.density.count, 4)
        parts = {name: _rounded(each) for name, each in result.parts.items()}
        return cls(result.size, _rounded(result.detections), result.windows, count, parts)

    def write(self, made_from: str) -> bytes:
        """Render; ``made_from`` is the digest of what decided it."""
        return (json.dumps({"made_from": made_from, **self.plain()}) + "\n").encode()

    def plain(self) -> dict[str, Any]:
        """JSON-ready form."""
        parts = {name: rows_of(each) for name, each in self.parts.items()}
        return {
            "size": list(self.size),
            "count": self.count,
            "windows": [list(window) for window in self.windows],
            "detections": rows_of(self.detections),
            **({"parts": parts} if parts else {}),
        }

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> Found:
        """From what `plain` gave.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        count = data["count"]
        if not (count is None or (isinstance(count, int | float) and math.isfinite(count))):
            raise ValueError("the count is no number")
        height, width = data["size"]
        windows = tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in data["windows"])
        parts = {str(name): of_rows(rows) for name, rows in dict(data.get("parts", {})).items()}
        found = of_rows(data["detections"])
        return cls((int(height), int(width)), found, windows, count, parts)


def _rounded(found: Detections) -> Detections:
    boxes = from_xywh(np.round(to_xywh(found.boxes), 3))
    return Detections(boxes, found.scores, found.labels)


def read_found(path: Path, made_from: str | None = None) -> Found | None:
    """Read what `Found.write` made; None where it was made from something else than asked for.

    Raises:
        InputError: missing or damaged.
    """
    with _damage(path):
        data: dict[str, Any] = read_json(path)
        other = made_from is not None and data["made_from"] != made_from
        return None if other else Found.of_plain(data)


def write_frames(frames: Sequence[Found | None]) -> bytes:
    """Render what was found in consecutive frames; None is a frame that could not be decoded."""
    data = [None if frame is None else frame.plain() for frame in frames]
    return (json.dumps(data) + "\n").encode()


def read_frames(path: Path) -> list[Found | None]:
    """Read what `write_frames` made.

    Raises:
        InputError: missing or damaged.
    """
    with _damage(path):
        data = read_json(path)
        return [None if each is None else Found.of_plain(each) for each in data]


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn every way a file can be unusable into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(path, f"not a file of detections ({error})") from error
