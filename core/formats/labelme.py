"""LabelMe JSON, one file an image, beside it or in a folder of its own.

A shape becomes the upright box around it: rectangle and polygon by their points, circle by centre
and rim; points and lines have no area and are dropped with a warning. The flag ``ignore`` (or
``difficult``) of a shape marks what is not to be scored. The format has no place for truncation and
occlusion.

Source: https://github.com/wkentaro/labelme.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from dmnet.core.boxes import Boxes, as_boxes
from dmnet.core.classes import Classes
from dmnet.core.errors import InputError
from dmnet.core.formats.rows import fit, other_size
from dmnet.core.images import SUFFIXES
from dmnet.core.listing import Listing, by_id, files_in, images_in, listed_classes, pair
from dmnet.core.reading import read_json, refuse_many
from dmnet.core.records import Annotations, Size
from dmnet.core.stubs import present

_FLAGS = ("ignore", "difficult")


def write(ann: Annotations, file_name: str) -> str:
    """Render one image's annotations, every row a rectangle, in their order."""
    names = ann.classes.every
    rows = zip(ann.boxes.tolist(), ann.labels.tolist(), ann.ignore.tolist(), strict=True)
    shapes = [
        {
            "label": names[label],
            "points": [box[:2], box[2:]],
            "group_id": None,
            "shape_type": "rectangle",
            "flags": {"ignore": True} if ignore else {},
        }
        for box, label, ignore in rows
    ]
    data: dict[str, Any] = {
        "version": "5.0.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": ann.size[0],
        "imageWidth": ann.size[1],
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def read(path: Path, image_id: str, size: Size, classes: Classes) -> tuple[Annotations, list[str]]:
    """Read one file.

    Args:
        path: the label file.
        image_id: id of the image.
        size: ``(height, width)`` of the image.
        classes: of the data set.

    Returns:
        The annotations, shapes in file order, and warnings about boxes that were dropped or
        clipped.

    Raises:
        InputError: no LabelMe file, an unknown class, or points that are no numbers; names the
            shape.
    """
    data = _load(path)
    shapes = list(_shapes(path, data))
    raw = as_boxes([_box(path, index, shape) for index, shape in enumerate(shapes)])
    labels = [_label(path, index, shape, classes) for index, shape in enumerate(shapes)]
    scores = [
        int(label in classes.scored and not any((shape.get("flags") or {}).get(f) for f in _FLAGS))
        for label, shape in zip(labels, shapes, strict=True)
    ]
    boxes, keep, warnings = fit(raw, size, lambda i: f"{path}: shapes[{i}]")
    warnings += other_size(path, data.get("imageWidth"), data.get("imageHeight"), size)
    return Annotations.of(image_id, size, boxes, labels, scores, classes)[keep], warnings


def _load(path: Path) -> dict[str, Any]:
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise InputError(path, "no LabelMe file: it needs a list 'shapes'")
    refuse_many(path, len(data["shapes"]))
    return data


def _shapes(path: Path, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for index, shape in enumerate(data["shapes"]):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise InputError(path, f"shapes[{index}]: needs a text 'label'")
        flags = shape.get("flags") or {}
        if not isinstance(flags, dict) or any(type(flags.get(f, True)) is not bool for f in _FLAGS):
            raise InputError(path, f"shapes[{index}]: 'flags' is not a mapping to true and false")
        yield shape


def _label(path: Path, index: int, shape: dict[str, Any], classes: Classes) -> int:
    label = classes.label_of(shape["label"])
    if label is None:
        known = ", ".join(classes.every.values())
        raise InputError(path, f"shapes[{index}]: class {shape['label']!r} is none of: {known}")
    return label


def _box(path: Path, index: int, shape: dict[str, Any]) -> list[float]:
    """The box around a shape."""
    points = _points(path, index, shape)
    if shape.get("shape_type") == "circle" and len(points) == 2:
        radius = float(np.hypot(*(points[1] - points[0])))
        return [*(points[0] - radius), *(points[0] + radius)]
    return [*points.min(axis=0), *points.max(axis=0)]


def _points(path: Path, index: int, shape: dict[str, Any]) -> Boxes:
    given = shape.get("points")
    if not (isinstance(given, list) and all(map(_is_pair, given))):
        raise InputError(path, f"shapes[{index}]: points are not pairs of numbers")
    points = np.array(given, dtype=np.float64)
    if len(points) == 0 or not np.isfinite(points).all():
        raise InputError(path, f"shapes[{index}]: points are not pairs of finite numbers")
    return points


def _is_pair(point: object) -> bool:
    return isinstance(point, list) and [type(n) in (int, float) for n in point] == [True] * 2


def is_labelme(path: Path) -> bool:
    """Whether a JSON file looks like one of LabelMe's, from its beginning."""
    if not path.is_file():
        return False
    with present(path).open("rb") as stream:
        head = stream.read(1 << 16)
    return b'"shapes"' in head and (b'"imagePath"' in head or b'"version"' in head)


def find(data: Path, split: str) -> Listing | None:
    """List ``<data>/<split>`` or ``<data>`` with LabelMe files; None if there are none.

    Classes come from ``classes.txt``, else from the files below ``data``.

    Raises:
        InputError: a file is damaged.
    """
    root = next((root for root in (data / split, data) if _holds_labelme(root)), None)
    if root is None:
        return None
    files = files_in(root, [".json"])
    images, problems = images_in(root)
    ids = {path: name for name, path in images.items()}
    labels, more = by_id(root, files)
    placed: dict[str, Path] = {}
    for name, path in labels.items():
        first = placed.setdefault(_image_of(path, root, ids) or name, path)
        if first != path:
            more.append(f"{path}: labels the same image as {first.name}; it is left out")
    every = files if root == data else files_in(data, [".json"])
    classes = listed_classes(data, lambda: set().union(*map(names_in, every)))
    entries = pair(images, placed)
    return Listing(
        "labelme", "LabelMe data set (*.json)", root, entries, classes, problems=(*problems, *more)
    )


def names_in(path: Path) -> set[str]:
    """Names of the classes that occur in a file.

    Raises:
        InputError: no LabelMe file.
    """
    return {shape["label"] for shape in _shapes(path, _load(path))}


def _holds_labelme(root: Path) -> bool:
    first = next((path for name in ("*.json", "*/*.json") for path in root.glob(name)), None)
    return first is not None and is_labelme(first)


def _image_of(path: Path, root: Path, ids: dict[Path, str]) -> str | None:
    """Id of the image a file names, if that lies in the data set; else by the file's own name."""
    beside = [path.with_suffix(suffix) for suffix in sorted(SUFFIXES)]
    if any(place in ids for place in beside):
        return None
    named = _load(path).get("imagePath")
    if not isinstance(named, str):
        return None
    place = Path(os.path.normpath(path.parent / PureWindowsPath(named).as_posix()))
    return ids.get(place) if place.is_relative_to(root) else None
