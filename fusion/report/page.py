"""One self-contained HTML page: results side by side, curves, errors, pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from dmnet.core.images import encode_jpeg
from dmnet.core.ranges import Range, Settings
from dmnet.core.records import Annotations, Detections, Image
from dmnet.fusion.evaluation.bootstrap import Comparison, Interval, compare, intervals, resample
from dmnet.fusion.evaluation.coco import coco_images
from dmnet.fusion.evaluation.error_types import error_costs
from dmnet.fusion.evaluation.matched import Matched, matched
from dmnet.fusion.evaluation.operating_points import best_f1, confusion, operating_point
from dmnet.fusion.evaluation.scored_images import classes_of, scored_images
from dmnet.fusion.evaluation.scores import Scores
from dmnet.fusion.report import plots
from dmnet.fusion.report.gallery import Tile, commonest_confusions, worst_images

ReadImage = Callable[[str], Image | None]
"""Gives the picture of an image id, or None where there is none."""


@dataclass(frozen=True)
class ReportConfig(Settings):
    """What the report shows."""

    protocol: str = "coco@500"
    """Protocol of curves, errors and intervals."""
    score_threshold: Annotated[float, Range(-1_000_000, 1_000_000)] = 0.3
    """Operating points, confusions and pictures use detections from this score on."""
    pictures: Annotated[int, Range(0, 1_000)] = 6
    """Worst images shown; 0 leaves pictures out."""
    confusions: Annotated[int, Range(0, 1_000)] = 6
    """Commonest confusions shown, each with up to six examples."""
    bootstrap: Annotated[int, Range(0, 100_000)] = 100
    """Repetitions behind the confidence intervals; 0 leaves them out."""
    longest: Annotated[int, Range(16, 16_384)] = 1400
    """Longest side of an embedded picture in pixels."""


@dataclass(frozen=True)
class Result:
    """One result of the comparison: detections by image id and scores by any protocols."""

    name: str
    detections: Mapping[str, Detections]
    scores: Sequence[Scores]


@dataclass(frozen=True)
class _Page:
    """Everything the template prints."""

    title: str
    subtitle: str
    cards: list[tuple[str, str, str]]
    tables: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    points: list[dict[str, Any]]
    point_protocol: str
    intervals: list[dict[str, Any]]
    curves: str
    errors: str
    matrix: dict[str, Any]
    confusions: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    sections: list[tuple[str, str]]
    warnings: list[str]
    colours: Sequence[str] = field(default=plots.LINES)


def render(
    title: str,
    truths: Sequence[Annotations],
    results: Sequence[Result],
    *,
    image: ReadImage | None = None,
    config: ReportConfig | None = None,
    sections: Sequence[tuple[str, str]] = (),
    subtitle: str = "",
) -> str:
    """Render the report.

    Args:
        title: heading of the page.
        truths: ground truth of every scored image.
        results: at least one; the last one is the main one, whose pictures are shown.
        image: reads pictures by image id; without it there are none.
        config: what to show.
        sections: further parts, ``(title, html)``. The HTML is the caller's own and goes in as it
            is; everything else is escaped.
        subtitle: one line below the title.

    Returns:
        HTML that needs no other file.
    """
    config = config or ReportConfig()
    tables = _matched(truths, results, config.protocol)
    main, main_table = results[-1], tables[results[-1].name]
    threshold = config.score_threshold
    pictures = image if image is not None and config.pictures > 0 else None
    costs = {name: error_costs(table) for name, table in tables.items()}
    page = _Page(
        title=title,
        subtitle=subtitle,
        cards=_cards(main, main_table, threshold),
        tables=_score_tables(results),
        classes=_class_tables(results),
        points=_points(tables, threshold),
        point_protocol=config.protocol,
        intervals=_intervals(tables, config.bootstrap),
        curves=_embedded_svg(plots.precision_recall(tables)) if len(truths) else "",
        errors=_embedded_svg(plots.error_bars(costs)),
        matrix=_matrix(main_table, threshold),
        confusions=_tiles(commonest_confusions(main_table, threshold, pictures, config.confusions))
        if pictures
        else [],
        worst=_tiles(worst_images(main_table, threshold, pictures, config.pictures, config.longest))
        if pictures
        else [],
        sections=list(sections),
        warnings=[
            f"{result.name}, {score.protocol}: {text}"
            for result in results
            for score in result.scores
            for text in score.warnings
        ],
    )
    return _fill(page)


def _matched(
    truths: Sequence[Annotations],
    results: Sequence[Result],
    protocol: str,
) -> dict[str, Matched]:
    out, classes = {}, classes_of(truths).scored
    for result in results:
        scored = scored_images(truths, result.detections)
        if protocol.startswith("coco"):
            scored = coco_images(scored)
        out[result.name] = matched(scored, protocol, classes=classes)
    return out


def _fill(page: _Page) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dmnet.fusion.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html: str = environment.get_template("report.html.j2").render(page=page)
    return html


def _embedded_svg(text: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def _embedded_jpeg(image: Image) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, 82)).decode()


def _tiles(tiles: Sequence[Tile]) -> list[dict[str, Any]]:
    return [
        {
            "title": tile.title,
            "text": tile.text,
            "pictures": [_embedded_jpeg(picture) for picture in tile.pictures],
            "legend": [(name, f"rgb{colour}") for name, colour in tile.legend],
        }
        for tile in tiles
    ]


def _cards(main: Result, table: Matched, threshold: float) -> list[tuple[str, str, str]]:
    """Name, value and protocol of the main result's first scores, and its counts."""
    cards = []
    if main.scores:
        score = main.scores[0]
        shown = [key for key in score.summary if key.startswith("AP")]
        cards = [(key, number(score.summary[key], score.unit), score.protocol) for key in shown]
    cards.append(("F1", number(operating_point(table, threshold).f1), f"score >= {threshold:g}"))
    return cards


