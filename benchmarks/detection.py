"""How fast crops are detected: ``python benchmarks/detection.py`` prints a markdown table.

Pictures: 1360 x 765, blurred noise, seeded. The network is Faster R-CNN with MobileNetV3 and fixed
random weights that gives 50 detections a crop; the same one, with the same weights, on every line.
Baselines, in the same run: crops that lie on the disk as JPEG files, read and detected one after
the other; and SAHI's sliced prediction (Akyon et al. 2022) with the same torchvision model, if it
can be imported (``make bench`` puts it beside the environment; it is no dependency). On a GPU give
``--device cuda``.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from table import Row

from dmnet.core.boxes import Window
from dmnet.core.images import encode_jpeg, read_image
from dmnet.core.records import Detections
from dmnet.detectors.base import NetDetector, build_model, to_detections, to_tensor
from dmnet.detectors.infer import InferConfig, Job, detect_items
from dmnet.detectors.torchvision.model import TorchvisionNet
from dmnet.fusion.fuse import FuseConfig, fuse_image
from dmnet.fusion.merge import MergeConfig

HEIGHT, WIDTH, SLICE = 765, 1360, 256

CROPS: list[Window] = [
    (40, 30, 300, 250), (350, 20, 640, 240), (700, 60, 930, 300), (980, 40, 1330, 330),
    (60, 380, 330, 640), (420, 330, 700, 560), (740, 420, 1010, 700), (1050, 400, 1300, 660),
]  # fmt: skip
"""Eight crops per image, of the sizes that density cropping gives."""


def network() -> TorchvisionNet:
    """The same network with the same weights at every call, unchanged for inference."""
    torch.manual_seed(0)
    settings = {
        "norm": "batch", "min_size": 320, "max_size": 544, "proposals": 300,
        "score_threshold": 0.0, "max_detections": 50,
    }  # fmt: skip
    net = build_model("fasterrcnn-mobilenetv3", settings)
    assert isinstance(net, TorchvisionNet)
    return net.eval()


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Blurred noise as JPEG."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        noise = cv2.GaussianBlur(
            rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 3
        )
        pixels = ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)
        path = folder / f"{index}.jpg"
        path.write_bytes(encode_jpeg(pixels))
        paths.append(path)
    return paths


def write_crops(pictures: Sequence[Path], windows: Sequence[Window]) -> list[Path]:
    """Crops of every picture as JPEG files, as earlier software keeps them."""
    paths = []
    for picture in pictures:
        image = read_image(picture)
        for number, (x1, y1, x2, y2) in enumerate(windows):
            path = picture.with_name(f"{picture.stem}_{number}.jpg")
            path.write_bytes(encode_jpeg(np.ascontiguousarray(image[y1:y2, x1:x2])))
            paths.append(path)
    return paths


@torch.inference_mode()
def one_at_a_time(net: TorchvisionNet, files: Sequence[Path], device: torch.device) -> int:
    """Baseline: read a file, detect, next."""
    return sum(
        len(to_detections(net.detect([to_tensor(read_image(path), device)])[0])) for path in files
    )


def ours(detector: NetDetector, jobs: Sequence[Job], batch: int) -> int:
    """Windows in memory, batched over pictures."""
    found = 0
    for _, parts in detect_items(detector, jobs, InferConfig(batch=batch)):
        assert isinstance(parts, list)
        found += sum(map(len, parts))
    return found


def ours_fused(detector: NetDetector, jobs: Sequence[Job]) -> list[Detections]:
    """The same, then merged as SAHI does by default: greedy non-maximum merging, IoS 0.5."""
    config = FuseConfig(MergeConfig(method="nmm", metric="ios", iou=0.5), edge_margin=None)
    done = []
    for (_, windows), (_, parts) in zip(jobs, detect_items(detector, jobs), strict=True):
        assert isinstance(parts, list)
        crops = [(w, p) for w, p in zip(windows[1:], parts[1:], strict=True) if w is not None]
        done.append(fuse_image(parts[0], crops, (HEIGHT, WIDTH), config))
    return done


def in_turns(works: Sequence[Callable[[], Any]], repeats: int = 3) -> list[float]:
    """Best seconds of each, run in turns so that a busy machine is busy for all; one warm-up."""
    best = [float("inf")] * len(works)
    for work in works:
        work()
    for _ in range(repeats):
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def bench_crops(folder: Path, device: torch.device, count: int) -> list[Row]:
    """Whole pictures and crops: files one at a time, windows one at a time, windows batched."""
    pictures = write_pictures(folder, count)
    files = pictures + write_crops(pictures, CROPS)
    jobs: list[Job] = [(path, [None, *CROPS]) for path in pictures]
    plain, detector = network().to(device), NetDetector(network(), str(device))
    base, single, usual, eight = in_turns(
        [
            lambda: one_at_a_time(plain, files, device),
            lambda: ours(detector, jobs, 1),
            lambda: ours(detector, jobs, 0),
            lambda: ours(detector, jobs, 8),
        ],
        repeats=5,
    )
    n, note = len(files), f"{len(files)} images (pictures and crops)"
    return [
        ("crop files, one at a time", base / n, None, None, note),
        ("windows in memory, one at a time", single / n, base / n, base / single, "norms folded"),
        ("windows in memory, the default", usual / n, base / n, base / usual, "batch 2 (GPU: 16)"),
        ("windows in memory, batch 8", eight / n, base / n, base / eight, ""),
    ]


def bench_sahi(folder: Path, device: torch.device, count: int) -> list[Row]:
    """Sliced prediction of whole pictures and a 256-pixel grid at 0.2 overlap, merged."""
    name = f"sliced prediction, grid of {SLICE}"
    if importlib.util.find_spec("sahi") is None:
        return [(name, float("nan"), None, None, "skipped: sahi is not installed")]
    from sahi.models.torchvision import TorchVisionDetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.slicing import get_slice_bboxes

    pictures = write_pictures(folder, count)
    size = {"slice_height": SLICE, "slice_width": SLICE}
    windows = [tuple(w) for w in get_slice_bboxes(HEIGHT, WIDTH, **size)]
    jobs: list[Job] = [(path, [None, *windows]) for path in pictures]
    model = TorchVisionDetectionModel(
        model=network().model, confidence_threshold=0.0, device=str(device), load_at_init=True,
        category_mapping={str(i): str(i) for i in range(11)},
    )  # fmt: skip
    detector = NetDetector(network(), str(device))
    merging = {"postprocess_type": "GREEDYNMM", "force_postprocess_type": True, "verbose": 0}

    @torch.inference_mode()
    def theirs() -> int:
        done = [get_sliced_prediction(str(p), model, **size, **merging) for p in pictures]
        return sum(len(one.object_prediction_list) for one in done)

    base, mine = in_turns([theirs, lambda: ours_fused(detector, jobs)], repeats=2)
    n, note = len(pictures), f"a picture with {len(windows)} slices, greedy merging"
    return [
        (f"SAHI, grid of {SLICE}", base / n, None, None, note),
        (name, mine / n, base / n, base / mine, "same slices, same merging"),
    ]


def rows(device: str = "cpu", count: int = 4) -> list[Row]:
    """All measurements, seconds per image or a picture."""
    place = torch.device(device)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        return bench_crops(Path(one), place, count) + bench_sahi(
            Path(two), place, max(1, count // 2)
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads on the CPU")
    parser.add_argument("--pictures", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"| detection on {given.device} | images/s | ms | baseline ms | ratio | note |")
    print("|---|---:|---:|---:|---:|---|")
    for name, value, base, ratio, note in rows(given.device, given.pictures):
        right = "| | " if base is None or ratio is None else f"| {1e3 * base:.0f} | {ratio:.2f} "
        print(f"| {name} | {1 / value:.2f} | {1e3 * value:.0f} {right}| {note} |")


if __name__ == "__main__":
    main()
