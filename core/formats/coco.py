"""COCO detection JSON: ground truth and results.

Image ids count from 1 in the order of sorted file names; categories are the ten classes with their
VisDrone ids. Boxes are ``x, y, width, height``. Three extra fields, ``score``, ``truncation`` and
``occlusion``, carry what VisDrone knows beyond COCO, so that the way back is exact.

Source: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import Boxes, from_xywh, to_xywh
from dmnet.core.errors import InputError
from dmnet.core.formats.rows import fit, read_text
from dmnet.core.formats.visdrone import NAMES, category_of
from dmnet.core.records import CLASSES, IGNORED_REGION, OTHERS, Annotations, Detections

Json = dict[str, Any]

_LARGEST = 2.0**53


def image_ids(file_names: Iterable[str]) -> dict[str, int]:
    """COCO image ids by file name: 1-based in sorted order."""
    return {name: index for index, name in enumerate(sorted(file_names), start=1)}


def categories() -> list[Json]:
    """The ``categories`` section: the ten classes with their VisDrone ids."""
    return [{"id": i, "name": name, "supercategory": "object"} for i, name in CLASSES.items()]


def ground_truth(
    items: Iterable[Annotations],
    file_names: Mapping[str, str],
    *,
    ignored: bool,
    ids: Mapping[str, int] | None = None,
) -> Json:
    """Build a ground-truth file; an image without objects stays in it.

    Args:
        items: annotations of the images, in any order.
        file_names: file name by image id (the stem).
        ignored: also write the rows that are not to be scored (score 0, category 0 or 11), with
            ``iscrowd = ignore = 1`` and their own category id; ids 0 and 11 are not listed among
            ``categories``, so that evaluators and trainers see ten classes. Only then is the way
            back exact for every row.
        ids: COCO ids by file name, where some images of the set are left out; None counts.
    """
    ordered = sorted(items, key=lambda ann: file_names[ann.image_id])
    if ids is None:
        ids = image_ids(file_names[ann.image_id] for ann in ordered)
    images, annotations = [], list[Json]()
    for ann in ordered:
        name = file_names[ann.image_id]
        height, width = ann.size
        images.append({"id": ids[name], "file_name": name, "width": width, "height": height})
        rows = ann if ignored else ann[~ann.ignore]
        annotations += _annotation_rows(rows, ids[name], len(annotations) + 1)
    return {"images": images, "annotations": annotations, "categories": categories()}


def _annotation_rows(ann: Annotations, image_id: int, first: int) -> list[Json]:
    xywh = to_xywh(ann.boxes)
    columns = zip(
        _plain(xywh),
        _plain(xywh[:, 2] * xywh[:, 3]),
        ann.labels.tolist(),
        ann.ignore.astype(int).tolist(),
        ann.score.tolist(),
        ann.truncation.tolist(),
        ann.occlusion.tolist(),
        strict=True,
    )
    return [
        {
            "id": first + index,
            "image_id": image_id,
            "category_id": label,
            "bbox": box,
            "area": area,
            "iscrowd": ignore,
            "ignore": ignore,
            "score": score,
            "truncation": truncation,
            "occlusion": occlusion,
        }
        for index, (box, area, label, ignore, score, truncation, occlusion) in enumerate(columns)
    ]


def _plain(values: NDArray[np.float64]) -> list[Any]:
    """Python numbers; integers where all values are whole."""
    whole = np.rint(values)
    rows: list[Any] = (whole.astype(np.int64) if (whole == values).all() else values).tolist()
    return rows


def read_ground_truth(path: Path) -> list[Annotations]:
    """Read a ground-truth file, ours or one made elsewhere, images in the order of their ids.

    Categories are recognised by name, whatever their ids; the image id is the stem of
    ``file_name``. Rows without the extra fields get score 1, or 0 where ``iscrowd`` or ``ignore``
    is set. Boxes without area or outside the image are treated as in VisDrone files.

    Raises:
        InputError: the file is cut short, is no COCO ground truth, names an unknown image or class,
            or holds a box that is not four finite numbers; names the place.
    """
    return read_ground_truth_with_warnings(path)[0]


def read_ground_truth_with_warnings(path: Path) -> tuple[list[Annotations], list[str]]:
    """Read as `read_ground_truth` does, and also return what was dropped or clipped."""
    data = _load(path)
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        raise InputError(path, "no COCO ground truth: images, annotations, categories are needed")
    labels = _label_map(path, data["categories"])
    images = _images(path, data["images"])
    rows: dict[int, list[tuple[int, Json]]] = {image_id: [] for image_id in images}
    for index, row in enumerate(_objects(path, data["annotations"], "annotations")):
        for key, known in (("image_id", rows), ("category_id", labels)):
            if not isinstance(row.get(key), int) or row[key] not in known:
                raise _bad(path, "annotations", index, f"{key} {row.get(key)!r} is not listed")
        rows[row["image_id"]].append((index, row))
    out, warnings = [], list[str]()
    for image_id in sorted(images):
        annotations, notes = _read_image(path, images[image_id], rows[image_id], labels)
        out.append(annotations)
        warnings += notes
    return out, warnings


def _read_image(
    path: Path, image: Json, rows: list[tuple[int, Json]], labels: dict[int, int]
) -> tuple[Annotations, list[str]]:
    boxes = _boxes(path, "annotations", rows)
    size = (image["height"], image["width"])
    fitted, keep, warnings = fit(boxes, size, lambda i: f"{path}: annotations[{rows[i][0]}]")
    found = [labels[row["category_id"]] for _, row in rows]
    annotations = Annotations(
        PurePosixPath(image["file_name"]).stem,
        size,
        fitted,
        np.array(found, np.int64),
        *(_extra(path, rows, found, name) for name in ("score", "truncation", "occlusion")),
    )
    return annotations[keep], warnings


def _extra(
    path: Path, rows: list[tuple[int, Json]], labels: list[int], name: str
) -> NDArray[np.int64]:
    out = []
    for (index, row), label in zip(rows, labels, strict=True):
        default = 0
        if name == "score":
            default = int(label in CLASSES and not row.get("iscrowd") and not row.get("ignore"))
        value = row.get(name, default)
        if not isinstance(value, int):
            raise _bad(path, "annotations", index, f"{name} {value!r} is not a whole number")
        out.append(value)
    return np.array(out, np.int64)


def _label_map(path: Path, rows: object) -> dict[int, int]:
    """VisDrone category by the file's category id; 0 and 11 need not be listed."""
    labels: dict[int, int] = {}
    for index, row in enumerate(_objects(path, rows, "categories")):
        label = category_of(str(row.get("name")))
        if label is None or not isinstance(row.get("id"), int):
            known = ", ".join(NAMES.values())
            reason = f"{row.get('name')!r} with id {row.get('id')!r} is none of: {known}"
            raise _bad(path, "categories", index, reason)
        labels[row["id"]] = label
    for label in (IGNORED_REGION, OTHERS):
        labels.setdefault(label, label)
    return labels