def number(value: float, unit: str = "fraction") -> str:
    """A score as text, in points of hundred; a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f}" if unit == "fraction" else f"{value:.1f}"


def _score_tables(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One table per protocol: results in rows, metrics in columns, the best of a column marked."""
    protocols = dict.fromkeys(s.protocol for result in results for s in result.scores)
    out = []
    for protocol in protocols:
        found = [
            (result.name, score)
            for result in results
            for score in result.scores
            if score.protocol == protocol
        ]
        metrics = list(dict.fromkeys(key for _, score in found for key in score.summary))
        values = [[score.summary.get(key, math.nan) for key in metrics] for _, score in found]
        out.append(
            {
                "protocol": protocol,
                "ignored": any(score.ignore_regions for _, score in found),
                "metrics": metrics,
                "rows": _marked([name for name, _ in found], values, found[0][1].unit),
            }
        )
    return out


def _marked(
    names: Sequence[str], values: Sequence[Sequence[float]], unit: str
) -> list[dict[str, Any]]:
    table = np.array(values, dtype=np.float64).reshape(len(names), -1)
    filled = np.where(np.isnan(table), -1, table)
    best = filled.max(axis=0) if len(names) else filled
    full = 1.0 if unit == "fraction" else 100.0
    return [
        {
            "name": name,
            "cells": [
                {
                    "text": number(value, unit),
                    "best": len(names) > 1 and value == top,
                    "share": 0.0 if math.isnan(value) else min(100.0, 100 * value / full),
                }
                for value, top in zip(row.tolist(), best.tolist(), strict=True)
            ],
        }
        for name, row in zip(names, table, strict=True)
    ]


def _class_tables(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One table per protocol: classes in rows, AP and AP50 of every result in columns."""
    out = []
    for protocol in dict.fromkeys(s.protocol for result in results for s in result.scores):
        found = {
            result.name: score
            for result in results
            for score in result.scores
            if score.protocol == protocol
        }
        first = next(iter(found.values()))
        rows = []
        for label, facts in first.classes.items():
            cells = []
            for metric in ("AP", "AP50"):
                column = [score.classes[label][metric] for score in found.values()]
                cells += [
                    row["cells"][0]
                    for row in _marked(list(found), [[v] for v in column], first.unit)
                ]
            rows.append({"name": label, "objects": f"{facts['objects']:.0f}", "cells": cells})
        out.append({"protocol": protocol, "results": list(found), "rows": rows})
    return out


def _points(tables: Mapping[str, Matched], threshold: float) -> list[dict[str, Any]]:
    out = []
    for name, table in tables.items():
        for kind, point in (
            ("fixed", operating_point(table, threshold)),
            ("best F1", best_f1(table)),
        ):
            rates = (point.precision, point.recall, point.f1, point.mean_iou)
            counts = (point.tp, point.fp, point.fn)
            out.append(
                {
                    "name": name,
                    "kind": kind,
                    "threshold": f"{point.threshold:.3f}",
                    "rates": [number(value) for value in rates],
                    "counts": [f"{value:,}" for value in counts],
                }
            )
    return out


def _intervals(tables: Mapping[str, Matched], repeats: int) -> list[dict[str, Any]]:
    """AP, AP50, AP75 with their intervals, and the difference of each result to the last."""
    if repeats <= 0 or not len(next(iter(tables.values())).images):
        return []
    *others, main = tables
    drawn = {name: resample(table, repeats=repeats) for name, table in tables.items()}
    out = []
    for name, table in tables.items():
        own = intervals(table, drawn=drawn[name])
        cells = [_interval(value) for value in own.values()]
        if name in others:
            against = compare(table, tables[main], drawn=(drawn[name], drawn[main]))
            cells += [_difference(value) for value in against.values()]
        else:
            cells += ["–"] * 3
        out.append({"name": name, "cells": cells})
    return out


def _interval(value: Interval) -> str:
    return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"


def _difference(value: Comparison) -> str:
    points = [100 * part for part in (value.difference.value, value.difference.low)]
    high = 100 * value.difference.high
    return f"{points[0]:+.1f} [{points[1]:+.1f}, {high:+.1f}], p = {value.p_value:.2g}"


def _matrix(table: Matched, threshold: float) -> dict[str, Any]:
    """Confusion matrix; a cell's shade is its share of the true class."""
    counts = confusion(table, threshold)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    names = list(table.classes.values())
    rows = []
    for index, name in enumerate([*names, "background"]):
        cells = [
            {
                "text": f"{value:,}" if value else "",
                "share": round(float(part), 3),
                "hit": at == index,
            }
            for at, (value, part) in enumerate(zip(counts[index], share[index], strict=True))
        ]
        rows.append({"name": name, "cells": cells})
    return {"columns": [*names, "missed"], "rows": rows, "threshold": f"{threshold:g}"}
