"""Stage ``fuse-eval``: merge the detections of images and crops, score them, write the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.classes import Classes
from dmnet.core.config import resolved
from dmnet.core.errors import ConfigError, InputError, StaleInputError
from dmnet.core.formats import parts, visdrone
from dmnet.core.formats.coco_results import results_json
from dmnet.core.formats.crops import CropSet
from dmnet.core.images import read_image
from dmnet.core.ranges import Range, Share
from dmnet.core.records import Annotations, Detections, DetectionTable, Size
from dmnet.core.tables import csv_text
from dmnet.cropping.recall import SliceCounts, count_crops
from dmnet.fusion.evaluation.evaluate import check_protocol, score_images
from dmnet.fusion.evaluation.scored_images import ScoredImage, scored_image, with_found
from dmnet.fusion.evaluation.scores import Scores
from dmnet.fusion.fuse import FuseConfig, fuse_image
from dmnet.fusion.report.page import ReportConfig, render
from dmnet.fusion.report.tables import Result
from dmnet.pipeline.context import Context, Plan
from dmnet.pipeline.facts import run_facts
from dmnet.pipeline.inputs import (
    FoundCrops,
    FoundDetections,
    load_crops,
    load_detections,
    truth_digest,
)
from dmnet.pipeline.sections import crop_figures, overlays, sections

VERSION = 2
RESULTS = ("whole image", "crops", "fused")
Results = Mapping[str, Mapping[str, Detections]]
ByProtocol = Mapping[str, Mapping[str, Scores]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(FuseConfig):
    """How detections are merged and scored (docs/method.md, "Fusion", "Evaluation")."""

    protocols: tuple[str, ...] = ("coco@500", "coco@100", "visdrone")
    """Protocols to score by; the first one heads the report."""
    ignore_regions: bool = False
    """Remove what lies in ignored regions under the COCO protocols too."""
    score_threshold: Share = 0.3
    """A second operating point in the report, beside that of the best F1."""
    pictures: Annotated[int, Range(0, 1_000)] = 6
    """Images in the report's viewer, those with most errors; 0 for none."""
    bootstrap: Annotated[int, Range(0, 100_000)] = 100
    """Repetitions behind the report's confidence intervals; 0 leaves them out."""

    def __post_init__(self) -> None:
        """Check the values and the protocols' names.

        Raises:
            ValueError: a number outside its range; no protocol, or one that does not exist.
        """
        super().__post_init__()
        if not self.protocols:
            raise ValueError("protocols: name at least one, such as coco@500")
        for protocol in self.protocols:
            try:
                check_protocol(protocol)
            except ConfigError as error:
                raise ValueError(f"protocols: {error}") from error


def plan(context: Context) -> Plan:
    """One fused list of detections for every image."""
    config = context.config("fuse-eval", Config)
    crops = load_crops(context)
    found = load_detections(context, crops.crops)
    windows = crops.crops.windows()
    items = []
    for parent in crops.crops.parents:
        files, facts = found.item_inputs(parent.image_id)
        known = {"size": parent.size, "windows": windows[parent.image_id], "found": facts}
        items.append(Item(parent.image_id, files, known))
    merging = FuseConfig(**{f.name: getattr(config, f.name) for f in fields(FuseConfig)})
    uncut = merging.merge.top_n == 0 and "visdrone" not in config.protocols
    limit = None if uncut else visdrone.MAX_RESULTS
    return Plan(
        merging,
        items,
        partial(fuse, merging, replace(found, upstream=()), limit),
        facts={} if limit else {"visdrone_rows": "all"},
        totals={
            "truth": truth_digest(context),
            "scoring": resolved(config),
            "ids": crops.ids,
            "crops_from": crops.source,
            **context.dataset.classes.facts,
        },
        finish=partial(sum_up, context, config, crops),
        notes=crops.notes,
        made_from=(*crops.upstream, *found.upstream),
        settings=config,
    )


