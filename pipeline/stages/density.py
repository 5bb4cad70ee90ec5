"""Stage ``density``: ground-truth density maps from annotations and image sizes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from dmnet.core import config as settings
from dmnet.core.artifact import Artifact, Item, Items, Product
from dmnet.core.dataset import Dataset, Labels
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import density_h5
from dmnet.core.images import read_size
from dmnet.core.listing import Entry
from dmnet.core.ranges import Range, Settings
from dmnet.core.reading import shape_limit
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.core.spread import spread
from dmnet.density.ground_truth import (
    SigmaConfig,
    above_bank,
    class_sigmas,
    density_map,
    neighbour_distances,
    over_classes,
    points,
    sigmas,
)
from dmnet.density.kernels import KernelBank
from dmnet.pipeline.context import Context, Plan

VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(Settings):
    """How annotations become density maps (docs/method.md, "Density ground truth")."""

    sigma: SigmaConfig = field(default_factory=SigmaConfig)
    preset: Literal["corrected", "reference"] = "corrected"
    """``corrected``: a map sums to the number of objects. ``reference``: the published code's
    numbers, where kernels are cut at the border and the last row and column stay empty."""
    stride: Annotated[int, Range(1, 1_024)] | None = None
    """Side of a map's cell in pixels; none: 1 for the reference preset, 4 for the corrected one."""

    @property
    def cell(self) -> int:
        """The stride that is used."""
        return self.stride or (1 if self.preset == "reference" else 4)


def plan(context: Context) -> Plan:
    """One map for every annotation file."""
    config = context.config("density", Config)
    bank = context.artifacts / context.run / "kernels.h5"
    dataset = context.dataset
    entries = [entry for entry in dataset.sizable if entry.annotated]
    items = Items(partial(annotated_items, dataset), entries, len(entries))
    sigma = with_class_sigmas(config.sigma, context)
    config = replace(config, sigma=sigma)
    return Plan(
        config,
        items,
        partial(make, config, bank, dataset.labels, len(items)),
        facts=dataset.labels.facts,
        prepare=partial(store_bank, bank),
        finish=report_capped if config.preset == "reference" else None,
        problems=dataset.problems,
    )


def with_class_sigmas(config: SigmaConfig, context: Context) -> SigmaConfig:
    """Measure the classes' sigmas where they are needed, not given, and not VisDrone's.

    Raises:
        ConfigError: they have to be measured and the training split has no object.
        InputError: damaged labels.
    """
    classes = context.dataset.classes
    if config.method != "classwise" or config.is_measured(classes):
        return config
    data = context.dataset_of("train")
    measured = class_sigmas(data.annotations(entry)[0] for entry in data.with_annotation)
    listed = ", ".join(f"{n} {s:g}" for n, s in zip(classes.names, measured, strict=True))
    _log.info("class sigmas measured on the training split: %s", listed)
    return replace(config, class_sigmas=measured)


def report_capped(artifact: Artifact) -> None:
    """Say how many objects got a narrower kernel than their sigma asks for."""
    capped = sum(record.value.get("capped", 0) for record in artifact.good.values())
    if capped:
        _log.warning(
            "preset reference: %d objects have a sigma above the kernel bank and use its largest "
            "kernel, as the published code does; density.sigma.above=error refuses them",
            capped,
        )


def map_of(
    maps: Mapping[str, Path] | None, image_id: str, size: Size, truth: Annotations | None
) -> DensityMap:
    """The map of an image: one of ``maps``, or without any that of its objects, made in memory.

    Raises:
        MissingInputError: there is none, and nothing to make it from.
        InputError: a damaged map, or one of an image of another size.
    """
    if maps is None and truth is not None:
        return density_map(truth, KernelBank.build([15.0]), stride=4)
    if maps is None:
        raise MissingInputError(
            f"{image_id}: has no annotations to make a map from; give maps with --maps DIR."
        )
    if image_id not in maps:
        raise MissingInputError("there is no density map of it")
    return density_h5.read_foreign(maps[image_id], size)


def label_inputs(entry: Entry) -> tuple[dict[str, Path], dict[str, Any]]:
    """Files and facts that stand for the labels of an image in an item's key."""
    if entry.annotation is not None:
        return {"annotation": entry.annotation}, {}
    return {}, {} if entry.rows is None else {"rows": [list(row) for row in entry.rows]}


def annotated_items(dataset: Dataset, entries: Iterable[Entry]) -> Iterator[Item]:
    """Items of entries with labels; the size is a fact where table or labels give it."""
    for entry in entries:
        files, facts = label_inputs(entry)
        size = dataset.known_size(entry)
        if size is not None:
            yield Item(entry.image_id, files, {**facts, "size": list(size)})
        elif entry.image is not None:
            yield Item(entry.image_id, {**files, "image": entry.image}, facts or None)


def item_size(item: Item) -> Size:
    """Size of an item's image: the fact, or what the image's header says.

    Raises:
        InputError: the image is damaged.
    """
    if item.facts and "size" in item.facts:
        height, width = item.facts["size"]
        return height, width
    return read_size(item.files["image"])


def read_item(labels: Labels, item: Item) -> tuple[Annotations, list[str]]:
    """Annotations of an item and warnings about dropped rows.

    Raises:
        InputError: image or annotation file is damaged.
    """
    rows = (item.facts or {}).get("rows")
    return labels.read(item.id, item_size(item), item.files.get("annotation"), rows)


def store_bank(path: Path) -> None:
    """Compute the kernels once and keep them beside the stages of the run."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        KernelBank.build().save(path)


@cache
def load_bank(path: Path) -> KernelBank:
    """The stored kernels, once a process."""
    return KernelBank.load(path)


@cache
def attributes(config: Config) -> dict[str, Any]:
    """What a map's file says about how it was made."""
    over = "x y class" if over_classes(config.sigma, config.preset) else "x y"
    return settings.resolved(config) | {"stride": config.cell, "distances_over": over}


def make(config: Config, bank: Path, labels: Labels, count: int, item: Item) -> Product:
    """Make the map of one image of ``count``."""
    annotations, warnings = read_item(labels, item)
    height, width = (-(-side // config.cell) for side in annotations.size)
    if why := shape_limit((height, width), 4):
        raise InputError(item.id, f"its density map {why}; raise --density.stride")
    sigma, preset = config.sigma, config.preset
    distances = neighbour_distances(annotations, sigma, preset=preset)
    widths = sigmas(annotations, sigma, preset=preset, distances=distances)
    made = density_map(
        annotations, load_bank(bank), sigma, preset=preset, stride=config.cell, widths=widths
    )
    value = {"objects": len(annotations.objects), "count": made.count}
    if preset == "reference":
        value["capped"] = int(above_bank(widths, load_bank(bank)).sum())
    origin = density_h5.Origin(points(annotations), distances, widths)
    files = {spread(f"{item.id}.h5", count): density_h5.write(made, attributes(config), origin)}
    return Product(files, value, tuple(warnings))
