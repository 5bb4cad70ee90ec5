"""How fast the cropping is: ``python benchmarks/cropping.py`` prints a markdown table.

Baseline: windows summed one by one, then a flood fill that walks the mask pixel by pixel with a
queue in pure Python, written from the description of the published scripts. Maps: full-size
1360 x 765 with clustered objects, about 70 of them, seeded; their mask covers about as much of the
picture as that of the VisDrone val pictures of this size (three tenths).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter
from table import Row, show

from dmnet.core.boxes import Window
from dmnet.core.records import Annotations, DensityMap
from dmnet.cropping.recall import count_crops
from dmnet.cropping.regions import components, reference_extent
from dmnet.cropping.report import count_image, sweep
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.cropping.windows import scan_windows

HEIGHT, WIDTH, SIDE, THRESHOLD = 765, 1360, 70, 0.08


def pooled(density: DensityMap, stride: int) -> DensityMap:
    """A map at stride 1 sum-pooled; the count is kept, the border cells are partial."""
    rows, cols = (np.arange(0, side, stride) for side in density.size)
    wide = np.add.reduceat(density.values, rows, axis=0, dtype=np.float64)
    both = np.add.reduceat(wide, cols, axis=1)
    return DensityMap(both.astype(np.float32), stride, density.size)


def clustered_map(seed: int) -> DensityMap:
    """A full-size map of about 70 objects in 10 clusters, sigma 15."""
    rng = np.random.default_rng(seed)
    heart = rng.uniform([0, 0], [HEIGHT, WIDTH], (10, 2))
    points = heart[rng.integers(0, 10, 70)] + rng.normal(0, 45, (70, 2))
    at = np.clip(points, 0, [HEIGHT - 1, WIDTH - 1]).astype(int)
    values = np.zeros((HEIGHT, WIDTH))
    np.add.at(values, (at[:, 0], at[:, 1]), 1)
    return DensityMap(gaussian_filter(values, 15).astype(np.float32), 1, (HEIGHT, WIDTH))


def plain_windows(values: np.ndarray) -> list[Window]:
    """The published way: window by window, then pixel by pixel."""
    mask = np.zeros(values.shape, np.uint8)
    for y in range(0, HEIGHT, SIDE):
        for x in range(0, WIDTH, SIDE):
            top, left = min(y, HEIGHT - SIDE), min(x, WIDTH - SIDE)
            if values[top : top + SIDE, left : left + SIDE].sum() >= THRESHOLD:
                mask[top : top + SIDE, left : left + SIDE] = 1
    found = []
    seen = np.zeros(values.shape, np.uint8)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            if mask[y, x] and not seen[y, x]:
                found.append(_flood(mask, seen, y, x))
    return found


def _flood(mask: np.ndarray, seen: np.ndarray, y: int, x: int) -> Window:
    queue = deque([(y, x)])
    seen[y, x] = 1
    y0 = y1 = y
    x0 = x1 = x
    while queue:
        y, x = queue.popleft()
        y0, y1, x0, x1 = min(y0, y), max(y1, y), min(x0, x), max(x1, x)
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < HEIGHT and 0 <= u < WIDTH and mask[v, u] and not seen[v, u]:
                seen[v, u] = 1
                queue.append((v, u))
    return max(0, x0 - 1), max(0, y0 - 1), min(WIDTH, x1 + 1), min(HEIGHT, y1 + 1)


def fast_windows(density: DensityMap) -> list[Window]:
    """The same windows by `dmnet.cropping`."""
    scan = scan_windows(density, (SIDE, SIDE))
    return [reference_extent(w) for w in components(scan, scan.passed(THRESHOLD), 4)]


def seconds(work: Callable[[], object], repeat: int = 1) -> float:
    """Mean seconds of one call; the best of three rounds when repeated."""
    rounds = []
    for _ in range(3 if repeat > 1 else 1):
        start = time.perf_counter()
        for _ in range(repeat):
            work()
        rounds.append((time.perf_counter() - start) / repeat)
    return min(rounds)


def bench_windows(maps: Sequence[DensityMap]) -> list[Row]:
    """Window scan and connected components, against the plain flood fill and the floor."""
    n = len(maps)
    plain = seconds(lambda: [plain_windows(m.values) for m in maps]) / n
    for m in maps:
        if plain_windows(m.values) != fast_windows(m):
            raise AssertionError("fast and plain windows differ")
    fast = seconds(lambda: [fast_windows(m) for m in maps], 10) / n
    floor = seconds(lambda: [m.values.sum() for m in maps], 10) / n
    small = [pooled(m, 4) for m in maps]
    coarse = seconds(lambda: [fast_windows(m) for m in small], 20) / n
    cells = HEIGHT * WIDTH
    share = np.mean([scan_windows(m, (SIDE, SIDE)).mask(THRESHOLD).mean() for m in maps])
    return [
        (
            "windows + components, stride 1", fast, plain, plain / fast,
            f"equal windows; mask {100 * share:.0f} % of the pixels",
        ),
        (
            "floor: read every cell once", floor, fast, fast / floor,
            f"{cells:,} cells, {4 * cells / 1e6:.1f} MB; the scan against it",
        ),
        (
            "windows + components, stride 4", coarse, plain, plain / coarse,
            f"{small[0].values.size:,} cells, no upsampling",
        ),
    ]  # fmt: skip


def bench_slicing(maps: Sequence[DensityMap]) -> list[Row]:
    """Whole slicing of an image, and one setting more in a threshold sweep."""
    n = len(maps)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, [WIDTH - 60, HEIGHT - 60], (70, 2))
    truth = Annotations.of("a", (HEIGHT, WIDTH), np.hstack([low, low + 30]), np.ones(70))
    small = [pooled(m, 4) for m in maps]
    curve = sweep("density", CropConfig(), np.geomspace(0.01, 2, 40).tolist())

    def apart() -> None:
        for m in maps:
            for _, config in curve:
                count_crops(truth, slice_image(config, m.size, m))

    whole = seconds(lambda: [slice_image(CropConfig(), m.size, m) for m in maps], 5) / n
    coarse = seconds(lambda: [slice_image(CropConfig(), m.size, m) for m in small], 5) / n
    budget = CropConfig.of(pixel_budget=0.4)
    target = seconds(lambda: [slice_image(budget, m.size, m) for m in small], 2) / n
    alone = seconds(apart) / n
    together = seconds(lambda: [count_image(truth, m, curve) for m in maps], 2) / n
    return [
        ("slice_image, corrected, stride 1", whole, None, None, "scan, split, grow, merge"),
        ("slice_image, corrected, stride 4", coarse, None, None, "the same at stride 4"),
        ("slice_image, pixel budget, stride 4", target, None, None, "up to 32 thresholds tried"),
        ("report: 40 thresholds per image", together, alone, alone / together, "one scan for all"),
    ]


def rows() -> list[Row]:
    """All measurements, seconds per image."""
    maps = [clustered_map(seed) for seed in range(4)]
    return bench_windows(maps) + bench_slicing(maps)


def main() -> None:
    """Print the table."""
    show("cropping, one 1360 x 765 map", rows(), "ms")


if __name__ == "__main__":
    main()
