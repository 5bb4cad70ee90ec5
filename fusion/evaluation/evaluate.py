"""Score detections by a named protocol: from files, or from records in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dmnet.core.classes import IGNORED_REGION
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.records import Annotations, Detections
from dmnet.fusion.evaluation import coco, visdrone
from dmnet.fusion.evaluation.coco import coco_images
from dmnet.fusion.evaluation.inputs import read_found, read_truth
from dmnet.fusion.evaluation.scored_images import (
    ScoredImage,
    TruthSet,
    classes_of,
    scored_images,
)
from dmnet.fusion.evaluation.scores import Scores, guard

PROTOCOLS = ("visdrone", "visdrone-macro", "coco@100", "coco@500")
"""The protocols by name; any other cap may stand behind ``coco@``."""


def evaluate(
    gt: Path,
    dt: Path,
    protocol: str = "visdrone",
    *,
    sizes: Path | None = None,
    split: str = "val",
    ignore_regions: bool = False,
    name: str | None = None,
) -> Scores:
    """Score anybody's detections.

    Args:
        gt: ground truth: a data set of any format, a folder of VisDrone txt, or a COCO JSON.
        dt: a COCO results JSON or a folder of VisDrone txt.
        protocol: one of `PROTOCOLS`.
        sizes: CSV ``image,width,height``, where neither JSON nor images tell the sizes; needed
            only for images with ignored regions.
        split: of a data set that has several.
        ignore_regions: for the COCO protocols: remove ground truth and detections of which half
            lies in ignored regions, and treat ground truth of score 0 as crowd. The VisDrone
            protocols always do so in their own way.
        name: what to call the result; the file's name otherwise.

    Raises:
        InputError: a file is damaged or does not fit; names file and row.
        MissingInputError: a file or the size of an image is missing.
        ConfigError: no such protocol.
    """
    check_protocol(protocol)
    truth = read_truth(gt, sizes, split)
    images, warnings = read_found(dt, truth)
    name = dt.stem if name is None else name
    return score_read(truth, images, protocol, ignore_regions, name, warnings)


def score_read(
    truth: TruthSet,
    images: Sequence[ScoredImage],
    protocol: str,
    ignore_regions: bool,
    name: str,
    warnings: Sequence[str],
) -> Scores:
    """Score detections read from a file; the warnings come in the order of the files."""
    scores = score_images(
        images,
        protocol,
        classes=truth.classes.scored,
        ignore_regions=ignore_regions,
        crowd=truth.is_json,
        name=name,
        path=truth.path,
    )
    return replace(scores, warnings=(*summarised(truth), *warnings, *scores.warnings))


def score(
    truths: Sequence[Annotations],
    results: Mapping[str, Detections],
    protocol: str,
    *,
    ignore_regions: bool = False,
    name: str = "",
) -> Scores:
    """Score records in memory, as `evaluate` scores files.

    Args:
        truths: ground truth of every image of the set, in the order of their names.
        results: detections by image id; an image without an entry has none.
        protocol: one of `PROTOCOLS`.
        ignore_regions: see `evaluate`.
        name: what to call the result.

    >>> truth = Annotations.of("a", (100, 100), [[10, 10, 30, 30]], [4])
    >>> found = {"a": Detections([[10, 10, 30, 30], [60, 60, 70, 70]], [0.9, 0.1], [4, 4])}
    >>> round(score([truth], found, "coco@100").summary["AP"], 3)
    1.0
    """
    check_protocol(protocol)
    return score_images(
        scored_images(truths, results),
        protocol,
        classes=classes_of(truths).scored,
        ignore_regions=ignore_regions,
        name=name,
    )


def score_images(
    images: Sequence[ScoredImage],
    protocol: str,
    *,
    classes: Mapping[int, str],
    ignore_regions: bool = False,
    crowd: bool = False,
    name: str = "",
    path: Path | str = "ground truth",
) -> Scores:
    """Score images.

    Args:
        images: every image of the set, in the order of their names.
        protocol: one of `PROTOCOLS`.
        classes: names of the scored categories.
        ignore_regions: see `evaluate`.
        crowd: ground truth of score 0 counts as crowd; otherwise the COCO protocols drop it.
        name: what to call the result.
        path: where the ground truth came from, for messages.
    """
    if protocol.startswith("visdrone"):
        _need_sizes(images, path)
        return _visdrone(images, protocol, classes, name)
    if ignore_regions:
        _need_sizes(images, path)
    scored = coco_images(images, ignore_regions=ignore_regions, crowd=crowd)
    scores = _coco(scored, protocol, classes, name)
    return replace(scores, ignore_regions=ignore_regions)


def check_protocol(protocol: str) -> None:
    """Refuse an unknown protocol.

    Raises:
        ConfigError: names the protocols there are.
    """
    head, _, cap = protocol.partition("@")
    if protocol in PROTOCOLS or (head == "coco" and cap.isdecimal() and int(cap) > 0):
        return
    raise ConfigError(f"no protocol '{protocol}'; there are {', '.join(PROTOCOLS)}")


def summarised(truth: TruthSet) -> list[str]:
    """Warnings of the ground truth, the first and the number of them."""
    if len(truth.warnings) <= 1:
        return list(truth.warnings)
    return [f"{truth.warnings[0]} (and {len(truth.warnings) - 1} more rows like this)"]


def _need_sizes(images: Sequence[ScoredImage], path: Path | str) -> None:
    for image in images:
        if image.size is None and (image.truth[:, 5] == IGNORED_REGION).any():
            raise MissingInputError(
                f"{path}: {image.image_id} has ignored regions, so its image size is needed: put "
                f"the pictures into a folder 'images' beside the annotations, or give a CSV with "
                f"the columns image,width,height (--sizes)"
            )


def _visdrone(
    images: Sequence[ScoredImage], protocol: str, names: Mapping[int, str], name: str
) -> Scores:
    tables = visdrone.count(images, names)
    macro = protocol == "visdrone-macro"
    summary = {
        "AP": tables.ap(macro=macro),
        "AP50": tables.ap(0.5, macro=macro),
        "AP75": tables.ap(0.75, macro=macro),
        **{f"AR{cap}": tables.ar(cap, macro=macro) for cap in visdrone.CAPS},
    }
    objects = _objects(images, tables.labels)
    classes = {
        names[label]: {
            "AP": tables.ap(label=label),
            "AP50": tables.ap(0.5, label=label),
            "AP75": tables.ap(0.75, label=label),
            "AR500": tables.ar(500, label=label),
            "objects": float(objects[label]),
            "images": float(tables.images[row]),
        }
        for row, label in enumerate(tables.labels)
    }
    counts = _counts(images, objects)
    return Scores(protocol, "per cent", summary, classes, counts, name, True, guard(summary))


def _coco(
    images: Sequence[ScoredImage], protocol: str, classes: Mapping[int, str], name: str
) -> Scores:
    cap = int(protocol.partition("@")[2])
    tables = coco.count(images, cap, classes=classes)
    sizes = [area for area in coco.AREAS if area != "all"]
    summary = {
        "AP": tables.ap(),
        "AP50": tables.ap(0.5),
        "AP75": tables.ap(0.75),
        **{f"AP_{area}": tables.ap(area=area) for area in sizes},
        **{f"AR{value}": tables.ar(value) for value in sorted({1, 10, cap})},
        **{f"AR_{area}": tables.ar(area=area) for area in sizes},
    }
    objects = _objects(images, tuple(classes))
    rows = {
        text: {
            "AP": tables.ap(label=label),
            "AP50": tables.ap(0.5, label=label),
            "AP75": tables.ap(0.75, label=label),
            **{f"AP_{area}": tables.ap(area=area, label=label) for area in sizes},
            f"AR{cap}": tables.ar(label=label),
            "objects": float(objects[label]),
        }
        for label, text in classes.items()
    }
    counts = _counts(images, objects)
    return Scores(protocol, "fraction", summary, rows, counts, name, False, guard(summary))


def _objects(images: Sequence[ScoredImage], labels: Sequence[int]) -> dict[int, int]:
    """Number of ground-truth rows to be found, by label."""
    rows = [image.truth[image.truth[:, 4] != 0, 5] for image in images]
    every = np.concatenate([*rows, np.zeros(0)])
    return {label: int((every == label).sum()) for label in labels}


def _counts(images: Sequence[ScoredImage], objects: Mapping[int, int]) -> dict[str, int]:
    return {
        "images": len(images),
        "objects": sum(objects.values()),
        "detections": sum(len(image.found) for image in images),
    }
