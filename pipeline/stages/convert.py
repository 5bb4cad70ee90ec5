"""Stage ``convert``: labels of any data set -> VOC XML -> COCO JSON, and every other format.

Images and crops. Each folder of labels becomes a data set (``DATA=``) when the images are put where
its `Format.images` says.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.boxes import Window
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.dataset import FORMATS, Labels
from dmnet.core.errors import ConfigError, InputError
from dmnet.core.files import digest
from dmnet.core.formats import coco, voc, yolo
from dmnet.core.formats.crops import CropSet
from dmnet.core.images import image_id_of
from dmnet.core.listing import CLASS_FILE, Format
from dmnet.core.plugins import Choice, find
from dmnet.core.ranges import Settings, Share
from dmnet.core.records import Annotations
from dmnet.cropping.labels import crop_annotations
from dmnet.pipeline.context import Context, Plan
from dmnet.pipeline.inputs import load_crops
from dmnet.pipeline.stages.density import annotated_items, read_item

VERSION = 1
ALWAYS = "voc"
WRITABLE = {name: each for name, each in FORMATS.items() if each.write and name != ALWAYS}
"""Formats that can be asked for."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(Settings):
    """Which labels are written (docs/method.md, "Conversion")."""

    crops: bool = True
    """Also convert the labels of the crops; needs the artifact of ``crop``."""
    min_visible: Share | None = None
    """Share of an object that must be inside a crop to be labelled there; none: as ``crop`` has it
    (0.5; 1 in the reference preset). What is cut below becomes an ignored region."""
    formats: tuple[Annotated[str, Choice(WRITABLE)], ...] = ("yolo",)
    """Formats to write besides Pascal VOC and COCO, which are always written."""
    ignored: bool = True
    """Keep ignored regions and others in the COCO files, marked ``iscrowd`` and ``ignore``."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a format that does not exist, or cannot be written.
        """
        super().__post_init__()
        for name in self.formats:
            try:
                given = find(name, WRITABLE, Format)
            except ConfigError as error:
                raise ValueError(f"formats: {error}") from error
            if given.write is None:
                raise ValueError(f"formats: {name} can be read, not written")

    @property
    def written(self) -> dict[str, Format]:
        """The formats by the folder that each is written to."""
        asked = {name.replace(":", "."): find(name, WRITABLE, Format) for name in self.formats}
        return {ALWAYS: FORMATS[ALWAYS], **asked}


