"""DOTA txt: ``x1 y1 x2 y2 x3 y3 x4 y4 category difficult``, one row an object, one file an image.

Up to two header lines (``imagesource:``, ``gsd:``) are skipped. An oriented box becomes the upright
box around it; ``difficult`` objects are ignored. Names are written with dashes for spaces. The
format has no place for truncation and occlusion.

Source: https://captain-whu.github.io/DOTA/dataset.html.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dmnet.core.boxes import as_boxes
from dmnet.core.classes import Classes
from dmnet.core.errors import InputError
from dmnet.core.formats.rows import fit, is_number
from dmnet.core.formats.visdrone import number
from dmnet.core.listing import Listing, by_id, files_in, images_in, listed_classes, pair
from dmnet.core.reading import read_text, refuse_many
from dmnet.core.records import Annotations, Size

_HEADERS = ("imagesource:", "gsd:")
_MEANING = "x1 y1 x2 y2 x3 y3 x4 y4 category difficult"


def write(ann: Annotations) -> str:
    """Render one image's annotations, every row, in their order; corners clockwise."""
    names = {label: "-".join(name.split()) for label, name in ann.classes.every.items()}
    lines = []
    for box, label, ignore in zip(
        np.round(ann.boxes, 6).tolist(), ann.labels.tolist(), ann.ignore.tolist(), strict=True
    ):
        x1, y1, x2, y2 = map(number, box)
        lines.append(f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2} {names[label]} {int(ignore)}\n")
    return "".join(lines)


def text(ann: Annotations, file_name: str) -> str:
    """`write`, whatever the image file is called."""
    return write(ann)


def read(path: Path, image_id: str, size: Size, classes: Classes) -> tuple[Annotations, list[str]]:
    """Read one file.

    Args:
        path: the label file.
        image_id: id of the image.
        size: ``(height, width)`` of the image.
        classes: of the data set.

    Returns:
        The annotations, rows in file order, and warnings about boxes that were dropped or clipped.

    Raises:
        InputError: a row of another form, or of an unknown class; names the line.
    """
    rows = _rows(path)
    corners = np.array([cells[:8] for _, cells in rows], np.float64).reshape(-1, 4, 2)
    raw = as_boxes(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1))
    labels = [_label(path, line, cells[8], classes) for line, cells in rows]
    scores = [int(label in classes.scored and cells[9:] in ([], ["0"])) for label, (_, cells) in
              zip(labels, rows, strict=True)]  # fmt: skip
    boxes, keep, warnings = fit(raw, size, lambda i: f"{path}:{rows[i][0]}")
    return Annotations.of(image_id, size, boxes, labels, scores, classes)[keep], warnings


def _label(path: Path, line: int, name: str, classes: Classes) -> int:
    label = classes.label_of(name)
    if label is None:
        reason = f"class {name!r} is none of: {', '.join(classes.every.values())}"
        raise InputError(path, reason, line)
    return label


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row, checked."""
    rows = []
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        cells = text.replace(",", " ").split()
        if not cells or cells[0].lower().startswith(_HEADERS):
            continue
        sound = len(cells) in (9, 10) and all(map(is_number, [*cells[:8], *cells[9:]]))
        if not sound:
            raise InputError(path, f"not a row of the form {_MEANING}", line)
        rows.append((line, cells))
    refuse_many(path, len(rows))
    return rows


def find(data: Path, split: str) -> Listing | None:
    """List ``<data>/<split>`` or ``<data>`` with a folder ``labelTxt*``; None if there is none.

    Classes come from ``classes.txt``, else from the files of all splits.

    Raises:
        InputError: a file is damaged.
    """
    roots = (root for root in (data / split, data) if any(root.glob("labelTxt*/")))
    root = next(roots, None)
    if root is None:
        return None
    folder = min(root.glob("labelTxt*/"))
    labels, problems = by_id(folder, files_in(folder, [".txt"]))
    images, more = images_in(root / "images") if (root / "images").is_dir() else ({}, [])
    every = [*data.glob("labelTxt*/"), *data.glob("*/labelTxt*/")]
    texts = [path for place in every for path in files_in(place, [".txt"])]
    classes = listed_classes(data, lambda: {c[8] for path in texts for _, c in _rows(path)})
    splits = tuple(sorted({place.parent.name for place in data.glob("*/labelTxt*/")}))
    found = f"DOTA data set ({folder.name}/*.txt)"
    entries = pair(images, labels)
    return Listing(
        "dota", found, root, entries, classes, problems=(*problems, *more), splits=splits
    )
