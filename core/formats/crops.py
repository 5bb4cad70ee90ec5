"""``crops.json``: which windows of which images are crops.

``{"parents": [{"id", "file_name", "width", "height"}], "images": [{"id", "file_name", "width",
"height", "parent_id", "window": [x1, y1, x2, y2]}]}``, windows half-open in whole pixels of the
parent. ``images`` is a COCO image list. File names are labels: what a crop shows is said by
``window`` and ``parent_id`` alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dmnet.core.boxes import Window
from dmnet.core.errors import InputError
from dmnet.core.images import image_id_of
from dmnet.core.reading import bad_name, read_json
from dmnet.core.records import Size


@dataclass(frozen=True)
class Parent:
    """An image that crops were cut from."""

    id: int
    file_name: str
    size: Size

    @property
    def image_id(self) -> str:
        """The file name without its suffix, folders included."""
        return image_id_of(self.file_name)


@dataclass(frozen=True)
class CropImage:
    """A crop: its own id and name, its parent's id, its window in the parent."""

    id: int
    file_name: str
    parent_id: int
    window: Window


@dataclass(frozen=True)
class CropSet:
    """All crops of a split: parents and crops, each in id order."""

    parents: tuple[Parent, ...]
    crops: tuple[CropImage, ...]

    def by_parent(self) -> dict[str, list[CropImage]]:
        """Crops of every parent by the parent's image id, parents without crops included."""
        names = {parent.id: parent.image_id for parent in self.parents}
        found: dict[str, list[CropImage]] = {name: [] for name in names.values()}
        for crop in self.crops:
            found[names[crop.parent_id]].append(crop)
        return found

    def windows(self) -> dict[str, list[Window]]:
        """Windows of every parent's crops by the parent's image id."""
        return {name: [crop.window for crop in cut] for name, cut in self.by_parent().items()}

    def unique_names(self) -> dict[int, str]:
        """A file name for every crop by id: its own, or with its id where another has that name.

        Names are compared without suffix, for it is cut off where labels are stored.
        """
        taken = Counter(image_id_of(crop.file_name) for crop in self.crops)
        names: dict[int, str] = {}
        for crop in self.crops:
            name = own = image_id_of(crop.file_name)
            if taken[name] > 1:
                name = f"{name}_{crop.id}"
                while name in taken:
                    name += "_"
                taken[name] += 1
            suffix = PurePosixPath(crop.file_name).suffix
            names[crop.id] = crop.file_name if name == own else f"{name}{suffix}"
        return names


def rendered(parents: Iterable[Parent], crops: Iterable[CropImage]) -> Iterator[str]:
    """Render the file piece by piece, one image a line: parents and crops, each in id order."""
    yield '{"parents": ['
    yield from _lines(
        {"id": p.id, "file_name": p.file_name, "width": p.size[1], "height": p.size[0]}
        for p in parents
    )
    yield '],\n"images": ['
    yield from _lines(
        {
            "id": c.id,
            "file_name": c.file_name,
            "width": c.window[2] - c.window[0],
            "height": c.window[3] - c.window[1],
            "parent_id": c.parent_id,
            "window": list(c.window),
        }
        for c in crops
    )
    yield "]}\n"


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for index, row in enumerate(rows):
        yield f"{',' + chr(10) if index else ''}{json.dumps(row)}"


def read(path: Path) -> CropSet:
    """Read and check a file, ours or one made elsewhere.

    Raises:
        InputError: not JSON, a field is missing, an id or a parent's name occurs twice, a parent is
            unknown, or a window is empty or leaves its parent.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not {"parents", "images"} <= data.keys():
        raise InputError(path, "not a crop file: 'parents' and 'images' are needed")
    for section in ("parents", "images"):
        if not isinstance(data[section], list):
            raise InputError(path, f"{section} is not a list")
    parents = [_parent(path, index, row) for index, row in enumerate(data["parents"])]
    known = {parent.id: parent for parent in parents}
    if len(known) < len(parents):
        raise InputError(path, "two parents have the same id")
    if len({parent.image_id for parent in parents}) < len(parents):
        raise InputError(path, "two parents have the same name (file_name without its suffix)")
    crops = [_crop(path, index, row, known) for index, row in enumerate(data["images"])]
    if len({crop.id for crop in crops}) < len(crops):
        raise InputError(path, "two crops have the same id")
    return CropSet(tuple(parents), tuple(crops))


def _missing(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _whole(value: Any) -> int:
    """A whole number; 3.0 is one, true and "3" are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not PurePosixPath(value).stem:
        raise ValueError(f"{value!r} is not a file name")
    if why := bad_name(value):
        raise ValueError(f"file_name {value[:200]!r} {why}")
    return value


def _parent(path: Path, index: int, row: Any) -> Parent:
    try:
        size = _whole(row["height"]), _whole(row["width"])
        parent = Parent(_whole(row["id"]), _name(row["file_name"]), size)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"parents[{index}]: id, file_name, width, height are needed ({_missing(error)})"
        raise InputError(path, reason) from error
    if min(parent.size) < 1:
        raise InputError(path, f"parents[{index}]: width and height must be above 0")
    return parent


def _crop(path: Path, index: int, row: Any, parents: Mapping[int, Parent]) -> CropImage:
    try:
        x1, y1, x2, y2 = map(_whole, row["window"])
        name, parent_id = _name(row["file_name"]), _whole(row["parent_id"])
        crop = CropImage(_whole(row["id"]), name, parent_id, (x1, y1, x2, y2))
    except (KeyError, TypeError, ValueError) as error:
        needed = "id, file_name, parent_id, window of four are needed"
        reason = f"images[{index}]: {needed} ({_missing(error)})"
        raise InputError(path, reason) from error
    parent = parents.get(crop.parent_id)
    if parent is None:
        raise InputError(path, f"images[{index}]: parent_id {crop.parent_id} is not among parents")
    height, width = parent.size
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        reason = f"window {list(crop.window)} is empty or leaves its {width}x{height} parent"
        raise InputError(path, f"images[{index}]: {reason}")
    return crop
