"""How fast detectors train: ``python benchmarks/training.py`` prints a markdown table.

Pictures: 2000 x 1500 JPEG, blurred noise, seeded; each is trained on as a whole and as six windows,
for three epochs, at 640 px in bfloat16 (where the CPU has it) on ``--threads`` threads. Baseline,
in the same run: every sample decodes its picture each time it is drawn, and the channels of a pixel
lie apart. With ``shrink`` off and that memory order the weights must be the same bytes as the
baseline's; in the other order they are the same but for rounding. Time is the processor's, of all
threads, which a busy machine blurs less; ``--wall`` for real time on a quiet one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from dmnet.core.boxes import Window
from dmnet.core.images import encode_jpeg
from dmnet.core.records import Annotations
from dmnet.detectors.base import DetectionNet, build_model
from dmnet.detectors.training.data import DataConfig, TrainingImage
from dmnet.detectors.training.loader import TrainingData
from dmnet.detectors.training.pixels import PixelStore
from dmnet.detectors.training.settings import TrainConfig
from dmnet.detectors.training.train import train

HEIGHT, WIDTH = 1500, 2000
CROPS: list[Window] = [
    (40, 30, 300, 250), (350, 20, 890, 440), (900, 60, 1540, 560), (1580, 40, 1930, 330),
    (60, 680, 730, 1240), (1020, 630, 1157, 760),
]  # fmt: skip
"""Six crops a picture, of the sizes that density cropping gives."""
PLAIN = DataConfig(shrink=False, cache_gb=0.0)

Row = tuple[str, float, float | None, str]
"""Name, seconds an image, baseline seconds, note."""


def network(name: str) -> DetectionNet:
    """The same network with the same weights at every call."""
    torch.manual_seed(0)
    return build_model(name, {"input_size": 640})


def annotations(name: str, size: tuple[int, int], rng: np.random.Generator) -> Annotations:
    """Forty small objects."""
    corner = rng.uniform(0, 0.9, (40, 2)) * [size[1], size[0]]
    boxes = np.concatenate([corner, corner + rng.uniform(8, 20, (40, 2))], axis=1)
    return Annotations.of(name, size, boxes.tolist(), rng.integers(1, 11, 40).tolist())


def write_samples(folder: Path, count: int) -> list[TrainingImage]:
    """Pictures of blurred noise, and windows of them."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(count):
        noise = rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), 3)
        pixels = ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)
        path = folder / f"{index}.jpg"
        path.write_bytes(encode_jpeg(pixels))
        samples.append(TrainingImage(path, annotations(f"{index}", (HEIGHT, WIDTH), rng)))
        for number, window in enumerate(CROPS):
            size = (window[3] - window[1], window[2] - window[0])
            samples.append(TrainingImage(path, annotations(f"{index}_{number}", size, rng), window))
    return samples


@dataclass(frozen=True)
class Stopwatch:
    """Least seconds of several works, run in turns so that a busy machine is busy for all."""

    clock: Callable[[], float]
    repeats: int

    def __call__(self, works: Sequence[Callable[[], object]]) -> list[float]:
        """Seconds of each work."""
        best = [float("inf")] * len(works)
        for _ in range(self.repeats):
            for index, work in enumerate(works):
                start = self.clock()
                work()
                best[index] = min(best[index], self.clock() - start)
        return best


def bench_samples(samples: list[TrainingImage], folder: Path, watch: Stopwatch) -> list[Row]:
    """What a sample costs before the network sees it."""
    net = network("yolox-nano")

    def drawn(config: DataConfig, store: Path | None) -> Callable[[], None]:
        data = TrainingData(PixelStore(samples, net, config, store), config, 0, 1)

        def work() -> None:
            for index in range(len(samples)):
                data[(0, index, index)]

        return work

    start = watch.clock()
    PixelStore(samples, net, DataConfig(), folder).fill()
    filling = (watch.clock() - start) / len(samples)
    base, kept = watch([drawn(PLAIN, None), drawn(DataConfig(), folder)])
    n = len(samples)
    return [
        ("a sample, read and varied", kept / n, base / n, "decoded and shrunk before"),
        ("decoding and shrinking", filling, None, "once before the first epoch"),
    ]


def bench_training(
    name: str, samples: list[TrainingImage], folder: Path, watch: Stopwatch
) -> list[Row]:
    """Decoded anew, decoded before, in channels-last order, and shrunk too."""
    config = TrainConfig(
        epochs=3, optimizer="adamw", lr=1e-4, cpu_bfloat16=True, channels_last=False
    )
    kept = replace(config, data=DataConfig(shrink=False))
    last = replace(kept, channels_last=True)
    small = replace(last, data=DataConfig())
    weights: dict[int, bytes] = {}

    images = config.epochs * -(-len(samples) // config.batch) * config.batch

    def epochs(number: int, how: TrainConfig, cache: Path | None) -> Callable[[], None]:
        def work() -> None:
            net = network(name)
            train(net, samples, how, cache=cache, device="cpu")
            state = net.state_dict().values()
            weights[number] = b"".join(v.contiguous().numpy().tobytes() for v in state)

        return work

    variants = [
        (replace(config, data=PLAIN), None),
        (kept, folder),
        (last, folder),
        (small, folder),
    ]
    works = [epochs(number, *variant) for number, variant in enumerate(variants)]
    base, *others = (seconds / images for seconds in watch(works))
    assert weights[0] == weights[1], "the store changed the weights"
    notes = ("decoded before; same weights", "and channels_last", "and shrunk before")
    return [(f"training {name}", s, base, note) for s, note in zip(others, notes, strict=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["yolov6-n", "yolox-nano"])
    parser.add_argument("--wall", action="store_true", help="real time, not the processor's")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        samples = write_samples(Path(one), given.pictures)
        clock = time.perf_counter if given.wall else time.process_time
        watch = Stopwatch(clock, given.repeats)
        rows = bench_samples(samples, Path(two), watch)
        for name in given.networks:
            rows += bench_training(name, samples, Path(two), watch)
    print("| training on a CPU | images/s | ms | baseline ms | ratio | note |")
    print("|---|---:|---:|---:|---:|---|")
    for name, value, base, note in rows:
        right = f"| {1e3 * base:.1f} | {base / value:.2f} " if base else "| | "
        print(f"| {name} | {1 / value:.1f} | {1e3 * value:.1f} {right}| {note} |")


if __name__ == "__main__":
    main()
