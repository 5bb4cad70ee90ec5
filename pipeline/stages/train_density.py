"""Stage ``train-density``: train the density network on images and density maps."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dmnet.core.artifact import Item, Product
from dmnet.core.curves import curves_png
from dmnet.core.dataset import Dataset
from dmnet.core.errors import ConfigError, InputError, MissingInputError
from dmnet.core.files import digest
from dmnet.core.formats import density_h5
from dmnet.core.listing import Entry
from dmnet.core.ranges import Decay, Factor, Processes
from dmnet.core.records import Annotations, DensityMap
from dmnet.core.training import history_csv, pick_device
from dmnet.cropping.recall import count_crops
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.density.samples import Sample
from dmnet.density.train import TrainConfig, baselines, train
from dmnet.pipeline.chain import require
from dmnet.pipeline.context import Context, Plan, Upstream
from dmnet.pipeline.inputs import readable
from dmnet.pipeline.training import checkpoint_name, remove_checkpoints

VERSION = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(TrainConfig):
    """Training of the density network (docs/method.md, "Density networks")."""

    train_on: tuple[str, ...] = ("train",)
    """Splits to train on; each needs its density maps."""
    validate_on: str | None = "val"
    """Split whose true maps the network is judged on after every epoch; none: no validation."""
    hold_out: Decay = 0.0
    """Above 0, the network is judged on at least this share of the training images instead of
    validate_on, and not trained on them: whole scenes, a scene being what a file name has before
    its first '_'."""
    recall_threshold: Factor = 0.08
    """Threshold of the crops whose region recall is reported."""
    loaders: Processes = 0
    """Processes that read and augment images; the result does not depend on it."""
    tensorboard: bool = False
    """Also write TensorBoard logs; needs the extra 'tensorboard'."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: settings that cannot be trained with.
        """
        super().__post_init__()
        if not self.train_on:
            raise ValueError("train_on must name a split")


@dataclass(frozen=True)
class Pairs:
    """Image and map of every usable entry of some splits, by ``<split>/<image id>``."""

    images: Mapping[str, Path]
    maps: Mapping[str, Path]
    truths: Mapping[str, tuple[Dataset, Entry]] = field(default_factory=dict)
    """Where annotations are, of what is judged on."""

    def files(self) -> dict[str, Path]:
        """All files by role, as inputs of the item."""
        named = {f"image {i}": path for i, path in self.images.items()}
        return named | {f"map {i}": path for i, path in self.maps.items()}

    def part(self, ids: Set[str]) -> Pairs:
        """The entries with these ids."""
        return Pairs(
            {i: path for i, path in self.images.items() if i in ids},
            {i: path for i, path in self.maps.items() if i in ids},
            {i: place for i, place in self.truths.items() if i in ids},
        )

    def __or__(self, other: Pairs) -> Pairs:
        """The entries of both."""
        return Pairs(
            {**self.images, **other.images},
            {**self.maps, **other.maps},
            {**self.truths, **other.truths},
        )

    def samples(self, ids: list[str]) -> list[Sample]:
        """What the training loop reads."""
        return [Sample(self.images[i], partial(density_h5.read, self.maps[i])) for i in ids]

    def annotations(self) -> dict[str, Annotations]:
        """Annotations by image.

        Raises:
            InputError: a damaged file.
        """
        return {name: data.annotations(entry)[0] for name, (data, entry) in self.truths.items()}


def plan(context: Context) -> Plan:
    """One item: the weights."""
    config = context.config("train-density", Config)
    pairs, judged, made = training_sets(context, config)
    files = pairs.files() | {f"judged {name}": path for name, path in judged.files().items()}
    if config.backbone is not None:
        files["backbone"] = find_backbone(config.backbone)
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
        made_from=made,
    )


def training_sets(context: Context, config: Config) -> tuple[Pairs, Pairs, tuple[Upstream, ...]]:
    """What is trained on, what is judged on, and the artifacts of their maps.

    The two sets share no scene if a part is held out.

    Raises:
        ConfigError: holding out leaves nothing to train on.
        MissingInputError: see `find_pairs`.
    """
    pairs, made = Pairs({}, {}), []
    for split in config.train_on:
        found, upstream = find_pairs(context, split, truths=config.hold_out > 0)
        pairs |= found
        made.append(upstream)
    if config.hold_out:
        kept_out = held_out(pairs.images, config.hold_out)
        if len(kept_out) == len(pairs.images):
            raise ConfigError(
                f"train_density.hold_out {config.hold_out} leaves nothing to train on: whole "
                f"scenes are held out, and the {len(kept_out)} images are of too few (a scene is "
                "what a file name has before its first '_'); lower it, or set it to 0 and give "
                "validate_on"
            )
        return pairs.part(pairs.images.keys() - kept_out), pairs.part(kept_out), tuple(made)
    if config.validate_on is None:
        return pairs, Pairs({}, {}), tuple(made)
    judged, upstream = find_pairs(context, config.validate_on, truths=True)
    return pairs, judged, (*made, upstream)


def held_out(ids: Iterable[str], share: float) -> set[str]:
    """Images of whole scenes that make up at least ``share`` of all; the same in every run.

    Scenes come in the order of their names' digests: in no order that means anything.
    """
    scenes: dict[str, set[str]] = {}
    for name in ids:
        scenes.setdefault(name.rpartition("/")[2].partition("_")[0], set()).add(name)
    wanted = share * sum(map(len, scenes.values()))
    found: set[str] = set()
    for scene in sorted(scenes, key=lambda scene: digest([scene])):
        if len(found) >= wanted:
            break
        found |= scenes[scene]
    return found


def find_backbone(name: str) -> Path:
    """The file of trained encoder weights.

    Raises:
        MissingInputError: it is not there.
    """
    path = Path(name)
    if not path.is_file():
        raise MissingInputError(
            f"train_density.backbone {name}: no such file. Give torchvision's mobilenet_v2 weights "
            "(mobilenet_v2-*.pth), or leave it away to start from random ones."
        )
    return path


def find_pairs(context: Context, split: str, *, truths: bool) -> tuple[Pairs, Upstream]:
    """Images of a split that have a map, with ``truths`` their annotations; the maps' artifact.

    Raises:
        MissingInputError: the maps have not been made, or none belongs to an image.
        StaleInputError: the maps were made from other annotations or images.
    """
    made = require(context, "density", split,
        instead="or judge on nothing: --train-density.validate-on null"
        if split != "train" else "")  # fmt: skip
    folder = made.folder
    dataset = context.dataset_of(split)
    images, maps = {}, {}
    for entry in dataset.with_image:
        path = folder / f"{entry.image_id}.h5"
        if entry.image is None or entry.image_id in made.aside:
            continue
        if path.exists():
            name = f"{dataset.split}/{entry.image_id}"
            images[name], maps[name] = entry.image, path
    if not images:
        raise MissingInputError(
            f"{dataset.root}: no image of split '{split}' has a density map in {folder}; "
            "training needs image files and annotations."
        )
    known = {f"{dataset.split}/{e.image_id}": (dataset, e) for e in dataset.with_annotation}
    return Pairs(images, maps, {n: known[n] for n in images if n in known} if truths else {}), made


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
    truths = judged.annotations()

    def region_recall(index: int, density: DensityMap) -> dict[str, tuple[float, float]]:
        truth = truths[val_ids[index]]
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
