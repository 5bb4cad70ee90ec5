"""What YOLOv6 is told to learn at its first step: ``python benchmarks/assignment.py --data DIR``.

On the most crowded pictures of a training split and their density crops (those of `overfit`), by
size of the objects in the network's input: how many have no cell that learns them, how many cells
an object has, and the greatest class score that one of them is to learn. With the head at strides
8, 16 and 32 and with a level at stride 4, from random weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from overfit import most_crowded, with_crops
from torch import Tensor

from dmnet.core.training.seeds import seed_epoch
from dmnet.detectors.base import build_model, to_tensor
from dmnet.detectors.dense import Letterbox, objects_of
from dmnet.detectors.training.data import TrainingImage, load_scene
from dmnet.detectors.training.loader import to_target
from dmnet.detectors.yolov6.assigner import task_aligned
from dmnet.detectors.yolov6.head import cells_of
from dmnet.detectors.yolov6.model import YoloV6

EDGES = (0.0, 4.0, 8.0, 16.0, 32.0, float("inf"))
"""Bounds of the objects' sizes: root of the area, pixels of the input."""


def assigned(net: YoloV6, sample: TrainingImage) -> Tensor:
    """Size, number of cells and greatest score to learn of each object, ``[n, 3]``."""
    scene = load_scene(sample, 1 << 40)
    box = Letterbox([to_tensor(scene.image, torch.device("cpu"))], net.config)
    objects = objects_of([to_target(scene)], box)
    boxes, scores = net.predictions(box.canvas)
    height, width = box.canvas.shape[-2:]
    levels = net.body.strides
    grids = [(height // stride, width // stride) for stride in levels]
    cells = cells_of(grids, torch.device("cpu"), levels)
    found = task_aligned(scores, boxes, objects, cells, min_side=net.config.min_side)
    count = torch.bincount(found.object, minlength=len(objects.boxes)).float()
    best = torch.zeros_like(count).scatter_reduce(0, found.object, found.score, "amax")
    side = (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(1).sqrt()
    return torch.stack([side, count, best], 1)


def rows(samples: Sequence[TrainingImage], given: argparse.Namespace) -> list[str]:
    """Markdown rows: plain and fine head, by size."""
    lines = []
    for fine in (False, True):
        seed_epoch(0, 0)
        net = build_model("yolov6-n", {"input_size": given.input, "fine": fine})
        assert isinstance(net, YoloV6)
        net.train()
        with torch.no_grad():
            every = torch.cat([assigned(net, sample) for sample in samples])
        for low, high in pairwise(EDGES):
            part = every[(every[:, 0] >= low) & (every[:, 0] < high)]
            none, cells = (part[:, 1] == 0).float().mean().item(), part[:, 1].mean().item()
            text = f"{low:g}-{high:g}" if high < float("inf") else f"{low:g}-"
            lines.append(
                f"| {'4 to 32' if fine else '8 to 32'} | {text} | {len(part)} | {none:.3f} "
                f"| {cells:.1f} | {part[:, 2].mean().item():.3f} |"
            )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data set")
    parser.add_argument("--split", default="train")
    parser.add_argument("--pictures", type=int, default=20, help="so many, those of most objects")
    parser.add_argument("--input", type=int, default=416, help="longer side of the input, pixels")
    given = parser.parse_args()
    torch.set_num_threads(1)
    samples = with_crops(most_crowded(given.data, given.split, given.pictures))
    print("| strides | object, px | objects | without a cell | cells an object | greatest score |")
    print("|---|---|---:|---:|---:|---:|")
    print("\n".join(rows(samples, given)))


if __name__ == "__main__":
    main()
