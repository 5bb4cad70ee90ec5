"""Figures of what crops are worth: average precision over milliseconds and over pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from matplotlib.figure import Figure

from dmnet.cropping.report import png
from dmnet.pipeline.worth.measure import Row

LABELS = {
    "ms": "milliseconds per image (density, detection, fusion)",
    "pixels": "pixels of the crops / pixels of the image",
}


def worth_figure(rows: Sequence[Row], best: Sequence[bool], axis: str, title: str) -> bytes:
    """AP over ``ms`` or ``pixels``, a curve a slicer, the frontier ringed; PNG bytes."""
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    curves: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        x = row.ms if axis == "ms" else row.figures["pixels"]
        curves.setdefault(row.title, []).append((x, row.figures["AP"], row.setting))
    for (name, points), marker in zip(curves.items(), cycle("osD^vP*"), strict=False):
        points.sort()
        x_values, y_values, _ = zip(*points, strict=True)
        (line,) = axes.plot(x_values, y_values, marker=marker, ms=5, lw=1.2, label=name)
        for x, y, setting in points:
            text = setting.split(",")[0].removeprefix("threshold ").removeprefix("tile ")
            if text != "-":
                axes.annotate(text, (x, y), (4, -9), textcoords="offset points", fontsize=7,
                              color=line.get_color())  # fmt: skip
    if axis == "ms":
        front = [(row.ms, row.figures["AP"]) for row, mark in zip(rows, best, strict=True) if mark]
        axes.plot(
            *zip(*sorted(front), strict=True), "o", ms=12, mfc="none", mec="k", label="frontier"
        )
        axes.set_xlim(left=0)
    axes.set_xlabel(LABELS[axis])
    axes.set_ylabel("AP")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return png(figure)
