"""The layout of VisDrone-DET: which images and annotation files a split has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from sys import intern

from dmnet.core.classes import VISDRONE
from dmnet.core.errors import InputError, MissingInputError, printable
from dmnet.core.images import SUFFIXES
from dmnet.core.listing import (
    CLASS_FILE,
    Entry,
    Listing,
    canonical_split,
    listed_classes,
    not_a_file,
)
from dmnet.core.reading import bad_name


def find(data: Path, split: str) -> Listing:
    """A split in the layout of VisDrone, or images alone.

    Raises:
        MissingInputError: there is none.
        InputError: labels of another format lie beside the images.
    """
    root, images, annotations = _folders(data, split)
    pictures, problems, linked = _by_stem(images, SUFFIXES, deep=images != root)
    texts, more, led = _by_stem(annotations, frozenset({".txt"}))
    folders = () if linked or led else tuple(each for each in (images, annotations) if each)
    if not texts:
        _refuse_unread(data, root, images, annotations)
    stems = dict.fromkeys([*pictures, *texts])
    entries = [Entry(stem, pictures.get(stem), texts.get(stem)) for stem in stems]
    entries.sort(key=lambda entry: (entry.file_name, entry.image_id))
    own = [place for place in (data, root) if (place / CLASS_FILE).is_file()]
    classes = listed_classes(own[0], set) if own else VISDRONE
    found = "VisDrone folder" if annotations is not None else "folder of images without labels"
    return Listing(
        "visdrone", f"{found} ({root.name or root})", root, tuple(entries), classes,
        problems=(*problems, *more), folders=folders,
    )  # fmt: skip


def _refuse_unread(data: Path, root: Path, images: Path | None, annotations: Path | None) -> None:
    """Stop where labels of another format lie there unread.

    Raises:
        InputError: names the format and how it is given.
    """
    places = {
        "YOLO labels": (root / "labels", "**/*.txt", "a data.yaml with the class names"),
        "YOLO or other text labels": (images, "**/*.txt", "a data.yaml with the class names"),
        "XML labels": (images, "**/*.xml", "the Pascal VOC layout (Annotations/, JPEGImages/)"),
        "JSON labels": (annotations, "**/*.json", "the JSON file itself (DATA=file.json)"),
        "JSON files": (images, "**/*.json", "the COCO file itself (DATA=file.json)"),
        "JSON files beside them": (root, "*.json", "the COCO file itself (DATA=file.json)"),
    }
    for name, (place, pattern, way) in places.items():
        found = next(iter(sorted(place.glob(pattern))), None) if place else None
        if found is not None:
            raise InputError(
                data,
                f"holds images and {name} ({found.relative_to(data)}), but no data set that can be "
                f"read: VisDrone has annotations/*.txt. Give {way}",
            )


def recognised(data: Path, split: str) -> bool:
    """Whether a split has VisDrone's annotations."""
    for root in roots(data, split):
        with suppress(OSError), os.scandir(root / "annotations") as scan:
            if any(item.name.endswith(".txt") for item in scan):
                return True
    return False


def roots(data: Path, split: str) -> list[Path]:
    """Where a split in the layout of VisDrone may lie."""
    names = dict.fromkeys([canonical_split(split), split])
    found = [data / f"VisDrone2019-DET-{name}" for name in names]
    return found + [data / name for name in names] + [data]


def _folders(data: Path, split: str) -> tuple[Path, Path | None, Path | None]:
    """Root of the split and its folders of images and of annotations."""
    places = roots(data, split)
    for root in places:
        images, annotations = root / "images", root / "annotations"
        if images.is_dir() or annotations.is_dir():
            return (
                root,
                images if images.is_dir() else None,
                annotations if annotations.is_dir() else None,
            )
    if data.is_dir() and any(path.suffix.lower() in SUFFIXES for path in data.iterdir()):
        return data, data, None
    looked = ", ".join(str(root / "images") for root in places)
    raise MissingInputError(
        f"no images or annotations of split '{split}' in {data}: looked for {looked} (and for "
        f"'annotations' beside them). Give the folder that holds them (DATA=path), or fetch "
        f"VisDrone with `make data`."
    )


def _files(folder: Path, deep: bool, below: str = "") -> Iterator[tuple[str, bool]]:
    """Path of every file that is not hidden, and whether it is a regular one, no link."""
    with os.scandir(folder / below) as scan:
        for item in scan:
            if item.name.startswith("."):
                continue
            if deep and item.is_dir(follow_symlinks=False):
                yield from _files(folder, deep, f"{below}{item.name}/")
            else:
                yield below + item.name, item.is_file(follow_symlinks=False)


def _by_stem(
    folder: Path | None, suffixes: frozenset[str], *, deep: bool = True
) -> tuple[dict[str, Path], list[str], bool]:
    """Files of a folder (``deep``: and below it) by path without suffix; the first in order wins.

    Returns:
        The files, a problem for each one left out, and whether one is a symbolic link.
    """
    found: dict[str, Path] = {}
    problems: list[str] = []
    if folder is None:
        return found, problems, False
    files = dict(_files(folder, deep))
    linked = False
    for name in sorted(files):
        stem, dot, suffix = name.rpartition(".")
        if not stem or dot + suffix.lower() not in suffixes:
            continue
        path = folder / name
        linked |= not files[name]
        if why := bad_name(name) or ("" if files[name] else not_a_file(path)):
            problems.append(printable(f"{path}: its name {why}; it is left out"))
        elif stem in found:
            problems.append(f"{path}: same name as {found[stem].name}; {name} is left out")
        else:
            found[intern(stem)] = path
    return found, problems, linked
