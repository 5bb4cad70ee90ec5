"""A training history as a table (CSV) and as curves (PNG)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Row = Mapping[str, float | int | str]


def curves_png(
    history: Sequence[Row],
    groups: Mapping[str, Sequence[str]],
    x: str = "epoch",
    levels: Mapping[str, Row] | None = None,
) -> bytes:
    """Draw one panel a group; the same history gives the same bytes.

    Args:
        history: one row an epoch.
        groups: panel title -> columns drawn in it; columns that no row holds are left out.
        x: column of the horizontal axis.
        levels: panel title -> named values drawn as dashed horizontal lines (baselines).
    """
    shown = {
        title: [name for name in names if any(name in row for row in history)]
        for title, names in groups.items()
    }
    panels = [(title, names) for title, names in shown.items() if names]
    figure = Figure(figsize=(4.2 * max(1, len(panels)), 3.2), layout="constrained")
    for index, (title, names) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), index)
        for name in names:
            points = [(float(row[x]), float(row[name])) for row in history if name in row]
            axes.plot(
                *zip(*points, strict=True), label=name, marker="." if len(points) < 30 else ""
            )
        for number, (name, value) in enumerate((levels or {}).get(title, {}).items()):
            axes.axhline(float(value), label=name, linestyle="--", color=f"C{7 - number}")
        axes.set(title=title, xlabel=x)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def history_csv(rows: Iterable[Row]) -> bytes:
    """Render one line an epoch; columns are the union of the keys in order of appearance."""
    listed = list(rows)
    columns = list(dict.fromkeys(key for row in listed for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(listed)
    return text.getvalue().encode()
