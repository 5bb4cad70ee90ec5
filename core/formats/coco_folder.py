"""COCO data sets: which JSON file is a split's ground truth, and where its images lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dmnet.core.errors import MissingInputError
from dmnet.core.formats import coco
from dmnet.core.listing import Entry, Listing, within
from dmnet.core.stubs import present


def find(data: Path, split: str) -> Listing | None:
    """List a split of a COCO file, or of a folder that holds some; None if there is none.

    A file given by name is every split. In a folder the file's name is the split's
    (``instances_val2017.json``, ``val.json``), there or in ``annotations``, or it lies in a folder
    of the split's name.

    Raises:
        InputError: the file is damaged.
        MissingInputError: no file of such a split.
    """
    if data.suffix.lower() == ".json":
        beside = data.parent
        return listing(data, beside.parent if beside.name == "annotations" else beside, split)
    files = _split_files(data)
    if not files:
        return None
    if split not in files:
        known = ", ".join(files)
        raise MissingInputError(
            f"{data}: a COCO data set without a file of the split '{split}'; it has: {known}. Give "
            "the JSON file itself (DATA=file.json), or one of these splits."
        )
    return replace(listing(files[split], data, split), splits=tuple(files))


def _split_files(data: Path) -> dict[str, Path]:
    """Ground-truth files of a folder by the name of their split."""
    found: dict[str, Path] = {}
    for path in sorted([*data.glob("*.json"), *data.glob("annotations/*.json")]):
        name = path.stem.removeprefix("instances_").removesuffix("_coco").rstrip("0123456789")
        if _looks_like_coco(path):
            found.setdefault(name.rstrip("_-.") or path.stem, path)
    for path in sorted([*data.glob("*/_annotations.coco.json"), *data.glob("*/instances.json")]):
        if path.parent.name != "annotations" and _looks_like_coco(path):
            found.setdefault(path.parent.name, path)
    return found


def _looks_like_coco(path: Path) -> bool:
    """Whether a JSON file is ground truth, from its first and last bytes."""
    if not path.is_file():
        return False
    size = path.stat().st_size
    with present(path).open("rb") as stream:
        head = stream.read(1 << 16)
        stream.seek(max(0, size - (1 << 16)))
        ends = head + stream.read()
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{" or b'"shapes"' in head:
        return False
    return sum(key in ends for key in (b'"images"', b'"annotations"', b'"categories"')) >= 2


def listing(source: Path, data: Path, split: str) -> Listing:
    """List the images of a ground-truth file; their folder is looked for beside it.

    Raises:
        InputError: the file is damaged, or names an image outside the data set.
    """
    truth = coco.read(source)
    years = [path.name for path in data.glob(f"{split}[0-9]*")]
    names = ["", "images", split, f"{split}/images", f"images/{split}"]
    names += [*years, *(f"images/{year}" for year in years)]
    places = [base / name for base in dict.fromkeys((source.parent, data)) for name in names]
    some = truth.images[:20]
    folder = next(
        (place for place in places if any((place / i.file_name).is_file() for i in some)), None
    )
    entries = []
    for image in truth.images:
        path = None if folder is None else within(folder, image.file_name, source)
        there = path if path is not None and path.is_file() else None
        entries.append(Entry(image.image_id, there, None, image.rows, image.size, image.id))
    entries.sort(key=lambda entry: (entry.file_name, entry.image_id))
    found = f"COCO data set ({source.name})"
    root = folder or source.parent
    return Listing("coco", found, root, tuple(entries), truth.classes, source)
