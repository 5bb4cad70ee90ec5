"""``raster``: a GeoTIFF of 30,000 x 20,000 pixels through `dmnet predict`, killed and resumed.

The raster is a mosaic of drawn scenes in UTM, most of it without data; scenes lie across the
borders of blocks. Three runs: one that is killed half way, the same again to its end, and one
without interruption. It survives if both give the same bytes, no process took 2 GB, and the
GeoJSON places the known objects to a pixel: the middle offset of the matched boxes is below one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmnet.core.boxes import Boxes, area, intersection
from dmnet.core.records import Annotations
from dmnet.pipeline.predict.raster import blocks
from dmnet.pipeline.predict.settings import RasterConfig
from dmnet.pipeline.scenes.scene import DEFAULT, SceneConfig, make_scene

MEMORY = 2_000_000_000
"""Bytes that a process may have resident."""
CRS, EAST, NORTH, METRE = "EPSG:32631", 500_000.0, 4_600_000.0, 0.1
SIZE = (20_000, 30_000)


@dataclass(frozen=True)
class Placed:
    """A scene of the mosaic: its annotations and where its top left corner lies."""

    truth: Annotations
    x: int
    y: int

    @property
    def boxes(self) -> Boxes:
        """Its objects in pixels of the mosaic."""
        shift = np.array([self.x, self.y] * 2)
        moved: Boxes = self.truth.objects.boxes + shift
        return moved


def mosaic(
    path: Path,
    size: tuple[int, int],
    seeds: Sequence[int],
    copies: int,
    config: SceneConfig = DEFAULT,
) -> list[Placed]:
    """Write the GeoTIFF: scenes at seeded places that do not overlap; the rest is no data."""
    import rasterio

    rng = np.random.default_rng(len(seeds))
    scenes = [make_scene(seed, config) for seed in seeds]
    placed: list[Placed] = []
    how = {"crs": CRS, "transform": rasterio.Affine(METRE, 0, EAST, 0, -METRE, NORTH)}
    with rasterio.open(
        path, "w", driver="GTiff", height=size[0], width=size[1], count=3, dtype="uint8",
        nodata=0, tiled=True, blockxsize=512, blockysize=512, compress="deflate",
        sparse_ok=True, **how,
    ) as target:  # fmt: skip
        for index in range(copies * len(scenes)):
            image, truth = scenes[index % len(scenes)]
            one = _free_place(rng, truth, size, placed)
            height, width = truth.size
            window = rasterio.windows.Window(one.x, one.y, width, height)
            target.write(np.maximum(image, 1).transpose(2, 0, 1), window=window)
            placed.append(one)
    return placed


def _free_place(
    rng: np.random.Generator, truth: Annotations, size: tuple[int, int], placed: Sequence[Placed]
) -> Placed:
    height, width = truth.size
    for _ in range(1000):
        x, y = int(rng.integers(size[1] - width + 1)), int(rng.integers(size[0] - height + 1))
        apart = (
            x >= other.x + other.truth.size[1] or other.x >= x + width
            or y >= other.y + other.truth.size[0] or other.y >= y + height
            for other in placed
        )  # fmt: skip
        if all(apart):
            return Placed(truth, x, y)
    raise RuntimeError("no room for another scene")


def command(raster: Path, out: Path, more: Sequence[str]) -> list[str]:
    """The command of one run."""
    words = ["-m", "dmnet", "predict", raster, "--model", "scenes", "--out", out, *more]
    return [sys.executable, *map(str, words)]


def run(words: Sequence[str], out: Path, kill_at: int = 0) -> tuple[int, int]:
    """Run a process; kill it once so many blocks are done.

    Returns:
        Exit code (negative: the signal), and the most bytes it had resident.
    """
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while kill_at and child.poll() is None:
        if len(list((out / "found").rglob("*.json"))) >= kill_at:
            child.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_maxrss * 1024


def on_the_map(path: Path) -> Boxes:
    """Boxes of a GeoJSON in the raster's CRS, back in pixels."""
    features = json.loads(path.read_text())["features"]
    rings = np.array([each["geometry"]["coordinates"][0] for each in features]).reshape(-1, 5, 2)
    x, y = (rings[..., 0] - EAST) / METRE, (NORTH - rings[..., 1]) / METRE
    found: Boxes = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)
    return found


def offsets(found: Boxes, placed: Sequence[Placed]) -> tuple[float, float, int]:
    """Middle offset (pixels) of the centres of matched objects, the worst scene's, and how many."""
    every, worst = [], 0.0
    for one in placed:
        both = intersection(one.boxes, found)
        overlap = both / (area(one.boxes)[:, None] + area(found) - both)
        best = overlap.argmax(axis=1)
        good = overlap[np.arange(len(best)), best] > 0.5
        pairs = one.boxes[good], found[best[good]]
        centres = [(box[:, :2] + box[:, 2:]) / 2 for box in pairs]
        moved = centres[1] - centres[0]
        every.append(moved)
        if len(moved) >= 10:
            worst = max(worst, float(np.abs(np.median(moved, axis=0)).max()))
    together = np.concatenate(every)
    return float(np.abs(np.median(together, axis=0)).max()), worst, len(together)


def tree(root: Path) -> dict[str, bytes]:
    """What a run leaves for its user, without journal and times."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in ("stage.json", "items.jsonl", "log.txt", ".lock")
    }


def campaign(
    folder: Path, size: tuple[int, int], seeds: Sequence[int], copies: int, block: int = 2048
) -> dict[str, Any]:
    """All of it; the figures, with ``fell`` naming what did not hold."""
    config = RasterConfig(block=block)
    more = ["--raster.block", str(block)]
    raster = folder / "town.tif"
    placed = mosaic(raster, size, seeds, copies)
    torn, whole = folder / "torn", folder / "whole"
    runs = [
        run(command(raster, torn, more), torn, kill_at=len(blocks(size, config)) // 3),
        run(command(raster, torn, more), torn),
        run(command(raster, whole, more), whole),
    ]
    found = on_the_map(whole / "geo" / "town.native.geojson")
    middle, worst, matched = offsets(found, placed)
    objects = sum(len(one.boxes) for one in placed)
    figures = {
        "size": size, "scenes": len(placed), "objects": objects, "found": len(found),
        "matched": matched, "offset": middle, "worst_scene": worst,
        "bytes": [taken for _, taken in runs],
    }  # fmt: skip
    good = {
        f"exit codes {[code for code, _ in runs]}": [code for code, _ in runs] == [-9, 0, 0],
        "other bytes after a kill": tree(torn) == tree(whole),
        "memory": max(taken for _, taken in runs) < MEMORY,
        "coordinates": max(middle, worst) < 1 and matched > objects / 5,
    }
    return figures | {"fell": [name for name, fine in good.items() if not fine]}


def main() -> int:
    """Run it and print the figures; exit 1 if anything fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=6, help="times each of the three scenes is placed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seeds = range(args.seed, args.seed + 3)
        figures = campaign(Path(folder), SIZE, seeds, args.n)
    print(json.dumps(figures, indent=1))
    return 1 if figures["fell"] else 0


if __name__ == "__main__":
    sys.exit(main())
