"""Trains small networks, by the processes that torchrun starts or alone: weights and histories.

    torchrun --standalone --nproc-per-node 2 tests/pipeline/together.py DATA OUT NAME...

Each network makes five steps on pictures of different sizes, which processes pad alike.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmnet.core.boxes import Window
from dmnet.core.images import encode_png
from dmnet.core.records import Annotations, DensityMap
from dmnet.core.training.loop import Trained
from dmnet.core.training.norms import SharedBatchNorm2d
from dmnet.core.training.processes import process_group
from dmnet.density.samples import DensityPair
from dmnet.density.settings import TrainConfig as DensityConfig
from dmnet.density.train import train as train_density
from dmnet.detectors.base import build_model
from dmnet.detectors.training.augmentation import AugmentConfig
from dmnet.detectors.training.data import DataConfig, TrainingImage
from dmnet.detectors.training.settings import TrainConfig
from dmnet.detectors.training.train import train as train_detector

TORCHVISION = {
    "min_size": 64, "max_size": 96, "fpn_channels": 32, "head_channels": 16, "proposals": 20,
    "roi_samples": 16,
}  # fmt: skip
SETTINGS = {
    "fasterrcnn-mobilenetv3": TORCHVISION,
    "retinanet-r50": TORCHVISION,
    "fcos-mobilenetv2": TORCHVISION,
    "yolov6-n": {"input_size": 64, "border": 0},
    "yolox-nano": {"input_size": 64, "border": 0},
}
RATES = {"mobilenet": 1e-4, "yolox-nano": 1e-5}
"""Learning rates where others would be too great: steps that overshoot enlarge rounding errors,
those of another convolution algorithm in one process as well."""
DENSITY = {"mcnn": 5, "unet": 5, "mobilenet": 6}
"""Density networks, and how many pictures each is trained on: batch norms see those that fill up an
uneven batch, so `mobilenet` gets as many as two or three processes can share."""
SIZES = [(64, 64), (64, 96), (96, 64), (48, 96), (64, 64), (96, 96)]


def draw(folder: Path) -> None:
    """Six pictures with squares, and where those are."""
    rng = np.random.default_rng(0)
    truth = {}
    for index, (height, width) in enumerate(SIZES):
        image = rng.integers(80, 110, (height, width, 3)).astype(np.uint8)
        low = rng.integers(0, [[width - 24, height - 24]], (2 + index, 2))
        for x, y in low.tolist():
            image[y : y + 20, x : x + 20] = (220, 60, 50)
        (folder / f"{index}.png").write_bytes(encode_png(image))
        truth[str(index)] = np.concatenate([low, low + 20], 1).tolist()
    (folder / "truth.json").write_text(json.dumps(truth))


def sample(path: Path, boxes: list[list[int]], window: Window | None) -> TrainingImage:
    """A picture, or what a window of it shows."""
    if window is None:
        labels = [1] * len(boxes)
        return TrainingImage(path, Annotations.of(path.stem, SIZES[int(path.stem)], boxes, labels))
    cut = np.clip(boxes, 0, window[2]).astype(float)
    cut = cut[(cut[:, 2:] - cut[:, :2]).min(1) > 4]
    labels, size = [1] * len(cut), (window[3], window[2])
    return TrainingImage(path, Annotations.of(path.stem, size, cut, labels), window)


def detector(name: str, folder: Path) -> Trained:
    """Five steps of six pictures."""
    truth = json.loads((folder / "truth.json").read_text())
    # equal scores in the padding would order the proposals of Faster R-CNN by chance: it gets none
    window = (0, 0, 48, 48) if name.startswith("fasterrcnn") else None
    samples = [sample(folder / f"{key}.png", boxes, window) for key, boxes in truth.items()]
    zoom = (1.0, 1.0) if window else (0.8, 1.5)
    config = TrainConfig(
        epochs=5, batch=6, lr=RATES.get(name, 1e-4), momentum=0.0, nesterov=False, ema=0.0,
        warmup_steps=0, schedule="constant", channels_last=False,
        data=DataConfig(augment=AugmentConfig(zoom=zoom)),
    )  # fmt: skip
    net = build_model(name, SETTINGS[name])
    if name.startswith("fasterrcnn"):  # random scores are nearly equal: their order would be chance
        rpn: Any = net.get_submodule("model.rpn.head.cls_logits")
        torch.nn.init.normal_(rpn.weight, std=1.0)
    return train_detector(net, samples, config, device="cpu")


def squares(size: tuple[int, int], boxes: list[list[int]]) -> DensityMap:
    cells = np.zeros((size[0] // 4, size[1] // 4), np.float32)
    for x, y, *_ in boxes:
        cells[y // 4 + 2, x // 4 + 2] += 1
    return DensityMap(cells, 4, size)


def density(name: str, folder: Path) -> Trained:
    """Five steps; two or three processes cannot share five pictures evenly."""
    truth = json.loads((folder / "truth.json").read_text())
    pairs = [
        DensityPair(folder / f"{key}.png", partial(squares, SIZES[int(key)], boxes))
        for key, boxes in truth.items()
    ][: DENSITY[name]]
    config = DensityConfig(
        network=name, epochs=5, batch=6, crop=32, optimizer="sgd", lr=RATES.get(name, 1e-3),
        momentum=0.0, nesterov=False, ema=0.0, warmup_steps=0, warmup_epochs=0.0,
        schedule="constant", channels_last=False,
    )  # fmt: skip
    return train_density(pairs, [], config, device="cpu")


def norm(rank: int) -> dict[str, list[float]]:
    """Two of four numbers through a shared batch norm, and the gradient of the first answer."""
    layer = SharedBatchNorm2d(1, eps=0.0)
    numbers = torch.tensor([[1.0, 3.0], [5.0, 7.0]][rank]).reshape(2, 1, 1, 1).requires_grad_()
    answers = layer(numbers)
    (answers[0] if rank == 0 else answers[0] * 0).sum().backward()
    assert numbers.grad is not None and layer.running_mean is not None
    assert layer.running_var is not None and layer.bias.grad is not None
    found = (answers, numbers.grad, layer.running_mean, layer.running_var, layer.bias.grad)
    names = ("answers", "gradient", "mean", "variance", "bias")
    return {name: value.flatten().tolist() for name, value in zip(names, found, strict=True)}


def main() -> None:
    torch.set_num_threads(1)
    folder, out = map(Path, sys.argv[1:3])
    if sys.argv[3] == "norm":
        with process_group("cpu") as group:
            (out / f"norm{group.rank}.json").write_text(json.dumps(norm(group.rank)))
        del sys.argv[3]
    for name in sys.argv[3:]:
        torch.manual_seed(0)
        make: Callable[[str, Path], Trained] = density if name in DENSITY else detector
        trained = make(name, folder)
        if os.environ.get("RANK", "0") == "0":
            (out / f"{name}.pt").write_bytes(trained.last)
            (out / f"{name}.json").write_text(json.dumps(trained.history))


if __name__ == "__main__":
    main()
