"""Curves of a training as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, float | int | str]]


def _series(history: Rows, name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one column, where it has a value."""
    rows = [row for row in history if row.get(name) not in (None, "")]
    return [float(row["epoch"]) for row in rows], [float(row[name]) for row in rows]


def columns(history: Rows) -> tuple[list[str], list[str]]:
    """Names of the losses (``loss``, ``loss/...``) and of the scores, in order of appearance."""
    names = dict.fromkeys(name for row in history for name in row)
    losses = [name for name in names if name == "loss" or name.startswith("loss/")]
    rest = [name for name in names if name not in losses and name not in ("epoch", "lr")]
    return losses, rest


def training_curves(history: Rows) -> bytes:
    """Losses on the left, scores (precision, recall, IoU, AP) on the right, over epochs; PNG.

    Args:
        history: one row an epoch with ``epoch``, losses, and scores where it was evaluated.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panes: Any = figure.subplots(1, 2)
    titles = ("loss", "score")
    for pane, names, title in zip(panes, columns(history), titles, strict=True):
        for name in names:
            epochs, values = _series(history, name)
            pane.plot(epochs, values, label=name, marker="." if len(values) < 50 else None)
        pane.set_xlabel("epoch")
        pane.set_title(title)
        pane.grid(alpha=0.3)
        if names:
            pane.legend(fontsize=7)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
