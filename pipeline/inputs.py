"""Inputs of stages that may come from elsewhere: crop windows and detections."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dmnet.core.boxes import Window
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import InputError, MissingInputError, StaleInputError
from dmnet.core.files import Stamp, digest, file_digest, stamp
from dmnet.core.finished import Record
from dmnet.core.formats import crops as crop_format
from dmnet.core.formats import parts
from dmnet.core.formats.coco_results import doubts, read_results
from dmnet.core.formats.crops import CropSet, Parent
from dmnet.core.images import read_image
from dmnet.core.journal import read_header, read_journal
from dmnet.core.records import Crop, Detections, Size
from dmnet.core.spread import place
from dmnet.pipeline.chain import check_elsewhere, command, require
from dmnet.pipeline.context import Context, Upstream

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundCrops:
    """Crop windows and what is known about how they were made."""

    crops: CropSet
    path: Path
    source: str
    """``true``, ``predicted``, ``folder``, ``none`` (maps not used) or ``foreign``."""
    label_bound: float
    """Visible share from which on an object is labelled in a crop."""
    upstream: tuple[Upstream, ...] = ()
    """The artifact of ``crop``, where it is this run's."""
    notes: tuple[str, ...] = ()
    """What is to be said about them."""

    @property
    def ids(self) -> str:
        """Digest of all ids: other ids, other result files."""
        rows = [[p.id, p.file_name, p.size] for p in self.crops.parents]
        crops = [[c.id, c.file_name, c.parent_id, c.window] for c in self.crops.crops]
        return digest([rows, crops])


def load_crops(context: Context, instead: str = "") -> FoundCrops:
    """Crops given with ``CROPS=``, or those of the stage ``crop``.

    Raises:
        MissingInputError: neither is there.
        StaleInputError: those of ``crop`` do not belong to the inputs at hand.
        InputError: the file is unusable.
    """
    upstream: tuple[Upstream, ...] = ()
    if context.crops is None:
        upstream = (require(context, "crop", instead=instead, sums=True),)
        path = upstream[0].folder / "crops.json"
    else:
        path = context.crops / "crops.json" if context.crops.is_dir() else context.crops
        if not path.is_file():
            raise MissingInputError(
                f"CROPS={context.crops}: no such file. Give a crops.json, or the folder that holds "
                "one (its form is in the README under 'bring your own')."
            )
        check_elsewhere(path.parent, "crop")
    crops = context.once(("crops", path), lambda: crop_format.read(path))
    known = {parent.image_id for parent in crops.parents}
    lost = [e.image_id for e in context.dataset.entries if e.image_id not in known]
    notes = (
        f"{path}: {len(lost)} of the split's {len(context.dataset)} images are not in it and are "
        f"left out (such as {lost[0]})",
    ) if lost else ()  # fmt: skip
    header = read_header(path.parent) or {}
    config = header.get("config", {})
    bound = 1.0 if config.get("preset") == "reference" else config.get("min_visible", 0.5)
    source = header.get("facts", {}).get("density", "foreign")
    return FoundCrops(crops, path, source, bound, upstream, notes)


@dataclass(frozen=True)
class Foreign:
    """Detections made elsewhere."""

    whole: Mapping[int, Detections]
    """Of whole images by the image's number."""
    crops: Mapping[int, Detections]
    """Of crops by the crop's number."""
    ids: Mapping[str, tuple[int, list[int]]]
    """Numbers of every image and of its crops, by image id."""

    def of(self, image_id: str) -> tuple[Detections, list[Detections]]:
        """Whole-image and crop detections of an image."""
        number, crops = self.ids[image_id]
        none = Detections.empty()
        return self.whole.get(number, none), [self.crops.get(crop, none) for crop in crops]


