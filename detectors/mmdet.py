"""MMDetection 3 as a detector: any of its configs, trained by its Runner, and inference.

Written against the import names ``mmdet``, ``mmengine`` and ``mmcv`` only: the maintained fork and
the official packages are the same here. Nothing is downloaded unless a config says so, and no file
is unpickled beyond tensors and the few types MMDetection's own checkpoints need.

A ``.py`` config is a program that runs when it is read: use only those you trust. Weights files
written here are tensors and JSON, and need no config.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
import os
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmnet.core import config as settings_
from dmnet.core.errors import CheckpointError, ConfigError, InputError, optional
from dmnet.core.records import Detections, Image, Size
from dmnet.core.training import FORMAT, weights_bytes
from dmnet.detectors import mmdet_config as fit
from dmnet.detectors.base import pick_device
from dmnet.detectors.classmap import DROPPED, category_table, parse_pairs

log = logging.getLogger(__name__)

_COUNTER = itertools.count()


@dataclass(frozen=True)
class MmdetSettings:
    """Inference with MMDetection."""

    config: str = ""
    """MMDetection config of the checkpoint; not needed for weights trained here"""
    options: tuple[str, ...] = ()
    """changes to the config, key=value each, such as model.test_cfg.score_thr=0.1"""
    input_size: tuple[int, int] | None = None
    """width and height, in pixels, of every resize, crop and pad step; none: as the config says"""
    class_map: tuple[str, ...] = ()
    """name=category of the detector's classes (person=1); empty: by VisDrone's or COCO's names"""
    batch: int = 4
    """images a forward pass"""


@dataclass(frozen=True)
class MmdetTraining:
    """Training with MMDetection's Runner."""

    options: tuple[str, ...] = ()
    """changes to the config, key=value each, such as optim_wrapper.optimizer.lr=0.001"""
    input_size: tuple[int, int] | None = None
    """width and height, in pixels, of every resize, crop and pad step; none: as the config says"""
    epochs: int = 0
    """epochs, schedules scaled along; 0: as the config says"""
    batch: int = 0
    """images a step; 0: as the config says"""
    workers: int = 0
    """loader processes"""
    lr: float = 0.0
    """learning rate; 0: as the config says"""
    amp: bool = False
    """mixed precision; needs a GPU"""
    initial: str = ""
    """checkpoint whose fitting weights are the start (whole detector); empty: none"""
    pretrained: Literal["config", "none"] = "config"
    """backbone weights: what the config names (it may download them), or none"""
    seed: int = 0
    """seed of weights, order and augmentation"""
    checkpoint_every: int = 1
    """epochs from one checkpoint to the next; the last epoch always has one"""
    resume: bool = True
    """go on from the last checkpoint in the working folder"""


@dataclass(frozen=True)
class MmdetTrained:
    """Result of a training."""

    weights: bytes
    """a weights file that `MmdetDetector` reads without a config"""
    history: list[dict[str, float | int]]
    """one row an epoch: epoch, loss, lr, and the metrics where there was a validation"""
    config: str
    """the config as it ran, as Python text; for the record"""


# --- safe use of the libraries -------------------------------------------------------------------


def _history_method(owner: type, name: str) -> Any:
    """What ``getattr`` does in MMDetection's checkpoints, and nothing more.

    They hold references to the methods of `HistoryBuffer`, which pickle writes as ``getattr``
    calls; the real ``getattr`` (which mmengine itself allows) would reach any attribute.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise pickle.UnpicklingError(f"getattr({owner!r}, {name!r})")
    return getattr(owner, name)


def _safe_globals() -> list[Any]:
    """What MMDetection's own checkpoints hold beside tensors; none of it can run code."""
    from mmengine.logging.history_buffer import HistoryBuffer

    rebuild, make = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(code)) for code in ("f8", "f4", "i8", "i4", "u4", "u1", "?")]
    named = [
        (_history_method, "builtins.getattr"),
        (rebuild, "numpy.core.multiarray._reconstruct"),  # numpy 1's names
        (make, "numpy.core.multiarray.scalar"),
    ]
    return [HistoryBuffer, np.ndarray, np.dtype, rebuild, make, *dtypes, *named]


