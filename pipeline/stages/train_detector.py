"""Stage ``train-detector``: train a detector on whole images and on crops."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch

from dmnet.core import config as settings
from dmnet.core.artifact import Item, Product
from dmnet.core.classes import Classes
from dmnet.core.curves import Row, curves_png
from dmnet.core.errors import ConfigError, InputError, MissingInputError
from dmnet.core.ranges import Count, Range, Share
from dmnet.core.training import history_csv, pick_device, seed_epoch
from dmnet.detectors.base import DetectionNet, build_model, to_tensor
from dmnet.detectors.torchvision.settings import TorchvisionConfig
from dmnet.detectors.training.data import (
    Sample,
    load_scene,
    read_coco,
    read_coco_crops,
    read_voc,
)
from dmnet.detectors.training.loop import train
from dmnet.detectors.training.pixels import PixelStore
from dmnet.detectors.training.settings import TrainConfig
from dmnet.detectors.training.start import start_from
from dmnet.detectors.yolov6 import YoloConfig
from dmnet.detectors.yolox import YoloxConfig
from dmnet.pipeline import mmdet
from dmnet.pipeline.chain import command, require
from dmnet.pipeline.context import Context, Plan, Upstream
from dmnet.pipeline.inputs import load_crops, readable
from dmnet.pipeline.judge import Judge
from dmnet.pipeline.mmdet import MmdetConfig
from dmnet.pipeline.predictions import predictions_jpg
from dmnet.pipeline.training import checkpoint_name, remove_checkpoints

VERSION = 1
CPU_PRESET = Path(__file__).resolve().parents[2] / "configs" / "cpu.yaml"
STATISTICS = 16
"""Training images whose statistics go into a normalisation that starting weights come without."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(TrainConfig):
    """Training of the detector (docs/method.md, "Detectors")."""

    model: str = "fasterrcnn-r50"
    """Network: fasterrcnn-r50, fasterrcnn-r50-v2, fasterrcnn-mobilenetv3, fasterrcnn-mobilenetv2,
    retinanet-r50, fcos-r50, yolov6-n/-t/-s/-m/-l, yolox-nano/-tiny/-s, or mmdet. Without a GPU,
    where none is named, the preset cpu is used (configs/cpu.yaml)."""
    init: str | None = None
    """Start from the tensors of this file that fit: weights of an earlier training (of other
    classes or settings too), a plain state_dict, or a published YOLOX ONNX file."""
    crops: bool = True
    """Train on the crops too, not on whole images alone."""
    annotations: str | None = None
    """COCO JSON, or folder of Pascal VOC XML, of the training images, instead of what 'convert'
    made; needs crops false."""
    validate_on: str | None = None
    """Split on whose whole images every epoch is scored; its best epoch is kept. none: the last
    epoch is kept, so that no split to be reported is used for the choice."""
    protocol: str = "coco@500"
    """Protocol of these scores."""
    score_threshold: Share = 0.3
    """Precision, recall, F1 and mean IoU count detections from this score on."""
    judge_train: Count = 0
    """Also report them on so many training images."""
    pictures: Annotated[int, Range(0, 1_000)] = 4
    """Draw what is found on so many images (of validate_on, else of the training set)."""
    torchvision: TorchvisionConfig = field(default_factory=TorchvisionConfig)
    """Settings of the torchvision networks."""
    yolov6: YoloConfig = field(default_factory=YoloConfig)
    """Settings of the YOLOv6 networks."""
    yolox: YoloxConfig = field(default_factory=YoloxConfig)
    """Settings of the YOLOX networks."""
    mmdet: MmdetConfig = field(default_factory=MmdetConfig)
    """Settings of MMDetection."""


def plan(context: Context) -> Plan:
    """One item: the weights."""
    fitted = for_device(context)
    config = fitted.config("train-detector", Config)
    files, made = annotation_files(context, config)
    if config.crops:
        crops = load_crops(context)
        files["crops"], made = crops.path, (*made, *crops.upstream)
    images = {
        entry.image_id: entry.image
        for entry in context.dataset.with_image
        if entry.image is not None
    }
    if not images:
        raise MissingInputError(f"{context.dataset.root}: holds no image to train on.")
    files |= {f"image {name}": path for name, path in images.items()}
    files |= starting_file(config)
    root = context.folder("train-detector")
    if config.model == "mmdet":
        return replace(plan_mmdet(context, config, images, files, root), made_from=made)
    judge = None
    if config.validate_on is not None:
        judge = Judge(
            context.dataset_of(config.validate_on), config.protocol, config.score_threshold
        )
        files |= {f"val {name}": path for name, path in judge.files().items()}
    checkpoint = root / checkpoint_name(config, files)
    return Plan(
        config,
        [Item("weights", files)],
        partial(learn, config, images, context.dataset.classes, judge, checkpoint, context.device),
        prepare=None if fitted is context else say_preset,
        finish=remove_checkpoints,
        made_from=made,
    )


def annotation_files(
    context: Context, config: Config
) -> tuple[dict[str, Path], tuple[Upstream, ...]]:
    """What the network learns from, by role, and the artifacts it comes from.

    Raises:
        ConfigError: crops are asked for, but only images are annotated.
        MissingInputError: there is none.
        StaleInputError: they were converted from other annotations or crops.
    """
    if config.annotations is None:
        made = require(context, "convert", "train", sums=True)
        names = {"instances": "instances.json"}
        names |= {"crop instances": "crop-instances.json"} if config.crops else {}
        files = {role: made.folder / name for role, name in names.items()}
        if not all(path.exists() for path in files.values()):
            raise MissingInputError(
                f"{made.folder} holds no labels of crops. Make them with: "
                f"{command(context, 'convert', '--convert.crops true')}, or train on whole images "
                "alone: --train-detector.crops false."
            )
        return files, (made,)
    if config.crops:
        raise ConfigError(
            "train-detector.annotations: holds whole images; crops are annotated by 'convert'. "
            "Say --train-detector.crops false"
        )
    given = Path(config.annotations)
    if given.is_file():
        return {"instances": given}, ()
    listed = sorted(given.glob("*.xml"))
    if not listed:
        raise MissingInputError(
            f"train-detector.annotations: {given} is neither a COCO JSON file nor a folder with "
            "VOC XML files."
        )
    return {f"voc {path.stem}": path for path in listed}, ()