@dataclass(frozen=True)
class FoundDetections:
    """Where the detections of each image are."""

    folder: Path
    foreign: Foreign | None = None
    """Those that were made elsewhere."""
    aside: frozenset[str] = frozenset()
    """Items that ``detect`` set aside; what it wrote for them before is out of date."""
    upstream: tuple[Upstream, ...] = ()
    """The artifact of ``detect``, where it is this run's."""

    def item_inputs(self, image_id: str) -> tuple[dict[str, Path], Any]:
        """Input files and facts that stand for one image's detections in an item's key."""
        if self.foreign is None:
            files = {part: detected_file(self.folder, part, image_id) for part in PARTS}
            return files, "set aside" if self._is_aside(image_id) else None
        whole, crops = self.foreign.of(image_id)
        return {}, digest([parts.write([whole, *crops]).decode()])

    def read(
        self, image_id: str, size: Size, windows: Sequence[Window]
    ) -> tuple[Detections, list[Detections]]:
        """Detections on the whole image of a size, and on each window in the given order.

        Raises:
            InputError: they are not there, unusable, or of another image size or other windows.
        """
        if self.foreign is not None:
            return self.foreign.of(image_id)
        if self._is_aside(image_id):
            raise InputError(detected_file(self.folder, "whole", image_id), "detect set it aside")
        height, width = size
        found = [
            self._by_window("whole", image_id, [(0, 0, width, height)]),
            self._by_window("crops", image_id, windows),
        ]
        return found[0][0], found[1]

    def _by_window(self, part: str, image_id: str, windows: Sequence[Window]) -> list[Detections]:
        path = detected_file(self.folder, part, image_id)
        found = parts.read_windows(path)
        lost = [window for window in windows if window not in found]
        if lost:
            raise InputError(path, f"holds no detections of the window {lost[0]}; run detect")
        return [found[window] for window in windows]

    def _is_aside(self, image_id: str) -> bool:
        return not self.aside.isdisjoint(detected_item(part, image_id) for part in PARTS)


PARTS = ("whole", "crops")
"""What ``detect`` looks at: the whole image, and its crops."""


def detected_item(part: str, image_id: str) -> str:
    """Item of ``detect`` for one part of an image."""
    return f"{part}/{image_id}"


def detected_file(folder: Path, part: str, image_id: str) -> Path:
    """File of the stage ``detect`` with the detections of one part of an image."""
    return place(folder, f"{part}/{image_id}.json")


def load_detections(context: Context, crops: CropSet) -> FoundDetections:
    """Detections given with ``DETECTIONS=``, or those of the stage ``detect``.

    A foreign folder holds ``results_images.json`` and ``results_crops.json``, COCO results whose
    image ids are the ids of ``parents`` and of ``images`` in ``crops.json``; one of the two may be
    absent.

    Raises:
        MissingInputError: neither is there.
        StaleInputError: those of ``detect`` do not belong to the inputs at hand.
        InputError: a file is unusable.
    """
    if context.detections is None:
        upstream = require(
            context, "detect", instead="or give results made elsewhere: DETECTIONS=folder"
        )
        return FoundDetections(upstream.folder, None, upstream.aside, (upstream,))
    if read_header(context.detections):
        return _of_another_run(context, context.detections, crops)
    images = context.detections / "results_images.json"
    cuts = context.detections / "results_crops.json"
    if not (images.is_file() or cuts.is_file()):
        raise MissingInputError(
            f"DETECTIONS={context.detections}: holds neither results_images.json nor "
            "results_crops.json (COCO results; ids as in crops.json, see the README)."
        )
    classes = context.dataset.classes
    whole = _results(images, {p.id: p.size for p in crops.parents}, classes)
    found = _results(cuts, {c.id: Crop("", c.window).size for c in crops.crops}, classes)
    by_parent = crops.by_parent()
    ids = {p.image_id: (p.id, [c.id for c in by_parent[p.image_id]]) for p in crops.parents}
    return FoundDetections(context.detections, Foreign(whole, found, ids))


def _results(path: Path, sizes: Mapping[int, Size], classes: Classes) -> Mapping[int, Detections]:
    """Results of images of known sizes, none without the file; what is doubtful is logged."""
    found = read_results(path, sizes, classes=classes) if path.is_file() else {}
    for text in doubts((each, sizes[number]) for number, each in found.items()):
        _log.warning("%s: %s", path, text)
    return found


def _check_classes(context: Context, folder: Path) -> None:
    """Refuse detections that were made for a data set of other classes."""
    made = (read_header(folder) or {}).get("facts", {}).get("classes")
    own = context.dataset.classes.facts.get("classes")
    if made != own:
        names = ", ".join(name for _, name in made) if made else str(VISDRONE)
        raise MissingInputError(
            f"{folder}: holds detections of the classes {names}, the data set has "
            f"{context.dataset.classes}. Detect again: {command(context, 'detect')}"
        )


