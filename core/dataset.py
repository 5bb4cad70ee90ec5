"""One split of a data set on disk: which images and labels there are, and their sizes.

Nothing is decoded here; file names are taken verbatim. The formats list themselves
(`dmnet.core.formats`); what a data set is, is recognised by what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dmnet.core import limits
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import (
    coco,
    coco_folder,
    dota,
    labelme,
    visdrone,
    visdrone_folder,
    voc,
    yolo,
)
from dmnet.core.formats.coco import image_ids
from dmnet.core.images import read_size
from dmnet.core.links import without_leaving
from dmnet.core.listing import Entry, Format, Listing, canonical_split
from dmnet.core.memory import uncollected
from dmnet.core.plugins import find, is_outside
from dmnet.core.records import Annotations, Size
from dmnet.core.sizes import read_sizes

SPLITS = ("train", "val", "test-dev", "test-challenge")
"""The splits of VisDrone-DET; other data sets have their own."""

FORMATS: dict[str, Format] = {
    "yolo": Format(yolo.find, yolo.read, yolo.text, "{}.txt", ".", ("ignored", "extras")),
    "voc": Format(voc.find, voc.read_labels, voc.write, "{}.xml", "images"),
    "dota": Format(dota.find, dota.read, dota.text, "labelTxt/{}.txt", "images", ("extras",)),
    "coco": Format(coco_folder.find),
    "labelme": Format(labelme.find, labelme.read, labelme.write, "{}.json", ".", ("extras",)),
    "visdrone": Format(
        None, visdrone.read_annotations, visdrone.text, "annotations/{}.txt", "images"
    ),
}
"""The formats, in the order in which they are asked; VisDrone is looked for last, in its places."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """How the labels of a data set are read; goes to worker processes."""

    format: str = "visdrone"
    classes: Classes = VISDRONE
    source: Path = Path()

    @property
    def facts(self) -> dict[str, Any]:
        """What an artifact records of it; nothing for VisDrone, as before there were others."""
        own = {} if self.format == "visdrone" else {"labels": self.format}
        return {**own, **self.classes.facts}

    def read(
        self, image_id: str, size: Size, file: Path | None, rows: Iterable[Any] | None = None
    ) -> tuple[Annotations, list[str]]:
        """Annotations of one image and warnings about single rows.

        Args:
            image_id: id of the image.
            size: ``(height, width)`` of the image.
            file: the image's own label file, or None.
            rows: else its rows of the one file of all images, as `Entry.rows` has them.

        Raises:
            InputError: the labels are damaged.
        """
        if file is not None:
            read = find(self.format, FORMATS, Format).read
            if read is None:
                raise InputError(file, f"format '{self.format}' has no label files of one image")
            return read(file, image_id, size, self.classes)
        own = [coco.Row(*row) for row in rows or ()]
        return coco.annotations_of(self.source, self.classes, image_id, size, own)


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
    labels: Labels = field(default_factory=Labels)

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.entries)

    @property
    def classes(self) -> Classes:
        """What the objects are called."""
        return self.labels.classes

    @property
    def images(self) -> dict[str, Path]:
        """Image files by image id."""
        return {e.image_id: e.image for e in self.entries if e.image is not None}

    @property
    def with_image(self) -> tuple[Entry, ...]:
        """The entries that have an image file."""
        return tuple(entry for entry in self.entries if entry.image is not None)

    @property
    def with_annotation(self) -> tuple[Entry, ...]:
        """The entries that have labels."""
        return tuple(entry for entry in self.entries if entry.annotated)

    @property
    def sizable(self) -> tuple[Entry, ...]:
        """The entries whose image has a known size, or can be asked for it."""
        sizes = self.sizes
        return tuple(
            e for e in self.entries
            if e.image is not None or e.image_id in sizes or e.size is not None
        )  # fmt: skip

    @property
    def numbers(self) -> dict[str, int]:
        """COCO image ids by file name: the data set's own, else 1-based in sorted order.

        Every image whose size can be known has one, whether or not it is annotated or readable: an
        image that a stage sets aside leaves the others' numbers as they are.
        """
        known = self.sizable
        own = {e.file_name: e.number for e in known if e.number is not None}
        return own if len(own) == len(known) else image_ids(entry.file_name for entry in known)

    def known_size(self, entry: Entry) -> Size | None:
        """``(height, width)`` from the sizes table or else from the labels, or None.

        Raises:
            InputError: no image is so large.
        """
        known = self.sizes.get(entry.image_id, entry.size)
        if known is not None and known[0] * known[1] > limits.RASTER_PIXELS:
            reason = f"{entry.image_id} is said to be {known[1]}x{known[0]}, more than any picture"
            raise InputError(self.labels.source, reason)
        return known

    def size(self, entry: Entry) -> Size:
        """``(height, width)`` of an image: the known one, or else from the image's header.

        Raises:
            InputError: there is neither, or the image is damaged.
        """
        known = self.known_size(entry)
        if known is not None:
            return known
        if entry.image is None:
            place = entry.annotation or self.root / "images" / entry.file_name
            raise InputError(place, "no image file and no row in the sizes table (--sizes)")
        return read_size(entry.image)

    def annotations(self, entry: Entry) -> tuple[Annotations, list[str]]:
        """Annotations of an image and warnings about single rows.

        Raises:
            InputError: there are no labels, or they are damaged.
        """
        if not entry.annotated:
            place = entry.image or self.root / "annotations" / f"{entry.image_id}.txt"
            raise InputError(place, f"no annotation file {entry.image_id}.txt for this image")
        size = self.size(entry)
        return self.labels.read(entry.image_id, size, entry.annotation, entry.rows)


def split_name(data: Path, split: str) -> str:
    """The data set's own name of a split; VisDrone's ``test`` is ``test-dev``."""
    if canonical_split(split) == split or recognised(data, split) is not None:
        return split
    return canonical_split(split)


def open_dataset(data: Path, split: str, sizes: Path | None = None) -> Dataset:
    """List one split.

    A YOLO ``data.yaml``, a COCO JSON, or a folder of YOLO, Pascal VOC, DOTA, COCO or LabelMe, as
    `FORMATS` recognise them. Else VisDrone, looked for in this order:
    ``data/VisDrone2019-DET-<split>``, ``data/<split>``, and ``data`` itself, whichever first holds
    a folder ``images`` or ``annotations``; then a ``data`` folder with image files directly in it.

    Args:
        data: the folder or file given by the user; ``module:name@folder`` for a format of an
            outside package.
        split: the data set's own name of it (VisDrone: ``test`` means ``test-dev``).
        sizes: CSV as `read_sizes` reads it; with it no image file is needed to know sizes.

    Raises:
        MissingInputError: no such folder or split.
        InputError: the sizes table or a label file is damaged, or labels cannot be read.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp()) / "val"
    >>> (root / "annotations").mkdir(parents=True)
    >>> _ = (root / "annotations" / "a.txt").write_text("10,10,30,20,1,4,0,0")
    >>> rows = ["split,image,width,height", "val,a,640,480"]
    >>> _ = (root / "sizes.csv").write_text(chr(10).join(rows))
    >>> dataset = open_dataset(root.parent, "val", root / "sizes.csv")
    >>> truth, _ = dataset.annotations(dataset.entries[0])
    >>> truth.size, truth.boxes.tolist()
    ((480, 640), [[10.0, 10.0, 40.0, 30.0]])
    """
    with uncollected():
        return _open(data, split, sizes)


def _open(data: Path, split: str, sizes: Path | None) -> Dataset:
    found = recognised(data, split)
    listing = found or visdrone_folder.find(data, split)
    split = split if found else canonical_split(split)
    table = {} if sizes is None else read_sizes(sizes, split)
    entries, led = without_leaving(listing, outside(data)[1])
    listing = replace(listing, entries=entries)
    lost, notes = _gaps(listing, table)
    if listing.format == "voc":
        entries = tuple(map(_with_size, entries))
    dataset = Dataset(
        split,
        listing.root,
        entries,
        (*listing.problems, *led, *lost),
        tuple(notes),
        table,
        Labels(listing.format, listing.classes, listing.source or data),
    )
    _log.info(
        "%s, split %s: %d images, %d annotated, %d classes: %s",
        listing.found, split, len(dataset.with_image), len(dataset.with_annotation),
        len(listing.classes), listing.classes,
    )  # fmt: skip
    if not (listing.entries or listing.problems):
        _log.warning("%s: nothing in split '%s': no image and no label", data, split)
    return dataset


def recognised(data: Path, split: str) -> Listing | None:
    """The split of a data set that is no VisDrone folder; None where there is none.

    Raises:
        DmnetError: as `open_dataset`.
    """
    name, place = outside(data)
    if name:
        return _list_outside(name, place, split)
    if visdrone_folder.recognised(data, split):
        return None
    finders = (each.find for each in FORMATS.values() if each.find)
    return next((found for finder in finders if (found := finder(data, split))), None)


def outside(data: Path) -> tuple[str, Path]:
    """Format and folder of data given as ``module:name@folder``; else no name, and the data.

    >>> outside(Path("my_format:CSV@data/cars"))[0], outside(Path("data/cars"))[0]
    ('my_format:CSV', '')
    """
    name, _, place = str(data).partition("@")
    return (name, Path(place)) if place and is_outside(name) else ("", data)


def absolute(data: Path) -> Path:
    """The absolute path of data, its format in front where one is given."""
    name, place = outside(data)
    return Path(f"{name}@{place.absolute()}") if name else data.absolute()


def _list_outside(name: str, place: Path, split: str) -> Listing:
    finder = find(name, FORMATS, Format).find
    listing = finder(place, split) if finder else None
    if listing is None:
        raise MissingInputError(f"{name} finds no data set with a split '{split}' in {place}.")
    return replace(listing, format=name)


def _with_size(entry: Entry) -> Entry:
    """A VOC file knows the size of its image."""
    if entry.image is not None or entry.annotation is None:
        return entry
    return replace(entry, size=voc.size_in(entry.annotation))


def _gaps(listing: Listing, sizes: Mapping[str, Size]) -> tuple[list[str], list[str]]:
    """What is missing: problems (no way to a size) and allowed gaps."""
    problems: list[str] = []
    notes: list[str] = []
    some_image = any(entry.image is not None for entry in listing.entries)
    some_label = any(entry.annotated for entry in listing.entries)
    if listing.entries and not some_image:
        notes.append("no folder 'images': sizes come from the sizes table")
    if listing.entries and not some_label:
        notes.append("no folder 'annotations': images without annotation")
    for entry in listing.entries:
        if not entry.annotated and some_label:
            notes.append(f"{entry.image}: image without annotation")
        if entry.image is None:
            known = entry.size is not None or entry.image_id in sizes or listing.format == "voc"
            place = entry.annotation or f"{listing.source}: {entry.image_id}"
            if not known:
                problems.append(f"{place}: annotation without image, and no known size")
            elif some_image:
                notes.append(f"{place}: annotation without image file")
    return problems, notes
