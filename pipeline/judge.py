"""Scores of a network while it is trained: whole images, a named protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.dataset import Dataset
from dmnet.core.images import read_image
from dmnet.core.listing import Entry
from dmnet.core.records import Annotations, Detections, Image
from dmnet.detectors.training.data import TrainingImage, load_scene
from dmnet.fusion.evaluation.evaluate import score
from dmnet.fusion.evaluation.operating_points import operating_point_of


@dataclass(frozen=True)
class Judge:
    """Images to score on: a whole split, or samples of the training set or of a file."""

    dataset: Dataset | None
    protocol: str
    threshold: float
    samples: Sequence[TrainingImage] = ()
    source: Path | None = None
    """The file that the samples were read from."""

    @property
    def classes(self) -> Classes:
        """What the images are annotated in."""
        if self.dataset is not None:
            return self.dataset.classes
        return self.samples[0].annotations.classes if self.samples else VISDRONE

    def files(self) -> Mapping[str, Path]:
        """Image and annotation files, as inputs of an item."""
        entries = self.dataset.with_annotation if self.dataset else ()
        if self.source is not None:
            images = {f"image {s.annotations.image_id}": s.image for s in self.samples}
            return {"annotations": self.source} | images
        named = {f"image {e.image_id}": e.image for e in entries if e.image}
        if self.dataset is not None and any(entry.rows is not None for entry in entries):
            named["annotations"] = self.dataset.labels.source
        return named | {f"annotation {e.image_id}": e.annotation for e in entries if e.annotation}

    def scores(self, net: Any, device: str) -> dict[str, float]:
        """AP, AP50, AP75 and, at the score threshold, precision, recall, F1 and mean IoU."""
        from dmnet.detectors.base import NetDetector

        detector = NetDetector(net, device, classes=self.classes)
        truths: list[Annotations] = []
        found: dict[str, Detections] = {}
        for truth, image in tqdm(self.pairs(), desc="validation", leave=False, disable=None):
            truths.append(truth)
            found[truth.image_id] = detector.predict([image])[0]
        summary = score(truths, found, self.protocol).summary
        point = operating_point_of(truths, found, self.threshold)
        kept = {name: summary[name] for name in ("AP", "AP50", "AP75")}
        rates = {"precision": point.precision, "recall": point.recall, "F1": point.f1}
        every = {**kept, **rates, "mean_iou": point.mean_iou}
        return {name: 0.0 if math.isnan(value) else value for name, value in every.items()}

    def pairs(self, count: int | None = None) -> Iterator[tuple[Annotations, Image]]:
        """Annotations and image of all, or of ``count`` evenly spaced ones."""
        entries = self.dataset.with_annotation if self.dataset else ()
        listed: list[TrainingImage | Entry] = [
            *self.samples,
            *(e for e in entries if e.image is not None),
        ]
        if count is not None and 0 < count < len(listed):
            listed = [listed[i * len(listed) // count] for i in range(count)]
        for one in listed:
            if isinstance(one, TrainingImage):
                yield one.annotations, load_scene(one, 1 << 40).image
            elif self.dataset is not None and one.image is not None:
                yield self.dataset.annotations(one)[0], read_image(one.image)
