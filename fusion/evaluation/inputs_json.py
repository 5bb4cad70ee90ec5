"""COCO JSON for evaluation: ground truth and results as tables, boxes as the files have them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dmnet.core.errors import InputError
from dmnet.core.formats import coco
from dmnet.core.formats.coco_results import checked, stream_objects
from dmnet.core.images import image_id_of
from dmnet.core.overlaps import Floats
from dmnet.fusion.evaluation.scored_images import ScoredImage, TruthSet


def read_truth_json(path: Path) -> TruthSet:
    """Read COCO ground truth of any classes; boxes are neither clipped nor rounded.

    Raises:
        InputError: see `dmnet.core.formats.coco.read`.
    """
    truth = coco.read(path)
    ordered = sorted(truth.images, key=lambda image: (image.file_name, image.id))
    numbers = {image.id: position for position, image in enumerate(ordered)}
    images, warnings = [], list[str]()
    for image in ordered:
        rows = [row for row in image.rows if row.box[2] > 0 and row.box[3] > 0]
        warnings += [
            f"{path}: annotations[{row.place}]: width or height is not above 0; row dropped"
            for row in image.rows
            if row.box[2] <= 0 or row.box[3] <= 0
        ]
        table = [[*row.box, float(not row.ignored), row.label, row.area] for row in rows]
        values = np.array(table, dtype=np.float64).reshape(-1, 7)
        empty = np.zeros((0, 6))
        images.append(ScoredImage(values[:, :6], empty, image.size, image.image_id, values[:, 6]))
    return TruthSet(path, tuple(images), numbers, truth.classes, True, tuple(warnings))


def read_found_json(path: Path, truth: TruthSet) -> list[Floats]:
    """Read a COCO results list: rows of each image of ``truth``, in file order.

    Raises:
        InputError: see `dmnet.fusion.evaluation.inputs.read_found`.
    """
    names = {image.image_id: position for position, image in enumerate(truth.images)}
    columns = array("d")
    stream = tqdm(stream_objects(path), "detections", disable=None, leave=False, unit=" rows")
    for index, row in enumerate(stream):
        position = _position(path, index, row.get("image_id"), truth, names)
        label, box, score = checked(path, index, row, truth.classes)
        if box[2] <= 0 or box[3] <= 0:
            reason = f"bbox {list(box)} has a width or height that is not above 0"
            raise coco.bad(path, "results", index, reason)
        columns.extend((position, *box, score, label))
    rows = np.asarray(columns).reshape(-1, 7)
    _refuse_repetition(path, rows)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    edges = np.searchsorted(rows[:, 0], np.arange(len(truth.images) + 1))
    return [rows[a:b, 1:] for a, b in pairwise(edges)]


def _refuse_repetition(path: Path, rows: Floats) -> None:
    order = np.lexsort(rows.T)
    same = np.ones(max(0, len(rows) - 1), dtype=bool)
    for column in rows.T:  # one at a time: the table may fill half of the memory
        ranked = column[order]
        same &= ranked[1:] == ranked[:-1]
    if same.any():
        pair = sorted(order[np.flatnonzero(same)[0] :][:2].tolist())
        raise InputError(
            path,
            f"{int(same.sum())} rows repeat another one exactly, the first are results[{pair[0]}] "
            f"and results[{pair[1]}]; was the file written twice? Remove the repetitions",
        )


def _position(
    path: Path, index: int, image_id: object, truth: TruthSet, names: Mapping[str, int]
) -> int:
    """Position of a row's image; ids may also be file names."""
    if type(image_id) is int and image_id in truth.numbers:
        return truth.numbers[image_id]
    if isinstance(image_id, str) and image_id_of(image_id) in names:
        return names[image_id_of(image_id)]
    raise InputError(
        path,
        f"results[{index}]: image_id {image_id!r} is none of the {len(names)} images of "
        f"{truth.path}"
        + ("" if truth.is_json else " (ids count from 1 in the order of file names)"),
    )
