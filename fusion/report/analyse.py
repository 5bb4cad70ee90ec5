"""Everything about results made elsewhere, from files: scores, operating points, errors, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dmnet.core.errors import ConfigError
from dmnet.core.images import read_image
from dmnet.core.records import Detections, Image
from dmnet.fusion.evaluation.bootstrap import Comparison, Interval, compare, intervals, resample
from dmnet.fusion.evaluation.coco import coco_images
from dmnet.fusion.evaluation.error_types import ErrorCost, error_costs
from dmnet.fusion.evaluation.evaluate import check_protocol, score_read
from dmnet.fusion.evaluation.inputs import read_found, read_truth
from dmnet.fusion.evaluation.matched import Matched, matched
from dmnet.fusion.evaluation.operating_points import (
    OperatingPoint,
    best_f1,
    confusion,
    operating_point,
)
from dmnet.fusion.evaluation.scores import Scores
from dmnet.fusion.report.page import ReportConfig, render
from dmnet.fusion.report.tables import Result


@dataclass(frozen=True)
class Analysis:
    """One result in full; ``matrix`` is the confusion matrix, its last row and column nothing.

    ``against`` compares with the first result of the same call, None for that one itself.
    """

    scores: Scores
    point: OperatingPoint
    best: OperatingPoint
    errors: tuple[ErrorCost, ...]
    matrix: tuple[tuple[int, ...], ...]
    intervals: Mapping[str, Interval]
    against: Mapping[str, Comparison] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for ``json.dumps``; NaN becomes None."""
        parts = {
            "scores": self.scores.to_json(),
            "at_threshold": asdict(self.point),
            "at_best_f1": asdict(self.best),
            "errors": [asdict(cost) for cost in self.errors],
            "confusion": [list(row) for row in self.matrix],
            "intervals": {name: asdict(value) for name, value in self.intervals.items()},
        }
        if self.against is not None:
            parts["against_first"] = {name: asdict(value) for name, value in self.against.items()}
        cleaned: dict[str, Any] = _without_nan(parts)
        return cleaned


def analyse(
    gt: Path,
    dts: Sequence[Path],
    protocol: str = "coco@500",
    *,
    sizes: Path | None = None,
    split: str = "val",
    ignore_regions: bool = False,
    score_threshold: float = 0.3,
    bootstrap: int = 100,
) -> list[Analysis]:
    """Analyse any number of results on one ground truth.

    Args:
        gt: as in `evaluate.evaluate`.
        dts: results, each a COCO JSON or a folder of VisDrone txt.
        protocol: one of `evaluate.PROTOCOLS`.
        sizes: CSV ``image,width,height``, see `evaluate.evaluate`.
        split: of a data set that has several.
        ignore_regions: for the COCO protocols, see `evaluate.evaluate`.
        score_threshold: of the operating point and the confusion matrix.
        bootstrap: repetitions behind intervals and comparisons; 0 leaves them out.

    Raises:
        DmnetError: as `evaluate.evaluate` does.
    """
    check_protocol(protocol)
    truth = read_truth(gt, sizes, split)
    tables: list[Matched] = []
    all_scores: list[Scores] = []
    for dt, name in zip(dts, names_of(dts), strict=True):
        scored, warnings = read_found(dt, truth)
        all_scores.append(score_read(truth, scored, protocol, ignore_regions, name, warnings))
        if protocol.startswith("coco"):
            scored = coco_images(scored, ignore_regions=ignore_regions, crowd=truth.is_json)
        tables.append(matched(scored, protocol, classes=truth.classes.scored))
    drawn = [resample(table, repeats=bootstrap) for table in tables] if bootstrap > 0 else []
    out = []
    for number, (table, scores) in enumerate(zip(tables, all_scores, strict=True)):
        against = None
        if drawn and number:
            against = compare(tables[0], table, (drawn[0], drawn[number]))
        out.append(
            Analysis(
                scores,
                operating_point(table, score_threshold),
                best_f1(table),
                tuple(error_costs(table)),
                tuple(tuple(row) for row in confusion(table, score_threshold).tolist()),
                intervals(table, drawn[number]) if drawn else {},
                against,
            )
        )
    return out


def report_files(
    gt: Path,
    dts: Sequence[Path],
    *,
    protocols: Sequence[str] = ("coco@500", "visdrone"),
    images: Path | None = None,
    sizes: Path | None = None,
    split: str = "val",
    ignore_regions: bool = False,
    config: ReportConfig | None = None,
    title: str = "Detections compared",
) -> str:
    """The report page for results from files; the last one is the main one.

    Args:
        gt: as in `evaluate.evaluate`.
        dts: results, each a COCO JSON or a folder of VisDrone txt.
        protocols: of the score tables.
        images: folder of the pictures; the folder ``images`` beside the annotations if None.
        sizes: see `evaluate.evaluate`.
        split: see `evaluate.evaluate`.
        ignore_regions: see `evaluate.evaluate`.
        config: what the page shows.
        title: heading.

    Returns:
        HTML that needs no other file.
    """
    truth = read_truth(gt, sizes, split)
    results = []
    for dt, name in zip(dts, names_of(dts), strict=True):
        scored, warnings = read_found(dt, truth)
        found: dict[str, Detections] = {s.image_id: s.detections() for s in scored}
        scores = [
            score_read(truth, scored, protocol, ignore_regions, name, warnings)
            for protocol in protocols
        ]
        results.append(Result(name, found, scores))
    if not results:
        raise ConfigError("the report needs at least one result")
    pictures = dict(truth.files)
    if images is not None:
        pictures = {path.stem: path for path in sorted(images.iterdir()) if path.is_file()}

    def read(image_id: str) -> Image | None:
        path = pictures.get(image_id)
        return None if path is None else read_image(path)

    return render(
        title,
        truth.images,
        results,
        classes=truth.classes,
        image=read if pictures else None,
        config=config,
        subtitle=f"{len(truth.images)} images, ground truth {truth.path.name}",
    )


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of results: the file's stem, with its folder where stems repeat, numbered if need be.

    Two results never share a name.
    """
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{path.parent.name}/{stem}"
        for stem, path in zip(stems, paths, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names, start=1)
    ]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if value != value else value
