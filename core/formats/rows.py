"""Rows of numbers in text files, and boxes that do not fit their image: shared by the formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmnet.core import boxes as bx
from dmnet.core import limits
from dmnet.core.boxes import Boxes
from dmnet.core.errors import InputError
from dmnet.core.reading import is_whole, read_text
from dmnet.core.records import Size


def read_rows(
    path: Path, columns: int, meaning: str, optional: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read rows of ``columns`` numbers, separated by commas or by white space.

    A trailing comma, spaces around numbers and empty lines are accepted.

    Args:
        path: the text file.
        columns: how many numbers a row has.
        meaning: the names of the columns, for messages.
        optional: so many more columns a row may have; they are not read.

    Returns:
        Values ``(N, columns)`` float64 and the 1-based line numbers ``(N,)``.

    Raises:
        InputError: a row with another number of columns, or a value that is not a finite number;
            names the line.
    """
    text = read_text(path).rstrip()
    if text.count("\n") >= limits.OBJECTS:
        raise InputError(path, f"more than {limits.OBJECTS:,} rows", limits.OBJECTS + 1)
    lines = [line.strip(" \t\r,") for line in text.split("\n")]
    numbers = [number for number, line in enumerate(lines, start=1) if line]
    cells = [_split(lines[number - 1]) for number in numbers]
    if optional:
        cells = [row[:columns] if len(row) <= columns + optional else row for row in cells]
    flat = [cell for row in cells for cell in row]
    try:
        values = np.array(list(map(float, flat))).reshape(len(cells), columns)
        sound = {len(row) for row in cells} <= {columns} and bool(np.isfinite(values).all())
    except ValueError:
        sound = False
    if not sound or "_" in text:
        _explain(path, columns, meaning, cells, numbers)
    return values, np.array(numbers, dtype=np.int64)


def _split(line: str) -> list[str]:
    return line.split(",") if "," in line else line.split()


def _explain(
    path: Path, columns: int, meaning: str, cells: list[list[str]], numbers: list[int]
) -> None:
    """Find the first bad row and raise."""
    for row, number in zip(cells, numbers, strict=True):
        if len(row) != columns:
            reason = f"{len(row)} columns, expected {columns}: {meaning}"
            raise InputError(path, reason, number)
        for cell in row:
            if not is_number(cell):
                reason = f"'{cell.strip()}' is not a number; expected {meaning}"
                raise InputError(path, reason, number)


def is_number(cell: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False


def whole(
    path: Path, values: NDArray[np.float64], lines: NDArray[np.int64], name: str
) -> NDArray[np.int64]:
    """Turn a column into integers.

    Raises:
        InputError: a value is not a whole number; names the line.
    """
    column = np.rint(values)
    bad = np.flatnonzero((column != values) | (np.abs(values) > 2**53))
    if len(bad):
        reason = f"{name} {values[bad[0]]:g} is not a whole number"
        raise InputError(path, reason, int(lines[bad[0]]))
    return column.astype(np.int64)


def other_size(path: Path, width: object, height: object, size: Size) -> list[str]:
    """A warning where a label file says that its image has another size than ``(height, width)``.

    A side that is absent, 0, or no whole number says nothing.
    """
    sides = (str(side) for side in (height, width))
    stated = tuple(int(side) if is_whole(side, 1) else 0 for side in sides)
    if 0 in stated or stated == size:
        return []
    labelled, found = (f"{side[1]}x{side[0]}" for side in (stated, size))
    return [f"{path}: made for an image of {labelled}, but the image has {found}: do they belong?"]


def fit(
    boxes: Boxes, size: Size, place: Callable[[int], str]
) -> tuple[Boxes, NDArray[np.int64], list[str]]:
    """Decide what becomes of boxes that are empty or reach beyond their image.

    Rows with width or height <= 0 and boxes wholly outside the image are dropped; boxes partly
    outside are clipped. Each gives one warning.

    Args:
        boxes: ``(N, 4)`` x1 y1 x2 y2.
        size: ``(height, width)`` of the image.
        place: text that names row ``i`` (file and line).

    Returns:
        The clipped boxes of all rows ``(N, 4)``, indices of the rows to keep, and the warnings.
    """
    height, width = size
    empty = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    clipped = bx.clip(boxes, size)
    outside = ~empty & ((clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1]))
    beyond = ~empty & ~outside & (clipped != boxes).any(axis=1)
    warnings = []
    for row in np.flatnonzero(empty | outside | beyond).tolist():
        left, top, wide, high = bx.to_xywh(boxes[row : row + 1])[0]
        name = f"{place(row)}: box left {left:g}, top {top:g}, width {wide:g}, height {high:g}"
        if empty[row]:
            warnings.append(f"{name} has no area; row dropped")
        elif outside[row]:
            warnings.append(f"{name} lies outside the {width}x{height} image; row dropped")
        else:
            warnings.append(f"{name} reaches beyond the {width}x{height} image; clipped")
    return clipped, np.flatnonzero(~empty & ~outside), warnings
