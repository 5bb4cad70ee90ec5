"""Pascal VOC XML, one file per image.

Pixel indices are 1-based and inclusive: the half-open box ``x1, y1, x2, y2`` is written as ``xmin =
x1 + 1, ymin = y1 + 1, xmax = x2, ymax = y2``. Every row is written under the name of its label,
ignored regions too; ``difficult`` marks rows that are not to be scored, ``truncated`` and
``occluded`` are 0 or 1 as in VOC. The attributes ``score``, ``truncation`` and ``occlusion`` of
``object`` keep the exact values, so that the way back loses nothing; VOC readers skip them.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from dmnet.core import limits
from dmnet.core.boxes import as_boxes
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats.rows import fit, is_number, other_size
from dmnet.core.formats.visdrone import number
from dmnet.core.links import refuse_leaving
from dmnet.core.listing import Listing, by_id, files_in, id_list, images_in, listed_classes, pair
from dmnet.core.reading import is_whole, read_bytes, refuse_many
from dmnet.core.records import Annotations, Size

Element = Any
"""An XML element; defusedxml has no types for it."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")

_OBJECT = """\
  <object score="%d" truncation="%d" occlusion="%d">
    <name>%s</name>
    <pose>Unspecified</pose>
    <truncated>%d</truncated>
    <occluded>%d</occluded>
    <difficult>%d</difficult>
    <bndbox><xmin>%s</xmin><ymin>%s</ymin><xmax>%s</xmax><ymax>%s</ymax></bndbox>
  </object>
"""

_FILE = """\
<annotation>
  <folder>%s</folder>
  <filename>%s</filename>
  <source><database>%s</database></source>
  <size><width>%d</width><height>%d</height><depth>3</depth></size>
  <segmented>0</segmented>
%s</annotation>
"""


def write(ann: Annotations, file_name: str, folder: str = "images") -> str:
    """Render one image's annotations, every row, in their order.

    Args:
        ann: the annotations.
        file_name: name of the image file.
        folder: name of the folder the image lies in; a remark for people.
    """
    names = {label: escape(name) for label, name in ann.classes.every.items()}
    boxes = (ann.boxes + np.array([1.0, 1.0, 0.0, 0.0])).tolist()
    columns = zip(
        boxes,
        ann.labels.tolist(),
        ann.ignore.tolist(),
        ann.score.tolist(),
        ann.truncation.tolist(),
        ann.occlusion.tolist(),
        strict=True,
    )
    objects = "".join(
        _OBJECT % (score, trunc, occl, names[label], trunc > 0, occl > 0, ignore, *map(number, box))
        for box, label, ignore, score, trunc, occl in columns
    )
    source = "VisDrone-DET" if ann.classes == VISDRONE else "Unknown"
    height, width = ann.size
    return _FILE % (escape(folder), escape(file_name), source, width, height, objects)


def read(
    path: Path,
    image_id: str | None = None,
    classes: Classes = VISDRONE,
    size: Size | None = None,
) -> tuple[Annotations, list[str]]:
    """Read one file, ours or one made elsewhere; the image id is the stem of its name if None.

    Without the extra attributes, score is 0 for ``difficult`` objects, ignored regions and others,
    else 1; truncation and occlusion are ``truncated`` and ``occluded``. Boxes without area or
    outside the image are dropped or clipped as in VisDrone files.

    Returns:
        The annotations, rows in file order, and the warnings about single boxes.

    Raises:
        InputError: the file is no well-formed VOC XML, uses entities, names an unknown class, or a
            value is missing or no number; names the line of a syntax error or the object's number.
    """
    root = _parse(path)
    wide, high = ((root.findtext(f"size/{name}") or "").strip() for name in ("width", "height"))
    size = size or (_side(path, root, "height"), _side(path, root, "width"))
    objects = root.findall("object")
    refuse_many(path, len(objects))
    rows = [_row(path, element, index, classes) for index, element in enumerate(objects, start=1)]
    raw = np.round(as_boxes([row[:4] for row in rows]) - [1.0, 1.0, 0.0, 0.0], 6)
    boxes, keep, warnings = fit(raw, size, lambda i: f"{path}: object {i + 1}")
    warnings += other_size(path, wide, high, size)
    columns = np.array([row[4:] for row in rows], np.int64).reshape(len(rows), 4)
    label, score, truncation, occlusion = columns.T
    name = path.stem if image_id is None else image_id
    found = Annotations(name, size, boxes, label, score, truncation, occlusion, classes)
    return found[keep], warnings


def read_labels(
    path: Path, image_id: str, size: Size, classes: Classes
) -> tuple[Annotations, list[str]]:
    """Read one file of a data set, whose image has ``size`` whatever the file says; see `read`."""
    return read(path, image_id, classes, size)


