"""YOLO txt: ``class cx cy width height``, one row an object, one file per image.

Coordinates are shares of the image's width and height. The class index is the label minus 1. A
sixth column (a confidence) is not read. The format has no place for rows that are not to be scored
(ignored regions, others, score 0) and none for truncation and occlusion: such rows are left out,
and read objects have score 1, truncation 0 and occlusion 0.

Source: https://docs.ultralytics.com/datasets/detect/.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dmnet.core import limits
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats.rows import fit, read_rows, whole
from dmnet.core.images import SUFFIXES, image_id_of
from dmnet.core.links import refuse_leaving
from dmnet.core.listing import Entry, Listing, files_in, images_in, named, within
from dmnet.core.plain_yaml import parse_yaml
from dmnet.core.reading import read_text
from dmnet.core.records import Annotations, Size

DIGITS = 9
"""Decimals of a share: 1e-9 of an image's side, far below the 1/1000 pixel read back."""


def write(ann: Annotations) -> str:
    """Render the scored objects of one image, in their order.

    Boxes in whole pixels (and down to 1/1000 pixel) come back exactly from `read`.
    """
    rows = ann[~ann.ignore]
    height, width = ann.size
    middle = (rows.boxes[:, :2] + rows.boxes[:, 2:]) / 2 / (width, height)
    side = (rows.boxes[:, 2:] - rows.boxes[:, :2]) / (width, height)
    values = np.concatenate([rows.labels[:, None] - 1, middle, side], axis=1)
    share = f"%.{DIGITS}f"
    line = " ".join(["%d", *[share] * 4]) + "\n"
    return (line * len(rows)) % tuple(values.ravel().tolist())


def text(ann: Annotations, file_name: str) -> str:
    """`write`, whatever the image file is called."""
    return write(ann)


def read(
    path: Path, image_id: str, size: Size, classes: Classes = VISDRONE
) -> tuple[Annotations, list[str]]:
    """Read one file; coordinates are rounded to 1/1000 pixel.

    Args:
        path: the label file.
        image_id: file stem of the image.
        size: ``(height, width)`` of the image.
        classes: of the data set.

    Returns:
        The annotations, rows in file order, and warnings about boxes that were dropped or clipped.

    Raises:
        InputError: a row that is not five (or six) finite numbers, or a class index that does not
            exist; names the line.
    """
    values, lines = read_rows(path, 5, "class cx cy width height", optional=1)
    index = whole(path, values[:, 0], lines, "class")
    bad = np.flatnonzero((index < 0) | (index >= len(classes)))
    if len(bad):
        reason = f"class index {index[bad[0]]} does not exist; there are 0 to {len(classes) - 1}"
        raise InputError(path, reason, int(lines[bad[0]]))
    height, width = size
    middle = values[:, 1:3] * (width, height)
    half = values[:, 3:5] * (width, height) / 2
    raw = np.round(np.concatenate([middle - half, middle + half], axis=1), 3)
    boxes, keep, warnings = fit(raw, size, lambda i: f"{path}:{lines[i]}")
    return Annotations.of(image_id, size, boxes, index + 1, classes=classes)[keep], warnings


# --- data.yaml -----------------------------------------------------------------------------------

_NO_SPLITS = frozenset({"path", "names", "nc", "download", "roboflow"})


def write_yaml(classes: Classes) -> str:
    """A ``data.yaml`` for images and labels in one folder with it."""
    data = {"path": ".", "train": ".", "val": ".", "nc": len(classes), "names": [*classes.names]}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def find(data: Path, split: str) -> Listing | None:
    """List a split of a ``data.yaml`` (or the folder that holds one); None if there is none.

    Labels lie in ``labels`` where images lie in ``images``, else beside the images.

    Raises:
        InputError: the file is damaged, or names a path outside its folder.
        MissingInputError: it has no such split, or names files that are not there.
    """
    source = _yaml_of(data)
    if source is None:
        return None
    config = _load(source)
    parts = {key: _texts(value) for key, value in config.items() if key not in _NO_SPLITS}
    splits = tuple(key for key, value in parts.items() if value)
    if split not in splits:
        raise MissingInputError(
            f"{source}: a YOLO data set without a split '{split}'; it has: {', '.join(splits)}."
        )
    root = within(source.parent, str(config.get("path") or "."), source)
    images, problems = _images(source, root, parts[split])
    entries = []
    for name, path in images.items():
        label = _label_of(root, path)
        entries.append(Entry(name, path, label if label.is_file() else None))
    problems += _unmatched(root, images.values(), parts[split])
    entries.sort(key=lambda entry: entry.file_name)
    found = f"YOLO data set ({source.name})"
    classes = _classes(source, config.get("names"))
    if config.get("nc", len(classes)) != len(classes):
        raise InputError(source, f"nc: {config['nc']!r}, but names: lists {len(classes)} classes")
    return Listing(
        "yolo", found, root, tuple(entries), classes, problems=tuple(problems), splits=splits
    )


