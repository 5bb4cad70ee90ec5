"""COCO results: a JSON list of ``image_id, category_id, bbox, score``.

Files are read as a stream, so that their size does not matter. Source:
https://cocodataset.org/#format-results.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import from_xywh, to_xywh
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError
from dmnet.core.formats.coco import Json, bad, box_of, is_finite
from dmnet.core.reading import opened, refuse_many
from dmnet.core.records import Detections, DetectionTable, Size

_CHUNK = 1 << 18
_MAX_ROW = 1 << 20
_LARGEST = 1 << 53


def results_rows(image_id: int, det: Detections, classes: Classes) -> list[Json]:
    """COCO result rows of one image, in the order of ``det``.

    Boxes are rounded to 1/1000 pixel; scores are kept in full, so that rounding makes no ties.
    """
    boxes = np.round(to_xywh(det.boxes), 3).tolist()
    ids = [classes.ids_of[label] for label in det.labels.tolist()]
    return [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(ids, boxes, det.scores.tolist(), strict=True)
    ]


def results_json(
    items: Iterable[tuple[int, Detections]], classes: Classes = VISDRONE
) -> Iterator[bytes]:
    """Render a results file from ``(image_id, detections)`` piece by piece, one row a line."""
    separator = "["
    for image_id, det in items:
        for row in results_rows(image_id, det, classes):
            yield f"{separator}{json.dumps(row)}".encode()
            separator = ",\n"
    yield b"]\n" if separator != "[" else b"[]\n"


def write_results(items: Iterable[tuple[int, Detections]], classes: Classes = VISDRONE) -> str:
    """Render a results file from ``(image_id, detections)``, in the given order."""
    return b"".join(results_json(items, classes)).decode()


def read_results(
    path: Path,
    known: Collection[int] | None = None,
    names: Mapping[str, int] | None = None,
    classes: Classes = VISDRONE,
) -> Mapping[int, Detections]:
    """Read a results file.

    Args:
        path: the JSON file.
        known: the image ids that exist; None accepts all.
        names: image ids by name, for files that give names (usually file stems) as ``image_id``.
        classes: whose ids ``category_id`` has to be one of.

    Returns:
        Detections by image id; rows of an image keep their order in the file.

    Raises:
        InputError: the file is cut short or is no results list, or a row has an unknown image or
            category, a box that is not four finite numbers or has a negative side, or a score
            that is not a finite number; names the row.
    """
    ids = None if known is None else frozenset(known)
    images, rows = array("q"), array("d")
    for index, row in enumerate(stream_objects(path)):
        image_id = row.get("image_id")
        if isinstance(image_id, str) and names is not None:
            image_id = names.get(image_id, image_id)
        if (
            type(image_id) is not int
            or abs(image_id) > _LARGEST
            or (ids is not None and image_id not in ids)
        ):
            raise bad(path, "results", index, f"image_id {image_id!r} is not in the image list")
        label, box, score = checked(path, index, row, classes)
        if box[2] < 0 or box[3] < 0:
            raise bad(path, "results", index, "negative width or height in bbox")
        images.append(image_id)
        rows.extend((*box, score, label))
    return DetectionTable(_by_image(path, np.array(images), np.array(rows).reshape(-1, 6)))


def _by_image(
    path: Path, images: NDArray[np.int64], rows: NDArray[np.float64]
) -> Iterator[tuple[int, Detections]]:
    """Image ids in the order of their first rows, each with its rows in order."""
    names, first, counts = np.unique(images, return_index=True, return_counts=True)
    refuse_many(path, int(counts.max(initial=0)), "detections")
    order = np.argsort(images, kind="stable")
    ends = np.cumsum(counts)
    for at in np.argsort(first):
        yield int(names[at]), _detections(rows[order[ends[at] - counts[at] : ends[at]]])


def _detections(table: NDArray[np.float64]) -> Detections:
    return Detections(from_xywh(table[:, :4]), table[:, 4], table[:, 5].astype(np.int64))


def doubts(found: Iterable[tuple[Detections, Size]]) -> Iterator[str]:
    """What detections look as if they were meant otherwise: other pixels, other scores.

    Args:
        found: detections of images (or crops) and the ``(height, width)`` of each.
    """
    total = beyond = small = strange = 0
    for each, (height, width) in found:
        side = np.array([width, height])
        first, last = each.boxes[:, :2], each.boxes[:, 2:]
        total += len(each)
        beyond += int(((first < -0.1 * side) | (last > 1.1 * side)).any(axis=1).sum())
        small += int((last <= 1).all(axis=1).sum())
        strange += int(((each.scores < 0) | (each.scores > 1)).sum())
    if beyond > total / 100:
        yield (
            f"{beyond} of {total} boxes reach far beyond their image; are they x, y, width, height "
            "in its pixels, and the image ids right?"
        )
    if small > total / 100:
        yield f"{small} of {total} boxes lie in the first pixel; are they shares of the image?"
    if strange:
        yield f"{strange} of {total} scores lie outside 0 to 1; are they per cent?"


def checked(
    path: Path, index: int, row: Json, classes: Classes
) -> tuple[int, tuple[float, float, float, float], float]:
    """Label, ``x, y, width, height`` and score of a row.

    Raises:
        InputError: an unknown category, or a value that is not finite; names the row.
    """
    category, score = row.get("category_id"), row.get("score")
    if type(category) is not int or category not in classes.ids:
        listed = ", ".join(map(str, classes.ids[:20])) + (", ..." if len(classes) > 20 else "")
        reason = f"category_id {category!r} is none of the categories {listed}"
        raise bad(path, "results", index, reason)
    box = box_of(path, "results", index, row)
    if not is_finite(score):
        raise bad(path, "results", index, f"score {score!r} is not a finite number")
    return classes.labels_of[category], box, score


def stream_objects(path: Path) -> Iterator[Json]:
    """Yield the objects of a JSON list one by one; memory does not grow with the file.

    Raises:
        InputError: the file is no list of objects, is damaged, or ends too early; names the row.
    """
    decoder = json.JSONDecoder()
    with opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as file:
        buffer, at, index, more = "", 0, -1, True
        while True:
            at = _skip(buffer, at)
            ready = at < len(buffer)
            if ready and index < 0:
                if buffer[at] != "[":
                    raise InputError(path, "no results list: the file has to begin with '['")
                index, at = 0, at + 1
                continue
            if ready and buffer[at] == "]":
                return
            if ready:
                try:
                    row, at = decoder.raw_decode(buffer, at)
                except (ValueError, RecursionError) as error:
                    if not more or len(buffer) - at > _MAX_ROW:
                        raise InputError(path, _damage(index, error, more)) from error
                else:
                    if not isinstance(row, dict):
                        raise InputError(path, f"results[{index}] is not an object")
                    yield row
                    index += 1
                    continue
            if not more:
                raise InputError(path, _damage(max(index, 0), "no closing ']'", more))
            chunk = _chunk(path, file)
            more = bool(chunk)
            buffer, at = buffer[at:] + chunk, 0


def _damage(index: int, error: object, more: bool) -> str:
    if more:
        return f"results[{index}]: not valid JSON ({error})"
    return f"the file ends too early, in results[{index}] ({error}); write it again"


def _skip(text: str, at: int) -> int:
    """Position of the next character that is neither white space nor a comma."""
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at


def _chunk(path: Path, file: Any) -> str:
    try:
        return str(file.read(_CHUNK))
    except UnicodeDecodeError as error:
        raise InputError(path, f"not a text file (byte {error.start} is not UTF-8)") from error
