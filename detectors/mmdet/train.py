"""Training any MMDetection 3 config with its own Runner.

Nothing is downloaded unless the config says so. A ``.py`` config is a program that runs when it is
read: use only those you trust. The weights files written here are tensors and JSON, and need no
config.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dmnet.core.errors import CheckpointError, ConfigError, InputError
from dmnet.core.training.device import pick_device
from dmnet.core.training.weights import weights_bytes
from dmnet.detectors.mmdet import config as fit
from dmnet.detectors.mmdet.libraries import libraries, read_checkpoint
from dmnet.detectors.mmdet.settings import MmdetTraining

log = logging.getLogger(__name__)

_COUNTER = itertools.count()


@dataclass(frozen=True)
class MmdetTrained:
    """Result of a training."""

    weights: bytes
    """a weights file that `dmnet.detectors.mmdet.detector` reads without a config"""
    history: list[dict[str, float | int]]
    """one row an epoch: epoch, loss, lr, and the metrics where there was a validation"""
    config: str
    """the config as it ran, as Python text; for the record"""


def _prepare_coco(coco: Path, images: Path, target: Path) -> tuple[dict[str, Any], int]:
    """Check a COCO file and write it as MMDetection wants it.

    Ignored annotations (``ignore`` or ``iscrowd`` 1) become crowds of the first category, which
    the loader keeps as ignored; MMDetection itself would count ``ignore`` as background.

    Returns:
        Metadata (class names and category ids, in the file's order), and the number of images.

    Raises:
        InputError: not a COCO file, unknown categories, missing pictures.
    """
    try:
        data = json.loads(coco.read_text())
        categories = data["categories"]
        ids = [int(row["id"]) for row in categories]
        names = [str(row["name"]) for row in categories]
        pictures, annotations = data["images"], data["annotations"]
        files = [str(row["file_name"]) for row in pictures]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(coco, f"not a COCO ground truth file ({error!r})") from error
    if not ids or not files:
        raise InputError(coco, "has no categories or no images")
    root = images.resolve()
    for name in files:
        file = (root / name).resolve()
        if root not in file.parents or not file.is_file():
            raise InputError(coco, f"image '{name}' is not in the folder {images}")
    rows = []
    for row in annotations:
        left_out = bool(row.get("ignore", 0) or row.get("iscrowd", 0))
        if not left_out and row["category_id"] not in ids:
            raise InputError(
                coco, f"annotation {row.get('id')} has category {row['category_id']}, which is "
                f"not among the file's categories ({', '.join(map(str, ids))})"
            )  # fmt: skip
        width, height = row["bbox"][2:]
        clean = {key: value for key, value in row.items() if key != "ignore"}
        category = ids[0] if left_out else row["category_id"]
        clean |= {"iscrowd": int(left_out), "category_id": category, "area": width * height}
        rows.append(clean)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({**data, "annotations": rows}))
    return {"classes": tuple(names), "categories": tuple(ids)}, len(files)


def _precision(cfg: Any, amp: bool, device: str) -> None:
    """Set mixed precision.

    Raises:
        ConfigError: mixed precision on a CPU; mmengine would fail at the first step.
    """
    wrapper = cfg["optim_wrapper"]
    if amp:
        wrapper["type"] = "AmpOptimWrapper"
        wrapper.setdefault("loss_scale", "dynamic")
    if fit.kind(wrapper) == "AmpOptimWrapper" and device == "cpu":
        raise ConfigError(
            "mmdet: mixed precision needs a GPU, and this training runs on the CPU; switch amp off "
            "(and set optim_wrapper.type=OptimWrapper where the config itself asks for it)"
        )


def _adapt(
    config: Path, meta: Mapping[str, Any], count: int, settings: MmdetTraining, device: str
) -> tuple[Any, dict[str, Any]]:
    """The config fitted to classes, sizes and schedule; and what inference needs of it."""
    cfg = fit.read(config, settings.options)
    train = cfg["train_dataloader"]
    if any(node.get("with_mask") for node in fit.nodes(train)):
        raise ConfigError(f"{config}: trains masks, but the data have boxes only")
    fit.set_classes(cfg, len(meta["classes"]))
    if settings.input_size:
        fit.set_size(cfg, settings.input_size)
    fit.grey_ignored(train)
    fit.grey_ignored(cfg.get("custom_hooks"))
    if settings.pretrained == "none":
        fit.drop_downloads(cfg["model"])
    if settings.batch:
        train["batch_size"] = settings.batch
    if settings.lr:
        cfg["optim_wrapper"]["optimizer"]["lr"] = settings.lr
    if settings.epochs:
        fit.set_epochs(cfg, settings.epochs, -(-count // train["batch_size"]))
    _precision(cfg, settings.amp, device)
    return cfg, fit.extract(copy.deepcopy(cfg))


def _set_validation(cfg: Any, val: tuple[Path, Path] | None, work_dir: Path, workers: int) -> None:
    """Validate on ``val`` and keep the best epoch, or do not validate at all; never test."""
    saving = cfg.setdefault("default_hooks", {}).setdefault(
        "checkpoint", {"type": "CheckpointHook"}
    )
    saving.pop("save_best", None)
    cfg.update(test_dataloader=None, test_cfg=None, test_evaluator=None)
    if val is None:
        cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
        return
    coco = work_dir / "val.json"
    meta, _ = _prepare_coco(*val, coco)
    if meta != dict(fit.leaf(cfg["train_dataloader"]["dataset"])["metainfo"]):
        raise InputError(val[0], "its categories are not those of the training set, in that order")
    fit.set_data(cfg["val_dataloader"], coco, val[1], meta, workers)
    cfg["val_evaluator"] = {
        "type": "DmnetCocoMetric",
        "ann_file": str(coco),
        "metric": "bbox",
        "proposal_nums": (1, 10, 100),  # coco@100; other caps would mix in its table
    }
    cfg["val_cfg"] = {"type": "ValLoop"}
    saving.update(save_best="coco/bbox_mAP", rule="greater")


def _set_runtime(cfg: Any, work_dir: Path, settings: MmdetTraining) -> None:
    """Folder, seed, checkpoints; no pictures, no console log of its own."""
    loop = cfg["train_cfg"]
    cfg["default_hooks"]["checkpoint"].update(
        by_epoch="max_epochs" in loop,
        interval=settings.checkpoint_every
        if "max_epochs" in loop
        else loop.get("val_interval", 1000),
        max_keep_ckpts=2,  # a kill between writing one and naming it leaves the one before
        save_last=True,
    )
    cfg["default_hooks"].pop("visualization", None)
    cfg.update(
        work_dir=str(work_dir),
        log_level="ERROR",
        randomness={"seed": settings.seed},
        launcher="pytorch" if "LOCAL_RANK" in os.environ else "none",
        experiment_name=f"dmnet-{os.getpid()}-{next(_COUNTER)}",
        resume=settings.resume and (work_dir / "last_checkpoint").is_file(),
        load_from=None,  # mmengine's own reading allows more than tensors; see `_start_from`
    )


def _start_from(model: nn.Module, path: Path) -> None:
    """Load the weights that fit in name and shape: fine-tuning for other classes.

    Raises:
        CheckpointError: none fits.
    """
    state, _ = read_checkpoint(path)
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise CheckpointError(path, "no weight fits the config's model; give its own checkpoint")
    model.load_state_dict(fitting, strict=False)
    log.info("%s: %d of %d weights taken as the start", path, len(fitting), len(own))


def train_mmdet(
    config: Path,
    coco: Path,
    images: Path,
    work_dir: Path,
    settings: MmdetTraining | None = None,
    *,
    val: tuple[Path, Path] | None = None,
    device: str = "auto",
) -> MmdetTrained:
    """Train an MMDetection 3 config on a COCO file.

    Under torchrun every process calls this, and the work is shared; each has its own device then.
    Killed and called again, it goes on after the last finished epoch.

    Args:
        config: an MMDetection 3 config; paths, classes and schedule are fitted to the data.
        coco: COCO ground truth of the training set; its categories are the classes.
        images: folder that its ``file_name`` entries are in.
        work_dir: folder for MMDetection's checkpoints and logs.
        settings: see `MmdetTraining`.
        val: COCO file and image folder measured after epochs; the best epoch is then kept.
        device: torch device, or ``auto`` for the GPU if there is one.

    Raises:
        MissingExtraError: the extra ``mmdet`` is not installed.
        InputError: config or data are unusable.
        ConfigError: settings that do not fit the config or the machine.
    """
    settings = settings or MmdetTraining()
    device = pick_device(device)
    work_dir = work_dir.resolve()
    with libraries():
        from mmengine.runner import Runner

        from dmnet.detectors.mmdet.plugins import TrainingHook

        meta, count = _prepare_coco(coco, images, work_dir / "train.json")
        cfg, inference = _adapt(config, meta, count, settings, device)
        initial = settings.init or cfg.get("load_from")
        prepared = work_dir / "train.json"
        fit.set_data(cfg["train_dataloader"], prepared, images.resolve(), meta, settings.loaders)
        _set_validation(cfg, val, work_dir, settings.loaders)
        _set_runtime(cfg, work_dir, settings)
        if cfg["resume"]:
            read_checkpoint(Path((work_dir / "last_checkpoint").read_text().strip()))
        runner = Runner.from_cfg(cfg)
        if cfg["launcher"] == "none":
            runner.model.to(device)
        if initial and not cfg["resume"]:
            _start_from(runner.model, Path(initial))
        hook = TrainingHook(settings.seed, work_dir / "history.json")
        runner.register_hook(hook)
        runner.train()
        best = runner.message_hub.get_info("best_ckpt") if val else None
    last = (work_dir / "last_checkpoint").read_text().strip()
    state, _ = read_checkpoint(Path(best or last))
    stored = {
        "architecture": "mmdet",
        "classes": list(meta["classes"]),
        "categories": list(meta["categories"]),
        "input": {"order": "RGB", "range": [0, 255]},
        "mmdet": inference,
    }
    return MmdetTrained(weights_bytes(state, stored), hook.rows, cfg.pretty_text)
