"""One split of a data set on disk: which images and annotation files there are, and their sizes.

Nothing is decoded here; file names are taken verbatim.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError, MissingInputError, printable
from dmnet.core.formats import visdrone
from dmnet.core.formats.coco import image_ids
from dmnet.core.images import SUFFIXES, read_size
from dmnet.core.reading import bad_name, is_whole, read_text
from dmnet.core.records import Annotations, Size

SPLITS = ("train", "val", "test-dev", "test-challenge")
"""The splits of VisDrone-DET."""


@dataclass(frozen=True)
class Entry:
    """One image of a data set; ``image_id`` is the file's name without its last suffix."""

    image_id: str
    image: Path | None
    annotation: Path | None

    @property
    def file_name(self) -> str:
        """Name of the image file; ``<image_id>.jpg`` where there is no file."""
        return f"{self.image_id}.jpg" if self.image is None else self.image.name


@dataclass(frozen=True)
class Dataset:
    """One split, entries sorted by file name.

    ``problems`` are files that cannot be used as they are (two images of one name, an annotation
    without image and size); ``notes`` are gaps that are allowed (no annotation, no image file).
    """

    split: str
    root: Path
    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, Size] = field(default_factory=dict)
    classes: Classes = VISDRONE

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.entries)

    @property
    def with_image(self) -> tuple[Entry, ...]:
        """The entries that have an image file."""
        return tuple(entry for entry in self.entries if entry.image is not None)

    @property
    def with_annotation(self) -> tuple[Entry, ...]:
        """The entries that have an annotation file."""
        return tuple(entry for entry in self.entries if entry.annotation is not None)

    @property
    def numbers(self) -> dict[str, int]:
        """COCO image ids by file name, 1-based in sorted order.

        Every image whose size can be known has one, whether or not it is annotated or readable: an
        image that a stage sets aside leaves the others' numbers as they are.
        """
        known = (e for e in self.entries if e.image is not None or e.image_id in self.sizes)
        return image_ids(entry.file_name for entry in known)

    def size(self, entry: Entry) -> Size:
        """``(height, width)`` of an image, from the sizes table or else from the image's header.

        Raises:
            InputError: there is neither, or the image is damaged.
        """
        known = self.sizes.get(entry.image_id)
        if known is not None:
            return known
        if entry.image is None:
            place = entry.annotation or self.root / "images" / entry.file_name
            raise InputError(place, "no image file and no row in the sizes table (--sizes)")
        return read_size(entry.image)

    def annotations(self, entry: Entry) -> tuple[Annotations, list[str]]:
        """Annotations of an image and warnings about single rows, see `visdrone`.

        Raises:
            InputError: there is no annotation file, or it is damaged.
        """
        if entry.annotation is None:
            place = entry.image or self.root / "annotations" / f"{entry.image_id}.txt"
            raise InputError(place, f"no annotation file {entry.image_id}.txt for this image")
        return visdrone.read_annotations(entry.annotation, entry.image_id, self.size(entry))


def canonical_split(split: str) -> str:
    """The official name of a split: ``test`` means ``test-dev``."""
    return "test-dev" if split == "test" else split


def open_dataset(data: Path, split: str, sizes: Path | None = None) -> Dataset:
    """List one split.

    Looked for in this order: ``data/VisDrone2019-DET-<split>``, ``data/<split>``, and ``data``
    itself, whichever first holds a folder ``images`` or ``annotations``; then a ``data`` folder
    with image files directly in it (``test`` means ``test-dev``).

    Args:
        data: the folder given by the user.
        split: ``train``, ``val``, ``test-dev``, ``test-challenge``, ``test`` or a folder's name.
        sizes: CSV with the columns ``split,image,width,height`` (image without suffix); with it
            no image file is needed to know sizes.

    Raises:
        MissingInputError: no such folder.
        InputError: the sizes table is damaged.
    """
    root, images, annotations = _find(data, split)
    table = {} if sizes is None else read_sizes(sizes, split)
    pictures, problems = _by_stem(images, SUFFIXES)
    texts, more = _by_stem(annotations, frozenset({".txt"}))
    entries = [
        Entry(stem, pictures.get(stem), texts.get(stem)) for stem in pictures.keys() | texts.keys()
    ]
    entries.sort(key=lambda entry: (entry.file_name, entry.image_id))
    lost, notes = _gaps(entries, images, annotations, table)
    return Dataset(
        canonical_split(split),
        root,
        tuple(entries),
        (*problems, *more, *lost),
        tuple(notes),
        table,
    )