def _of_another_run(context: Context, folder: Path, crops: CropSet) -> FoundDetections:
    """Detections of another run, if they were made on these images and windows.

    Raises:
        StaleInputError: they were not.
    """
    check_elsewhere(folder, "detect")
    _check_classes(context, folder)
    records = read_journal(folder)
    images = context.dataset.images
    cut = crops.windows()
    for parent in crops.parents:
        height, width = parent.size
        looked = {"whole": [(0, 0, width, height)], "crops": cut[parent.image_id]}
        for part, windows in looked.items():
            record = records.get(detected_item(part, parent.image_id))
            if record is None or not record.error:
                _check_belongs(folder, record, parent, images.get(parent.image_id), windows)
    return FoundDetections(
        folder, None, frozenset(name for name, record in records.items() if record.error)
    )


def _check_belongs(
    folder: Path, record: Record | None, parent: Parent, image: Path | None,
    windows: Sequence[Window],
) -> None:  # fmt: skip
    """Make sure that a record of ``detect`` is of this image and these windows.

    Raises:
        StaleInputError: it is not.
    """
    known = [] if record is None else (record.value or {}).get("windows", [])
    if record is None or not {tuple(window) for window in known}.issuperset(windows):
        why = f"was not made on the image {parent.image_id} with the windows at hand"
    elif image is not None and not same_file(record.inputs["image"], image):
        why = f"was made on another image {parent.image_id} than {image}"
    else:
        return
    raise StaleInputError(
        f"DETECTIONS={folder} {why}. Give the crops and the data that it was made on (CROPS=, "
        "DATA=), or leave DETECTIONS away and run detect."
    )


def same_file(known: Sequence[Any], path: Path) -> bool:
    """Whether a file is the one of a record: equal place, size and time, or else equal bytes."""
    try:
        state = path.stat()
        seen = [str(path), state.st_size, state.st_mtime_ns]
        return list(known[:3]) == seen or known[3] == file_digest(path)
    except OSError:
        return False


def readable(images: Mapping[str, Path]) -> tuple[list[str], dict[str, str]]:
    """Decode every image once: ids that can be trained on, and the reasons of the others."""
    good: list[str] = []
    aside: dict[str, str] = {}
    for image_id, path in tqdm(images.items(), "checking images", unit="item", disable=None):
        try:
            read_image(path)
        except InputError as error:
            _log.error("set aside %s: %s", image_id, error)
            aside[image_id] = str(error)
        else:
            good.append(image_id)
    return good, aside


def truth_digest(context: Context) -> str:
    """Digest of all annotation files and known sizes: other ground truth, other scores."""
    dataset = context.dataset
    entries = [(e.image_id, e.annotation) for e in dataset.with_annotation if e.annotation]
    files = {path for _, path in entries}
    made = context.once(
        ("truth", dataset.root), lambda: {path: stamp(path) for path in sorted(files)}
    )
    context.once(
        ("pictures", dataset.root),
        lambda: {path: _state(path) for path in dataset.images.values()},
    )
    rows = [[entry.image_id, entry.rows] for entry in dataset.entries if entry.rows is not None]
    other = [rows, dataset.labels.facts] if rows or dataset.labels.facts else []
    return digest([[[name, made[path][2]] for name, path in entries], dict(dataset.sizes), *other])


def _state(path: Path) -> tuple[int, int]:
    """Size and mtime of a file."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def refuse_changed_truth(context: Context) -> None:
    """Make sure that annotations and images are as when `truth_digest` was asked for, if it was.

    Sizes and the report's pictures come from the images.

    Raises:
        StaleInputError: one was changed, or is gone.
    """
    root = context.dataset.root
    truth: Mapping[Path, Stamp] = context.memo.get(("truth", root), {})
    pictures: Mapping[Path, tuple[int, int]] = context.memo.get(("pictures", root), {})
    known = itertools.chain(
        ((path, (row[0], row[1])) for path, row in truth.items()), pictures.items()
    )
    for path, before in known:
        try:
            same = _state(path) == before
        except OSError:
            same = False
        if not same:
            raise StaleInputError(
                f"{path}: changed or went away while it was worked with, so that figures made of "
                "it would stand for other data; run the same command again."
            )
