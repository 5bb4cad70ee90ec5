"""The slicer report: many slicers and settings over a set of images, as a table and a figure."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dmnet.core.boxes import Window
from dmnet.core.classes import Classes
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.core.tables import csv_text
from dmnet.cropping.density import DensityCrops, density_windows
from dmnet.cropping.recall import GROUPS, UNIT, SliceCounts, count_crops
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.cropping.windows import WindowScan, scan_windows

Setting = tuple[str, CropConfig]
"""Name of the curve a setting belongs to, and the setting."""

Row = dict[str, str | int | float | None]
"""One line of the table; None where there is nothing to average."""

THRESHOLDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.9, 1.2, 1.6)
UNIFORM = ((1, 2), (2, 2), (2, 3), (3, 4), (4, 6))
TILES = (1024, 800, 640, 512, 384, 256)
BUDGETS = (0.1, 0.2, 0.3, 0.5, 0.8)
"""Settings along the curves of `standard_settings`."""

TITLES: dict[str, str] = {
    "slicer": "slicer",
    "setting": "setting",
    "images": "images",
    "crops_per_image": "crops per image",
    "relative_pixels": "pixels / image",
    "cut": "cut by a border",
    "lost": "cut, nowhere whole",
    "scale": "scale in crops",
    "whole_scale": "scale in the image",
    "object_side": "object side, px",
}
"""Columns of the table and their headings, beside ``recall_<group>`` for each group and class.