def _find(data: Path, split: str) -> tuple[Path, Path | None, Path | None]:
    """Root of the split and its folders of images and of annotations."""
    names = dict.fromkeys([canonical_split(split), split])
    roots = [data / f"VisDrone2019-DET-{name}" for name in names]
    roots += [data / name for name in names] + [data]
    for root in roots:
        images, annotations = root / "images", root / "annotations"
        if images.is_dir() or annotations.is_dir():
            return (
                root,
                images if images.is_dir() else None,
                annotations if annotations.is_dir() else None,
            )
    if data.is_dir() and any(path.suffix.lower() in SUFFIXES for path in data.iterdir()):
        return data, data, None
    looked = ", ".join(str(root / "images") for root in roots)
    raise MissingInputError(
        f"no images or annotations of split '{split}' in {data}: looked for {looked} (and for "
        f"'annotations' beside them). Give the folder that holds them (DATA=path), or fetch "
        f"VisDrone with `make data`."
    )


def _by_stem(folder: Path | None, suffixes: frozenset[str]) -> tuple[dict[str, Path], list[str]]:
    """Files of a folder by name without suffix; the first in name order wins."""
    found: dict[str, Path] = {}
    problems: list[str] = []
    if folder is None:
        return found, problems
    with os.scandir(folder) as scan:
        names = sorted(item.name for item in scan)
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        if not stem or name.startswith(".") or dot + suffix.lower() not in suffixes:
            continue
        path = folder / name
        if why := bad_name(name) or _not_a_file(path):
            problems.append(printable(f"{path}: its name {why}; it is left out"))
        elif stem in found:
            problems.append(f"{path}: same name as {found[stem].name}; {name} is left out")
        else:
            found[stem] = path
    return found, problems


def _not_a_file(path: Path) -> str:
    """Why a path cannot be read; empty for a regular file, also behind a symbolic link."""
    try:
        return "" if path.is_file() else "is no regular file's"
    except OSError as error:  # a link that leads back to itself
        return f"leads nowhere ({error.strerror})"


def _gaps(
    entries: Iterable[Entry],
    images: Path | None,
    annotations: Path | None,
    sizes: Mapping[str, Size],
) -> tuple[list[str], list[str]]:
    """What is missing: problems (no way to a size) and allowed gaps."""
    problems: list[str] = []
    notes: list[str] = []
    if images is None:
        notes.append("no folder 'images': sizes come from the sizes table")
    if annotations is None:
        notes.append("no folder 'annotations': images without annotation")
    for entry in entries:
        if entry.annotation is None and annotations is not None:
            notes.append(f"{entry.image}: image without annotation")
        if entry.image is None and entry.image_id not in sizes:
            problems.append(f"{entry.annotation}: annotation without image, and no known size")
        elif entry.image is None and images is not None:
            notes.append(f"{entry.annotation}: annotation without image file")
    return problems, notes


def read_sizes(path: Path, split: str) -> dict[str, Size]:
    """Read a sizes table: ``(height, width)`` by image of one split.

    Raises:
        InputError: the columns ``split,image,width,height`` are not there, a side is not a whole
            number above 0, or an image occurs twice with different sizes; names the line.
    """
    rows = csv.DictReader(io.StringIO(read_text(path)))
    needed = ("split", "image", "width", "height")
    if not set(needed) <= set(rows.fieldnames or ()):
        raise InputError(path, f"columns {','.join(needed)} are needed in the first line", 1)
    wanted = canonical_split(split)
    sizes: dict[str, Size] = {}
    try:
        for row in rows:
            if canonical_split(row["split"] or "") != wanted:
                continue
            size = _size(path, row, rows.line_num)
            if sizes.setdefault(row["image"], size) != size:
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
