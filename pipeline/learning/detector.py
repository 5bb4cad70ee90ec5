"""Training a detector: samples, starting weights, loop, pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dmnet.core import config as settings
from dmnet.core.artifact import Item, Product
from dmnet.core.classes import Classes
from dmnet.core.curves import Row, curves_png, history_csv
from dmnet.core.errors import ConfigError, DmnetError, InputError
from dmnet.core.formats import crops as crop_format
from dmnet.core.plugins import is_outside
from dmnet.core.training.seeds import seed_epoch
from dmnet.detectors.base import DetectionNet, build_model, to_tensor
from dmnet.detectors.names import family
from dmnet.detectors.training.data import (
    TrainingImage,
    load_scene,
    read_coco,
    read_coco_crops,
    read_voc,
)
from dmnet.detectors.training.pixels import PixelStore
from dmnet.detectors.training.start import start_from
from dmnet.detectors.training.train import train
from dmnet.pipeline import mmdet
from dmnet.pipeline.inputs import readable
from dmnet.pipeline.judge import Judge
from dmnet.pipeline.learning.settings import DetectorTraining
from dmnet.pipeline.predictions import predictions_jpg

STATISTICS = 16
"""Training images whose statistics go into a normalisation that starting weights come without."""

_log = logging.getLogger(__name__)


def network_settings(config: Any) -> dict[str, Any]:
    """Settings of the chosen network: the section of its family, else ``own``."""
    section = getattr(config, family(config.model), config.own)
    return settings.resolved(section) if is_dataclass(section) else dict(section)


def learn(
    config: DetectorTraining,
    images: Mapping[str, Path],
    classes: Classes,
    judge: Judge | None,
    checkpoint: Path,
    device: str,
    item: Item,
) -> Product:
    """Train, going on from the checkpoint of a killed run."""
    seed_epoch(config.seed, 0)  # the starting weights
    samples = read_samples(config, item, images, classes)
    net = build_model(config.model, network_settings(config), classes_of(samples))
    cache = checkpoint.with_suffix(".pixels")
    damaged = PixelStore(samples, net, config.data, cache).fill()
    samples, aside = without(samples, images, damaged)
    whole = [sample for sample in samples if sample.window is None]
    judges = [("", judge)] if judge else []
    if config.judge_train:
        some = whole[: config.judge_train]
        judges.append(("train_", Judge(None, config.protocol, config.score_threshold, some)))

    def evaluate(net: Any) -> dict[str, float]:
        return {
            f"{prefix}{name}": value
            for prefix, each in judges
            for name, value in each.scores(net, device).items()
        }

    started = start(net, config, samples)
    loop = replace(config, metric="train_AP") if judges and not judge else config
    trained = train(
        net,
        samples,
        loop,
        evaluate=evaluate if judges else None,
        checkpoint=checkpoint,
        cache=cache,
        device=device,
        log_folder=checkpoint.parent / "tensorboard" if config.tensorboard else None,
        meta=started,
    )
    last = trained.history[trained.best_epoch - 1]
    value = {"kept": last, "samples": len(samples), **started}
    shown = judge or Judge(None, config.protocol, config.score_threshold, whole)
    return _product(config, (trained.best, trained.history), shown, value, aside, device)


def start(
    net: DetectionNet, config: DetectorTraining, samples: Sequence[TrainingImage]
) -> dict[str, Any]:
    """Put the starting weights in, where a file is named; what came of it, by name."""
    if config.init is None:
        return {}
    some = samples[:: -(-len(samples) // STATISTICS)]
    scenes = (load_scene(sample, config.data.max_pixels) for sample in some)
    images = [to_tensor(scene.image, torch.device("cpu")) for scene in scenes]
    found = start_from(net, Path(config.init), images)
    return {"init": {"file": Path(config.init).name, "taken": len(found.taken)}}


def without(
    samples: Sequence[TrainingImage], images: Mapping[str, Path], damaged: Mapping[Path, str]
) -> tuple[list[TrainingImage], dict[str, str]]:
    """The samples of images that can be decoded, and the reasons of the other images by id.

    Raises:
        InputError: none is left.
    """
    aside = {name: damaged[path] for name, path in images.items() if path in damaged}
    for name, reason in aside.items():
        _log.error("set aside %s: %s", name, reason)
    left = [sample for sample in samples if sample.image not in damaged]
    if not left:
        raise InputError(next(iter(images.values())).parent, "no annotated image can be decoded")
    return left, aside


def learn_mmdet(
    config: DetectorTraining,
    images: Mapping[str, Path],
    classes: Classes,
    crops: Mapping[str, Path],
    val: mmdet.Part | None,
    work: Path,
    device: str,
    item: Item,
) -> Product:
    """Train through MMDetection, going on from its checkpoints in ``work`` after a kill."""
    ids, aside = readable(images)
    usable = {name: images[name] for name in ids}
    samples = read_samples(config, item, usable, classes)
    parts: list[mmdet.Part] = [
        (item.files["instances"], {f"{name}{images[name].suffix}": images[name] for name in ids})
    ]
    if crops:
        parts.append((item.files["crop instances"], crops))
    weights, rows, count = mmdet.learn(config.mmdet, parts, val, work, device)
    scored = [row for row in rows if "AP" in row]
    kept = max(scored, key=lambda row: row["AP"]) if scored else rows[-1]
    whole = [sample for sample in samples if sample.window is None]
    shown = Judge(None, config.protocol, config.score_threshold, whole)
    value = {"kept": kept, "samples": count}
    return _product(config, (weights, rows), shown, value, aside, device)


def _product(
    config: DetectorTraining,
    made: tuple[bytes, Sequence[Row]],
    judge: Judge,
    value: Any,
    aside: Mapping[str, str],
    device: str,
) -> Product:
    """Weights, history and curves, with a picture of what the network finds where it can be drawn.

    Weights are never lost to a picture: what keeps it from being drawn is a warning.
    """
    files = _files(*made)
    if not config.pictures:
        return Product(files, value, set_aside=aside)
    try:
        sheet = predictions_jpg(
            made[0],
            judge.pairs(config.pictures),
            classes=judge.classes,
            threshold=config.score_threshold,
            device=device,
            model=config.model if is_outside(config.model) else None,
        )
    except (DmnetError, OSError) as error:
        return Product(files, value, (f"no predictions.jpg: {error}",), aside)
    return Product({**files, "predictions.jpg": sheet}, value, set_aside=aside)


def _files(weights: bytes, history: Sequence[Row]) -> dict[str, bytes]:
    losses = sorted({name for row in history for name in row if "loss" in name})
    panels = {
        "loss": losses,
        "average precision": ["AP", "AP50", "train_AP", "train_AP50"],
        "at the score threshold": ["precision", "recall", "F1", "train_precision", "train_recall"],
        "mean IoU of matches": ["mean_iou", "train_mean_iou"],
    }
    return {
        "weights.pt": weights,
        "history.csv": history_csv(history),
        "curves.png": curves_png(history, panels),
    }


def classes_of(samples: Sequence[TrainingImage]) -> Classes:
    """The classes the network learns.

    Raises:
        ConfigError: images and crops are annotated in different ones.
    """
    found = {sample.annotations.classes.names: sample.annotations.classes for sample in samples}
    if len(found) > 1:
        listed = "; ".join(map(str, found.values()))
        raise ConfigError(f"images and crops are annotated in different classes: {listed}")
    return next(iter(found.values()))


def read_samples(
    config: DetectorTraining, item: Item, usable: Mapping[str, Path], classes: Classes
) -> list[TrainingImage]:
    """Images and crops with their annotations, without images that cannot be decoded.

    Raises:
        InputError: nothing is left, or damaged annotations.
    """
    if "instances" in item.files:
        samples = read_coco(item.files["instances"], usable)
    else:
        samples = read_voc(Path(config.annotations or ""), usable, classes)
    if config.crops:
        crops = crop_format.read(item.files["crops"])
        samples += read_coco_crops(item.files["crop instances"], crops, usable)
    if not samples:
        raise InputError(next(iter(item.files.values())), "no annotated image can be decoded")
    return samples