def starting_file(config: Config) -> dict[str, Path]:
    """The file of starting weights, by role; empty without one.

    Raises:
        ConfigError: MMDetection reads its own.
        MissingInputError: there is no such file.
    """
    if config.init is None:
        return {}
    if config.model == "mmdet":
        raise ConfigError(
            "train-detector.init: networks of MMDetection start from mmdet.initial; set that"
        )
    path = Path(config.init)
    if not path.is_file():
        raise MissingInputError(f"train-detector.init: there is no file {path}.")
    return {"initial weights": path}


def for_device(context: Context) -> Context:
    """Put the preset ``cpu`` below the user's settings where there is no GPU and no model is named.

    A ResNet-50 at full input size takes hours an epoch there.
    """
    own = context.settings.get("train_detector") or {}
    if "model" in own or pick_device(context.device) != "cpu":
        return context
    preset = settings.read_yaml(CPU_PRESET)
    return replace(context, settings=settings.merged(preset, context.settings))


def say_preset() -> None:
    """Name the preset that was taken, and the way to the full default."""
    _log.info(
        "train-detector: no GPU and no DETECTOR named, so the preset 'cpu' is used "
        "(configs/cpu.yaml; DETECTOR=fasterrcnn-r50 for the full default)"
    )


def plan_mmdet(
    context: Context,
    config: Config,
    images: Mapping[str, Path],
    files: Mapping[str, Path],
    root: Path,
) -> Plan:
    """As `plan`, for MMDetection: it reads crops from files and has its own checkpoints."""
    mmdet.check_settings(config)
    crops = mmdet.crop_images(context, files["crop instances"]) if config.crops else {}
    val = mmdet.validation(context, config.validate_on) if config.validate_on else None
    files = {**files, "mmdet config": config.mmdet.path()}
    files |= {f"crop {name}": path for name, path in crops.items()}
    if config.mmdet.initial:
        files["initial weights"] = Path(config.mmdet.initial)
    if val is not None:
        files |= {"val instances": val[0]} | {f"val {name}": path for name, path in val[1].items()}
    work = (root / checkpoint_name(config, files)).with_suffix("")
    return Plan(
        config,
        [Item("weights", files)],
        partial(
            learn_mmdet, config, images, context.dataset.classes, crops, val, work, context.device
        ),
        finish=remove_checkpoints,
    )


def network_settings(config: Any) -> dict[str, Any]:
    """Settings of the chosen network's family."""
    name = config.model.partition("-")[0]
    family = name if name in ("yolov6", "yolox") else "torchvision"
    return settings.resolved(getattr(config, family))


def learn(
    config: Config,
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
        judges.append(("train_", Judge.of(some, config.protocol, config.score_threshold)))

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
    files = _files(trained.weights, trained.history)
    files |= _pictures(config, trained.weights, judge, whole, device)
    return Product(files, value, set_aside=aside)


def start(net: DetectionNet, config: Config, samples: Sequence[Sample]) -> dict[str, Any]:
    """Put the starting weights in, where a file is named; what came of it, by name."""
    if config.init is None:
        return {}
    some = samples[:: -(-len(samples) // STATISTICS)]
    scenes = (load_scene(sample, config.data.max_pixels) for sample in some)
    images = [to_tensor(scene.image, torch.device("cpu")) for scene in scenes]
    found = start_from(net, Path(config.init), images)
    return {"init": {"file": Path(config.init).name, "taken": len(found.taken)}}


def without(
    samples: Sequence[Sample], images: Mapping[str, Path], damaged: Mapping[Path, str]
) -> tuple[list[Sample], dict[str, str]]:
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
    config: Config,
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
    files = _files(weights, rows) | _pictures(config, weights, None, whole, device)
    return Product(files, {"kept": kept, "samples": count}, set_aside=aside)


def _pictures(
    config: Config, weights: bytes, judge: Judge | None, whole: Sequence[Sample], device: str
) -> dict[str, bytes]:
    """What the network finds, beside what is annotated."""
    if not config.pictures:
        return {}
    shown = judge or Judge.of(whole, config.protocol, config.score_threshold)
    sheet = predictions_jpg(
        weights,
        shown.pairs(config.pictures),
        classes=shown.classes,
        threshold=config.score_threshold,
        device=device,
    )
    return {"predictions.jpg": sheet}


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


def classes_of(samples: Sequence[Sample]) -> Classes:
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
    config: Config, item: Item, usable: Mapping[str, Path], classes: Classes
) -> list[Sample]:
    """Images and crops with their annotations, without images that cannot be decoded.

    Raises:
        InputError: nothing is left, or damaged annotations.
    """
    if "instances" in item.files:
        samples = read_coco(item.files["instances"], usable)
    else:
        samples = read_voc(Path(config.annotations or ""), usable, classes)
    if config.crops:
        from dmnet.core.formats import crops as crop_format

        crops = crop_format.read(item.files["crops"])
        samples += read_coco_crops(item.files["crop instances"], crops, usable)
    if not samples:
        raise InputError(next(iter(item.files.values())), "no annotated image can be decoded")
    return samples
