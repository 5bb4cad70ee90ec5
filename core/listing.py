"""What a data set on disk is made of: one entry an image, and how its labels are read."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dmnet.core.classes import IGNORED_REGION, OTHERS, VISDRONE, Classes
from dmnet.core.errors import ConfigError, InputError, printable
from dmnet.core.images import SUFFIXES, image_id_of
from dmnet.core.reading import bad_name, read_text
from dmnet.core.records import Annotations, Size

Read = Callable[[Path, str, Size, Classes], tuple[Annotations, list[str]]]
"""``read(path, image_id, size, classes)`` of a format with one label file an image."""

_log = logging.getLogger(__name__)

CLASS_FILE = "classes.txt"
"""One class name a line, for formats that have no list of their own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a data set.

    ``image_id`` is the path of the image file relative to the set's images, without its suffix.
    Labels are in a file of their own (``annotation``), or are ``rows`` of one file for all.
    """

    image_id: str
    image: Path | None
    annotation: Path | None
    rows: tuple[Any, ...] | None = None
    size: Size | None = None
    number: int | None = None
    """COCO id of the image, where the data set gives one."""

    @property
    def file_name(self) -> str:
        """Path of the image file relative to the images; ``<image_id>.jpg`` where there is none."""
        suffix = ".jpg" if self.image is None else self.image.suffix
        return f"{self.image_id}{suffix}"

    @property
    def annotated(self) -> bool:
        """Whether there are labels."""
        return self.annotation is not None or self.rows is not None


@dataclass(frozen=True)
class Listing:
    """One split as it lies on disk, before it is checked.

    ``format`` is a key of `dmnet.core.dataset.FORMATS`; ``found`` says what was recognised;
    ``source`` is the one label file of all images, where there is one.
    """

    format: str
    found: str
    root: Path
    entries: tuple[Entry, ...]
    classes: Classes = VISDRONE
    source: Path | None = None
    problems: tuple[str, ...] = ()
    splits: tuple[str, ...] = field(default=())
    folders: tuple[Path, ...] = ()
    """Folders that hold all files, where none of those is a symbolic link."""


@dataclass(frozen=True)
class Format:
    """A format of data sets: how a split is found, read and written."""

    find: Callable[[Path, str], Listing | None] | None = None
    """``find(data, split)``: the split, or None where there is no data set of this format."""
    read: Read | None = None
    """None: one file has the labels of all images, see `Entry.rows`."""
    write: Callable[[Annotations, str], str] | None = None
    """``write(annotations, file_name)``: the label file of one image; None: it is not written."""
    labels: str = ""
    """Where label files go in the format's folder; ``{}`` is the image id."""
    images: str = ""
    """Where images belong, so that the folder can be given as ``DATA=``."""
    lacks: tuple[str, ...] = ()
    """What the format has no place for: ``ignored`` rows; ``extras``: truncation, occlusion and
    scores beyond 0 and 1."""


def canonical_split(split: str) -> str:
    """The official name of a split: ``test`` means ``test-dev``."""
    return "test-dev" if split == "test" else split


def not_a_file(path: Path) -> str:
    """Why a path cannot be read; empty for a regular file, also behind a symbolic link."""
    try:
        return "" if path.is_file() else "is no regular file's"
    except OSError as error:  # a link that leads back to itself
        return f"leads nowhere ({error.strerror})"


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Regular files below a folder by suffix (lower case), in the order of their paths.

    Hidden ones are left out; so are those of a name that no reader takes, with a warning.
    """
    wanted, found = frozenset(suffixes), list[Path]()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in wanted:
                continue
            if why := bad_name(name) or not_a_file(path):
                _log.warning("%s", printable(f"{path}: its name {why}; it is left out"))
            else:
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def by_id(folder: Path | None, paths: Iterable[Path]) -> tuple[dict[str, Path], list[str]]:
    """Files by relative path without suffix; of two with one id the first wins.

    Returns:
        The files, and a problem for each one left out.
    """
    found: dict[str, Path] = {}
    problems: list[str] = []
    for path in paths:
        relative = path.relative_to(folder) if folder is not None else path
        name = relative.with_suffix("").as_posix()
        if name in found:
            problems.append(f"{path}: same name as {found[name].name}; {path.name} is left out")
        else:
            found[name] = path
    return found, problems


def images_in(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Image files below a folder by image id, see `by_id`."""
    return by_id(folder, files_in(folder, SUFFIXES))


def pair(images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[Entry, ...]:
    """Entries of all images and label files, in the order of the file names."""
    entries = [Entry(name, images.get(name), labels.get(name)) for name in {**images, **labels}]
    return tuple(sorted(entries, key=lambda entry: (entry.file_name, entry.image_id)))


def within(root: Path, name: str, source: Path, line: int | None = None) -> Path:
    """``root / name``, where a file names a path; absolute paths only inside ``root``.

    Raises:
        InputError: the path leaves the folder.
    """
    path = Path(os.path.normpath(root / PurePosixPath(name.strip().replace("\\", "/"))))
    if not path.is_relative_to(Path(os.path.normpath(root))):
        reason = f"the path {name!r} leaves the data set's folder {root}; write it relative to that"
        raise InputError(source, reason, line)
    return path


def listed_classes(data: Path, names: Callable[[], set[str]]) -> Classes:
    """Classes from ``classes.txt``, else the names that occur, sorted.

    Args:
        data: folder of the data set.
        names: finds the names that occur; called only if it is needed.

    Raises:
        InputError: a name is listed twice, or there is none.
    """
    path = data / CLASS_FILE
    if path.is_file():
        lines = [line.strip() for line in read_text(path).splitlines()]
        return named(path, [line for line in lines if line])
    found = {name: VISDRONE.label_of(name) for name in names() if name.strip()}
    if set(found.values()) - {IGNORED_REGION, OTHERS} == VISDRONE.scored.keys():
        return VISDRONE
    return named(data, sorted(name for name, label in found.items() if label != IGNORED_REGION))


def named(source: Path, names: list[str], ids: tuple[int, ...] = ()) -> Classes:
    """Classes of these names.

    Raises:
        InputError: a name is listed twice, or there is none.
    """
    try:
        return Classes.of(names, ids)
    except ConfigError as error:
        raise InputError(source, f"no usable class names: {error}") from error


def id_list(path: Path) -> list[str]:
    """Image ids of a split's list file, one in the first column of each line."""
    lines = [line.split() for line in read_text(path).splitlines()]
    return [image_id_of(cells[0]) for cells in lines if cells]
