"""MMDetection 3 as a detector: any of its configs with a checkpoint, or weights trained here.

A ``.py`` config is a program that runs when it is read: use only those you trust. Weights files of
`dmnet.detectors.mmdet.train` are tensors and JSON, and need no config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmnet.core import config as settings_
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.records import Detections, Image, Size
from dmnet.core.training.device import pick_device
from dmnet.core.training.weights import load_state
from dmnet.detectors.classmap import DROPPED, category_table, parse_pairs
from dmnet.detectors.mmdet import config as fit
from dmnet.detectors.mmdet.libraries import libraries, read_checkpoint


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
    """name=class of the data set for the detector's classes (person=1); empty: by their names"""
    batch: int = 4
    """images a forward pass"""


class MmdetDetector:
    """An MMDetection model as a `dmnet.detectors.load.Detector`."""

    def __init__(
        self,
        weights: Path,
        settings: MmdetSettings | None = None,
        device: str = "auto",
        classes: Classes = VISDRONE,
    ) -> None:
        """Build the model and load its weights.

        Args:
            weights: a file written by `dmnet.detectors.mmdet.train`, or MMDetection's own
                checkpoint (then ``settings.config`` is needed).
            settings: see `MmdetSettings`.
            device: torch device, or ``auto``.
            classes: of the data set, whose labels the detections have.

        Raises:
            CheckpointError: damaged, unsafe, or made for another model or number of classes.
            ConfigError: no config, or classes without a category.
        """
        self.settings = settings or MmdetSettings()
        self.device = torch.device(pick_device(device))
        state, meta = read_checkpoint(weights)
        with libraries():
            model, steps = self._parts(weights, meta)
            self.pipeline = _compose(steps)
            self.model = _build_model(model, state, weights).to(self.device).eval()
        self.categories = self._category_table(meta, weights, classes)
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

    def _category_table(
        self, meta: Mapping[str, Any], weights: Path, classes: Classes
    ) -> NDArray[np.int64]:
        given = parse_pairs(self.settings.class_map, classes, "mmdet.class_map")
        if "classes" not in meta:
            raise CheckpointError(weights, "does not name its classes; MMDetection 3 stores them")
        return category_table(meta["classes"], given, classes, "mmdet.class_map")

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        """See `dmnet.detectors.load.Detector.predict`."""
        with libraries():
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
    load_state(model, state, path, "the config's model", extra=True)
    return model


def load(
    path: Path, settings: Mapping[str, Any], device: str, classes: Classes = VISDRONE
) -> MmdetDetector:
    """Make the detector from plain settings; see `dmnet.detectors.names.FOREIGN`."""
    built = settings_.build(MmdetSettings, settings, "mmdet")
    return MmdetDetector(path, built, device, classes)
