"""Training a density network: samples, loop, curves."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from dmnet.core.artifact import Item, Product
from dmnet.core.curves import curves_png, history_csv
from dmnet.core.errors import InputError
from dmnet.core.formats import density_h5
from dmnet.core.records import DensityMap
from dmnet.cropping.recall import count_crops
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.density.judge import baselines
from dmnet.density.samples import DensityPair
from dmnet.density.train import train
from dmnet.pipeline.inputs import readable
from dmnet.pipeline.learning.pairs import Pairs
from dmnet.pipeline.learning.settings import DensityTraining

_log = logging.getLogger(__name__)


def samples_of(pairs: Pairs, ids: list[str]) -> list[DensityPair]:
    """What the training loop reads."""
    return [DensityPair(pairs.images[i], partial(density_h5.read, pairs.maps[i])) for i in ids]


def learn(
    config: DensityTraining,
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
    truths = judged.annotations()

    def region_recall(index: int, density: DensityMap) -> dict[str, tuple[float, float]]:
        truth = truths[val_ids[index]]
        crops = slice_image(CropConfig.of(threshold=config.recall_threshold), truth.size, density)
        counts = count_crops(truth, crops)
        return {"val_region_recall": (int(counts.covered[0]), int(counts.objects[0]))}

    samples, val_samples = samples_of(pairs, ids), samples_of(judged, val_ids)
    constant = baselines(samples, val_samples)
    result = train(
        samples,
        val_samples,
        config,
        checkpoint=checkpoint,
        device=device,
        log_folder=board,
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
    best = result.history[result.best_epoch - 1]
    _log.info("best epoch: %s", ", ".join(f"{k} {v:.4g}" for k, v in best.items()))
    if constant:
        _log.info("baselines: %s", ", ".join(f"{k} {v:.4g}" for k, v in constant.items()))
    value = {"best": best, "baselines": constant, "images": len(ids)}
    return Product(files, value, set_aside=aside | val_aside)
