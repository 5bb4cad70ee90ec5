"""COCO ground truth, one JSON file a set; `coco_results` has results, `coco_folder` data sets.

Image ids count from 1 in the order of sorted file names where this module writes them; categories
are the data set's classes with their ids. Boxes are ``x, y, width, height``. Rows with ``iscrowd``
or ``ignore`` are ignored; ignored regions are such rows of a category that is not listed (id 0
where that is free). Three extra fields, ``score``, ``truncation`` and ``occlusion``, carry what
VisDrone knows beyond COCO, so that the way back is exact.

Source: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from dmnet.core import limits
from dmnet.core.boxes import as_boxes, from_xywh, to_xywh
from dmnet.core.classes import IGNORED_REGION, OTHERS, VISDRONE, Classes, plain
from dmnet.core.errors import ConfigError, InputError
from dmnet.core.formats.rows import fit
from dmnet.core.images import image_id_of
from dmnet.core.reading import read_json, refuse_many
from dmnet.core.records import Annotations, Size

Json = dict[str, Any]

MAX_BYTES = limits.JSON_BYTES
"""A ground-truth JSON above 1 GiB is refused: it is read as a whole."""

_LARGEST = 2.0**53


class Row(NamedTuple):
    """One annotation: its place in the file, label, box, and what is known of it; JSON-ready."""

    place: int
    label: int
    box: tuple[float, float, float, float]
    """``x, y, width, height`` as the file has them."""
    area: float
    ignored: bool
    score: int
    truncation: int
    occlusion: int


@dataclass(frozen=True)
class CocoImage:
    """An image of a ground-truth file and its rows, in file order."""

    id: int
    file_name: str
    size: Size
    rows: tuple[Row, ...]

    @property
    def image_id(self) -> str:
        """The file name without its suffix, folders included."""
        return image_id_of(self.file_name)


@dataclass(frozen=True)
class CocoTruth:
    """A ground-truth file, checked: images in the order of their ids."""

    path: Path
    classes: Classes
    images: tuple[CocoImage, ...]


def image_ids(file_names: Iterable[str]) -> dict[str, int]:
    """COCO image ids by file name: 1-based in sorted order."""
    return {name: index for index, name in enumerate(sorted(file_names), start=1)}


def categories(classes: Classes) -> list[Json]:
    """The ``categories`` section: the classes with their ids; ignored labels are not listed."""
    pairs = zip(classes.ids, classes.names, strict=True)
    return [{"id": i, "name": name, "supercategory": "object"} for i, name in pairs]


def ground_truth_json(
    images: Iterable[tuple[str, Size]],
    items: Iterable[Annotations],
    ids: Mapping[str, int],
    classes: Classes = VISDRONE,
) -> Iterator[bytes]:
    """Render a ground-truth file piece by piece; an image without objects stays in it.

    Args:
        images: file name and ``(height, width)`` of every image, sorted by name.
        items: the rows to write of the same images in the same order; taken one by one after all
            of ``images``. Ignored rows get ``iscrowd = ignore = 1`` and their own category id; the
            ids of ignored labels are not listed among ``categories``, so that evaluators and
            trainers see the classes alone.
        ids: COCO ids by file name.
        classes: of the annotations.
    """
    yield b'{"images": ['
    names, between = [], b""
    for name, (height, width) in images:
        row = {"id": ids[name], "file_name": name, "width": width, "height": height}
        yield between + json.dumps(row).encode()
        names.append(name)
        between = b", "
    yield b'], "annotations": ['
    first = 1
    for name, ann in zip(names, items, strict=True):
        rows = _annotation_rows(ann, ids[name], first)
        if rows:
            yield (b", " if first > 1 else b"") + json.dumps(rows)[1:-1].encode()
        first += len(rows)
    yield f'], "categories": {json.dumps(categories(classes))}}}'.encode()


def _annotation_rows(ann: Annotations, image_id: int, first: int) -> list[Json]:
    xywh = np.round(to_xywh(ann.boxes), 6)
    ignore = ann.ignore.astype(int).tolist()
    columns = {
        "category_id": [ann.classes.ids_of[label] for label in ann.labels.tolist()],
        "bbox": _plain(xywh),
        "area": _plain(xywh[:, 2] * xywh[:, 3]),
        "iscrowd": ignore,
        "ignore": ignore,
        "score": ann.score.tolist(),
        "truncation": ann.truncation.tolist(),
        "occlusion": ann.occlusion.tolist(),
    }
    return [
        {"id": number, "image_id": image_id, **dict(zip(columns, row, strict=True))}
        for number, row in enumerate(zip(*columns.values(), strict=True), start=first)
    ]


def _plain(values: NDArray[np.float64]) -> list[Any]:
    """Python numbers; integers where all values are whole."""
    whole = np.rint(values)
    rows: list[Any] = (whole.astype(np.int64) if (whole == values).all() else values).tolist()
    return rows


def read(path: Path) -> CocoTruth:
    """Read and check a ground-truth file, ours or one made elsewhere.

    The classes are the listed categories in the order of their ids; VisDrone's ten are recognised
    by their names, whatever their ids. Rows without the extra fields get score 1, or 0 where
    ``iscrowd`` or ``ignore`` is set.

    Raises:
        InputError: the file is cut short, is no COCO ground truth, names an unknown image or
            category, or holds a value that is not finite; names the place.
    """
    data = load(path)
    if not (isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys()):
        reason = "no COCO ground truth: it needs images, annotations and categories"
        raise InputError(path, reason)
    images = _images(path, data["images"])
    classes, labels = _categories(path, data["categories"])
    rows: dict[int, list[Row]] = {image_id: [] for image_id in images}
    for index, row in enumerate(objects(path, data["annotations"], "annotations")):
        if type(row.get("image_id")) is not int or row["image_id"] not in rows:
            reason = f"image_id {row.get('image_id')!r} is not listed"
            raise bad(path, "annotations", index, reason)
        rows[row["image_id"]].append(_row(path, index, row, classes, labels))
    refuse_many(path, max(map(len, rows.values()), default=0))
    listed = (CocoImage(*images[key], tuple(rows[key])) for key in sorted(images))
    return CocoTruth(path, classes, tuple(listed))


def read_ground_truth(path: Path) -> list[Annotations]:
    """Annotations of every image, in the order of the ids, see `read` and `annotations_of`."""
    truth = read(path)
    return [
        annotations_of(path, truth.classes, image.image_id, image.size, image.rows)[0]
        for image in truth.images
    ]


def annotations_of(
    path: Path, classes: Classes, image_id: str, size: Size, rows: Sequence[Row]
) -> tuple[Annotations, list[str]]:
    """Rows of one image as a record, and warnings.

    Boxes without area or outside the image are dropped or clipped as in VisDrone files.
    """
    boxes = np.round(from_xywh(as_boxes([row.box for row in rows])), 6)
    fitted, keep, warnings = fit(boxes, size, lambda i: f"{path}: annotations[{rows[i].place}]")
    columns = [[row.label, row.score, row.truncation, row.occlusion] for row in rows]
    label, score, truncation, occlusion = np.array(columns, np.int64).reshape(-1, 4).T
    found = Annotations(image_id, size, fitted, label, score, truncation, occlusion, classes)
    return found[keep], warnings


def _row(path: Path, index: int, row: Json, classes: Classes, labels: Mapping[int, int]) -> Row:
    category, marks = row.get("category_id"), (row.get("iscrowd"), row.get("ignore"))
    if any(mark not in (None, 0, 1) for mark in marks):
        raise bad(path, "annotations", index, f"iscrowd, ignore {marks!r} are not 0 or 1")
    ignored = any(marks)
    label = labels.get(category) if type(category) is int else None
    if label is None and ignored and type(category) is int:  # our own files do not list them
        label = classes.labels_of.get(category)
    if label is None:
        reason = f"category_id {category!r} is not listed among the categories"
        raise bad(path, "annotations", index, reason)
    box = box_of(path, "annotations", index, row)
    area = row.get("area", box[2] * box[3])
    if not is_finite(area):
        raise bad(path, "annotations", index, f"area {area!r} is not a finite number")
    extras = [row.get("score", int(1 <= label <= len(classes) and not ignored))]
    extras += [row.get("truncation", 0), row.get("occlusion", 0)]
    for name, value in zip(("score", "truncation", "occlusion"), extras, strict=True):
        if not isinstance(value, int):
            raise bad(path, "annotations", index, f"{name} {value!r} is not a whole number")
    return Row(index, label, box, area, ignored, *extras)


def _categories(path: Path, rows: object) -> tuple[Classes, dict[int, int]]:
    """The classes, and labels by the file's category ids."""
    names: dict[int, str] = {}
    for index, row in enumerate(objects(path, rows, "categories")):
        if type(row.get("id")) is not int or not isinstance(row.get("name"), str):
            raise bad(path, "categories", index, "needs a whole number 'id' and a text 'name'")
        if row["id"] in names:
            raise bad(path, "categories", index, f"id {row['id']} occurs twice")
        names[row["id"]] = row["name"]
    if not names:
        raise InputError(path, "categories: empty")
    return classes_of(path, dict(sorted(names.items())))


