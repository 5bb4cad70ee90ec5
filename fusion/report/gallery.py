"""Which pictures the report shows: the worst images, examples of the commonest confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dmnet.core.boxes import from_xywh
from dmnet.core.overlaps import Ints
from dmnet.core.records import Image
from dmnet.fusion.evaluation.matched import Matched
from dmnet.fusion.evaluation.matching import NONE
from dmnet.fusion.evaluation.operating_points import (
    confusion_pairs,
    cross_matches,
)
from dmnet.fusion.report.draw import (
    FN,
    FP,
    Colour,
    Layer,
    patch,
)

EXAMPLES = 6
"""Cut-outs shown for one confusion."""


@dataclass(frozen=True)
class Tile:
    """A titled group of pictures with the meaning of its colours."""

    title: str
    text: str
    pictures: Sequence[Image]
    legend: Sequence[tuple[str, Colour]]


@dataclass(frozen=True)
class Outcomes:
    """Detections and ground truth of one operating point, split by what became of them."""

    tp: Ints
    wrong: Ints
    fp: Ints
    fn: Ints
    chosen: Ints


def outcomes(table: Matched, threshold: float) -> Outcomes:
    """Rows of TP, wrong classes and FP (detections) and of FN (ground truth)."""
    chosen, owner = cross_matches(table, threshold)
    above = table.score >= threshold
    found = np.flatnonzero(above & (chosen >= 0))
    same = table.label[found] == table.truth_label[chosen[found]]
    return Outcomes(
        found[same],
        found[~same],
        np.flatnonzero(above & (chosen == NONE)),
        np.flatnonzero((owner < 0) & ~table.truth_ignore),
        chosen,
    )


def worst_images(table: Matched, threshold: float) -> list[int]:
    """Positions of the images in ``table.image_ids``, most errors (FP, FN, wrong class) first.

    Args:
        table: the matched set.
        threshold: detections with this score or more count.
    """
    outcome = outcomes(table, threshold)
    rows = (table.image[outcome.wrong], table.image[outcome.fp], table.truth_image[outcome.fn])
    errors = sum(np.bincount(of_image, minlength=len(table.image_ids)) for of_image in rows)
    order: list[int] = np.argsort(-np.asarray(errors), kind="stable").tolist()
    return order


def commonest_confusions(
    table: Matched,
    threshold: float,
    image: Callable[[str], Image | None],
    number: int,
) -> list[Tile]:
    """The commonest off-diagonal cells of the confusion matrix, each with enlarged examples.

    Examples are spread over images: FN and FP of the greatest area or score first.
    """
    truth, predicted = confusion_pairs(table, threshold)
    size = len(table.classes) + 1
    counts = np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts.ravel(), kind="stable")[:number]
    names = [*table.classes.values(), "background"]
    outcome = outcomes(table, threshold)
    tiles = []
    for cell in order.tolist():
        was, seen = divmod(cell, size)
        if counts[was, seen] == 0:
            break
        tiles.append(
            _confusion_tile(table, outcome, was, seen, names, int(counts[was, seen]), image)
        )
    return tiles


def _confusion_tile(
    table: Matched,
    outcome: Outcomes,
    was: int,
    seen: int,
    names: Sequence[str],
    count: int,
    image: Callable[[str], Image | None],
) -> Tile:
    labels, background = list(table.classes), len(table.classes)
    boxes_d, boxes_t = from_xywh(table.xywh), from_xywh(table.truth_xywh)
    if seen == background:
        rows = outcome.fn[table.truth_label[outcome.fn] == labels[was]]
        rows = rows[np.argsort(-np.ptp(boxes_t[rows].reshape(-1, 2, 2), axis=1).prod(axis=1))]
        found, truth, where = np.full(len(rows), -1), rows, table.truth_image[rows]
        title = f"{names[was]} missed"
    elif was == background:
        rows = outcome.fp[table.label[outcome.fp] == labels[seen]]
        found, truth, where = rows, np.full(len(rows), -1), table.image[rows]
        title = f"background taken for {names[seen]}"
    else:
        rows = outcome.wrong[table.label[outcome.wrong] == labels[seen]]
        rows = rows[table.truth_label[outcome.chosen[rows]] == labels[was]]
        found, truth, where = rows, outcome.chosen[rows], table.image[rows]
        title = f"{names[was]} taken for {names[seen]}"
    _, first = np.unique(where, return_index=True)  # one per image, then the rest
    rest = np.setdiff1d(np.arange(len(where)), first)
    pictures: list[Image] = []
    for at in [*np.sort(first).tolist(), *rest.tolist()]:
        if len(pictures) == EXAMPLES:
            break
        picture = image(table.image_ids[int(where[at])])
        if picture is None:
            continue
        layers = []
        if truth[at] >= 0:
            layers.append(Layer(boxes_t[[truth[at]]], FN, "truth"))
        if found[at] >= 0:
            layers.append(Layer(boxes_d[[found[at]]], FP, "detection"))
        focus = np.concatenate([layer.boxes for layer in layers])
        pictures.append(patch(picture, focus, layers))
    legend = [("truth", FN), ("detection", FP)]
    times = "once" if count == 1 else f"{count:,} times"
    return Tile(title, times, pictures, legend)
