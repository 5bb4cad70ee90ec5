"""``dmnet doctor``: versions, devices, extras, models, a short speed test, and what is missing."""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from dmnet.core.errors import MissingInputError
from dmnet.core.journal import tools
from dmnet.pipeline.models import TABLE, entries

EXTRAS = {
    "onnx": ("onnx",),
    "geo": ("rasterio",),
    "viz": ("supervision", "trackers"),
    "mmdet": ("mmdet", "mmcv", "mmengine"),
    "tensorboard": ("tensorboard",),
}
"""Libraries of each extra."""
BESIDE = ("onnxruntime", "pillow")
"""Libraries whose versions are told beside those that runs record."""
SECONDS = 2.0
"""How long each speed is measured, at least one pass."""
SIDE = 640


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto")
    parser.add_argument("--no-speed", action="store_true", help="leave the speed test out")


def run(args: argparse.Namespace) -> int:
    """Print one paragraph on each."""
    for name, number in {**tools(), **{name: version(name) for name in BESIDE}}.items():
        print(f"{name:<16}{number}")
    for line in (*devices(), *extras(), *models()):
        print(line)
    if not args.no_speed:
        for line in speeds(args.device):
            print(line)
    return 0


def devices() -> Iterator[str]:
    """Processor cores and graphics cards."""
    import torch

    yield f"{'cores':<16}{os.cpu_count()}, {torch.get_num_threads()} threads of torch"
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield f"{'cuda':<16}{', '.join(cards) or 'none: everything runs on the processor'}"


def extras() -> Iterator[str]:
    """Which extras are there, and how to get the others."""
    for extra, libraries in EXTRAS.items():
        lost = [name for name in libraries if importlib.util.find_spec(name) is None]
        state = f"missing {', '.join(lost)}: pip install 'dmnet[{extra}]'" if lost else "installed"
        yield f"{'extra ' + extra:<18}{state}"


def models() -> Iterator[str]:
    """Which named models have their files."""
    for name, entry in entries().items():
        files = [Path(file) for file in (entry.detector, entry.density) if file is not None]
        files += [file.with_suffix(".onnx") for file in files] if entry.onnx else []
        lost = [str(file) for file in files if not (TABLE.parent / file).is_file()]
        yield f"{'model ' + name:<18}{'missing ' + ', '.join(lost) if lost else entry.about}"


def speeds(device: str) -> Iterator[str]:
    """Milliseconds of one pass of the networks that `dmnet predict` runs by default."""
    from dmnet.core.training.device import pick_device
    from dmnet.density.load import load_density
    from dmnet.pipeline.predict.named import DEFAULT, find, open_detector

    place = pick_device(device)
    try:
        files = find(DEFAULT, device=place)
    except MissingInputError as error:
        yield f"no speed test: {error}"
        return
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    detector = open_detector(files.detector, files.detector_settings, place)
    work: dict[Path, Callable[[], object]] = {files.detector: lambda: detector.predict([image])}
    if files.density is not None:
        density = load_density(files.density, place)
        work[files.density] = lambda: density.predict(image)
    for path, one in work.items():
        yield f"{path.name:<24}{1000 * _seconds(one):.1f} ms for {SIDE} x {SIDE} pixels on {place}"


def _seconds(work: Callable[[], object]) -> float:
    """Median time of a pass, after one that warms up."""
    work()
    times: list[float] = []
    while not times or sum(times) < SECONDS:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
