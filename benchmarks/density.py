"""How fast density maps are made and stored: ``python benchmarks/density.py`` prints the tables.

Baselines, written from the description of the published way: (1) each object's kernel,
taken from a dictionary, is added to a full-size float32 map, which goes to disk with ``np.save``;
(2) as older crowd-counting scripts do it, each object is a full-size impulse image that
``scipy.ndimage.gaussian_filter`` blurs. Input: 1360 x 765 images with about 53 objects in clusters
(the mean of VisDrone), seeded; every variant gets the same images in the same run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from table import Row, show

from dmnet.core.formats import density_h5
from dmnet.core.records import Annotations, DensityMap
from dmnet.density.ground_truth import SigmaConfig, density_map, points
from dmnet.density.kernels import Kernel, KernelBank

HEIGHT, WIDTH, OBJECTS, SIGMA = 765, 1360, 53, 15.0


def clustered(seed: int) -> Annotations:
    """Objects of 16 x 16 px in 10 clusters."""
    rng = np.random.default_rng(seed)
    heart = rng.uniform([0, 0], [WIDTH, HEIGHT], (10, 2))
    centres = heart[rng.integers(0, 10, OBJECTS)] + rng.normal(0, 45, (OBJECTS, 2))
    centres = np.clip(centres, 8, [WIDTH - 8, HEIGHT - 8]).round()
    return Annotations.of(
        f"{seed:04d}", (HEIGHT, WIDTH), np.hstack([centres - 8, centres + 8]), [1] * OBJECTS
    )


def stamped(annotations: Annotations, kernel: Kernel) -> np.ndarray:
    """Baseline 1: add a stored two-dimensional kernel at every object."""
    radius = len(kernel) // 2
    values = np.zeros((HEIGHT, WIDTH), np.float32)
    for x, y in points(annotations):
        top, down = max(0, y - radius), min(y + radius + 1, HEIGHT)
        left, right = max(0, x - radius), min(x + radius + 1, WIDTH)
        values[top:down, left:right] += kernel[
            top - y + radius : down - y + radius, left - x + radius : right - x + radius
        ]
    return values


def blurred(annotations: Annotations) -> np.ndarray:
    """Baseline 2: blur one full-size impulse image an object."""
    values = np.zeros((HEIGHT, WIDTH), np.float32)
    for x, y in points(annotations):
        impulse = np.zeros((HEIGHT, WIDTH), np.float32)
        impulse[y, x] = 1
        values += gaussian_filter(impulse, SIGMA, mode="constant")
    return values


def seconds(function: Callable[[Annotations], object], items: Sequence[Annotations]) -> float:
    """Mean over the items of the least time of five passes."""
    best = np.full(len(items), np.inf)
    for _ in range(5):
        for index, item in enumerate(items):
            start = time.perf_counter()
            function(item)
            best[index] = min(best[index], time.perf_counter() - start)
    return float(best.mean())


def rows(count: int = 12) -> list[Row]:
    """Generation and storage against both baselines, and the physical floor."""
    items, bank = [clustered(seed) for seed in range(count)], KernelBank.build()
    sigma, kernel = SigmaConfig(fixed=SIGMA), bank[SIGMA]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"

        def ours(stride: int) -> Callable[[Annotations], object]:
            return lambda item: path.write_bytes(
                density_h5.write(density_map(item, bank, sigma, stride=stride))
            )

        def stamp(item: Annotations) -> None:
            np.save(path.with_suffix(".npy"), stamped(item, kernel))

        def blur(item: Annotations) -> None:
            np.save(path.with_suffix(".npy"), blurred(item))

        stamp_time, blur_time = seconds(stamp, items), seconds(blur, items[:1])
        small, full = seconds(ours(4), items), seconds(ours(1), items)
        made = {
            s: seconds(lambda item, s=s: density_map(item, bank, sigma, stride=s), items)
            for s in (1, 4)
        }  # type: ignore[misc]
        floor = seconds(lambda item: path.write_bytes(bytes(4 * HEIGHT * WIDTH)), items)
        size = path.with_suffix(".npy").stat().st_size
        ours(4)(items[0])
        least = path.stat().st_size
    against = f"np.save of {size:,} bytes"
    return [
        ("stride 4 + HDF5, against stamping", small, stamp_time, stamp_time / small, against),
        ("stride 4 + HDF5, against blurring", small, blur_time, blur_time / small, against),
        ("full size + HDF5, against stamping", full, stamp_time, stamp_time / full, against),
        ("full size + HDF5, against blurring", full, blur_time, blur_time / full, against),
        ("stride 4, map alone", made[4], None, None, f"{OBJECTS * 31 * 31:,} cells touched"),
        ("full size, map alone", made[1], None, None, f"{OBJECTS * 121 * 121:,} cells touched"),
        (
            "floor: write the raw full-size bytes",
            floor,
            None,
            None,
            f"{4 * HEIGHT * WIDTH:,} bytes",
        ),
        ("floor: write a finished stride-4 file", _write(least), None, None, f"{least:,} bytes"),
    ]


def _write(size: int) -> float:
    data = bytes(size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        return seconds(lambda item: path.write_bytes(data), [clustered(0)] * 20)


def storage_rows(count: int = 12) -> list[Row]:
    """Bytes a map and seconds a map for each storage setting; the baseline is ``.npy``."""
    items, bank = [clustered(seed) for seed in range(count)], KernelBank.build()
    sigma = SigmaConfig(fixed=SIGMA)
    found: list[Row] = []
    for stride in (1, 4):
        maps: dict[str, DensityMap] = {
            item.image_id: density_map(item, bank, sigma, stride=stride) for item in items
        }
        for level in (0, 1, 3, 6, 9):

            def store(
                item: Annotations, level: int = level, maps: dict[str, DensityMap] = maps
            ) -> int:
                return len(density_h5.write(maps[item.image_id], compression=level))

            size = sum(store(item) for item in items) / len(items)
            raw = 4 * HEIGHT * WIDTH
            name = f"stride {stride}, gzip {level}"
            note = f"{size:,.0f} bytes a map, {raw / size:.1f} times smaller than full-size .npy"
            found.append((name, seconds(store, items), None, None, note))
    return found


def main() -> None:
    """Print the tables."""
    show("density, one 1360 x 765 map", rows(), "ms")
    print()
    show("storage, one 1360 x 765 map", storage_rows(), "ms")


if __name__ == "__main__":
    main()
