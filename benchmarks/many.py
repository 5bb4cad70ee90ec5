"""Many items, no images: seconds, processor seconds and peak memory of a run of N items.

    python -m benchmarks.many -n 1000000 --out folder --workers 8

Annotation files and the table of sizes are generated from a seed (54 objects in clusters, as in
aerial images); then come `density --density.stride 16`, `crop`, both again with nothing to do,
`status`, and `density` killed half-way and resumed. Not part of `make bench`: it takes long.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmnet.core.formats.visdrone import write_annotations
from dmnet.core.records import Annotations

SIZE = (765, 1360)
OBJECTS = 54
Row = tuple[str, float, float, float, float]


@dataclass(frozen=True)
class Used:
    """What a command used."""

    wall: float
    cpu: float
    """seconds of all its processes"""
    megabytes: float
    """peak of its largest process"""


def write_files(root: Path, count: int) -> Path:
    """Annotation files and the table of sizes; a hundred different ones, over and over."""
    folder = root / "VisDrone2019-DET-val" / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(100):
        middle = rng.uniform(0, SIZE[::-1], (5, 2))
        low = middle[rng.integers(5, size=OBJECTS)] + rng.normal(0, 60, (OBJECTS, 2))
        low = low.clip(0, np.array(SIZE[::-1]) - 40).round()
        boxes = np.concatenate([low, low + rng.integers(8, 40, (OBJECTS, 2))], axis=1)
        texts.append(
            write_annotations(Annotations.of("", SIZE, boxes, rng.integers(1, 11, OBJECTS)))
        )
    table = root / "sizes.csv"
    with table.open("w") as stream:
        stream.write("split,image,width,height\n")
        for index in range(count):
            (folder / f"{index:08d}.txt").write_text(texts[index % 100])
            stream.write(f"val,{index:08d},{SIZE[1]},{SIZE[0]}\n")
    return table


def used(command: list[str], kill_after: float | None = None) -> Used:
    """Run a command, or kill it after some seconds; a command that fails ends the benchmark."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    expected = -signal.SIGKILL if kill_after is not None else 0
    if process.returncode != expected:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    wall = time.perf_counter() - start
    return Used(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def rows(root: Path, count: int, workers: int) -> Iterator[Row]:
    """Name, wall and processor seconds, peak megabytes, items a second of each command."""
    table = write_files(root, count)
    places = ["--data", str(root), "--sizes", str(table), "--artifacts", str(root / "artifacts")]
    dmnet = [sys.executable, "-m", "dmnet"]
    stages = {
        "density": ["density", "--density.stride", "16"],
        "crop": ["crop", "--crop.write-images", "false", "--density.stride", "16"],
    }
    once = 0.0
    for again in ("", ", nothing to do"):
        for stage, words in stages.items():
            found = used([*dmnet, *words, *places, "--workers", str(workers)])
            once = found.wall if (stage, again) == ("density", "") else once
            yield f"{stage}{again}", found.wall, found.cpu, found.megabytes, count / found.wall
    found = used([*dmnet, "status", *places])
    yield "status", found.wall, found.cpu, found.megabytes, count / found.wall
    killed = [*dmnet, *stages["density"], *places, "--workers", str(workers), "--run", "killed"]
    used(killed, kill_after=once / 2)
    found = used(killed)
    over = found.wall - once / 2
    yield "density, killed half-way and resumed", found.wall, found.cpu, found.megabytes, -over


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=2_000, help="items")
    parser.add_argument("--out", type=Path, required=True, help="folder for files and artifacts")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    print(f"| {args.n:,} items, {args.workers} workers | s | CPU s | peak MB | items/s |")
    print("|---|---:|---:|---:|---:|")
    for name, wall, cpu, megabytes, rate in rows(args.out, args.n, args.workers):
        shown = f"{rate:.0f}" if rate > 0 else f"{-rate:.1f} s over half a run"
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {megabytes:.0f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