@contextlib.contextmanager
def _libraries() -> Iterator[None]:
    """Load the libraries with the operators' stand-in, and keep them within bounds.

    Inside, every ``torch.load`` of anybody is weights-only (mmengine otherwise falls back to full
    unpickling with a log line), and what they print goes to stderr.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    for module in ("mmengine", "mmcv"):
        optional(module, "mmdet")
    forced = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": None}
    before = {name: os.environ.get(name) for name in forced}
    _set_environment(forced)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")  # theirs, of no use to the user
            optional("dmnet.detectors.mmdet_plugins", "mmdet")
            with torch.serialization.safe_globals(_safe_globals()):
                yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read MMDetection's checkpoint or a weights file written here.

    Returns:
        The state_dict, and the metadata: ``classes`` (names), ``categories`` (ids, maybe absent),
        ``mmdet`` (stored config, only in files written here).

    Raises:
        CheckpointError: damaged, or holds pickled objects that MMDetection itself does not write.
    """
    if not path.is_file():
        raise CheckpointError(path, "no such weights file")
    with _libraries():
        try:
            payload = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                path,
                "refused: it holds pickled objects that MMDetection's checkpoints do not, which "
                "could run code when loaded",
            ) from error
        except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(path, f"not a readable torch file ({error})") from error
    state = payload.get("state_dict", payload) if isinstance(payload, dict) else {}
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(path, "holds no tensors, expected an MMDetection checkpoint")
    if payload.get("format") == FORMAT:
        return state, json.loads(payload["meta"])
    return state, _foreign_meta(payload.get("meta"))


def _foreign_meta(meta: Any) -> dict[str, Any]:
    """Class names out of MMDetection's metadata, of version 3 or older."""
    if not isinstance(meta, Mapping):
        return {}
    data = meta.get("dataset_meta", meta)
    lower = {str(key).lower(): value for key, value in data.items()}
    if "classes" not in lower:
        return {}
    found: dict[str, Any] = {"classes": [str(name) for name in lower["classes"]]}
    if "categories" in lower:
        found["categories"] = [int(value) for value in lower["categories"]]
    return found


# --- training ------------------------------------------------------------------------------------


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


def _precision(cfg: Any, amp: bool) -> None:
    """Set mixed precision.

    Raises:
        ConfigError: mixed precision without a GPU; mmengine would fail at the first step.
    """
    wrapper = cfg["optim_wrapper"]
    if amp:
        wrapper["type"] = "AmpOptimWrapper"
        wrapper.setdefault("loss_scale", "dynamic")
    if fit.kind(wrapper) == "AmpOptimWrapper" and not torch.cuda.is_available():
        raise ConfigError(
            "mmdet: mixed precision needs a GPU, and there is none here; switch amp off (and set "
            "optim_wrapper.type=OptimWrapper where the config itself asks for it)"
        )


def _adapt(
    config: Path, meta: Mapping[str, Any], count: int, settings: MmdetTraining
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
    _precision(cfg, settings.amp)
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
) -> MmdetTrained:
    """Train an MMDetection 3 config on a COCO file.

    Uses the GPU if there is one. Under torchrun every process calls this, and the work is shared.
    Killed and called again, it goes on after the last finished epoch.

    Args:
        config: an MMDetection 3 config; paths, classes and schedule are fitted to the data.
        coco: COCO ground truth of the training set; its categories are the classes.
        images: folder that its ``file_name`` entries are in.
        work_dir: folder for MMDetection's checkpoints and logs.
        settings: see `MmdetTraining`.
        val: COCO file and image folder measured after epochs; the best epoch is then kept.

    Raises:
        MissingExtraError: the extra ``mmdet`` is not installed.
        InputError: config or data are unusable.
        ConfigError: settings that do not fit the config or the machine.
    """
    settings = settings or MmdetTraining()
    work_dir = work_dir.resolve()
    with _libraries():
        from mmengine.runner import Runner

        from dmnet.detectors.mmdet_plugins import TrainingHook

        meta, count = _prepare_coco(coco, images, work_dir / "train.json")
        cfg, inference = _adapt(config, meta, count, settings)
        initial = settings.initial or cfg.get("load_from")
        prepared = work_dir / "train.json"
        fit.set_data(cfg["train_dataloader"], prepared, images.resolve(), meta, settings.workers)
        _set_validation(cfg, val, work_dir, settings.workers)
        _set_runtime(cfg, work_dir, settings)
        if cfg["resume"]:
            read_checkpoint(Path((work_dir / "last_checkpoint").read_text().strip()))
        runner = Runner.from_cfg(cfg)
        if initial and not cfg["resume"]:
            _start_from(runner.model, Path(initial))
        hook = TrainingHook(settings.seed)
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


# --- inference -----------------------------------------------------------------------------------


