"""Reading ground truth and detections for evaluation: anybody's files, checked row by row.

Ground truth is a folder of VisDrone txt or a COCO JSON of any categories; detections are a COCO
results JSON (read as a stream, so its size does not matter) or a folder of VisDrone txt. Boxes are
neither clipped nor rounded: the protocols score the files as they are.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dmnet.core.classes import IGNORED_REGION, VISDRONE
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import visdrone
from dmnet.core.formats.rows import read_rows, whole
from dmnet.core.images import SUFFIXES, image_id_of, read_size
from dmnet.core.overlaps import Floats, Ints
from dmnet.core.reading import is_whole, read_text
from dmnet.core.records import Size
from dmnet.fusion.evaluation.inputs_json import read_found_json, read_truth_json
from dmnet.fusion.evaluation.scored_images import ScoredImage, TruthSet


def read_truth(gt: Path, sizes: Path | None = None) -> TruthSet:
    """Read ground truth.

    Args:
        gt: a folder of VisDrone annotation txt (or a folder with ``annotations`` in it), or a COCO
            JSON.
        sizes: CSV with the columns ``image,width,height``. Without it sizes come from the JSON,
            from an ``image_sizes.csv`` up to two folders above, or from the images in the folder
            ``images`` beside the annotations.

    Raises:
        InputError: a file is damaged; names place and reason.
        MissingInputError: nothing is there.
    """
    if gt.is_dir():
        return _read_truth_folder(gt, sizes)
    if not gt.exists():
        raise MissingInputError(f"{gt}: no such ground truth; give a folder of txt or a COCO JSON")
    return read_truth_json(gt)


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
    return [_with(image, table) for image, table in pairs], warnings


def _with(image: ScoredImage, found: Floats) -> ScoredImage:
    return ScoredImage(image.truth, found, image.size, image.image_id, image.areas)


# --- VisDrone folders ----------------------------------------------------------------------------


def _texts(folder: Path) -> dict[str, Path]:
    """Txt files of a folder by stem, in the order of their names."""
    files = sorted(path for path in folder.iterdir() if path.suffix == ".txt" and path.is_file())
    return {path.stem: path for path in files if not path.name.startswith(".")}


def _read_truth_folder(gt: Path, sizes: Path | None) -> TruthSet:
    folder = gt / "annotations" if (gt / "annotations").is_dir() else gt
    files = _texts(folder)
    if not files:
        raise MissingInputError(f"{folder}: no annotation txt in this folder")
    known = _sizes(folder, sizes)
    pictures = _pictures(folder)
    images, warnings = [], []
    for stem, path in tqdm(files.items(), "ground truth", disable=None, leave=False):
        rows, notes = _truth_rows(path)
        size = known.get(stem)
        if size is None and stem in pictures and (rows[:, 5] == IGNORED_REGION).any():
            size = read_size(pictures[stem])
        images.append(ScoredImage(rows, np.zeros((0, 6)), size, stem))
        warnings += notes
    numbers = {number: position for position, number in enumerate(range(1, len(files) + 1))}
    return TruthSet(folder, tuple(images), numbers, VISDRONE, False, tuple(warnings), pictures)


def _truth_rows(path: Path) -> tuple[Floats, list[str]]:
    values, lines = read_rows(path, 8, visdrone.COLUMNS)
    for column, name in ((4, "score"), (5, "category")):
        whole(path, values[:, column], lines, name)
    _check_categories(path, values[:, 5], lines)
    bad = (values[:, 2:4] < 0).any(axis=1)
    notes = [f"{path}:{line}: negative width or height; row dropped" for line in lines[bad]]
    return values[~bad, :6], notes


def _check_categories(path: Path, labels: Floats, lines: Ints) -> None:
    bad = np.flatnonzero(~np.isin(labels, list(VISDRONE.every)))
    if len(bad):
        reason = f"category {labels[bad[0]]:g} does not exist; VisDrone has 0 to 11"
        raise InputError(path, reason, int(lines[bad[0]]))


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


def read_sizes(path: Path) -> dict[str, Size]:
    """Read ``(height, width)`` by image name (with or without suffix) from a CSV.

    Raises:
        InputError: the columns ``image,width,height`` are missing, or a side is no whole number
            above 0; names the line.
    """
    rows = csv.DictReader(read_text(path).splitlines())
    if not {"image", "width", "height"} <= set(rows.fieldnames or ()):
        raise InputError(path, "columns image,width,height are needed in the first line", 1)
    out: dict[str, Size] = {}
    try:
        for row in rows:
            width, height = (str(row[side]).strip() for side in ("width", "height"))
            if not row["image"]:
                raise InputError(path, "no image name in this row", rows.line_num)
            if not (is_whole(width, 1) and is_whole(height, 1)):
                reason = (
                    f"width '{width[:80]}' and height '{height[:80]}' must be whole numbers above 0"
                )
                raise InputError(path, reason, rows.line_num)
            out[image_id_of(row["image"])] = (int(height), int(width))
    except csv.Error as error:
        raise InputError(path, f"not a table ({error})", rows.line_num + 1) from error
    return out


def _read_found_folder(dt: Path, truth: TruthSet) -> tuple[list[Floats], list[str]]:
    files = _texts(dt)
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
        tables.append(np.zeros((0, 6)) if path is None else _found_rows(path, warnings))
    return tables, warnings


def _found_rows(path: Path, warnings: list[str]) -> Floats:
    values, lines = read_rows(path, 8, visdrone.COLUMNS)
    whole(path, values[:, 5], lines, "category")
    _check_categories(path, values[:, 5], lines)
    bad = np.flatnonzero((values[:, 2:4] < 0).any(axis=1))
    if len(bad):
        raise InputError(path, "negative width or height", int(lines[bad[0]]))
    repeated = len(values) - len(np.unique(values[:, :6], axis=0))
    if repeated:
        warnings.append(f"{path}: {repeated} rows are exact repetitions; scored as they are")
    return values[:, :6]