def find(data: Path, split: str) -> Listing | None:
    """List a split of a folder with ``Annotations``; None if there is none.

    Images lie in ``JPEGImages`` (or ``images``), splits are ``ImageSets/Main/<split>.txt``; without
    them every split is the whole set. Classes come from ``classes.txt``, else from the files.

    Raises:
        InputError: a file is damaged.
        MissingInputError: no such split.
    """
    places = (data / "Annotations", data / "annotations")
    patterns = ("*.xml", "*/*.xml")
    folder = next((place for place in places[:2] for p in patterns if any(place.glob(p))), None)
    if folder is None and any(data.glob("*.xml")):
        folder = data
    if folder is None:
        return None
    labels, problems = by_id(folder, files_in(folder, [".xml"]))
    pictures = [data / name for name in ("JPEGImages", "images") if (data / name).is_dir()]
    images, more = images_in(pictures[0]) if pictures else ({}, [])
    lists = {path.stem: path for path in sorted((data / "ImageSets" / "Main").glob("*.txt"))}
    classes = listed_classes(data, lambda: set().union(*map(names_in, labels.values())))
    splits = tuple(name for name in lists if not name.startswith(classes.names))  # car_train.txt
    if lists and split not in lists:
        raise MissingInputError(
            f"{data}: a Pascal VOC data set without ImageSets/Main/{split}.txt; it has: "
            f"{', '.join(splits)}."
        )
    entries = pair(images, labels)
    if lists:
        refuse_leaving(lists[split], data)
        wanted = set(id_list(lists[split]))
        entries = tuple(entry for entry in entries if entry.image_id in wanted)
        lost = sorted(wanted - {entry.image_id for entry in entries})
        more += [f"{lists[split]}: lists {name}, which is not there" for name in lost]
    found = f"Pascal VOC data set ({folder.name}/*.xml)"
    return Listing("voc", found, data, entries, classes, problems=(*problems, *more), splits=splits)


def names_in(path: Path) -> set[str]:
    """Names of the classes that occur in a file.

    Raises:
        InputError: the file is no well-formed VOC XML.
    """
    return {(found.findtext("name") or "").strip() for found in _parse(path).findall("object")}


def size_in(path: Path) -> Size:
    """``(height, width)`` that a file gives for its image.

    Raises:
        InputError: the file is no well-formed VOC XML, or does not say it.
    """
    root = _parse(path)
    return _side(path, root, "height"), _side(path, root, "width")


def _parse(path: Path) -> Element:
    text = read_bytes(path, limits.TEXT_BYTES)
    if max(text.count(b"<"), text.count(b"=")) > limits.XML_TAGS:
        raise InputError(path, f"more than {limits.XML_TAGS:,} tags or attributes")
    try:
        root = fromstring(text, forbid_dtd=True)
    except ParseError as error:
        raise InputError(path, f"not well-formed XML ({error.msg})", error.position[0]) from error
    except DefusedXmlException as error:
        reason = f"refused: it declares a document type or entities ({error})"
        raise InputError(path, reason) from error
    except (ValueError, LookupError, MemoryError) as error:
        raise InputError(path, f"not well-formed XML ({error})") from error
    if root.tag != "annotation":
        raise InputError(path, f"no Pascal VOC file: the root is <{root.tag}>, not <annotation>")
    return root


def _side(path: Path, root: Element, name: str) -> int:
    text = (root.findtext(f"size/{name}") or "").strip()
    if not is_whole(text, 1):
        raise InputError(path, f"size/{name} {text[:80]!r} is not a whole number above 0")
    return int(text)


def _row(path: Path, element: Element, index: int, classes: Classes) -> tuple[float, ...]:
    """``xmin, ymin, xmax, ymax, label, score, truncation, occlusion`` of one object."""
    texts = {child.tag: child.text for child in element}
    tags = [child.tag for child in element]
    for tag in ("name", "bndbox"):
        if tags.count(tag) > 1:
            raise InputError(path, f"object {index}: {tags.count(tag)} elements <{tag}>, not one")
    name = (texts.get("name") or "").strip()
    label = classes.label_of(name)
    if label is None:
        known = ", ".join(classes.every.values())
        raise InputError(path, f"object {index}: class {name!r} is none of: {known}")
    corners = {child.tag: child.text or "" for child in element.find("bndbox") or ()}
    box = [_number(path, corners.get(side, ""), f"object {index}: {side}") for side in _SIDES]
    hard = _whole(path, texts.get("difficult") or "0", f"object {index}: difficult")
    scored = label in classes.scored and not hard
    defaults = {"score": str(int(scored))}
    defaults["truncation"] = texts.get("truncated") or "0"
    defaults["occlusion"] = texts.get("occluded") or "0"
    extras = [
        _whole(path, element.get(key, default), f"object {index}: {key}")
        for key, default in defaults.items()
    ]
    return (*box, label, *extras)


def _number(path: Path, text: str, name: str) -> float:
    if not is_number(text):
        raise InputError(path, f"{name} {text!r} is not a number")
    return float(text)


def _whole(path: Path, text: str, name: str) -> int:
    value = _number(path, text, name)
    if not value.is_integer() or abs(value) > 10**limits.DIGITS:
        raise InputError(path, f"{name} {text[:80]!r} is not a whole number")
    return int(value)
