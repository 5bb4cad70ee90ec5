"""Do detectors learn what they are shown? ``python benchmarks/overfit.py --data DIR --work DIR``.

Trains detectors on the most crowded pictures of a training split and on their density crops (true
maps), nothing varied, and scores them on these very samples: a curve of training AP50 over steps.
A detector that stays low here under-fits, whatever it is trained on. Each training goes on where a
killed one stopped; those that are done are not repeated. ``overfit.md`` and ``overfit.svg`` in the
work folder hold the table and the curves; ``--draw`` makes them of what there is, without training.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmnet.core.dataset import open_dataset
from dmnet.core.records import Annotations, Detections, Image
from dmnet.core.training.seeds import seed_epoch
from dmnet.core.training.weights import read_payload, write_atomic
from dmnet.cropping.labels import crop_annotations
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.density.ground_truth import density_map
from dmnet.density.kernels import KernelBank
from dmnet.detectors.base import DetectionNet, NetDetector, build_model
from dmnet.detectors.training.augmentation import AugmentConfig
from dmnet.detectors.training.data import DataConfig, TrainingImage, load_scene
from dmnet.detectors.training.settings import TrainConfig
from dmnet.detectors.training.train import train
from dmnet.fusion.evaluation.evaluate import score
from dmnet.fusion.fuse import fuse_image
from dmnet.fusion.report.plots import LINES, svg

PROTOCOL = "coco@500"
AS_IT_IS = AugmentConfig(flip=0.0, zoom=(1.0, 1.0), photometric=0.0)
RECIPE = TrainConfig(
    optimizer="adamw", lr=2e-3, weight_decay=0.01, warmup_steps=100, ema=0.99, metric="AP50",
    cpu_bfloat16=True, channels_last=True, data=DataConfig(augment=AS_IT_IS),
)  # fmt: skip

Row = Mapping[str, float | int | str]


@dataclass(frozen=True)
class Trial:
    """A detector from random weights."""

    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    longer_side: str = "input_size"
    """name of its setting for the longer side of the input"""


TRIALS: dict[str, Trial] = {
    "yolov6-n-fine": Trial("yolov6-n", {"fine": True}),
    "yolov6-n": Trial("yolov6-n"),
    "yolox-nano": Trial("yolox-nano"),
    "fcos-mobilenetv2": Trial("fcos-mobilenetv2", {"fpn_channels": 64}, "max_size"),
}


# --- data ----------------------------------------------------------------------------------------


def most_crowded(data: Path, split: str, count: int) -> list[TrainingImage]:
    """The whole images with most objects; of equal ones the first by name."""
    dataset = open_dataset(data, split)
    found = [
        TrainingImage(entry.image, dataset.annotations(entry)[0])
        for entry in dataset.with_annotation
        if entry.image is not None
    ]
    return sorted(found, key=lambda sample: -len(sample.annotations.objects))[:count]


def with_crops(whole: Sequence[TrainingImage]) -> list[TrainingImage]:
    """The images, and what the cropping cuts out of them by their true density maps."""
    bank, config, crops = KernelBank.build(), CropConfig(), []
    for sample in whole:
        truth = sample.annotations
        for window in slice_image(config, truth.size, density_map(truth, bank, stride=4)):
            shown = crop_annotations(truth, window, config.label_bound)
            crops.append(TrainingImage(sample.image, shown, window))
    return [*whole, *crops]


# --- scores --------------------------------------------------------------------------------------


def ap50(truths: Sequence[Annotations], found: Mapping[str, Detections]) -> float:
    """AP50 without what lies in ignored regions, where nothing was learnt."""
    return float(score(truths, found, PROTOCOL, ignore_regions=True).summary["AP50"])


def fused(
    samples: Sequence[TrainingImage], found: Mapping[str, Detections]
) -> dict[str, Detections]:
    """Detections of the whole images with those of their crops, by image id."""
    results = {}
    for sample in samples:
        if sample.window is None:
            crops = [
                (other.window, found[other.annotations.image_id])
                for other in samples
                if other.image == sample.image and other.window is not None
            ]
            truth = sample.annotations
            results[truth.image_id] = fuse_image(found[truth.image_id], crops, truth.size)
    return results


class Judge:
    """AP50 on the training samples: all, whole images, crops, crops fused into their images."""

    def __init__(self, samples: Sequence[TrainingImage]) -> None:
        """Decode every sample once."""
        self.samples = samples
        self.images: list[Image] = [load_scene(sample, 1 << 40).image for sample in samples]
        self.mark = time.process_time()

    def __call__(self, net: DetectionNet) -> dict[str, float]:
        """Scores by name; ``seconds`` are the processor's for training since the last call."""
        spent = time.process_time() - self.mark
        detector = NetDetector(net, "cpu")
        found = {
            sample.annotations.image_id: detector.predict([image])[0]
            for sample, image in zip(self.samples, self.images, strict=True)
        }
        whole = [sample.annotations for sample in self.samples if sample.window is None]
        crops = [sample.annotations for sample in self.samples if sample.window is not None]
        scores = {
            "AP50": ap50([*whole, *crops], found),
            "whole": ap50(whole, found),
            "crops": ap50(crops, found),
            "fused": ap50(whole, fused(self.samples, found)),
        }
        self.mark = time.process_time()
        return {**scores, "seconds": spent}


