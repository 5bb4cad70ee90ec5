"""Stage ``density``: ground-truth density maps from annotations and image sizes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal

from dmnet.core import config as settings
from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.dataset import Dataset
from dmnet.core.formats import density_h5, visdrone
from dmnet.core.images import read_size
from dmnet.core.ranges import Range, Settings
from dmnet.core.records import Annotations, Size
from dmnet.density.ground_truth import SigmaConfig, above_bank, density_map, sigmas
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
    items = list(annotated_items(context.dataset))
    return Plan(
        config,
        items,
        partial(make, config, bank),
        prepare=partial(store_bank, bank),
        finish=report_capped,
        problems=context.dataset.problems,
    )


def report_capped(artifact: Artifact) -> None:
    """Say how many objects got a narrower kernel than their sigma asks for."""
    capped = sum(record.value.get("capped", 0) for record in artifact.good.values())
    if capped:
        _log.warning(
            "preset reference: %d objects have a sigma above the kernel bank and use its largest "
            "kernel, as the published code does; density.sigma.above=error refuses them",
            capped,
        )


def annotated_items(dataset: Dataset) -> Iterator[Item]:
    """Items of all entries with an annotation; the size is a fact where a table gives it."""
    for entry in dataset.with_annotation:
        assert entry.annotation is not None
        size = dataset.sizes.get(entry.image_id)
        if size is not None:
            yield Item(entry.image_id, {"annotation": entry.annotation}, {"size": list(size)})
        elif entry.image is not None:
            yield Item(entry.image_id, {"annotation": entry.annotation, "image": entry.image})


def item_size(item: Item) -> Size:
    """Size of an item's image: the fact, or what the image's header says.

    Raises:
        InputError: the image is damaged.
    """
    if item.facts and "size" in item.facts:
        height, width = item.facts["size"]
        return height, width
    return read_size(item.files["image"])


def read_item(item: Item) -> tuple[Annotations, list[str]]:
    """Annotations of an item and warnings about dropped rows.

    Raises:
        InputError: image or annotation file is damaged.
    """
    return visdrone.read_annotations(item.files["annotation"], item.id, item_size(item))


def store_bank(path: Path) -> None:
    """Compute the kernels once and keep them beside the stages of the run."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        KernelBank.build().save(path)


@cache
def load_bank(path: Path) -> KernelBank:
    """The stored kernels, once a process."""
    return KernelBank.load(path)


def make(config: Config, bank: Path, item: Item) -> Product:
    """Make the map of one image."""
    annotations, warnings = read_item(item)
    made = density_map(
        annotations, load_bank(bank), config.sigma, preset=config.preset, stride=config.cell
    )
    attributes = settings.resolved(config) | {"stride": config.cell}
    value = {"objects": len(annotations.objects), "count": made.count}
    if config.preset == "reference":
        widths = sigmas(annotations, config.sigma, preset=config.preset)
        value["capped"] = int(above_bank(widths, load_bank(bank)).sum())
    files = {f"{item.id}.h5": density_h5.write(made, attributes)}
    return Product(files, value, tuple(warnings))
