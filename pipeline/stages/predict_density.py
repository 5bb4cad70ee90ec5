"""Stage ``predict-density``: density maps by a trained network."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dmnet.core.artifact import Artifact, Item, Product, Result
from dmnet.core.config import resolved
from dmnet.core.dataset import Dataset
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.files import file_digest
from dmnet.core.formats import density_h5
from dmnet.core.images import read_image
from dmnet.core.memory import is_out_of_memory, release
from dmnet.core.plugins import is_outside
from dmnet.core.products import out_of_memory
from dmnet.core.ranges import Margin, Pixels, Range, Settings
from dmnet.core.spread import spread
from dmnet.core.tables import csv_text
from dmnet.core.work import Stream
from dmnet.density.metrics import count_errors
from dmnet.pipeline.chain import require
from dmnet.pipeline.context import Context, Plan, Upstream
from dmnet.pipeline.inputs import truth_digest
from dmnet.pipeline.learning.settings import DensityTraining

if TYPE_CHECKING:
    from dmnet.density.load import DensityNetwork

VERSION = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(Settings):
    """How maps are predicted (docs/method.md, "Density networks")."""

    long_side: Margin | None = None
    """Larger images are shrunk until their longer side has this many pixels, before the network
    sees them; 0: never; none: as the network was trained."""
    max_pixels: Pixels = 2_097_152
    """Images still larger are predicted in overlapping tiles of at most this many pixels; a tile
    needs about 350 bytes of memory a pixel (U-Net: 35 times its width)."""
    overlap: Margin | None = None
    """Overlap of two tiles in pixels; none: as far as the network sees, so that seams vanish."""
    batch: Annotated[int, Range(1, 65_536)] = 1
    """Tiles a batch."""


def plan(context: Context) -> Plan:
    """One map for every image."""
    config = context.config("predict-density", Config)
    weights, trained = find_weights(context)
    items = [Item(name, {"image": path}) for name, path in context.dataset.images.items()]
    named = context.config("train-density", DensityTraining).network
    outside = named if is_outside(named) else None
    return Plan(
        config,
        items,
        network=partial(load, config, weights, outside, len(items)),
        facts={"weights": file_digest(weights)},
        totals={"truth": truth_digest(context)},
        finish=partial(count_all, context.dataset),
        problems=context.dataset.problems,
        made_from=trained,
    )


def find_weights(context: Context) -> tuple[Path, tuple[Upstream, ...]]:
    """The network given with ``WEIGHTS=``, or the one of ``train-density``.

    Raises:
        MissingInputError: neither is there.
        StaleInputError: that of ``train-density`` was trained on other inputs.
    """
    if context.weights is None:
        own = context.folder("train-density", "train") / "weights.pt"
        trained = require(
            context,
            "train-density",
            "train",
            instead=f"or give a network, this one as it is with WEIGHTS={own}",
        )
        return own, (trained,)
    if not context.weights.is_file():
        raise MissingInputError(
            f"WEIGHTS={context.weights}: no such file. Give a weights file of train-density, its "
            "export (.onnx), or a state_dict of an MCNN, or leave it away to use this run's own "
            "network."
        )
    return context.weights, ()


def load(config: Config, weights: Path, outside: str | None, count: int, device: str) -> Stream:
    """Load the network, ready to predict; ``outside`` names one of another package."""
    from dmnet.density.load import load_density

    return partial(predict_all, config, load_density(weights, device, network=outside), count)


def predict_all(
    config: Config, network: DensityNetwork, count: int, items: list[Item]
) -> Iterator[tuple[Item, Result]]:
    """Predict one image of ``count`` after the other."""
    for item in items:
        try:
            found = network.predict(read_image(item.files["image"]), **resolved(config))
        except InputError as error:
            yield item, error
            continue
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            release()
            yield item, out_of_memory(item, error, "a smaller predict-density.max-pixels")
            continue
        side = network.scaling.long_side if config.long_side is None else config.long_side
        data = density_h5.write(found, {"network": network.name, "long_side": side})
        name = spread(f"{item.id}.h5", count)
        yield item, Product({name: data}, {"count": round(found.count, 4)})


def count_all(dataset: Dataset, artifact: Artifact) -> None:
    """Write the counts of all images, and say how far they are from the annotated ones."""
    predicted = {name: float(record.value["count"]) for name, record in artifact.good.items()}
    true: dict[str, int] = {}
    for entry in dataset.with_annotation:
        if entry.image_id in predicted:
            try:
                true[entry.image_id] = len(dataset.annotations(entry)[0].objects)
            except InputError as error:
                _log.warning("no true count of %s: %s", entry.image_id, error)
    rows = [(name, f"{count:.4f}", true.get(name, "")) for name, count in predicted.items()]
    artifact.output("counts.csv", csv_text([("image", "predicted", "true"), *rows]).encode())
    if true:
        mae, rmse = count_errors([predicted[name] for name in true], list(true.values()))
        _log.info("counts of %d annotated images: MAE %.4g, RMSE %.4g", len(true), mae, rmse)