def _images(path: Path, rows: object) -> dict[int, Json]:
    images: dict[int, Json] = {}
    stems = set[str]()
    for index, row in enumerate(_objects(path, rows, "images")):
        sides = (row.get("width"), row.get("height"))
        if not isinstance(row.get("id"), int) or not isinstance(row.get("file_name"), str):
            raise _bad(path, "images", index, "needs a whole number 'id' and a text 'file_name'")
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise _bad(path, "images", index, "needs 'width' and 'height' above 0")
        stem = PurePosixPath(row["file_name"]).stem
        if row["id"] in images or stem in stems:
            raise _bad(path, "images", index, f"id {row['id']} or name {stem!r} occurs twice")
        images[row["id"]] = row
        stems.add(stem)
    return images


def results_rows(image_id: int, det: Detections) -> list[Json]:
    """COCO result rows of one image, in the order of ``det``.

    Boxes are rounded to 1/1000 pixel; scores are kept in full, so that rounding makes no ties.
    """
    boxes = np.round(to_xywh(det.boxes), 3).tolist()
    return [
        {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
        for label, box, score in zip(det.labels.tolist(), boxes, det.scores.tolist(), strict=True)
    ]


def results_json(items: Iterable[tuple[int, Detections]]) -> Iterator[bytes]:
    """Render a results file from ``(image_id, detections)`` piece by piece, one row a line."""
    separator = "["
    for image_id, det in items:
        for row in results_rows(image_id, det):
            yield f"{separator}{json.dumps(row)}".encode()
            separator = ",\n"
    yield b"]\n" if separator != "[" else b"[]\n"


def write_results(items: Iterable[tuple[int, Detections]]) -> str:
    """Render a results file from ``(image_id, detections)``, in the given order."""
    return b"".join(results_json(items)).decode()


def read_results(
    path: Path, known: Collection[int] | None = None, names: Mapping[str, int] | None = None
) -> dict[int, Detections]:
    """Read a results file.

    Args:
        path: the JSON file, a list of ``image_id, category_id, bbox, score``.
        known: the image ids that exist; None accepts all.
        names: image ids by name, for files that give names (usually file stems) as ``image_id``.

    Returns:
        Detections by image id; rows of an image keep their order in the file.

    Raises:
        InputError: the file is cut short or is no results list, or a row has an unknown image or
            category, a box that is not four finite numbers or has a negative side, or a score
            that is not a finite number; names the row.
    """
    data = _load(path)
    grouped: dict[int, list[tuple[int, Json]]] = {}
    ids = None if known is None else frozenset(known)
    for index, row in enumerate(_objects(path, data, "results")):
        image_id, label, score = row.get("image_id"), row.get("category_id"), row.get("score")
        if isinstance(image_id, str) and names is not None:
            image_id = names.get(image_id, image_id)
        if not isinstance(image_id, int) or (ids is not None and image_id not in ids):
            raise _bad(path, "results", index, f"image_id {image_id!r} is not in the image list")
        if not isinstance(label, int) or label not in CLASSES:
            raise _bad(path, "results", index, f"category_id {label!r} is not one of 1 to 10")
        if not _is_finite(score):
            raise _bad(path, "results", index, f"score {score!r} is not a finite number")
        grouped.setdefault(image_id, []).append((index, row))
    return {image_id: _detections(path, rows) for image_id, rows in grouped.items()}


def _detections(path: Path, rows: list[tuple[int, Json]]) -> Detections:
    boxes = _boxes(path, "results", rows)
    negative = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(negative):
        index = rows[int(negative[0])][0]
        raise _bad(path, "results", index, "negative width or height in bbox")
    scores = np.array([row["score"] for _, row in rows], np.float64)
    return Detections(boxes, scores, np.array([row["category_id"] for _, row in rows], np.int64))


def _boxes(path: Path, section: str, rows: list[tuple[int, Json]]) -> Boxes:
    for index, row in rows:
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
            raise _bad(path, section, index, f"bbox {box!r} is not four finite numbers")
    return from_xywh([row["bbox"] for _, row in rows])


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST  # false for NaN


def _load(path: Path) -> Any:
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = "; the file ends too early" if error.pos >= len(text.rstrip()) else ""
        reason = f"not valid JSON ({error.msg} at column {error.colno}{cut})"
        raise InputError(path, reason, error.lineno) from error
    except RecursionError as error:
        raise InputError(path, "not valid COCO JSON (nested too deeply)") from error


def _objects(path: Path, rows: object, section: str) -> list[Json]:
    if not isinstance(rows, list):
        raise InputError(path, f"{section} is not a list")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise _bad(path, section, index, "is not an object")
    return rows


def _bad(path: Path, section: str, index: int, reason: str) -> InputError:
    return InputError(path, f"{section}[{index}]: {reason}")
