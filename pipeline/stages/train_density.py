"""Stage ``train-density``: train the density network on images and density maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dmnet.core.artifact import Item, Product
from dmnet.core.curves import curves_png
from dmnet.core.dataset import Dataset
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import density_h5
from dmnet.core.records import Annotations, DensityMap
from dmnet.core.training import history_csv, pick_device
from dmnet.cropping.recall import count_crops
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.density.samples import Sample
from dmnet.density.train import TrainConfig, baselines, train
from dmnet.pipeline.context import Context, Plan
from dmnet.pipeline.inputs import readable
from dmnet.pipeline.training import checkpoint_name, remove_checkpoints

VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(TrainConfig):
    """Training of the density network (METHOD: density networks)."""

    validate_on: str | None = "val"
    """Split whose true maps the network is judged on after every epoch; none: no validation."""
    recall_threshold: float = 0.08
    """Threshold of the crops whose region recall is reported."""
    loaders: int = 0
    """Processes that read and augment images; the result does not depend on it."""
    tensorboard: bool = False
    """Also write TensorBoard logs; needs the extra 'tensorboard'."""


@dataclass(frozen=True)
class Pairs:
    """Image and map of every usable entry of a split."""

    images: Mapping[str, Path]
    maps: Mapping[str, Path]
    truths: Mapping[str, Annotations] = field(default_factory=dict)

    def files(self, split: str) -> dict[str, Path]:
        """All files by role, as inputs of the item."""
        named = {f"{split} image {i}": path for i, path in self.images.items()}
        return named | {f"{split} map {i}": path for i, path in self.maps.items()}

    def samples(self, ids: list[str]) -> list[Sample]:
        """What the training loop reads."""
        return [Sample(self.images[i], partial(density_h5.read, self.maps[i])) for i in ids]


def plan(context: Context) -> Plan:
    """One item: the weights."""
    config = context.config("train-density", Config)
    pairs = find_pairs(context, "train")
    judged = Pairs({}, {})
    if config.validate_on is not None:
        judged = find_pairs(context, config.validate_on)
    files = pairs.files("train") | judged.files(config.validate_on or "")
    item = Item("weights", files)
    root = context.folder("train-density")
    checkpoint = root / checkpoint_name(config, files)
    board = root / "tensorboard" if config.tensorboard else None
    device = context.device
    return Plan(
        config,
        [item],
        partial(learn, config, pairs, judged, checkpoint, board, device),
        finish=remove_checkpoints,
    )


def find_pairs(context: Context, split: str) -> Pairs:
    """Images of a split that have a map.

    Raises:
        MissingInputError: the maps have not been made, or none belongs to an image.
    """
    folder = context.require(
        "density", split, "or judge on nothing: --train-density.validate-on null"
        if split != "train" else "")  # fmt: skip
    dataset = context.dataset_of(split)
    images, maps = {}, {}
    for entry in dataset.with_image:
        path = folder / f"{entry.image_id}.h5"
        if entry.image is not None and path.exists():
            images[entry.image_id], maps[entry.image_id] = entry.image, path
    if not images:
        raise MissingInputError(
            f"{dataset.root}: no image of split '{split}' has a density map in {folder}; "
            "training needs image files and annotations."
        )
    return Pairs(images, maps, _truths(dataset, set(images)) if split != "train" else {})


def _truths(dataset: Dataset, ids: set[str]) -> dict[str, Annotations]:
    entries = [entry for entry in dataset.with_annotation if entry.image_id in ids]
    return {entry.image_id: dataset.annotations(entry)[0] for entry in entries}


def learn(
    config: Config,
    pairs: Pairs,
    judged: Pairs,
    checkpoint: Path,
    board: Path | None,
    device: str,
    item: Item,
) -> Product:
    """Train, going on from the checkpoint of a killed run."""
    ids, aside = readable(pairs.images)
    val_ids, val_aside = readable(judged.images)
    if not ids:
        raise InputError(checkpoint.parent, "no training image can be decoded")

    def region_recall(index: int, density: DensityMap) -> dict[str, tuple[float, float]]:
        truth = judged.truths[val_ids[index]]
        crops = slice_image(CropConfig(threshold=config.recall_threshold), truth.size, density)
        counts = count_crops(truth, crops)
        return {"val_region_recall": (int(counts.covered[0]), int(counts.objects[0]))}

    samples, val_samples = pairs.samples(ids), judged.samples(val_ids)
    constant = baselines(samples, val_samples)
    result = train(
        samples,
        val_samples,
        config,
        checkpoint=checkpoint,
        device=pick_device(device),
        workers=config.loaders,
        log_dir=board,
        measure=region_recall,
    )
    panels = {
        "loss": ["loss"],
        "count error": ["val_mae", "val_game"],
        "region recall": ["val_region_recall"],
    }
    levels = {"count error": {k: v for k, v in constant.items() if not k.endswith("rmse")}}
    files = {
        "weights.pt": result.best,
        "last.pt": result.last,
        "history.csv": history_csv(result.history),
        "curves.png": curves_png(result.history, panels, levels=levels),
    }
    judged_rows = [row for row in result.history if "val_mae" in row] or result.history[-1:]
    best = min(judged_rows, key=lambda row: float(row.get("val_mae", 0.0)))
    _log.info("best epoch: %s", ", ".join(f"{k} {v:.4g}" for k, v in best.items()))
    if constant:
        _log.info("baselines: %s", ", ".join(f"{k} {v:.4g}" for k, v in constant.items()))
    value = {"best": best, "baselines": constant, "images": len(ids)}
    return Product(files, value, set_aside=aside | val_aside)
