"""Plots of the report as SVG text: no display, no files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmnet.core.overlaps import Floats
from dmnet.fusion.evaluation.error_types import TYPES, ErrorCost
from dmnet.fusion.evaluation.matched import Matched, ap_table, curve

LINES = ("#2f6fed", "#e8590c", "#2b8a3e", "#9c36b5", "#0b7285", "#c92a2a", "#5f3dc4", "#846358")
"""Line colours of the results, in order."""


def precision_recall(tables: Mapping[str, Matched], iou: float = 0.5) -> str:
    """Precision-recall curves, one panel per class, one line per result; AP in the legend's place.

    Args:
        tables: matched results by name.
        iou: one of the thresholds.
    """
    from matplotlib.figure import Figure

    first = next(iter(tables.values()))
    present = [c for c in first.classes if (first.truth_label[first.counts] == c).any()]
    columns = min(5, max(1, len(present)))
    rows = max(1, -(-len(present) // columns))
    figure = Figure(figsize=(2.9 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis in axes[len(present) :]:
        axis.set_visible(False)
    values = {name: _ap_at(table, iou) for name, table in tables.items()}
    for axis, label in zip(axes, present, strict=False):
        for number, (name, table) in enumerate(tables.items()):
            recall, precision = _thinned(*curve(table, label, iou))
            text = f"{name} {values[name][label]:.3f}"
            axis.plot(recall, precision, color=LINES[number % len(LINES)], lw=1.4, label=text)
        axis.set_title(first.classes[label], fontsize=9)
        axis.legend(fontsize=6.5, frameon=False, loc="lower left")
    _finish(list(axes[: len(present)]), columns)
    return svg(figure)


def _ap_at(table: Matched, iou: float) -> dict[int, float]:
    column = abs(table.thresholds - iou).argmin()
    return dict(zip(table.classes, ap_table(table)[:, column].tolist(), strict=True))


def _thinned(x: Floats, y: Floats, points: int = 400) -> tuple[Floats, Floats]:
    if len(x) > points:
        keep = np.unique(np.linspace(0, len(x) - 1, points).astype(int))
        return x[keep], y[keep]
    return x, y


def _finish(axes: Sequence[Any], columns: int) -> None:
    for number, axis in enumerate(axes):
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.grid(color="#d0d5dd", lw=0.5)
        axis.tick_params(labelsize=7)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        if number % columns == 0:
            axis.set_ylabel("precision", fontsize=8)
        if number >= len(axes) - columns:
            axis.set_xlabel("recall", fontsize=8)


def error_bars(costs: Mapping[str, Sequence[ErrorCost]]) -> str:
    """AP50 that each error type costs, a bar per result.

    Args:
        costs: by name of the result, as `errors.error_costs` gives them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.6 + 0.12 * len(costs)), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / max(1, len(costs))
    for number, (name, row) in enumerate(costs.items()):
        places = [kind + number * height for kind in range(len(row))]
        bars = axis.barh(
            places,
            [100 * cost.cost for cost in row],
            height=height * 0.9,
            color=LINES[number % len(LINES)],
            label=name,
        )
        labels = [f"{100 * cost.cost:.1f}  ({cost.number:,})" for cost in row]
        axis.bar_label(bars, labels=labels, fontsize=7, padding=3)
    middle = 0.4 - height / 2
    axis.set_yticks([kind + middle for kind in range(len(TYPES))], TYPES, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.tick_params(labelsize=8)
    axis.set_xlabel("AP50 lost, points (number of errors)", fontsize=8)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return svg(figure)


def svg(figure: Any) -> str:
    """A matplotlib figure as SVG text, the same bytes every time."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "dmnet", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