def _yaml_of(data: Path) -> Path | None:
    if data.suffix.lower() in (".yaml", ".yml"):
        return data
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (data / name).is_file():
            return data / name
    return None


def classes_near(image: Path) -> Classes | None:
    """Classes of the nearest ``data.yaml`` in the four folders above an image; None without one.

    Raises:
        InputError: the file is damaged.
    """
    sources = filter(None, map(_yaml_of, image.parents[:4]))
    source = next(sources, None)
    return None if source is None else _classes(source, _load(source).get("names"))


def _load(source: Path) -> Mapping[str, Any]:
    try:
        config = parse_yaml(read_text(source, limits.YAML_BYTES))
    except ValueError as error:
        raise InputError(source, f"not valid YAML ({error})") from error
    if not isinstance(config, dict) or "names" not in config:
        raise InputError(source, "no YOLO data.yaml: it needs 'names', and 'train' or 'val'")
    return {str(key): value for key, value in config.items()}


def _texts(value: object) -> list[str]:
    """A path, or several."""
    listed = value if isinstance(value, list) else [value]
    return [text for text in listed if isinstance(text, str) and text.strip()]


def _classes(source: Path, names: object) -> Classes:
    """Names as a list, or as a mapping from index to name without gaps."""
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise InputError(source, f"names: indices {list(names)} are not 0 to {len(names) - 1}")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(source, "names: is neither a list of class names nor a mapping of them")
    if strange := [name for name in names if type(name) not in (str, int, float)]:
        raise InputError(source, f"names: {strange[0]!r} is no text; put it in quotes")
    return named(source, [str(name) for name in names])


def _images(source: Path, root: Path, parts: list[str]) -> tuple[dict[str, Path], list[str]]:
    """Image files by id, and what cannot be used.

    One folder: ids are relative to it. Else they are relative to the data set, without ``images/``.
    """
    if len(parts) == 1 and (folder := _folder(source, root, parts[0])).is_dir():
        return images_in(folder)
    images: dict[str, Path] = {}
    problems = list[str]()
    for text in parts:
        place = _folder(source, root, text)
        listed = files_in(place, SUFFIXES) if place.is_dir() else _listed(place, root)
        for path in listed:
            relative = path.relative_to(root).as_posix()
            name = image_id_of(relative.removeprefix("images/"))
            if images.setdefault(name, path) != path:
                problems.append(f"{path}: same name as {images[name].name}; it is left out")
    return images, problems


def _folder(source: Path, root: Path, text: str) -> Path:
    """A folder or list file of a split; Roboflow writes ``../train`` for ``train``.

    Raises:
        InputError: the path leaves the data set.
        MissingInputError: there is nothing.
    """
    inner = text.strip()
    while inner.startswith("../") and (root / inner.removeprefix("../")).exists():
        inner = inner.removeprefix("../")
    path = within(root, inner, source)
    if not path.exists():
        raise MissingInputError(f"{source}: names {text!r}, but there is no {path}.")
    return path


def _listed(source: Path, root: Path) -> list[Path]:
    """Paths of a list file, relative to it or to the data set.

    Raises:
        InputError: a path leaves the data set, or there is no such image; names the line.
    """
    refuse_leaving(source, root)
    found = []
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        if not line.strip():
            continue
        beside = within(root, str(source.parent.relative_to(root) / line.strip()), source, number)
        path = beside if beside.is_file() else within(root, line, source, number)
        if not path.is_file():
            raise InputError(source, f"there is no image {line.strip()!r}", number)
        found.append(path)
    return found


def _unmatched(root: Path, images: Collection[Path], parts: list[str]) -> list[str]:
    """Label files beside those of folders of images that belong to none of them, in one line."""
    wanted = {_label_of(root, image) for image in images}
    shared = {image.parent for image in images}  # where other texts lie too
    folders = {label.parent for label in wanted} - shared
    if not all((root / part).is_dir() for part in parts):
        return []
    lost = [p for f in folders if f.is_dir() for p in files_in(f, [".txt"]) if p not in wanted]
    return [f"{min(lost)}: labels no image ({len(set(lost))} such files)"] if lost else []


def _label_of(root: Path, image: Path) -> Path:
    """Label file of an image: the last folder ``images`` of its path replaced by ``labels``."""
    folders = list(image.relative_to(root).parent.parts)
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        folders[last] = "labels"
    return root.joinpath(*folders, image.name).with_suffix(".txt")