Recall: share of objects fully inside a crop."""


def sweep(name: str, config: CropConfig, thresholds: Iterable[float]) -> list[Setting]:
    """The same slicer at many thresholds: one curve of the figure."""
    return [(name, config.having(threshold=threshold)) for threshold in thresholds]


def standard_settings(config: CropConfig) -> list[Setting]:
    """The comparison that the report shows unless told otherwise.

    The density slicer, as ``config`` has it, and the published one over `THRESHOLDS`, pixel
    budgets, uniform and grid crops of several sizes, crops from the ground truth, none at all.
    """
    curves = sweep("density", config, THRESHOLDS)
    if config.settings.preset != "reference":
        published = CropConfig.of(preset="reference", window=config.settings.window)
        curves += sweep("density-reference", published, THRESHOLDS)
        curves += [("density-budget", config.having(pixel_budget=b)) for b in BUDGETS]
    curves += [("uniform", CropConfig.of("uniform", rows=r, cols=c)) for r, c in UNIFORM]
    curves += [("grid", CropConfig.of("grid", tile=tile)) for tile in TILES]
    curves.append(("oracle", CropConfig.of("oracle", **config.own)))
    curves.append(("none", CropConfig.of("none")))
    return curves


def count_image(
    annotations: Annotations,
    density: DensityMap | None,
    settings: Sequence[Setting],
    detector_input: tuple[int, int] = (600, 1000),
) -> list[SliceCounts]:
    """Counts of one image for every setting; the map is scanned once for each window size."""
    scans: dict[Size, WindowScan] = {}
    seen: dict[tuple[Window, ...], SliceCounts] = {}
    counts = []
    for _, config in settings:
        if isinstance(config.settings, DensityCrops) and density is not None:
            window = config.settings.window
            if window not in scans:
                scans[window] = scan_windows(density, window)
            crops = density_windows(config.settings, density, scans[window])
        else:
            crops = slice_image(config, annotations.size, density, annotations)
        key = tuple(crops)
        if key not in seen:
            seen[key] = count_crops(annotations, crops, detector_input)
        counts.append(seen[key])
    return counts


def report_rows(
    settings: Sequence[Setting], counts: Sequence[SliceCounts], classes: Classes
) -> list[Row]:
    """The table from summed counts, in the order of the settings."""
    pairs = zip(settings, counts, strict=True)
    return [_row(name, config, c, classes) for (name, config), c in pairs]


def _row(name: str, config: CropConfig, c: SliceCounts, classes: Classes) -> Row:
    objects, covered = int(c.objects[0]), int(c.covered[0])
    row: Row = {
        "slicer": name,
        "setting": str(config.settings),
        "images": c.images,
        "crops_per_image": _ratio(c.crops, c.images),
        "relative_pixels": _ratio(c.pixels, c.images * UNIT),
    }
    groups = [*GROUPS, *classes.names]
    each = np.resize(c.covered, len(groups)), np.resize(c.objects, len(groups))  # zeros, if empty
    for group, inside, number in zip(groups, *each, strict=True):
        row[f"recall_{group}"] = _ratio(int(inside), int(number))
    row["cut"] = _ratio(int(c.cut[0]), objects)
    row["lost"] = _ratio(int(c.lost[0]), objects)
    row["scale"] = _ratio(c.scale, covered * UNIT)
    row["whole_scale"] = _ratio(c.whole_scale, covered * UNIT)
    row["object_side"] = _ratio(c.side, covered * UNIT)
    return row


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def to_csv(rows: Sequence[Row]) -> str:
    """The table as CSV, six decimals; empty where there is nothing to average."""
    names = list(rows[0]) if rows else list(TITLES)
    return csv_text([names, *([_plain(row[name]) for name in names] for row in rows)])


def _plain(value: str | int | float | None) -> str | int:
    if isinstance(value, float):
        return f"{value:.6f}"
    return "" if value is None else value


def to_json(rows: Sequence[Row]) -> str:
    """The table as a JSON list of objects."""
    return json.dumps(list(rows), indent=1) + "\n"


def to_html(rows: Sequence[Row]) -> str:
    """The table as an HTML fragment; shares in per cent."""
    names = list(rows[0]) if rows else list(TITLES)
    titles = [TITLES.get(name, name.replace("_", " ", 1)) for name in names]
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_shown(name, row[name])}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f'<table class="slicers">\n<tr>{head}</tr>\n{body}\n</table>\n'


def _shown(name: str, value: str | int | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        share = name in ("cut", "lost") or name.startswith("recall_")
        return f"{100 * value:.1f} %" if share else f"{value:.2f}"
    return html.escape(str(value))


def recall_figure(rows: Sequence[Row], group: str = "all", title: str = "") -> bytes:
    """Region recall over processed pixels, one curve a slicer, settings along the curve; PNG.

    Args:
        rows: the table; rows of the same ``slicer`` form a curve, in their order.
        group: one of `dmnet.cropping.recall.GROUPS`, or a class.
        title: heading of the figure.
    """
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    curves: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        x, y = row["relative_pixels"], row[f"recall_{group}"]
        if isinstance(x, float) and isinstance(y, float) and x > 0:  # no crops, no point
            point = x, 100 * y, str(row["setting"])
            curves.setdefault(str(row["slicer"]), []).append(point)
    for (name, points), marker in zip(curves.items(), cycle("osD^vP*"), strict=False):
        x_values, y_values, _ = zip(*points, strict=True)
        axes.plot(x_values, y_values, marker=marker, ms=5, lw=1.4, alpha=0.85, label=name)
    axes.set_xlabel("pixels of the crops / pixels of the image")
    axes.set_ylabel(f"region recall, {group} objects, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(loc="lower right", fontsize=8)
    _label_points(axes, list(curves.values()))
    return png(figure)


def _label_points(axes: Axes, curves: Sequence[Sequence[tuple[float, float, str]]]) -> None:
    """Write settings beside their points, leaving out those that would cover another label."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    taken: list[tuple[float, float]] = []
    for line, points in zip(axes.get_lines(), curves, strict=True):
        for x, y, setting in points:
            text = setting.split(",")[0].removeprefix("threshold ").removeprefix("tile ")
            at = (x - left) / (right - left), (y - low) / (high - low)
            free = all(abs(at[0] - u) > 0.055 or abs(at[1] - v) > 0.035 for u, v in taken)
            if free and text != "-":
                taken.append(at)
                label = axes.annotate(text, (x, y), (5, -3), textcoords="offset points", va="top")
                label.set(fontsize=7, color=line.get_color())


def png(figure: Figure) -> bytes:
    """Render a figure to PNG bytes that depend on nothing but its content."""
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()
