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
    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    curves: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        x = row.ms if axis == "ms" else row.figures["pixels"]
        curves.setdefault(row.title, []).append((x, row.figures["AP"], row.setting))
    for (name, points), marker in zip(curves.items(), cycle("osD^vP*"), strict=False):
        points.sort()
        x_values, y_values, settings = zip(*points, strict=True)
        (line,) = axes.plot(x_values, y_values, marker=marker, ms=5, lw=1.2, label=name)
        for x, y, text in zip(x_values, y_values, told_apart(settings), strict=True):
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
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png(figure)


def told_apart(settings: Sequence[str]) -> list[str]:
    """What tells the points of a curve apart: the values of the first part that is not alike.

    >>> told_apart(["threshold 0.1, objects 3", "threshold 0.1, objects 10"])
    ['3', '10']
    """
    columns = list(zip(*(setting.split(", ") for setting in settings), strict=False))
    unlike = [column for column in columns if len(set(column)) > 1]
    return [text.split()[-1] for text in unlike[0]] if unlike else [""] * len(settings)
