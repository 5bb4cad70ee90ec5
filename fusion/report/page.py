"""One self-contained HTML page: results side by side, curves, errors, pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from dmnet.core.boxes import Window
from dmnet.core.classes import Classes
from dmnet.core.ranges import Range, Settings
from dmnet.core.records import Detections, Image
from dmnet.fusion.evaluation.coco import coco_images
from dmnet.fusion.evaluation.error_types import error_costs
from dmnet.fusion.evaluation.matched import Matched, matched
from dmnet.fusion.evaluation.operating_points import OperatingPoint, best_f1
from dmnet.fusion.evaluation.scored_images import ScoredImage, with_found
from dmnet.fusion.report import plots, tables
from dmnet.fusion.report.gallery import Tile, commonest_confusions, worst_images
from dmnet.fusion.report.tables import Result, number
from dmnet.fusion.report.template import POLICY, asset, embedded, fill
from dmnet.fusion.report.viewer import (
    FLOOR,
    ViewerConfig,
    ViewerImage,
    picture_jpeg,
    viewer_part,
)

ReadImage = Callable[[str], Image | None]
"""Gives the picture of an image id, or None where there is none."""

PICTURE_BYTES = 1_000_000
"""All pictures of the viewer together: a report of ten stays below 3 MB."""

PATCH_BYTES = 9_000
"""One enlarged example of a confusion."""


@dataclass(frozen=True)
class ReportConfig(Settings):
    """What the report shows."""

    protocol: str = "coco@500"
    """Protocol of curves, errors and intervals."""
    score_threshold: Annotated[float, Range(-1_000_000, 1_000_000)] = 0.3
    """A second operating point beside that of the best F1."""
    pictures: Annotated[int, Range(0, 1_000)] = 6
    """Images in the viewer, those with most errors; 0 leaves pictures out."""
    confusions: Annotated[int, Range(0, 1_000)] = 6
    """Commonest confusions shown, each with up to six examples."""
    bootstrap: Annotated[int, Range(0, 100_000)] = 100
    """Repetitions behind the confidence intervals; 0 leaves them out."""
    longest: Annotated[int, Range(16, 16_384)] = 1400
    """Longest side of an embedded picture in pixels."""
    against: Literal["first", "last"] = "last"
    """The result that differences are taken to: the last minus each, or each minus the first."""


@dataclass(frozen=True)
class Overlay:
    """What else the viewer lays over a picture: crop windows, density as PNG and its sum."""

    windows: Sequence[Window] = ()
    density: bytes | None = None
    count: float | None = None


@dataclass(frozen=True)
class RunFacts:
    """Where the results come from, as recorded: shown as it is, never looked up here."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """Command, data, commit and the like, by name."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Every setting by its full name."""


def render(
    title: str,
    truths: Sequence[ScoredImage],
    results: Sequence[Result],
    *,
    classes: Classes,
    image: ReadImage | None = None,
    overlay: Callable[[str], Overlay] = lambda _: Overlay(),
    config: ReportConfig | None = None,
    sections: Sequence[tuple[str, str]] = (),
    subtitle: str = "",
    run: RunFacts | None = None,
) -> str:
    """Render the report.

    Args:
        title: heading of the page.
        truths: ground truth of every scored image; their own detections are not looked at.
        results: at least one; the last one is the main one. Confusions, examples and the viewer
            are at the score of its best F1.
        classes: of the ground truth.
        image: reads pictures by image id; without it there are none.
        overlay: what the viewer lays over a picture, by image id.
        config: what to show.
        sections: further parts, ``(title, html)``. The HTML is the caller's own and goes in as it
            is; everything else is escaped.
        subtitle: one line below the title.
        run: where the results come from.

    Returns:
        HTML that needs no other file.
    """
    config, run = config or ReportConfig(), run or RunFacts()
    found = _matched(truths, results, config.protocol, classes)
    main, main_table = results[-1], found[results[-1].name]
    best = best_f1(main_table)
    pictures = image if image is not None and config.pictures > 0 else None
    costs = {name: error_costs(table) for name, table in found.items()}
    page = {
        "title": title,
        "subtitle": subtitle,
        "cards": _cards(main, best),
        "tables": tables.score_tables(results),
        "classes": tables.class_tables(results),
        "points": tables.points(found, config.score_threshold),
        "point_protocol": config.protocol,
        "intervals": tables.intervals(found, config.bootstrap, config.against),
        "curves": _embedded_svg(plots.precision_recall(found)) if len(truths) else "",
        "errors": _embedded_svg(plots.error_bars(costs)),
        "matrix": tables.matrix(main_table, best.threshold),
        "confusions": _confusions(main_table, best.threshold, pictures, config.confusions),
        "viewer": _viewer(truths, results, main_table, best, pictures, overlay, config, classes),
        "against": _against(results, config),
        "sections": list(sections),
        "warnings": [
            f"{result.name}, {score.protocol}: {text}"
            for result in results
            for score in result.scores
            for text in score.warnings
        ],
        "facts": run.facts,
        "settings": run.settings,
    }
    style = "\n".join(asset(name) for name in ("page.css", "viewer.css", "report.css"))
    return fill("report.html.j2", page=page, style=style, policy=POLICY)


