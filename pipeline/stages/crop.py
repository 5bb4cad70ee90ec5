"""Stage ``crop``: crop windows of every image, and optionally the crops' pixels and labels."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from dmnet.core.artifact import Artifact, Item, Items, Product
from dmnet.core.dataset import Dataset, Labels
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.files import Stamp, digest_of_pairs, in_blocks
from dmnet.core.finished import Good
from dmnet.core.formats import crops as crop_format
from dmnet.core.formats import density_h5, visdrone
from dmnet.core.images import encode_jpeg, read_image
from dmnet.core.journal import read_header, read_journal
from dmnet.core.listing import Entry
from dmnet.core.ranges import Range
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.cropping.labels import crop_annotations, crop_file_name
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.pipeline.chain import check_elsewhere, require
from dmnet.pipeline.context import Context, Plan, Upstream
from dmnet.pipeline.stages.density import item_size, label_inputs, read_item

VERSION = 1
MOST = 0.9
"""Share of the images' pixels from which on crops of density maps are said to save little."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(CropConfig):
    """How images are cut (docs/method.md, "Cropping")."""

    write_images: bool = True
    """Write crops as JPEG files; later stages cut in memory and do not need them."""
    jpeg_quality: Annotated[int, Range(1, 100)] = 95
    """Quality of the written crops, 1 to 100."""
    map_stride: Annotated[int, Range(1, 1_024)] | None = None
    """Side of a cell of foreign maps in pixels; none: inferred from shape and image size."""


def plan(context: Context) -> Plan:
    """One list of windows for every image."""
    config = context.config("crop", Config)
    maps = density_source(context) if config.needs == "map" else None
    listed = partial(_items, context.dataset, config, maps)
    numbers = context.dataset.numbers
    items = Items(listed, context.dataset.entries, len(numbers))
    source = maps.source if maps else "none"
    notes = (
        f"crop {context.split}: windows come from ground-truth maps, so scores on them use the "
        "labels; DENSITY=predicted cuts by the network's maps",
    ) if source == "true" and context.split != "train" else ()  # fmt: skip
    known = {item.id for item in items} if maps and maps.files else set()
    elsewhere = maps.files.items() if maps else ()
    strange = [f"{p}: a map for no image of this split" for n, p in elsewhere if n not in known]
    return Plan(
        config,
        items,
        partial(cut, config, maps is not None and maps.own, context.dataset.labels),
        facts={"density": source, **context.dataset.labels.facts},
        totals={"images": digest_of_pairs((n, numbers[n]) for n in sorted(numbers))},
        finish=partial(sum_up, config, context.dataset),
        problems=(*context.dataset.problems, *strange),
        notes=notes,
        made_from=(maps.made,) if maps and maps.made else (),
    )


@dataclass(frozen=True)
class Maps:
    """The density maps that crops come from."""

    source: str
    """``true``, ``predicted`` or ``folder``"""
    folder: Path
    own: bool
    """Whether this pipeline made them."""
    made: Upstream | None = None
    """The artifact of this run that they are, unless they come from elsewhere."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Maps from elsewhere by image id."""

    def of(self, image_id: str) -> tuple[Path, dict[str, Stamp]]:
        """File of an image's map and, where this run made it, what the journal says about it."""
        if self.made is None:
            return self.files.get(image_id, self.folder / f"{image_id}.*"), {}
        head = self.made.records.head(image_id)
        if head is None or head.error:  # of one set aside since, a file may be left
            return self.folder / f"{image_id}.*", {}
        name, stamp = next(iter(head.files.items()))
        return self.folder / name, {"density": stamp}


def density_source(context: Context) -> Maps:
    """Where the maps come from.

    Raises:
        MissingInputError: the artifact or folder is not there, or holds no map.
        StaleInputError: the maps were made from other inputs than those at hand.
    """
    source = context.density or "true"
    if source not in ("true", "predicted"):
        return _from_folder(Path(source))
    if source == "true":
        made = require(context, "density")
    else:
        made = require(context, "predict-density", instead="or cut by ground truth: DENSITY=true")
    if not made.records:
        raise MissingInputError(f"{made.folder}: holds no density map.")
    if made.aside == made.records.keys():
        raise MissingInputError(_NONE_LEFT.format(made.folder))
    return Maps(source, made.folder, own=True, made=made)


_NONE_LEFT = "{}: every density map was set aside (see items.jsonl)."


def _from_folder(folder: Path) -> Maps:
    """Maps that somebody else made, or another run."""
    if not folder.is_dir():
        raise MissingInputError(
            f"DENSITY={folder}: no such folder. Give true, predicted, or a folder that holds a "
            "density map <image>.h5, .npy or .npz for every image."
        )
    header = read_header(folder)
    stage = (header or {}).get("stage", "density")
    check_elsewhere(folder, "predict-density" if stage == "predict-density" else "density")
    # an own map whose image was set aside since is out of date
    aside = read_journal(folder).aside
    found = density_h5.maps_in(folder)
    maps = {name: path for name, path in found.items() if name not in aside}
    if not maps:
        raise MissingInputError(_NONE_LEFT.format(folder))
    return Maps("folder", folder, own=header is not None, files=maps)


