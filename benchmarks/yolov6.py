"""YOLOv6: sizes beside the published ones, and speed: ``python benchmarks/yolov6.py``.

Speed on the CPU with as many threads as torch takes (OMP_NUM_THREADS): the training form, the fused
one, and 8-bit integers of the same random weights, in turn in the same run, medians. Assignment:
against dense objects x cells arrays, written from the definition, on the same predictions.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from table import Row
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dmnet.detectors.dense import Objects, paired_iou
from dmnet.detectors.yolov6.assigner import task_aligned
from dmnet.detectors.yolov6.head import STRIDES, Cells, cells_of
from dmnet.detectors.yolov6.model import YoloV6, build, quantised
from dmnet.detectors.yolov6.sizes import SIZES

PUBLISHED = {
    "yolov6-n": (4.3, 11.1),
    "yolov6-t": (15.0, 36.7),
    "yolov6-s": (17.2, 44.2),
    "yolov6-m": (34.3, 82.2),
    "yolov6-l": (58.5, 144.0),
}
"""Millions of parameters, GFLOPs at 640 pixels and 80 classes."""


def sizes() -> list[tuple[str, float, float, float, float]]:
    """Name, millions of parameters, published, GFLOPs, published; of the fused networks."""
    rows = []
    for name in SIZES:
        body = build(name, {}, 80).deploy().body
        body.to("meta")
        with FlopCounterMode(display=False) as counter:
            body(torch.zeros(1, 3, 640, 640, device="meta"))
        millions = sum(p.numel() for p in body.parameters()) / 1e6
        giga = counter.get_total_flops() / 1e9
        rows.append((name, millions, PUBLISHED[name][0], giga, PUBLISHED[name][1]))
    return rows


def medians(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Seconds of each call, taken in turn so that a busy machine slows all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for spent, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in times]


def _runner(net: YoloV6, image: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return net.predictions(image)

    return run


def speed(names: Iterable[str] = ("yolov6-n", "yolov6-s"), rounds: int = 7) -> list[Row]:
    """Training form, fused and 8-bit networks on one image of 640 x 640."""
    rows: list[Row] = []
    for name in names:
        torch.manual_seed(0)
        net = build(name, {"input_size": 640}, 10).eval()
        image = torch.rand(1, 3, 640, 640)
        small, _ = quantised(net, [torch.rand(3, 160, 160)])
        forms = [net, copy.deepcopy(net).deploy(), small.deploy()]
        trained, fused, whole = medians([_runner(form, image) for form in forms], rounds)
        note = f"{1 / fused:.1f} images/s; baseline: training form"
        rows.append((f"{name} fused", fused, trained, trained / fused, note))
        note = f"{1 / whole:.1f} images/s; baseline: fused float"
        rows.append((f"{name} int8", whole, fused, fused / whole, note))
    return rows


# --- assignment ----------------------------------------------------------------------------------


def dense_tal(scores: Tensor, boxes: Tensor, objects: Objects, cells: Cells) -> Tensor:
    """TAL over all objects x all cells, image by image: ``[B, A]`` object of each cell, or -1."""
    found = torch.full(scores.shape[:2], -1)
    for image in range(len(scores)):
        mine = objects.image == image
        wanted, labels = objects.boxes[mine], objects.labels[mine]
        number, width = len(wanted), scores.shape[1]
        point = cells.centres[None]
        inside = ((point >= wanted[:, None, :2]) & (point < wanted[:, None, 2:])).all(2)
        a = boxes[image][None].expand(number, -1, -1).reshape(-1, 4)
        b = wanted[:, None].expand(-1, width, -1).reshape(-1, 4)
        iou = paired_iou(a, b).view(number, width)
        metric = scores[image][:, labels].T * iou.pow(6) * inside
        top = torch.zeros_like(inside).scatter_(1, metric.topk(13, 1).indices, True) & inside
        best, owner = iou.masked_fill(~top, -1).max(0)
        found[image] = owner.masked_fill(best < 0, -1)
    return found


def assignment(count: int = 900, side: int = 640, rounds: int = 3) -> list[Row]:
    """TAL for one image with ``count`` objects of 8 to 40 pixels."""
    generator = torch.Generator().manual_seed(0)
    cells = cells_of([(side // s, side // s) for s in STRIDES], torch.device("cpu"))
    number = len(cells.centres)
    half = torch.rand(1, number, 2, generator=generator) * 20 + 2
    boxes = torch.cat([cells.centres - half, cells.centres + half], 2)
    scores = torch.rand(1, number, 10, generator=generator)
    low = torch.rand(count, 2, generator=generator) * (side - 40)
    high = low + 8 + torch.rand(count, 2, generator=generator) * 32
    labels = torch.randint(0, 10, (count,), generator=generator)
    objects = Objects(torch.cat([low, high], 1), labels, torch.zeros(count, dtype=torch.long))
    calls = [
        lambda: task_aligned(scores, boxes, objects, cells),
        lambda: dense_tal(scores, boxes, objects, cells),
    ]
    fast, slow = medians(calls, rounds)
    positives = task_aligned(scores, boxes, objects, cells)
    owner = torch.full((1, number), -1)
    owner[positives.image, positives.cell] = positives.object
    same = float((owner == dense_tal(scores, boxes, objects, cells)).float().mean())
    note = f"baseline: dense arrays; same object in {same:.2%} of {number} cells"
    return [(f"TAL, {count} objects at {side} px", fast, slow, slow / fast, note)]


def main() -> None:
    """Print the tables."""
    print("| size | params M | published | | GFLOPs | published | |\n|---|---|---|---|---|---|---|")
    for name, millions, p, giga, g in sizes():
        left = f"{millions:.2f} | {p} | {millions / p - 1:+.1%}"
        print(f"| {name} | {left} | {giga:.2f} | {g} | {giga / g - 1:+.1%} |")
    print(f"\n{torch.get_num_threads()} thread(s)\n")
    print("| name | seconds | baseline | ratio | note |\n|---|---|---|---|---|")
    for name, seconds, baseline, ratio, note in [*speed(), *assignment()]:
        print(f"| {name} | {seconds:.4f} | {baseline:.4f} | {ratio:.2f} | {note} |")


if __name__ == "__main__":
    main()