def classes_of(path: Path, names: Mapping[int, str]) -> tuple[Classes, dict[int, int]]:
    """Classes of named category ids, and the label of each id.

    Raises:
        InputError: two categories have one name, or none is left beside ignored regions.
    """
    known = {category: VISDRONE.label_of(name) for category, name in names.items()}
    if {label for label in known.values() if label} - {OTHERS} == VISDRONE.scored.keys():
        labels = {category: label for category, label in known.items() if label is not None}
        if len(labels) == len(names) == len(set(labels.values())):
            ids = {label: category for category, label in labels.items()}
            listed = tuple(ids[label] for label in VISDRONE.scored)
            return Classes(VISDRONE.names, listed, VISDRONE.ignored), labels
    regions = [i for i, name in names.items() if plain(name) in REGION_NAMES]
    objects = {category: name for category, name in names.items() if category not in regions}
    try:
        classes = Classes(tuple(objects.values()), tuple(objects))
    except ConfigError as error:
        raise InputError(path, f"categories: {error}") from error
    labels = dict(zip(classes.ids, classes.scored, strict=True))
    return classes, labels | dict.fromkeys(regions, IGNORED_REGION)


REGION_NAMES = ("ignored-region", "ignored-regions")
"""Categories of these names are regions without annotation."""