def _items(
    dataset: Dataset, config: Config, maps: Maps | None, entries: Iterable[Entry]
) -> Iterator[Item]:
    for entry in entries:
        files: dict[str, Path] = {}
        made: dict[str, Stamp] = {}
        facts: dict[str, Any] = {"file_name": entry.file_name}
        if maps is not None:
            files["density"], made = maps.of(entry.image_id)
        size = dataset.known_size(entry)
        if entry.image is not None and (config.write_images or size is None):
            files["image"] = entry.image
        elif size is None:
            continue  # reported as a problem by the data set
        if config.write_images or config.needs == "annotations":
            own, rows = label_inputs(entry)
            files, facts = files | own, facts | rows
        yield Item(entry.image_id, files, facts | ({"size": list(size)} if size else {}), made)


def cut(config: Config, own: bool, labels: Labels, item: Item) -> Product:
    """Windows of one image and, if asked for, pixels and labels of its crops."""
    size = item_size(item)
    annotations = None
    warnings: list[str] = []
    if "annotation" in item.files or "rows" in item.facts:
        annotations, warnings = read_item(labels, item)
    density = read_map(config, own, item, size) if "density" in item.files else None
    windows = slice_image(config, size, density, annotations)
    files: dict[str, bytes] = {}
    if config.write_images:
        files = dict(_crop_files(config, item, size, windows, annotations))
    value = {"size": list(size), "windows": windows, "file_name": item.facts["file_name"]}
    return Product(files, value, tuple(warnings))


def read_map(config: Config, own: bool, item: Item, size: Size) -> DensityMap:
    """The map of an image.

    Raises:
        InputError: there is none, or it is unusable or of another image size.
    """
    path = item.files["density"]
    if not path.exists():
        raise InputError(path, f"no density map for the image {item.id}")
    if not own:
        return density_h5.read_foreign(path, size, config.map_stride)
    found = density_h5.read(path, item.made["density"][2] if item.made else "")
    if found.size != size:
        raise InputError(path, f"map of a {found.size} (h, w) image, the image has {size}")
    return found


def _crop_files(
    config: Config,
    item: Item,
    size: Size,
    windows: list[tuple[int, int, int, int]],
    annotations: Annotations | None,
) -> Iterator[tuple[str, bytes]]:
    if "image" not in item.files:
        raise InputError(
            item.id, "no image file to cut; --crop.write-images false makes the windows alone"
        )
    image = read_image(item.files["image"])
    if image.shape[:2] != size:
        found = f"{image.shape[1]}x{image.shape[0]}"
        reason = f"has {found} pixels, but labels or sizes say {size[1]}x{size[0]}"
        raise InputError(item.files["image"], reason)
    for window in windows:
        x1, y1, x2, y2 = window
        name = crop_file_name(window, item.id)
        yield f"images/{name}", encode_jpeg(image[y1:y2, x1:x2], config.jpeg_quality)
        if annotations is not None:
            labels = crop_annotations(annotations, window, config.label_bound)
            text = visdrone.write_annotations(labels)
            yield f"annotations/{name.removesuffix('.jpg')}.txt", text.encode()


def _numbers(dataset: Dataset, ids: list[str]) -> list[int]:
    """COCO ids of images, in the order of ``ids``."""
    numbers = dataset.numbers
    by_id = {entry.image_id: numbers.get(entry.file_name, 0) for entry in dataset.entries}
    return [by_id[image_id] for image_id in ids]


def _parents(
    dataset: Dataset, good: Good, ids: list[str], numbers: list[int]
) -> Iterator[crop_format.Parent]:
    """The images, in the order of their file names."""
    for entry in dataset.entries:
        if entry.image_id in good:
            height, width = good[entry.image_id].value["size"]
            number = numbers[bisect_left(ids, entry.image_id)]
            yield crop_format.Parent(number, entry.file_name, (height, width))


def _crops(
    good: Good, ids: list[str], numbers: list[int], places: list[bytes]
) -> Iterator[crop_format.CropImage]:
    """The crops, in the order of their file names."""
    for number, place in enumerate(places, start=1):
        name, index, which = place.decode().split("\0")
        x1, y1, x2, y2 = good[ids[int(index)]].value["windows"][int(which)]
        yield crop_format.CropImage(number, name, numbers[int(index)], (x1, y1, x2, y2))


def sum_up(config: Config, dataset: Dataset, artifact: Artifact) -> None:
    """Write ``crops.json``; of a million images too, so little but the crops' names is kept."""
    good = artifact.good
    ids = list(good)
    numbers = _numbers(dataset, ids)
    places: list[bytes] = []  # in the order of text too, and smaller
    pixels = whole = 0
    for index, (image_id, record) in enumerate(good.items()):
        whole += record.value["size"][0] * record.value["size"][1]
        for which, (x1, y1, x2, y2) in enumerate(record.value["windows"]):
            pixels += (x2 - x1) * (y2 - y1)
            name = crop_file_name((x1, y1, x2, y2), image_id)
            places.append(f"{name}\0{index}\0{which}".encode())
    places.sort()
    parents = _parents(dataset, good, ids, numbers)
    pieces = crop_format.rendered(parents, _crops(good, ids, numbers, places))
    artifact.output("crops.json", in_blocks(pieces))
    _log.info(
        "crops: %d of %d images, %.2f per image, %.3f of the pixels",
        len(places),
        len(good),
        len(places) / max(1, len(good)),
        pixels / max(1, whole),
    )
    if config.slicer == "density" and good and not places:
        _log.warning(
            "no image has a crop: no map reaches --crop.threshold (%g); are they objects a cell?",
            config.settings.threshold,
        )
    if config.slicer == "density" and pixels > MOST * whole:
        _log.warning(
            "the crops cover %.3f of the pixels, little less than looking everywhere would: raise "
            "--crop.threshold (now %g), or let `dmnet tune` choose it for your detector",
            pixels / whole,
            config.settings.threshold,
        )
