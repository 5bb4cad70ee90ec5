"""Stage ``convert``: VisDrone txt -> VOC XML -> COCO JSON, and YOLO txt; images and crops."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.boxes import Window
from dmnet.core.files import digest
from dmnet.core.formats import coco, voc, yolo
from dmnet.core.formats.crops import CropSet
from dmnet.core.ranges import Settings, Share
from dmnet.core.records import Annotations
from dmnet.cropping.labels import crop_annotations
from dmnet.pipeline.context import Context, Plan
from dmnet.pipeline.inputs import load_crops
from dmnet.pipeline.stages.density import annotated_items, read_item

VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(Settings):
    """Which labels are written (docs/method.md, "Conversion")."""

    crops: bool = True
    """Also convert the labels of the crops; needs the artifact of ``crop``."""
    min_visible: Share | None = None
    """Share of an object that must be inside a crop to be labelled there; none: as ``crop`` has it
    (0.5; 1 in the reference preset). What is cut below becomes an ignored region."""
    ignored: bool = True
    """Keep ignored regions and others in the COCO files, marked ``iscrowd`` and ``ignore``."""


def plan(context: Context) -> Plan:
    """One VOC and one YOLO file for every annotated image and for each of its crops."""
    config = context.config("convert", Config)
    found = load_crops(context, instead="or convert the images alone: --convert.crops false") if (
        config.crops) else None  # fmt: skip
    names = {entry.image_id: entry.file_name for entry in context.dataset.with_annotation}
    bound = found.label_bound if found and config.min_visible is None else config.min_visible
    by_parent = found.crops.by_parent() if found else {}
    crop_names = found.crops.unique_names() if found else {}
    numbers = _numbers(context, found.crops if found else None)
    items = [
        Item(
            item.id,
            item.files,
            {
                **(item.facts or {}),
                "file_name": names[item.id],
                "crops": [[crop_names[c.id], c.window] for c in by_parent.get(item.id, [])],
            },
        )
        for item in annotated_items(context.dataset)
    ]
    return Plan(
        config,
        items,
        partial(convert, 1.0 if bound is None else bound),
        facts={"min_visible": bound},
        totals={"numbers": digest(numbers)},
        finish=partial(sum_up, config, numbers),
        problems=context.dataset.problems,
        notes=found.notes if found else (),
        made_from=found.upstream if found else (),
    )


def _numbers(context: Context, crops: CropSet | None) -> tuple[dict[str, int], dict[str, int]]:
    """COCO ids of images and of crops by file name, the same as in ``crops.json``."""
    images = context.dataset.numbers
    if crops is None:
        return images, {}
    parents = {parent.file_name: parent.id for parent in crops.parents}
    if parents.keys() >= images.keys():  # made elsewhere, perhaps with other ids
        images = parents
    return images, {name: crop_id for crop_id, name in crops.unique_names().items()}


def convert(min_visible: float, item: Item) -> Product:
    """VOC and YOLO files of one image and its crops."""
    annotations, warnings = read_item(item)
    files = dict(_files("", annotations, item.facts["file_name"]))
    crops: Sequence[tuple[str, Window]] = item.facts["crops"]
    for name, window in crops:
        files |= _files("crop-", crop_annotations(annotations, window, min_visible), name)
    names = [item.facts["file_name"], *(name for name, _ in crops)]
    return Product(files, {"names": names}, tuple(warnings))


def _files(kind: str, annotations: Annotations, file_name: str) -> Iterator[tuple[str, bytes]]:
    stem = PurePosixPath(file_name).stem
    yield f"{kind}voc/{stem}.xml", voc.write(annotations, file_name, f"{kind}images").encode()
    yield f"{kind}yolo/{stem}.txt", yolo.write(annotations).encode()


def sum_up(
    config: Config, numbers: tuple[dict[str, int], dict[str, int]], artifact: Artifact
) -> None:
    """Write the COCO files from the VOC files."""
    names = [record.value["names"] for record in artifact.good.values()]
    _coco(artifact, config, "", [listed[0] for listed in names], numbers[0])
    if config.crops:
        cut = [name for listed in names for name in listed[1:]]
        _coco(artifact, config, "crop-", cut, numbers[1])


def _coco(
    artifact: Artifact, config: Config, kind: str, names: list[str], ids: dict[str, int]
) -> None:
    stems = {PurePosixPath(name).stem: name for name in names}
    read = (_read_voc(artifact, kind, stem) for stem in stems)
    truth = coco.ground_truth(read, stems, ignored=config.ignored, ids=ids)
    artifact.output(f"{kind}instances.json", (json.dumps(truth) + "\n").encode())
    _log.info(
        "%sinstances.json: %d images, %d boxes",
        kind,
        len(truth["images"]),
        len(truth["annotations"]),
    )


def _read_voc(artifact: Artifact, kind: str, stem: str) -> Annotations:
    annotations, _ = voc.read(artifact.root / f"{kind}voc" / f"{stem}.xml")
    return annotations
