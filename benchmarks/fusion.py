"""How fast boxes are merged: ``python benchmarks/fusion.py`` prints the table.

Baselines on the same boxes in the same run: (1) greedy suppression and merging as commonly written
in numpy, the best box against all that are left, O(N^2); (2) torchvision's compiled ``nms``, one
thread a core. 33,337 boxes is the size SAHI measures its own merging with. The whole set are the
third-party detections on VisDrone val if they lie beside the checkout (``../shared/data``), and
otherwise as many generated ones; it is fused as whole image + four crops with all boxes twice.
"""

from __future__ import annotations

import tarfile
import tracemalloc

import numpy as np
from table import SHARED, Row, seconds, show

from dmnet.core.records import Detections
from dmnet.fusion.fuse import fuse_image
from dmnet.fusion.merge import MergeConfig, nmm
from dmnet.fusion.suppress import nms

IOU, IOS = MergeConfig(iou=0.5), MergeConfig(iou=0.5, metric="ios")

COUNT = 33_337
SIZE = (1080, 1920)


def crowd(count: int, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of one class: strewn evenly, or several dozen around each object."""
    rng = np.random.default_rng(seed)
    if kind == "strewn":
        centre, side = rng.uniform(0, 2000, (count, 2)), rng.uniform(10, 60, (count, 2))
    else:
        objects = max(1, count // 50)
        which = rng.integers(0, objects, count)
        full = rng.uniform(10, 80, (objects, 2))[which]
        centre = rng.uniform(0, 3000, (objects, 2))[which] + rng.normal(0, 0.12, full.shape) * full
        side = full * np.exp(rng.normal(0, 0.12, full.shape))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    return boxes, rng.random(count), np.ones(count, dtype=np.int64)


def plain_groups(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, metric: str
) -> list[np.ndarray]:
    """Baseline: the best box takes all that overlap it, then the best of the rest."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-scores)
    groups = []
    while len(order):
        best, rest = order[0], order[1:]
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        side = np.clip(np.minimum(boxes[best, 2:], boxes[rest, 2:]) - low, 0, None)
        inter = side[:, 0] * side[:, 1]
        small = np.minimum(area[best], area[rest])
        base = small if metric == "ios" else area[best] + area[rest] - inter
        taken = inter / base > threshold
        groups.append(np.append(best, rest[taken]))
        order = rest[~taken]
    return groups


def plain_nmm(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Baseline: the box around each group."""
    groups = plain_groups(boxes, scores, threshold, "ios")
    corners = [(boxes[g, :2].min(axis=0), boxes[g, 2:].max(axis=0)) for g in groups]
    return np.array([np.concatenate(pair) for pair in corners])


def bench_crowds() -> list[Row]:
    """33,337 boxes of one class."""
    import torch
    from torchvision.ops import nms as compiled

    rows: list[Row] = []
    for kind in ("strewn", "clustered"):
        boxes, scores, labels = crowd(COUNT, kind)
        found = Detections(boxes, scores, labels)
        keep = nms(found, IOU)
        ours = seconds(lambda f=found: nms(f, IOU), 3)
        plain = seconds(lambda b=boxes, s=scores: plain_groups(b, s, 0.5, "iou"))
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
        vision = seconds(lambda t=tensors: compiled(*t, 0.5))
        if not np.array_equal(keep, compiled(*tensors, 0.5).numpy()):
            raise SystemExit("nms disagrees with torchvision")
        note = f"{len(keep):,} of {COUNT:,} kept, one class"
        rows.append((f"nms, {kind}, against numpy", ours, plain, plain / ours, note))
        rows.append((f"nms, {kind}, against torchvision", ours, vision, vision / ours, note))
        joined = nmm(found, IOS)
        ours = seconds(lambda f=found: nmm(f, IOS), 3)
        plain = seconds(lambda b=boxes, s=scores: plain_nmm(b, s, 0.5))
        note = f"joined to {len(joined):,}, intersection over smaller area"
        rows.append((f"nmm, {kind}, against numpy", ours, plain, plain / ours, note))
    return rows


def bench_memory() -> list[Row]:
    """Peak working memory of nms at growing N; the full matrix would take 8 N^2 bytes."""
    rows: list[Row] = []
    for count in (COUNT, 4 * COUNT):
        found = Detections(*crowd(count, "clustered"))
        taken = seconds(lambda f=found: nms(f, IOU))
        tracemalloc.start()
        nms(found, IOU)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        matrix = f"full matrix {8e-9 * count**2:.0f} GB"
        note = f"peak {peak / 1e6:.0f} MB, {peak / count:.0f} bytes a box; {matrix}"
        rows.append((f"nms, {count:,} boxes, memory", taken, None, None, note))
    return rows


def whole_set() -> list[Detections]:
    """Detections of every image: the third-party ones, or generated ones of the same number."""
    archive = SHARED / "detections" / "visdrone-val-thirdparty.tar.xz"
    if not archive.is_file():
        rng = np.random.default_rng(0)
        parts = (crowd(253, "clustered", seed) for seed in range(548))
        return [Detections(b, s, rng.integers(1, 11, len(b))) for b, s, _ in parts]
    out = []
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                rows = np.loadtxt(file, ndmin=2)
                boxes = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]])
                out.append(Detections(boxes, rows[:, 4], rows[:, 5].astype(np.int64)))
    return out


def bench_whole_set() -> list[Row]:
    """Fuse every image of a set: whole image and four crops that see the same objects."""
    items = whole_set()
    height, width = SIZE
    windows = [
        (x, y, x + width // 2, y + height // 2) for x in (0, width // 2) for y in (0, height // 2)
    ]
    scenes = []
    for found in items:
        centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        crops = []
        for x1, y1, x2, y2 in windows:
            mine = (centre >= [x1, y1]).all(axis=1) & (centre < [x2, y2]).all(axis=1)
            shifted = found.boxes[mine] - [x1, y1, x1, y1] + 0.5
            crops.append(
                (
                    (x1, y1, x2, y2),
                    Detections(shifted, found.scores[mine] * 0.9, found.labels[mine]),
                )
            )
        scenes.append((found, crops))

    def ours() -> None:
        for found, crops in scenes:
            fuse_image(found, crops, SIZE)

    def plain() -> None:
        for found, crops in scenes:
            placed = [
                Detections(part.boxes + np.array(window[:2] * 2), part.scores, part.labels)
                for window, part in crops
            ]
            joined = Detections.concat([found, *placed])
            for label in np.unique(joined.labels):
                mine = joined[joined.labels == label]
                plain_groups(mine.boxes, mine.scores, 0.7, "iou")

    boxes = sum(len(found) for found in items)
    taken, base = seconds(ours, 2), seconds(plain)
    note = f"{len(items)} images, {boxes:,} boxes and their copies in crops; edge rule included"
    return [("fuse a whole set, against numpy", taken, base, base / taken, note)]


def rows() -> list[Row]:
    """All measurements."""
    return bench_crowds() + bench_memory() + bench_whole_set()


def main() -> None:
    """Print the table."""
    show("fusion", rows())


if __name__ == "__main__":
    main()
