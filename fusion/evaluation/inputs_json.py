"""Reading COCO JSON for evaluation: ground truth as a whole, results as a stream."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from tqdm import tqdm

from dmnet.core.errors import InputError
from dmnet.core.formats import visdrone
from dmnet.core.formats.rows import read_text
from dmnet.core.overlaps import Floats
from dmnet.core.records import CLASSES, IGNORED_REGION, OTHERS
from dmnet.fusion.evaluation.scored_images import ScoredImage, TruthSet, stem_of

Json = dict[str, Any]

MAX_TRUTH_BYTES = 1 << 30
"""A ground-truth JSON above 1 GiB is refused: it is read as a whole."""

_CHUNK = 1 << 22
_MAX_ROW = 1 << 20


def read_truth_json(path: Path) -> TruthSet:
    """Read COCO ground truth of any categories; VisDrone's own are recognised by their names.

    Raises:
        InputError: the file is damaged or cut short, names an unknown image or category, or holds
            a value that is not finite; names the row.
    """
    data = _load(path)
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        reason = "no COCO ground truth: it needs images, annotations and categories"
        raise InputError(path, reason)
    classes, labels = _categories(path, data["categories"])
    images = _images(path, data["images"])
    ordered = sorted(images, key=lambda key: (images[key]["file_name"], key))
    numbers = {image_id: position for position, image_id in enumerate(ordered)}
    rows: list[list[list[float]]] = [[] for _ in ordered]
    warnings: list[str] = []
    for index, row in enumerate(_objects(path, data["annotations"], "annotations")):
        place = f"annotations[{index}]"
        if type(row.get("image_id")) is not int or row["image_id"] not in numbers:
            raise InputError(path, f"{place}: image_id {row.get('image_id')!r} is not listed")
        label = _truth_label(path, place, row, labels)
        box = _box(path, place, row)
        if box[2] <= 0 or box[3] <= 0:
            warnings.append(f"{path}: {place}: width or height is not above 0; row dropped")
            continue
        ignored = bool(row.get("iscrowd") or row.get("ignore"))
        area = row.get("area", box[2] * box[3])
        if not _finite(area):
            raise InputError(path, f"{place}: area {area!r} is not a finite number")
        rows[numbers[row["image_id"]]].append([*box, float(not ignored), label, area])
    scored = []
    for image_id, table in zip(ordered, rows, strict=True):
        values = np.array(table, dtype=np.float64).reshape(-1, 7)
        size = (images[image_id]["height"], images[image_id]["width"])
        stem = stem_of(images[image_id]["file_name"])
        scored.append(ScoredImage(values[:, :6], np.zeros((0, 6)), size, stem, values[:, 6]))
    return TruthSet(path, tuple(scored), numbers, classes, labels, True, tuple(warnings))


def _truth_label(path: Path, place: str, row: Json, labels: Mapping[int, int]) -> int:
    category = row.get("category_id")
    if type(category) is int and category in labels:
        return labels[category]
    if category in (IGNORED_REGION, OTHERS) and (row.get("iscrowd") or row.get("ignore")):
        return int(category)  # our own files keep these rows without listing the categories
    raise InputError(path, f"{place}: category_id {category!r} is not listed among the categories")


def _categories(path: Path, rows: object) -> tuple[dict[int, str], dict[int, int]]:
    """Names by label, and labels by category id: VisDrone's own where all names are VisDrone's."""
    names: dict[int, str] = {}
    for index, row in enumerate(_objects(path, rows, "categories")):
        if type(row.get("id")) is not int or not isinstance(row.get("name"), str):
            raise InputError(path, f"categories[{index}]: needs a whole number 'id' and a 'name'")
        if row["id"] in names:
            raise InputError(path, f"categories[{index}]: id {row['id']} occurs twice")
        names[row["id"]] = row["name"]
    if not names:
        raise InputError(path, "categories: empty")
    known = {category: visdrone.category_of(name) for category, name in names.items()}
    labels = {category: label for category, label in known.items() if label is not None}
    if len(labels) == len(names) == len(set(labels.values())):
        scored = {label: CLASSES[label] for label in sorted(labels.values()) if label in CLASSES}
        return scored, labels
    return dict(sorted(names.items())), {category: category for category in names}


def _images(path: Path, rows: object) -> dict[int, Json]:
    images: dict[int, Json] = {}
    stems = set[str]()
    for index, row in enumerate(_objects(path, rows, "images")):
        if type(row.get("id")) is not int or not isinstance(row.get("file_name"), str):
            reason = f"images[{index}]: needs a whole number 'id' and a text 'file_name'"
            raise InputError(path, reason)
        sides = (row.get("width"), row.get("height"))
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise InputError(path, f"images[{index}]: needs 'width' and 'height' above 0")
        stem = stem_of(row["file_name"])
        if row["id"] in images or stem in stems:
            reason = f"images[{index}]: id {row['id']} or name {stem!r} occurs twice"
            raise InputError(path, reason)
        images[row["id"]] = row
        stems.add(stem)
    return images


def read_found_json(path: Path, truth: TruthSet) -> list[Floats]:
    """Read a COCO results list: rows of each image of ``truth``, in file order.

    Raises:
        InputError: see `dmnet.fusion.evaluation.inputs.read_found`.
    """
    stems = {image.image_id: position for position, image in enumerate(truth.images)}
    columns = array("d")
    stream = tqdm(stream_objects(path), "detections", disable=None, leave=False, unit=" rows")
    for index, row in enumerate(stream):
        place = f"results[{index}]"
        position = _position(path, place, row.get("image_id"), truth, stems)
        label = row.get("category_id")
        if type(label) is not int or label not in truth.labels:
            listed = ", ".join(map(str, truth.labels))
            reason = f"{place}: category_id {label!r} is none of the categories {listed}"
            raise InputError(path, reason)
        box = _box(path, place, row)
        if box[2] <= 0 or box[3] <= 0:
            raise InputError(path, f"{place}: bbox {box} has a width or height that is not above 0")
        score = row.get("score")
        if not _finite(score):
            raise InputError(path, f"{place}: score {score!r} is not a finite number")
        columns.extend((position, *box, score, truth.labels[label]))
    rows = np.asarray(columns).reshape(-1, 7)
    _refuse_repetition(path, rows)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    edges = np.searchsorted(rows[:, 0], np.arange(len(truth.images) + 1))
    return [rows[a:b, 1:] for a, b in pairwise(edges)]


def _refuse_repetition(path: Path, rows: Floats) -> None:
    order = np.lexsort(rows.T)
    same = np.ones(max(0, len(rows) - 1), dtype=bool)
    for column in rows.T:  # one at a time: the table may fill half of the memory
        ranked = column[order]
        same &= ranked[1:] == ranked[:-1]
    if same.any():
        pair = sorted(order[np.flatnonzero(same)[0] :][:2].tolist())
        raise InputError(
            path,
            f"{int(same.sum())} rows repeat another one exactly, the first are results[{pair[0]}] "
            f"and results[{pair[1]}]; was the file written twice? Remove the repetitions",
        )


def _position(
    path: Path, place: str, image_id: object, truth: TruthSet, stems: Mapping[str, int]
) -> int:
    """Position of a row's image; ids may also be file names."""
    if type(image_id) is int and image_id in truth.numbers:
        return truth.numbers[image_id]
    if isinstance(image_id, str) and stem_of(image_id) in stems:
        return stems[stem_of(image_id)]
    raise InputError(
        path,
        f"{place}: image_id {image_id!r} is none of the {len(stems)} images of {truth.path}"
        + ("" if truth.is_json else " (ids count from 1 in the order of file names)"),
    )


def _box(path: Path, place: str, row: Json) -> list[float]:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        raise InputError(path, f"{place}: bbox {box!r} is not four finite numbers")
    return box


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < 1e300


def _objects(path: Path, rows: object, section: str) -> list[Json]:
    if not isinstance(rows, list):
        raise InputError(path, f"{section} is not a list")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(path, f"{section}[{index}] is not an object")
    return rows


def _load(path: Path) -> Any:
    if path.stat().st_size > MAX_TRUTH_BYTES:
        gib = path.stat().st_size / (1 << 30)
        reason = f"{gib:.1f} GiB of ground truth; at most 1 GiB is read. Split the set"
        raise InputError(path, reason)
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not valid JSON, or cut short ({error})") from error


def stream_objects(path: Path) -> Iterator[Json]:
    """Yield the objects of a JSON list one by one; memory does not grow with the file.

    Raises:
        InputError: the file is no list of objects, is damaged, or ends too early; names the row.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as file:
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