class MmdetDetector:
    """An MMDetection model as a `dmnet.detectors.base.Detector`."""

    def __init__(
        self, weights: Path, settings: MmdetSettings | None = None, device: str = "auto"
    ) -> None:
        """Build the model and load its weights.

        Args:
            weights: a file written by `train_mmdet`, or MMDetection's own checkpoint (then
                ``settings.config`` is needed).
            settings: see `MmdetSettings`.
            device: torch device, or ``auto``.

        Raises:
            CheckpointError: damaged, unsafe, or made for another model or number of classes.
            ConfigError: no config, or classes without a category.
        """
        self.settings = settings or MmdetSettings()
        self.device = pick_device(device)
        state, meta = read_checkpoint(weights)
        with _libraries():
            model, steps = self._parts(weights, meta)
            self.pipeline = _compose(steps)
            self.model = _build_model(model, state, weights).to(self.device).eval()
        self.categories = self._category_table(meta, weights)
        self._shapes: dict[Size, Size] = {}

    def _parts(self, weights: Path, meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Model and pipeline configs, from the config given or else from the weights file."""
        own = self.settings
        if own.config:
            cfg = fit.read(Path(own.config), own.options)
            if meta.get("classes"):
                fit.set_classes(cfg, len(meta["classes"]))
            if own.input_size:
                fit.set_size(cfg, own.input_size)
            fit.drop_downloads(cfg["model"])
            return cfg["model"], fit.test_pipeline(cfg)
        if "mmdet" not in meta:
            raise ConfigError(
                f"{weights}: MMDetection's own checkpoint does not hold its config; name the "
                "config it was trained with (mmdet.config)"
            )
        from mmengine.config import Config

        stored = Config(fit.restore(meta["mmdet"], weights))
        fit.apply_options(stored, own.options, str(weights))
        if own.input_size:
            fit.set_size(stored, own.input_size)
        return stored["model"], stored["pipeline"]

    def _category_table(self, meta: Mapping[str, Any], weights: Path) -> NDArray[np.int64]:
        given = parse_pairs(self.settings.class_map, "mmdet.class_map")
        if "categories" in meta and not given:
            return np.asarray(meta["categories"], dtype=np.int64)
        if "classes" not in meta:
            raise CheckpointError(weights, "does not name its classes; MMDetection 3 stores them")
        return category_table(meta["classes"], given, "mmdet.class_map")

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        """See `dmnet.detectors.base.Detector.predict`."""
        with _libraries():
            prepared = [self._prepare(image) for image in images]
            found: list[Detections] = [Detections.empty()] * len(images)
            groups: dict[tuple[int, ...], list[int]] = {}
            for index, item in enumerate(prepared):
                groups.setdefault(tuple(item["inputs"].shape), []).append(index)
            for indices in groups.values():
                for start in range(0, len(indices), self.settings.batch):
                    part = indices[start : start + self.settings.batch]
                    for index, sample in zip(part, self._forward(prepared, part), strict=True):
                        found[index] = self._detections(sample.pred_instances)
        return found

    def input_shape(self, size: Size) -> Size:
        """Images of equal input shape can go in one batch; found by trying, once a size."""
        if size not in self._shapes:
            tried = self._prepare(np.zeros((*size, 3), dtype=np.uint8))["inputs"].shape
            self._shapes[size] = tried[-2], tried[-1]
        return self._shapes[size]

    def _prepare(self, image: Image) -> dict[str, Any]:
        bgr = np.ascontiguousarray(image[..., ::-1])  # MMDetection's images are OpenCV's
        item: dict[str, Any] = self.pipeline({"img": bgr, "img_id": 0})
        return item

    @torch.inference_mode()
    def _forward(self, prepared: Sequence[Mapping[str, Any]], part: Sequence[int]) -> list[Any]:
        batch = {key: [prepared[i][key] for i in part] for key in ("inputs", "data_samples")}
        samples: list[Any] = self.model.test_step(batch)  # type: ignore[operator]
        return samples

    def _detections(self, found: Any) -> Detections:
        scores = found.scores.double().cpu()
        order = torch.sort(scores, descending=True, stable=True).indices
        labels = self.categories[found.labels.cpu()[order].numpy()]
        known = labels != DROPPED
        boxes = found.bboxes.double().cpu()[order].numpy()
        return Detections(boxes[known], scores[order].numpy()[known], labels[known])


def _compose(steps: list[Any]) -> Any:
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    return Compose(steps)


def _build_model(config: Any, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Build the model and load every weight.

    Raises:
        CheckpointError: names or shapes do not fit.
    """
    from mmdet.registry import MODELS
    from mmengine.model import revert_sync_batchnorm

    model: nn.Module = revert_sync_batchnorm(MODELS.build(config))
    own = model.state_dict()
    state = {key: value for key, value in state.items() if key in own or "num_batches" not in key}
    wrong = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    if wrong:
        raise CheckpointError(
            path,
            f"'{wrong[0]}' has shape {tuple(state[wrong[0]].shape)}, the config's model needs "
            f"{tuple(own[wrong[0]].shape)}: made for another config or number of classes",
        )
    missing = sorted(own.keys() - state.keys())
    if missing:
        raise CheckpointError(
            path,
            f"not weights of the config's model: {len(missing)} of {len(own)} names are missing, "
            f"such as '{missing[0]}'; name the config it was made with",
        )
    model.load_state_dict(dict(state), strict=False)
    return model


def load(path: Path, settings: Mapping[str, Any], device: str) -> MmdetDetector:
    """Make the detector from plain settings; see `dmnet.detectors.base.FOREIGN`."""
    return MmdetDetector(path, settings_.build(MmdetSettings, settings, "mmdet"), device)