# --- trainings -----------------------------------------------------------------------------------


def run(name: str, samples: Sequence[TrainingImage], given: argparse.Namespace) -> None:
    """Train one of `TRIALS`, or go on with it."""
    trial = TRIALS[name]
    seed_epoch(given.seed, 0)
    settings = {**trial.settings, trial.longer_side: given.input}
    net = build_model(trial.model, settings, samples[0].annotations.classes)
    an_epoch = -(-len(samples) // given.batch)
    epochs = max(1, given.steps // an_epoch)
    config = replace(
        RECIPE, batch=given.batch, epochs=epochs, seed=given.seed,
        eval_every=max(1, epochs // given.points),
    )  # fmt: skip
    train(
        net, samples, config, evaluate=Judge(samples), checkpoint=given.work / f"{name}.pt",
        cache=given.work / "pixels", device="cpu",
    )  # fmt: skip


def scored(checkpoint: Path, steps: int) -> list[Row]:
    """The rows of a training that hold scores, with their ``steps``; none where it never began.

    Args:
        checkpoint: of the training.
        steps: of an epoch.
    """
    if not checkpoint.exists():
        return []
    history = read_payload(checkpoint)["history"]
    return [{**row, "steps": int(row["epoch"]) * steps} for row in history if "AP50" in row]


def table(found: Mapping[str, Sequence[Row]]) -> str:
    """The last row of each training as markdown."""
    lines = [
        "| detector | steps | AP50 | whole images | crops | fused | processor seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, rows in found.items():
        last, spent = rows[-1], sum(float(row["seconds"]) for row in rows)
        scores = " | ".join(
            f"{float(last[key]):.3f}" for key in ("AP50", "whole", "crops", "fused")
        )
        lines.append(f"| {name} | {last['steps']} | {scores} | {spent:.0f} |")
    return "\n".join(lines) + "\n"


def curves(found: Mapping[str, Sequence[Row]]) -> str:
    """Training AP50 over steps as SVG, one line a training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for colour, (name, rows) in zip(LINES, found.items(), strict=False):
        steps = [0, *(int(row["steps"]) for row in rows)]
        scores = np.array([0.0, *(float(row["AP50"]) for row in rows)])
        axis.plot(steps, scores, color=colour, marker="o", ms=3, lw=1.4, label=name)
    axis.set(xlabel="steps", ylabel=f"AP50 on the training samples ({PROTOCOL})", ylim=(0, 1))
    axis.grid(color="#d0d5dd", lw=0.5)
    axis.legend(frameon=False, fontsize=8)
    return svg(figure)


def main() -> None:
    """Train what is not trained yet, then print the table and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data set")
    parser.add_argument("--split", default="train")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made")
    parser.add_argument("--pictures", type=int, default=20, help="so many, those of most objects")
    parser.add_argument("--samples", type=int, default=0, help="evenly spaced ones; 0: all")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--input", type=int, default=416, help="longer side of the input, pixels")
    parser.add_argument("--points", type=int, default=10, help="of a curve")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", nargs="+", default=list(TRIALS), choices=list(TRIALS))
    parser.add_argument("--draw", action="store_true", help="only table and curves")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    samples = with_crops(most_crowded(given.data, given.split, given.pictures))
    if given.samples:
        samples = samples[:: max(1, len(samples) // given.samples)][: given.samples]
    objects = [len(sample.annotations.objects) for sample in samples]
    print(f"{len(samples)} samples with {sum(objects)} objects")
    for name in () if given.draw else given.trials:
        run(name, samples, given)
    an_epoch = -(-len(samples) // given.batch)
    every = {name: scored(given.work / f"{name}.pt", an_epoch) for name in given.trials}
    found = {name: rows for name, rows in every.items() if rows}
    text = table(found)
    write_atomic(given.work / "overfit.md", text.encode())
    write_atomic(given.work / "overfit.svg", curves(found).encode())
    print(text)


if __name__ == "__main__":
    main()
