"""What the benchmarks share: timing, and a table of ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Data beside the checkout."""

Row = tuple[str, float, float | None, float | None, str]
"""Name, seconds, baseline seconds, ratio, note."""


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """Best of some runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def show(title: str, rows: Iterable[Row], unit: str = "s") -> None:
    """Print a table in seconds or milliseconds."""
    scale = {"s": 1.0, "ms": 1e3}[unit]
    print(f"| {title} | {unit} | baseline {unit} | ratio | note |\n|---|---:|---:|---:|---|")
    for name, value, base, ratio, note in rows:
        right = "| | " if base is None or ratio is None else f"| {scale * base:.2f} | {ratio:.1f} "
        print(f"| {name} | {scale * value:.3f} {right}| {note} |")