def fuse(config: FuseConfig, found: FoundDetections, limit: int | None, item: Item) -> Product:
    """Whole-image, crop and fused detections of one image, in image coordinates.

    The value tells how many boxes a cap left out: `merge.top_n`, and ``limit`` of the result file.
    """
    size = tuple(item.facts["size"])
    windows = [tuple(window) for window in item.facts["windows"]]
    whole, cuts = found.read(item.id, size, windows)
    placed = list(zip(windows, cuts, strict=True))
    nothing = Detections.empty()
    sources = [
        fuse_image(whole, [], size, config),
        fuse_image(nothing, placed, size, config),
        fuse_image(whole, placed, size, config),
    ]
    files = {
        f"parts/{item.id}.json": parts.write(sources),
        f"visdrone/{item.id}.txt": visdrone.write_results(sources[2], limit).encode(),
    }
    value: dict[str, Any] = {"detections": [len(source) for source in sources]}
    if len(sources[2]) == config.merge.top_n > 0:
        every = replace(config, merge=replace(config.merge, top_n=0))
        value["over_top_n"] = len(fuse_image(whole, placed, size, every)) - config.merge.top_n
    if limit is not None and len(sources[2]) > limit:
        value["over_visdrone"] = len(sources[2]) - limit
    return Product(files, value)


def caps_hit(artifact: Artifact) -> Iterator[str]:
    """A sentence for every cap that left boxes out."""
    texts = {
        "over_top_n": "fuse-eval.merge.top_n keeps the best boxes per image; "
        "--fuse-eval.merge.top-n 0 keeps all",
        "over_visdrone": f"files of visdrone/ hold {visdrone.MAX_RESULTS} boxes per image, as that "
        "protocol wants",
    }
    values = [record.value for record in artifact.good.values()]
    for name, text in texts.items():
        over = [value[name] for value in values if value.get(name)]
        if over:
            yield f"{sum(over)} boxes of {len(over)} images left out: {text}"


def read_parts(folder: Path, image_id: str) -> dict[str, Detections]:
    """The three lists of an image by name, from the stage's folder."""
    read = parts.read(folder / "parts" / f"{image_id}.json")
    return dict(zip(RESULTS, read, strict=True))


def sum_up(
    context: Context, config: Config, crops: FoundCrops, artifact: Artifact
) -> Sequence[str]:
    """Write the fused COCO results, the scores and the report.

    Returns:
        The scores, line by line; none without annotations.
    """
    for text in caps_hit(artifact):
        _log.warning("%s", text)
    artifact.output("results.json", _results(artifact, crops.crops, context.dataset.classes))
    good = artifact.good
    sizes = {p.image_id: p.size for p in crops.crops.parents if p.image_id in good}
    truths, counts = truths_and_counts(context, crops, sizes)
    if not truths:
        _log.warning("fuse-eval %s: no annotations, so no scores", context.split)
        return ()
    results = read_results(artifact.root, truths)
    scores = score_all(config, truths, context.dataset.classes, results)
    figures = crop_figures(counts)
    artifact.output("scores.json", _scores_json(scores, crops, figures))
    artifact.output("scores.csv", _scores_csv(scores))
    artifact.output(
        "report.html", _report(context, config, crops, truths, results, scores, figures)
    )
    return tuple(table(scores, crops.source))


def read_results(folder: Path, truths: Iterable[ScoredImage]) -> Results:
    """The three results of the annotated images: detections by result and image id."""
    results: dict[str, DetectionTable[str]] = {name: DetectionTable() for name in RESULTS}
    for truth in truths:
        for name, found in read_parts(folder, truth.image_id).items():
            results[name].add(truth.image_id, found)
    return results


def score_all(
    config: Config, truths: Sequence[ScoredImage], classes: Classes, results: Results
) -> ByProtocol:
    """Scores by protocol and result."""
    scores: dict[str, dict[str, Scores]] = {protocol: {} for protocol in config.protocols}
    for name, found in results.items():
        images = with_found(truths, found)
        for protocol, row in scores.items():
            row[name] = score_images(
                images,
                protocol,
                classes=classes.scored,
                ignore_regions=config.ignore_regions,
                name=name,
            )
    return scores


