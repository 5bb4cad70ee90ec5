"""Reading ground truth and detections for evaluation: anybody's files, checked row by row.

Ground truth is a data set of any format (`dmnet.core.dataset.FORMATS`), a folder of VisDrone txt or
a COCO JSON; detections are a COCO results JSON (read as a stream, so its size does not matter) or a
folder of VisDrone txt. Boxes of VisDrone and COCO files are neither clipped nor rounded: the
protocols score the files as they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dmnet.core.classes import IGNORED_REGION, VISDRONE, Classes
from dmnet.core.dataset import Dataset, open_dataset, outside, recognised
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import visdrone
from dmnet.core.formats.coco_results import doubts
from dmnet.core.formats.rows import read_rows, whole
from dmnet.core.formats.visdrone_folder import roots
from dmnet.core.images import SUFFIXES, read_size
from dmnet.core.listing import by_id, files_in
from dmnet.core.overlaps import Floats
from dmnet.core.records import Detections, Size
from dmnet.core.sizes import read_sizes
from dmnet.fusion.evaluation.inputs_json import read_found_json, read_truth_json
from dmnet.fusion.evaluation.scored_images import ScoredImage, TruthSet, scored_image


def read_truth(gt: Path, sizes: Path | None = None, split: str = "val") -> TruthSet:
    """Read ground truth.

    Args:
        gt: a data set as `dmnet.core.dataset.open_dataset` takes it, a COCO JSON, or a folder of
            VisDrone annotation txt.
        sizes: CSV as `read_sizes` reads it. Without it sizes come from the labels, from the images,
            or for VisDrone txt from an ``image_sizes.csv`` up to two folders above.
        split: of a data set that has several.

    Raises:
        InputError: a file is damaged; names place and reason.
        MissingInputError: nothing is there.
    """
    if not gt.exists() and not outside(gt)[0]:
        raise MissingInputError(
            f"{gt}: no such ground truth; give a data set, a folder of txt or a COCO JSON"
        )
    if gt.suffix.lower() == ".json" and gt.is_file():
        return read_truth_json(gt)
    if _plain(gt, split):
        return _read_truth_folder(gt, sizes, VISDRONE)
    data = open_dataset(gt, split, sizes)
    if data.labels.format == "visdrone":
        return _read_truth_folder(data.root / "annotations", sizes, data.classes)
    if data.labels.format == "coco":
        return replace(read_truth_json(data.labels.source), files=data.images)
    return _truth_of(data)


def _plain(gt: Path, split: str) -> bool:
    """Whether a folder holds VisDrone txt itself, not a data set."""
    if not gt.is_dir() or any((root / "annotations").is_dir() for root in roots(gt, split)):
        return False
    return any(path.suffix == ".txt" for path in gt.iterdir()) and recognised(gt, split) is None


def _truth_of(data: Dataset) -> TruthSet:
    """Ground truth of a format with one label file an image; boxes to a millionth of a pixel."""
    notes, ids = list(data.problems), data.numbers
    images: list[ScoredImage] = []
    numbers: dict[int, int] = {}
    for entry in tqdm(data.with_annotation, "ground truth", disable=None, leave=False):
        truth, warnings = data.annotations(entry)
        numbers[ids[entry.file_name]] = len(images)
        images.append(scored_image(truth, Detections.empty()))
        notes += warnings
    return TruthSet(
        data.root, tuple(images), numbers, data.classes, False, tuple(notes), data.images
    )


def read_found(dt: Path, truth: TruthSet) -> tuple[list[ScoredImage], list[str]]:
    """Read detections for a ground truth.

    Args:
        dt: a COCO results JSON or a folder of VisDrone result txt.
        truth: the ground truth; image and category ids are checked against it.

    Returns:
        Samples with detections, in the order of ``truth``, and warnings.

    Raises:
        InputError: a file is damaged, or a row has an unknown image or category, a value that is
            not finite, or a side that is negative (in JSON: not above 0), or is repeated in a JSON.
        MissingInputError: nothing is there.
    """
    if dt.is_dir():
        tables, warnings = _read_found_folder(dt, truth)
    elif dt.exists():
        tables, warnings = read_found_json(dt, truth), []
    else:
        raise MissingInputError(f"{dt}: no such detections; give a results JSON or a folder of txt")
    if not any(len(table) for table in tables):
        warnings.append(f"{dt}: no detections at all")
    pairs = zip(truth.images, tables, strict=True)
    images = [replace(image, found=table) for image, table in pairs]
    sized = ((image.detections(), image.size) for image in images if image.size)
    return images, warnings + [f"{dt}: {text}" for text in doubts(sized)]


# --- VisDrone folders ----------------------------------------------------------------------------


def _texts(folder: Path) -> dict[str, Path]:
    """Txt files of a folder by path without suffix, in the order of their paths."""
    return by_id(folder, files_in(folder, {".txt"}))[0]


def _read_truth_folder(folder: Path, sizes: Path | None, classes: Classes) -> TruthSet:
    files = _texts(folder) if folder.is_dir() else {}
    if not files:
        raise MissingInputError(f"{folder}: no annotation txt in this folder")
    known = _sizes(folder, sizes)
    pictures = _pictures(folder)
    images, warnings = [], []
    for stem, path in tqdm(files.items(), "ground truth", disable=None, leave=False):
        rows, notes = _truth_rows(path, classes)
        size = known.get(stem)
        if size is None and stem in pictures and (rows[:, 5] == IGNORED_REGION).any():
            size = read_size(pictures[stem])
        images.append(ScoredImage(rows, np.zeros((0, 6)), size, stem))
        warnings += notes
    numbers = {number: position for position, number in enumerate(range(1, len(files) + 1))}
    return TruthSet(folder, tuple(images), numbers, classes, False, tuple(warnings), pictures)


def _truth_rows(path: Path, classes: Classes) -> tuple[Floats, list[str]]:
    values, lines = read_rows(path, 8, visdrone.COLUMNS)
    whole(path, values[:, 4], lines, "score")
    visdrone.check_categories(path, whole(path, values[:, 5], lines, "category"), lines, classes)
    bad = (values[:, 2:4] < 0).any(axis=1)
    notes = [f"{path}:{line}: negative width or height; row dropped" for line in lines[bad]]
    return values[~bad, :6], notes


def _pictures(folder: Path) -> dict[str, Path]:
    for place in (folder.parent / "images", folder):
        if place.is_dir():
            found = {p.stem: p for p in sorted(place.iterdir()) if p.suffix.lower() in SUFFIXES}
            if found:
                return found
    return {}


def _sizes(folder: Path, sizes: Path | None) -> dict[str, Size]:
    if sizes is not None:
        return read_sizes(sizes)
    for place in (folder, folder.parent, folder.parent.parent):
        if (place / "image_sizes.csv").is_file():
            return read_sizes(place / "image_sizes.csv")
    return {}


def _read_found_folder(dt: Path, truth: TruthSet) -> tuple[list[Floats], list[str]]:
    files = by_id(dt, files_in(dt, {".txt"}))[0]
    names = {image.image_id for image in truth.images}
    if not names & files.keys():
        example = truth.images[0].image_id if truth.images else "<image>"
        raise InputError(dt, f"no result txt belongs to an image of {truth.path} ({example}.txt)")
    warnings = []
    if missing := len(names - files.keys()):
        warnings.append(f"{dt}: {missing} of {len(names)} images have no result file")
    if extra := sorted(files.keys() - names):
        warnings.append(
            f"{dt}: {len(extra)} result files belong to no image of the ground truth "
            f"({extra[0]}.txt ...); not scored"
        )
    tables = []
    for image in tqdm(truth.images, "detections", disable=None, leave=False):
        path = files.get(image.image_id)
        tables.append(
            np.zeros((0, 6)) if path is None else _found_rows(path, truth.classes, warnings)
        )
    return tables, warnings


def _found_rows(path: Path, classes: Classes, warnings: list[str]) -> Floats:
    rows = visdrone.result_rows(path, classes)
    repeated = len(rows) - len(np.unique(rows, axis=0))
    if repeated:
        warnings.append(f"{path}: {repeated} rows are exact repetitions; scored as they are")
    return rows
