"""Stage ``train-detector``: train a detector on whole images and on crops."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dmnet.core import config as settings
from dmnet.core.artifact import Item, Product
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.presets import read_yaml
from dmnet.detectors.training.data import read_coco
from dmnet.pipeline import mmdet
from dmnet.pipeline.chain import command, require
from dmnet.pipeline.context import Context, Plan, Upstream
from dmnet.pipeline.inputs import load_crops
from dmnet.pipeline.judge import Judge
from dmnet.pipeline.learning.settings import DetectorTraining as Config
from dmnet.pipeline.training import checkpoint_name, named_start, remove_checkpoints, starting_file

VERSION = 1
CPU_PRESET = Path(__file__).resolve().parents[2] / "configs" / "cpu.yaml"

_log = logging.getLogger(__name__)


def plan(context: Context) -> Plan:
    """One item: the weights."""
    fitted = for_device(context)
    config = named_start(fitted.config("train-detector", Config), "detector")
    files, made = annotation_files(context, config)
    if config.crops:
        crops = load_crops(context)
        files["crops"], made = crops.path, (*made, *crops.upstream)
    images = context.dataset.images
    if not images:
        raise MissingInputError(f"{context.dataset.root}: holds no image to train on.")
    files |= {f"image {name}": path for name, path in images.items()}
    files |= starting_file("train-detector", config.init)
    root = context.folder("train-detector")
    if config.model == "mmdet":
        return replace(plan_mmdet(context, config, images, files, root), made_from=made)
    judge = find_judge(context, config)
    if judge is not None:
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


def find_judge(context: Context, config: Config) -> Judge | None:
    """What every epoch is scored on; None where nothing is asked for.

    Raises:
        MissingInputError: the split has no annotated image, or the file none of its images.
        InputError: the file is unusable.
    """
    if config.validate_on is None and config.validation is None:
        return None
    dataset = context.dataset_of(config.validate_on or "val")
    ways = (
        "Give annotations of these images as a COCO JSON file, --train-detector.validation FILE, "
        "or score no epochs: --train-detector.validate-on null"
    )
    if config.validation is None:
        if not any(entry.image for entry in dataset.with_annotation):
            raise MissingInputError(
                f"train-detector.validate_on: no image of {dataset.root} is annotated, so no epoch "
                f"can be scored. {ways}."
            )
        return Judge(dataset, config.protocol, config.score_threshold)
    path = Path(config.validation)
    if not path.is_file():
        raise MissingInputError(f"train-detector.validation: no such file: {path}. {ways}.")
    samples = read_coco(path, dataset.images)
    if not samples:
        raise MissingInputError(
            f"train-detector.validation: {path} annotates no image of {dataset.root}. {ways}."
        )
    return Judge(None, config.protocol, config.score_threshold, samples, path)


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


def for_device(context: Context) -> Context:
    """Put the preset ``cpu`` below the user's settings where there is no GPU and no model is named.

    A ResNet-50 at full input size takes hours an epoch there.
    """
    if "model" in (context.settings.get("train_detector") or {}):
        return context
    from dmnet.core.training.device import pick_device

    if pick_device(context.device) != "cpu":
        return context
    preset = read_yaml(CPU_PRESET)
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
    val = mmdet.validation(context, config) if config.validate_on or config.validation else None
    files = {**files, "mmdet config": config.mmdet.path()}
    files |= {f"crop {name}": path for name, path in crops.items()}
    files |= starting_file("train-detector.mmdet", config.mmdet.init)
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


def learn(*given: Any) -> Product:
    """See `dmnet.pipeline.learning.detector.learn`; torch is imported once it is wanted."""
    from dmnet.pipeline.learning import detector

    return detector.learn(*given)


def learn_mmdet(*given: Any) -> Product:
    """See `dmnet.pipeline.learning.detector.learn_mmdet`."""
    from dmnet.pipeline.learning import detector

    return detector.learn_mmdet(*given)