def _results(artifact: Artifact, crops: CropSet, classes: Classes) -> Iterator[bytes]:
    """The fused detections as COCO results, image by image."""
    good = artifact.good
    return results_json(
        (
            (parent.id, read_parts(artifact.root, parent.image_id)["fused"])
            for parent in crops.parents
            if parent.image_id in good
        ),
        classes,
    )


def truths_and_counts(
    context: Context, crops: FoundCrops, sizes: Mapping[str, Size]
) -> tuple[list[ScoredImage], SliceCounts]:
    """Ground truth of the fused images, without detections, and what the crops show of it."""
    windows, none = crops.crops.windows(), Detections.empty()
    truths, counts = [], SliceCounts()
    for truth in ground_truth(context, sizes):
        truths.append(scored_image(truth, none))
        counts += count_crops(truth, windows[truth.image_id])
    return truths, counts


def ground_truth(context: Context, sizes: Mapping[str, Size]) -> Iterator[Annotations]:
    """Annotations of the fused images, in order.

    Args:
        context: of this run.
        sizes: ``(height, width)`` of every fused image, as its crops were cut.

    Raises:
        StaleInputError: an image of another size is annotated: another data set of equal names.
    """
    for entry in context.dataset.with_annotation:
        if entry.image_id not in sizes:
            continue
        try:
            truth = context.dataset.annotations(entry)[0]
        except InputError as error:
            _log.error("not scored: %s", error)
            continue
        if tuple(truth.size) != tuple(sizes[truth.image_id]):
            raise StaleInputError(
                f"{truth.image_id}: the crops are of an image of {sizes[truth.image_id]} (h, w), "
                f"the one annotated in {context.dataset.root} has {truth.size}. Give the data that "
                "crops and detections were made on (DATA=)."
            )
        yield truth


def _report(
    context: Context,
    config: Config,
    crops: FoundCrops,
    truths: Sequence[ScoredImage],
    results: Results,
    scores: ByProtocol,
    figures: Mapping[str, float],
) -> bytes:
    images = context.dataset.images
    page = render(
        f"{context.split}: whole image, crops, fused",
        truths,
        [Result(name, results[name], [row[name] for row in scores.values()]) for name in RESULTS],
        classes=context.dataset.classes,
        image=lambda name: read_image(images[name]) if name in images else None,
        config=ReportConfig(
            protocol=config.protocols[0],
            score_threshold=config.score_threshold,
            pictures=config.pictures,
            bootstrap=config.bootstrap,
        ),
        overlay=overlays(context, crops),
        sections=sections(context, crops.source, figures),
        subtitle=f"{len(truths)} images, {len(crops.crops.crops)} crops; run '{context.run}'",
        run=run_facts(context, "fuse-eval", resolved(config)),
    )
    return page.encode()


def _scores_json(scores: ByProtocol, crops: FoundCrops, figures: Mapping[str, float]) -> bytes:
    data = {
        "crops_from": crops.source,
        "crops": dict(figures),
        "protocols": {p: {n: s.to_json() for n, s in row.items()} for p, row in scores.items()},
    }
    return (json.dumps(data, indent=1) + "\n").encode()


def _scores_csv(scores: ByProtocol) -> bytes:
    rows: list[tuple[str, ...]] = []
    for row in scores.values():
        for each in row.values():
            rows += each.csv_rows()[1 if rows else 0 :]
    return csv_text(rows).encode()


def table(scores: ByProtocol, source: str) -> Iterator[str]:
    """Scores of the three results side by side, the protocol in every line."""
    names = {"true": "ground-truth maps (uses the labels)", "predicted": "predicted maps"}
    yield f"crops from: {names.get(source, source)}"
    for protocol, row in scores.items():
        metrics = list(next(iter(row.values())).summary)
        shown = [m for m in metrics if m.startswith(("AP", "AR500"))]
        yield f"{protocol:<15} {'':<12}" + "".join(f"{m:>11}" for m in shown)
        for name, each in row.items():
            values = "".join(f"{each.summary[m]:>11.4f}" for m in shown)
            yield f"{protocol:<15} {name:<12}{values}"
