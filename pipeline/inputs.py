"""Inputs of stages that may come from elsewhere: crop windows and detections."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dmnet.core.classes import VISDRONE
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.files import digest
from dmnet.core.formats import crops as crop_format
from dmnet.core.formats import parts
from dmnet.core.formats.coco_results import read_results
from dmnet.core.formats.crops import CropSet
from dmnet.core.images import read_image
from dmnet.core.journal import read_header, read_journal
from dmnet.core.records import Detections
from dmnet.pipeline.context import Context

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


def load_crops(context: Context, instead: str = "") -> FoundCrops:
    """Crops given with ``CROPS=``, or those of the stage ``crop``.

    Raises:
        MissingInputError: neither is there.
        InputError: the file is unusable.
    """
    if context.crops is None:
        path = context.require("crop", instead=instead) / "crops.json"
    else:
        path = context.crops / "crops.json" if context.crops.is_dir() else context.crops
        if not path.is_file():
            raise MissingInputError(
                f"CROPS={context.crops}: no such file. Give a crops.json, or the folder that holds "
                "one (its form is in the README under 'bring your own')."
            )
    crops = crop_format.read(path)
    known = {parent.image_id for parent in crops.parents}
    lost = [e.image_id for e in context.dataset.entries if e.image_id not in known]
    if lost:
        _log.warning(
            "%s: %d of the split's %d images are not in it and are left out (such as %s)",
            path, len(lost), len(context.dataset), lost[0],
        )  # fmt: skip
    header = read_header(path.parent) or {}
    config = header.get("config", {})
    bound = 1.0 if config.get("preset") == "reference" else config.get("min_visible", 0.5)
    source = header.get("facts", {}).get("density", "foreign")
    return FoundCrops(crops, path, source, bound)


@dataclass(frozen=True)
class FoundDetections:
    """Where the detections of each image are."""

    folder: Path
    foreign: Mapping[str, tuple[Detections, list[Detections]]] | None = None
    """Whole-image and crop detections by image id, if they were made elsewhere."""
    aside: frozenset[str] = frozenset()
    """Items that ``detect`` set aside; what it wrote for them before is out of date."""

    def item_inputs(self, image_id: str) -> tuple[dict[str, Path], Any]:
        """Input files and facts that stand for one image's detections in an item's key."""
        if self.foreign is None:
            names = {"whole": "whole", "crops": "crops"}
            files = {k: self.folder / n / f"{image_id}.json" for k, n in names.items()}
            return files, "set aside" if self._is_aside(image_id) else None
        whole, crops = self.foreign[image_id]
        return {}, digest([parts.write([whole, *crops]).decode()])

    def read(self, image_id: str) -> tuple[Detections, list[Detections]]:
        """Detections on the whole image, and on each of its crops in order.

        Raises:
            InputError: they are not there or unusable.
        """
        if self.foreign is not None:
            return self.foreign[image_id]
        if self._is_aside(image_id):
            raise InputError(self.folder / "whole" / f"{image_id}.json", "detect set it aside")
        whole = parts.read(self.folder / "whole" / f"{image_id}.json")
        return whole[0], parts.read(self.folder / "crops" / f"{image_id}.json")

    def _is_aside(self, image_id: str) -> bool:
        return not self.aside.isdisjoint((f"whole/{image_id}", f"crops/{image_id}"))


def load_detections(context: Context, crops: CropSet) -> FoundDetections:
    """Detections given with ``DETECTIONS=``, or those of the stage ``detect``.

    A foreign folder holds ``results_images.json`` and ``results_crops.json``, COCO results whose
    image ids are the ids of ``parents`` and of ``images`` in ``crops.json``; one of the two may be
    absent.

    Raises:
        MissingInputError: neither is there.
        InputError: a file is unusable.
    """
    if context.detections is None or read_header(context.detections):
        folder = context.detections or context.require(
            "detect", instead="or give results made elsewhere: DETECTIONS=folder"
        )
        _check_classes(context, folder)
        records = read_journal(folder).items()
        return FoundDetections(folder, aside=frozenset(name for name, r in records if r.error))
    images = context.detections / "results_images.json"
    cuts = context.detections / "results_crops.json"
    if not (images.is_file() or cuts.is_file()):
        raise MissingInputError(
            f"DETECTIONS={context.detections}: holds neither results_images.json nor "
            "results_crops.json (COCO results; ids as in crops.json, see the README)."
        )
    classes = context.dataset.classes
    whole, found = (
        read_results(path, {entry.id for entry in listed}, classes=classes)
        if path.is_file()
        else {}
        for path, listed in ((images, [*crops.parents]), (cuts, [*crops.crops]))
    )
    by_parent = crops.by_parent()
    empty = Detections.empty()
    foreign = {
        p.image_id: (
            whole.get(p.id, empty),
            [found.get(crop.id, empty) for crop in by_parent[p.image_id]],
        )
        for p in crops.parents
    }
    return FoundDetections(context.detections, foreign)


def _check_classes(context: Context, folder: Path) -> None:
    """Refuse detections that were made for a data set of other classes."""
    made = (read_header(folder) or {}).get("facts", {}).get("classes")
    own = context.dataset.classes.facts.get("classes")
    if made != own:
        names = ", ".join(name for _, name in made) if made else str(VISDRONE)
        raise MissingInputError(
            f"{folder}: holds detections of the classes {names}, the data set has "
            f"{context.dataset.classes}. Detect again: {context.command('detect')}"
        )


def readable(images: Mapping[str, Path]) -> tuple[list[str], dict[str, str]]:
    """Decode every image once: ids that can be trained on, and the reasons of the others."""
    good: list[str] = []
    aside: dict[str, str] = {}
    for image_id, path in tqdm(images.items(), desc="checking images", unit="item"):
        try:
            read_image(path)
        except InputError as error:
            _log.error("set aside %s: %s", image_id, error)
            aside[image_id] = str(error)
        else:
            good.append(image_id)
    return good, aside


def truth_stamp(context: Context) -> list[list[Any]]:
    """Names and states of the annotation files: other ground truth, other scores."""
    entries = context.dataset.with_annotation
    states = [(e.image_id, e.annotation.stat()) for e in entries if e.annotation is not None]
    return [[name, state.st_size, state.st_mtime_ns] for name, state in states]