def _images(path: Path, rows: object) -> dict[int, tuple[int, str, Size]]:
    images: dict[int, tuple[int, str, Size]] = {}
    names = set[str]()
    for index, row in enumerate(objects(path, rows, "images")):
        sides = (row.get("width"), row.get("height"))
        if type(row.get("id")) is not int or not isinstance(row.get("file_name"), str):
            raise bad(path, "images", index, "needs a whole number 'id' and a text 'file_name'")
        if not row["file_name"].strip():
            raise bad(path, "images", index, "'file_name' is empty")
        if not all(type(side) is int and side > 0 for side in sides):
            raise bad(path, "images", index, "needs 'width' and 'height' above 0")
        name = image_id_of(row["file_name"])
        if row["id"] in images or name in names:
            raise bad(path, "images", index, f"id {row['id']} or name {name!r} occurs twice")
        images[row["id"]] = (row["id"], row["file_name"], (row["height"], row["width"]))
        names.add(name)
    return images


def box_of(path: Path, section: str, index: int, row: Json) -> tuple[float, float, float, float]:
    """The four numbers of ``bbox``.

    Raises:
        InputError: they are not four finite numbers; names the row.
    """
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        raise bad(path, section, index, f"bbox {box!r} is not four finite numbers")
    return (box[0], box[1], box[2], box[3])


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number of a sensible size."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < _LARGEST


def load(path: Path) -> Any:
    """Load a JSON file.

    Raises:
        InputError: damaged, cut short, or too large to be read as a whole.
    """
    return read_json(path, limit=MAX_BYTES)


def objects(path: Path, rows: object, section: str) -> list[Json]:
    """A section as a list of objects.

    Raises:
        InputError: it is no list, or an entry is no object; names it.
    """
    if not isinstance(rows, list):
        raise InputError(path, f"{section} is not a list")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise bad(path, section, index, "is not an object")
    return rows


def bad(path: Path, section: str, index: int, reason: str) -> InputError:
    """The error about one row."""
    return InputError(path, f"{section}[{index}]: {reason}")