def plan(context: Context) -> Plan:
    """One file a format for every annotated image and for each of its crops."""
    config = context.config("convert", Config)
    found = load_crops(context, instead="or convert the images alone: --convert.crops false") if (
        config.crops) else None  # fmt: skip
    names = {entry.image_id: entry.file_name for entry in context.dataset.with_annotation}
    bound = found.label_bound if found and config.min_visible is None else config.min_visible
    by_parent = found.crops.by_parent() if found else {}
    crop_names = found.crops.unique_names() if found else {}
    numbers = _numbers(context, found.crops if found else None)
    labels = context.dataset.labels
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
        for item in annotated_items(context.dataset, context.dataset.with_annotation)
    ]
    return Plan(
        config,
        items,
        partial(convert, config, 1.0 if bound is None else bound, labels),
        facts={"min_visible": bound, **labels.facts},
        totals={"numbers": digest(numbers)},
        finish=partial(sum_up, config, numbers, labels.classes),
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


def convert(config: Config, min_visible: float, labels: Labels, item: Item) -> Product:
    """Files of one image and its crops."""
    annotations, warnings = read_item(labels, item)
    formats = config.written
    files = dict(_files(formats, "", annotations, item.facts["file_name"]))
    crops: Sequence[tuple[str, Window]] = item.facts["crops"]
    height, width = annotations.size
    for name, window in crops:
        if window[2] > width or window[3] > height:
            reason = f"the window {window} leaves the {width}x{height} image; was it another's?"
            raise InputError(item.id, reason)
        shown = crop_annotations(annotations, window, min_visible)
        files |= _files(formats, "crop-", shown, name)
    names = [item.facts["file_name"], *(name for name, _ in crops)]
    extras = annotations.truncation + annotations.occlusion + (annotations.score > 1)
    lost = {"ignored": int(annotations.ignore.sum()), "extras": int((extras != 0).sum())}
    return Product(files, {"names": names, "lost": lost}, tuple(warnings))


def _files(
    formats: Mapping[str, Format], kind: str, annotations: Annotations, file_name: str
) -> Iterator[tuple[str, bytes]]:
    name = image_id_of(file_name)
    for folder, each in formats.items():
        path = f"{kind}{folder}/{each.labels.format(name)}"
        if folder == ALWAYS:
            yield path, voc.write(annotations, file_name, f"{kind}images").encode()
        elif each.write is not None:
            yield path, each.write(annotations, file_name).encode()


def sum_up(
    config: Config,
    numbers: tuple[dict[str, int], dict[str, int]],
    classes: Classes,
    artifact: Artifact,
) -> None:
    """Write the COCO files from the VOC files, and the lists of classes."""
    values = [record.value for record in artifact.good.values()]
    names = [value["names"] for value in values]
    _coco(artifact, config, "", [listed[0] for listed in names], numbers[0], classes)
    if config.crops:
        cut = [name for listed in names for name in listed[1:]]
        _coco(artifact, config, "crop-", cut, numbers[1], classes)
    for kind in ("", "crop-") if config.crops else ("",):
        for each in config.written:
            artifact.output(*_class_list(kind + each, each, classes))
    _say_losses(config, values, classes)


def _class_list(folder: str, each: str, classes: Classes) -> tuple[str, bytes]:
    """What names the classes in a format's folder."""
    if each == "yolo":
        return f"{folder}/data.yaml", yolo.write_yaml(classes).encode()
    return f"{folder}/{CLASS_FILE}", "".join(f"{name}\n" for name in classes.names).encode()


def _say_losses(config: Config, values: Sequence[Mapping[str, Any]], classes: Classes) -> None:
    """Name what the formats could not hold, and where images belong."""
    words = {"ignored": "ignored rows", "extras": "rows with truncation, occlusion or other scores"}
    for each, form in config.written.items():
        total = {
            what: sum(value.get("lost", {}).get(what, 0) for value in values) for what in form.lacks
        }
        lost = ", ".join(f"{number} {words[what]}" for what, number in total.items() if number)
        if each == "visdrone" and classes.names != VISDRONE.names:
            lost = f"the names of the classes (they are in {CLASS_FILE})"
        _log.info(
            "%s: %s; as a data set its images belong into %s",
            each, f"no place for {lost}" if lost else "holds everything", f"{each}/{form.images}",
        )  # fmt: skip


def _coco(
    artifact: Artifact,
    config: Config,
    kind: str,
    names: list[str],
    ids: dict[str, int],
    classes: Classes,
) -> None:
    """Write a COCO file; the VOC files are read for it one by one."""
    names, boxes = sorted(names), 0

    def rows() -> Iterator[Annotations]:
        nonlocal boxes
        for name in names:
            read = _read_voc(artifact, kind, image_id_of(name), classes)
            shown = read if config.ignored else read.objects
            boxes += len(shown)
            yield shown

    sizes = ((name, voc.size_in(_voc_file(artifact, kind, image_id_of(name)))) for name in names)
    text = coco.ground_truth_json(sizes, rows(), ids, classes)
    artifact.output(f"{kind}instances.json", itertools.chain(text, [b"\n"]))
    _log.info("%sinstances.json: %d images, %d boxes", kind, len(names), boxes)


def _voc_file(artifact: Artifact, kind: str, name: str) -> Path:
    return artifact.root / f"{kind}voc" / f"{name}.xml"


def _read_voc(artifact: Artifact, kind: str, name: str, classes: Classes) -> Annotations:
    return voc.read(_voc_file(artifact, kind, name), name, classes)[0]
