"""Training through MMDetection inside the stage ``train-detector``."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.detectors.mmdet.settings import MmdetTraining
from dmnet.detectors.training.settings import TrainConfig
from dmnet.pipeline.chain import command, require
from dmnet.pipeline.context import Context
from dmnet.pipeline.inputs import load_crops

Part = tuple[Path, Mapping[str, Path]]
"""A COCO ground-truth file, and its image files by ``file_name``."""

SHIPPED = Path(__file__).resolve().parent.parent / "configs" / "mmdet"


@dataclass(frozen=True)
class MmdetConfig(MmdetTraining):
    """Training with MMDetection's Runner; the settings of the other networks' loop do not count."""

    config: str = "rtmdet_tiny"
    """MMDetection 3 config: a file, or the name of one in configs/mmdet/"""

    def path(self) -> Path:
        """The config file.

        Raises:
            MissingInputError: there is none.
        """
        path = Path(self.config)
        if path.suffix != ".py":
            path = SHIPPED / f"{self.config}.py"
        if not path.is_file():
            shipped = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.py")))
            raise MissingInputError(
                f"train-detector.mmdet.config: no such file: {self.config}. Name an MMDetection 3 "
                f"config file, or one of those shipped: {shipped}."
            )
        return path


def check_settings(config: Any) -> None:
    """Refuse settings of our own training loop, which MMDetection would not heed.

    Raises:
        ConfigError: the first one that was changed.
    """
    usual = TrainConfig()
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    changed = [name for name in names if getattr(config, name) != getattr(usual, name)]
    if changed:
        known = {field.name for field in dataclasses.fields(MmdetConfig)}
        instead = f"mmdet.{changed[0]}" if changed[0] in known else "mmdet.options"
        raise ConfigError(
            f"train-detector.{changed[0]}: has no effect with the model mmdet; say "
            f"--train-detector.{instead} (see --help)"
        )
    if config.judge_train:
        raise ConfigError("train-detector.judge_train: is not available with the model mmdet")
    if config.annotations is not None and not Path(config.annotations).is_file():
        raise ConfigError(
            f"train-detector.annotations: the model mmdet reads a COCO JSON file, and "
            f"{config.annotations} is none"
        )
    if config.validate_on is not None and config.protocol != "coco@100":
        raise ConfigError(
            "train-detector.protocol: MMDetection scores its epochs by coco@100; say so with "
            "--train-detector.protocol coco@100, or leave out validate_on"
        )


def crop_images(context: Context, instances: Path) -> dict[str, Path]:
    """Image files of the crops by ``file_name``: MMDetection reads files, not windows.

    Raises:
        MissingInputError: they were not written; says how to make them or do without.
    """
    folder = load_crops(context).path.parent / "images"
    names = [row["file_name"] for row in json.loads(instances.read_text())["images"]]
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise MissingInputError(
            f"{folder}: {len(absent)} of {len(names)} crops have no image file (such as "
            f"{absent[0]}), and MMDetection needs them. Make them with: "
            f"{command(context, 'crop', '--crop.write-images true')}, or train on whole images "
            "alone: --train-detector.crops false."
        )
    return {name: folder / name for name in names}


def validation(context: Context, config: Any) -> Part:
    """Whole images of the split that epochs are scored on, and their ground truth.

    Raises:
        MissingInputError: there is no image, or the ground truth was not converted.
    """
    split = config.validate_on or "val"
    dataset = context.dataset_of(split)
    images = {path.name: path for path in dataset.images.values()}
    if not images:
        raise MissingInputError(f"{dataset.root}: holds no image to score epochs on.")
    if config.validation is not None:
        given = Path(config.validation)
        if not given.is_file():
            raise MissingInputError(f"train-detector.validation: no such file: {given}.")
        return given, images
    return require(context, "convert", split, sums=True).folder / "instances.json", images


def learn(
    config: MmdetConfig, parts: Sequence[Part], val: Part | None, work: Path, device: str
) -> tuple[bytes, list[dict[str, float | int]], int]:
    """Train, going on from MMDetection's own checkpoint in ``work``.

    Returns:
        The weights file, one row an epoch, and the number of images and crops.
    """
    from dmnet.detectors.mmdet.train import train_mmdet

    coco = work / "all.json"
    root, count = combine(parts, coco)
    judged = None
    if val is not None:
        judged = work / "judged.json", combine([val], work / "judged.json")[0]
    trained = train_mmdet(config.path(), coco, root, work, config, val=judged, device=device)
    names = (("bbox_mAP_", "AP"), ("bbox_mAP", "AP"))  # as the other networks' curves are named
    rows = []
    for row in trained.history:
        for theirs, ours in names:
            row = {name.replace(theirs, ours): value for name, value in row.items()}
        rows.append(row)
    return trained.weights, rows, count


def combine(parts: Sequence[Part], target: Path) -> tuple[Path, int]:
    """Write one COCO file of several; what is not among a part's images is left out.

    Returns:
        The folder that its names are relative to, and the number of images.
    """
    places = [path.resolve().parent for _, files in parts for path in files.values()]
    root = Path(os.path.commonpath(places))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    for coco, files in parts:
        data = json.loads(coco.read_text())
        categories = data["categories"]
        ids: dict[int, int] = {}
        for row in data["images"]:
            if row["file_name"] in files:
                ids[row["id"]] = len(images) + 1
                name = files[row["file_name"]].resolve().relative_to(root)
                images.append({**row, "id": ids[row["id"]], "file_name": name.as_posix()})
        for row in data["annotations"]:
            if row["image_id"] in ids:
                own = {"id": len(annotations) + 1, "image_id": ids[row["image_id"]]}
                annotations.append({**row, **own})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root, len(images)