def _against(results: Sequence[Result], config: ReportConfig) -> str:
    first = config.against == "first"
    return f"minus {results[0].name}" if first else f"{results[-1].name} minus it"


def _matched(
    truths: Sequence[ScoredImage],
    results: Sequence[Result],
    protocol: str,
    classes: Classes,
) -> dict[str, Matched]:
    images = coco_images(truths) if protocol.startswith("coco") else truths
    tables: dict[str, Matched] = {}
    for result in results:
        found = with_found(images, result.detections)
        like = next(iter(tables.values()), None)
        tables[result.name] = matched(found, protocol, classes=classes.scored, like=like)
    return tables


def _viewer(
    truths: Sequence[ScoredImage],
    results: Sequence[Result],
    table: Matched,
    best: OperatingPoint,
    read: ReadImage | None,
    overlay: Callable[[str], Overlay],
    config: ReportConfig,
    classes: Classes,
) -> str:
    """The viewer of the images with most errors; empty where there is no picture."""
    if read is None:
        return ""
    most = min(170_000, PICTURE_BYTES // config.pictures)
    none = Detections.empty()
    images: list[ViewerImage] = []
    for position in worst_images(table, best.threshold):
        truth = truths[position]
        picture = read(truth.image_id) if len(images) < config.pictures else None
        if picture is None:
            continue
        more = overlay(truth.image_id)
        images.append(
            ViewerImage(
                truth.image_id,
                picture_jpeg(picture, config.longest, most),
                (picture.shape[0], picture.shape[1]),
                {each.name: each.detections.get(truth.image_id, none) for each in results},
                truth.annotations(classes),
                more.windows,
                more.density,
                more.count,
            )
        )
    score = math.floor(100 * best.threshold) / 100
    start = ViewerConfig(score, min(FLOOR, score), embedded=True)
    return viewer_part(images, classes, start) if images else ""


def _embedded_svg(text: str) -> str:
    return embedded(text.encode(), "svg+xml")


def _confusions(
    table: Matched, threshold: float, read: ReadImage | None, number: int
) -> list[dict[str, Any]]:
    return [] if read is None else _tiles(commonest_confusions(table, threshold, read, number))


def _tiles(tiles: Sequence[Tile]) -> list[dict[str, Any]]:
    return [
        {
            "title": tile.title,
            "text": tile.text,
            "pictures": [
                embedded(picture_jpeg(picture, 180, PATCH_BYTES), "jpeg")
                for picture in tile.pictures
            ],
            "legend": [(name, f"rgb{colour}") for name, colour in tile.legend],
        }
        for tile in tiles
    ]


def _cards(main: Result, best: OperatingPoint) -> list[tuple[str, str, str]]:
    """Name, value and protocol of the main result's first scores, and its best F1."""
    cards = []
    if main.scores:
        score = main.scores[0]
        shown = [key for key in score.summary if key.startswith("AP")]
        cards = [(key, number(score.summary[key], score.unit), score.protocol) for key in shown]
    at = "" if math.isnan(best.f1) else f"at score {best.threshold:.3f}"
    return [*cards, ("best F1", number(best.f1), at)]
