"""The classes MMDetection calls back into; importing this module needs the extra ``mmdet``.

It installs the operators' stand-in before mmdet is imported, so that a worker process started by
spawn, which meets these classes first while it unpickles its dataset, has it in place too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dmnet.core.training.seeds import seed_epoch
from dmnet.core.training.weights import write_atomic
from dmnet.detectors.mmdet import standin

with contextlib.redirect_stdout(sys.stderr):  # they print while they are imported
    standin.install()
    from mmdet.evaluation import CocoMetric
    from mmdet.registry import DATASETS, METRICS, TRANSFORMS
    from mmengine.dist import is_main_process
    from mmengine.hooks import Hook

log = logging.getLogger(__name__)

GREY = 114


@TRANSFORMS.register_module(name="DmnetGreyIgnored", force=True)
class GreyIgnored:
    """Paint ignored regions grey, objects in them excepted, and drop their boxes.

    MMDetection's assigners differ in whether they heed ignored boxes at all; without the pixels
    nothing is learnt there, neither object nor background.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Transform one image's dictionary."""
        ignored = np.asarray(results["gt_ignore_flags"], dtype=bool)
        if not ignored.any():
            return results
        boxes = results["gt_bboxes"]
        corners = np.asarray(getattr(boxes, "tensor", boxes)).round().astype(int).clip(min=0)
        image = results["img"].copy()
        for x1, y1, x2, y2 in corners[ignored]:
            image[y1:y2, x1:x2] = GREY
        for x1, y1, x2, y2 in corners[~ignored]:
            image[y1:y2, x1:x2] = results["img"][y1:y2, x1:x2]
        keep = np.flatnonzero(~ignored)
        for key in ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags", "gt_masks"):
            if key in results:
                results[key] = results[key][keep]
        results["img"] = image
        return results


@DATASETS.register_module(name="DmnetGuarded", force=True)
class Guarded:
    """A dataset as it was, but unpickled in a spawned worker only after the stand-in is there."""

    _dataset: Any

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        """Build the dataset from its config."""
        self.__dict__["_dataset"] = DATASETS.build(dataset)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        """One image's dictionary."""
        return self._dataset[index]

    def __getattr__(self, name: str) -> Any:
        """Everything else is the dataset's."""
        if name.startswith("__") or name == "_dataset":
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set on the dataset: hooks replace its pipeline."""
        setattr(self._dataset, name, value)


@METRICS.register_module(name="DmnetCocoMetric", force=True)
class ZeroCocoMetric(CocoMetric):  # type: ignore[misc]
    """`CocoMetric`, but no detection at all is AP 0 rather than no number."""

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Metrics of the whole set."""
        found: dict[str, float] = super().compute_metrics(results)
        if found or self.format_only:
            return found
        parts = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
        return {f"{metric}_{part}": 0.0 for metric in self.metrics for part in parts}


class TrainingHook(Hook):  # type: ignore[misc]
    """Seeds each epoch, keeps one history row an epoch, and shows progress."""

    priority = "LOW"  # before the checkpoint is written: a resumed training has its rows

    def __init__(self, seed: int, history: Path) -> None:
        """Start with an empty history; ``history`` is the file that carries it over a restart."""
        self.seed, self.file = seed, history
        self.rows: list[dict[str, float | int]] = []
        self._losses: list[float] = []
        self._bar: tqdm[Any] | None = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take out the config text: a resuming runner would execute it as Python."""
        checkpoint.get("meta", {}).pop("config", None)

    def before_train(self, runner: Any) -> None:
        """Open the progress bar; take over the rows of the epochs that are done."""
        if runner.epoch and self.file.is_file():
            rows = json.loads(self.file.read_text())
            self.rows = [row for row in rows if row["epoch"] <= runner.epoch]
        self._bar = tqdm(
            total=runner.max_iters, initial=runner.iter, desc="train mmdet", unit="step"
        )

    def before_train_epoch(self, runner: Any) -> None:
        """Randomness depends on (seed, epoch) alone, so that a resumed training repeats it."""
        seed_epoch(self.seed, runner.epoch)
        self._losses.clear()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note the loss."""
        self._losses.append(float(outputs["loss"]))
        if self._bar is not None:
            self._bar.update(1)

    def after_train_epoch(self, runner: Any) -> None:
        """Add the epoch's row."""
        rate = runner.optim_wrapper.get_lr()
        rates: Sequence[float] = rate["lr"] if "lr" in rate else next(iter(rate.values()))
        loss = float(np.mean(self._losses)) if self._losses else float("nan")
        self.rows.append({"epoch": runner.epoch + 1, "loss": loss, "lr": float(rates[0])})
        self._save()
        log.info("epoch %d: loss %.4f", runner.epoch + 1, loss)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Add the metrics to the row of the epoch they were measured after."""
        if self.rows and metrics:
            self.rows[-1].update({key.split("/")[-1]: value for key, value in metrics.items()})
            self._save()

    def _save(self) -> None:
        if is_main_process():
            write_atomic(self.file, json.dumps(self.rows).encode())

    def after_train(self, runner: Any) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()
