"""Tables of image sizes: the one reader."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from sys import intern

from dmnet.core.errors import InputError
from dmnet.core.images import image_id_of
from dmnet.core.listing import canonical_split
from dmnet.core.reading import is_whole, read_text
from dmnet.core.records import Size


def read_sizes(path: Path, split: str | None = None) -> dict[str, Size]:
    """Read a table of sizes.

    Args:
        path: a CSV with the columns ``image,width,height``, the image with or without suffix.
        split: rows of other splits are left out where there is a column ``split``; None: none are.

    Returns:
        ``(height, width)`` by image id.

    Raises:
        InputError: a column is not there, a side is not a whole number above 0, or an image occurs
            twice with different sizes; names the line.
    """
    rows = csv.DictReader(io.StringIO(read_text(path)))
    needed = ("image", "width", "height")
    if not set(needed) <= set(rows.fieldnames or ()):
        raise InputError(path, f"columns {','.join(needed)} are needed in the first line", 1)
    wanted = None if split is None else canonical_split(split)
    sizes: dict[str, Size] = {}
    known: dict[tuple[str | None, ...], Size] = {}
    try:
        for row in rows:
            if wanted and "split" in row and canonical_split(row["split"] or "") != wanted:
                continue
            if not row["image"]:
                raise InputError(path, "no image name in this row", rows.line_num)
            sides = (row["height"], row["width"])
            if sides not in known:
                known[sides] = _size(path, row, rows.line_num)
            size = known[sides]
            if sizes.setdefault(intern(image_id_of(row["image"])), size) != size:
                raise InputError(path, f"image {row['image']} occurs with two sizes", rows.line_num)
    except csv.Error as error:
        raise InputError(path, f"not a table ({error})", rows.line_num + 1) from error
    return sizes


def _size(path: Path, row: Mapping[str, str | None], line: int) -> Size:
    width, height = (str(row[side]).strip() for side in ("width", "height"))
    if not (is_whole(width, 1) and is_whole(height, 1)):
        reason = f"width '{width[:80]}' and height '{height[:80]}' must be whole numbers above 0"
        raise InputError(path, reason, line)
    return int(height), int(width)
