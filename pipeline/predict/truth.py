"""Labels that lie beside a picture: VisDrone, YOLO with its data.yaml, Pascal VOC, LabelMe."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmnet.core import links
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.dataset import Labels
from dmnet.core.errors import InputError
from dmnet.core.formats import labelme, voc, yolo
from dmnet.core.records import Annotations, Size
from dmnet.detectors.classmap import by_name

IMAGES = ("images", "JPEGImages")
"""Folders of pictures that have a folder of labels beside them."""

PLACES = (
    ("visdrone", "annotations", ".txt"),
    ("yolo", "labels", ".txt"),
    ("voc", "Annotations", ".xml"),
    ("voc", "annotations", ".xml"),
    ("labelme", "", ".json"),
)
"""Format, the folder in the place of `IMAGES` (empty: the picture's own), suffix."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelFile:
    """The label file of one picture."""

    path: Path
    format: str


def label_file(image: Path) -> LabelFile | None:
    """The first label file of a picture in one of `PLACES`; None where there is none.

    Links are not followed, unless ``--follow-links`` says so.
    """
    image = image.resolve()
    for name, folder, suffix in PLACES:
        path = _moved(image, folder) if folder else image
        if path is None or not (file := path.with_suffix(suffix)).is_file():
            continue
        if file.resolve() != file and not links.ALLOWED.get():
            continue
        if name == "labelme" and not labelme.is_labelme(file):
            continue
        if name == "yolo" and yolo.classes_near(image) is None:
            continue
        return LabelFile(file, name)
    return None


def _moved(image: Path, folder: str) -> Path | None:
    """The path with its last folder of pictures renamed; None where it has none."""
    parts = list(image.parts)
    at = [index for index, part in enumerate(parts[:-1]) if part in IMAGES]
    if not at:
        return None
    parts[at[-1]] = folder
    return Path(*parts)


def truth_of(image: Path, size: Size, classes: Classes) -> Annotations | None:
    """The labels beside a picture in a detector's classes, by name; None where there are none.

    Objects of other classes are left out. Damaged labels are a warning, not an error.

    Args:
        image: the picture.
        size: its ``(height, width)``.
        classes: the detector's.
    """
    try:
        found = label_file(image)
        if found is None:
            return None
        labels = Labels(found.format, _classes(found, image))
        truth, _ = labels.read(image.stem, size, found.path)
    except InputError as error:
        _log.warning("no ground truth in the viewer: %s", error)
        return None
    return _translated(truth, classes)


def _classes(found: LabelFile, image: Path) -> Classes:
    """What the labels in a file are called."""
    named: dict[str, Callable[[Path], set[str]]] = {
        "voc": voc.names_in, "labelme": labelme.names_in,
    }  # fmt: skip
    if found.format in named:
        return Classes.of(sorted(named[found.format](found.path)) or VISDRONE.names)
    near = yolo.classes_near(image.resolve()) if found.format == "yolo" else None
    return near or VISDRONE


def _translated(truth: Annotations, classes: Classes) -> Annotations:
    objects = truth.objects
    names = objects.classes.scored
    labels = np.array([by_name(names[i], classes) for i in objects.labels.tolist()], np.int64)
    keep = labels >= 1
    return Annotations.of(
        truth.image_id, truth.size, objects.boxes[keep], labels[keep], classes=classes
    )
