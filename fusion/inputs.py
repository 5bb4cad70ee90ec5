"""Reading ground truth and detections for evaluation: anybody's files, checked row by row.

Ground truth is a folder of VisDrone txt or a COCO JSON of any categories; detections are a COCO
results JSON (read as a stream, so its size does not matter) or a folder of VisDrone txt. Boxes are
neither clipped nor rounded: the protocols score the files as they are.
"""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import visdrone
from dmnet.core.formats.rows import read_rows, read_text, whole
from dmnet.core.images import SUFFIXES, read_size
from dmnet.core.records import CLASSES, IGNORED_REGION, OTHERS, Size
from dmnet.fusion.overlaps import Floats
from dmnet.fusion.samples import Sample

Json = dict[str, Any]

MAX_TRUTH_BYTES = 1 << 30
"""A ground-truth JSON above 1 GiB is refused: it is read as a whole."""

_CHUNK = 1 << 22
_MAX_ROW = 1 << 20


@dataclass(frozen=True)
class TruthSet:
    """Ground truth of a set: samples without detections yet, in the order of their names.

    ``numbers`` gives the position of each COCO image id, ``labels`` the label of each category id
    in a results file, ``warnings`` what was dropped.
    """

    path: Path
    samples: tuple[Sample, ...]
    numbers: Mapping[int, int]
    classes: Mapping[int, str]
    labels: Mapping[int, int]
    is_json: bool
    warnings: tuple[str, ...] = ()
    images: Mapping[str, Path] = field(default_factory=dict)


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
    return _read_truth_json(gt)


def read_found(dt: Path, truth: TruthSet) -> tuple[list[Sample], list[str]]:
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
        tables, warnings = _read_found_json(dt, truth), []
    else:
        raise MissingInputError(f"{dt}: no such detections; give a results JSON or a folder of txt")
    if not any(len(table) for table in tables):
        warnings.append(f"{dt}: no detections at all")
    pairs = zip(truth.samples, tables, strict=True)
    return [_with(sample, table) for sample, table in pairs], warnings


def _with(sample: Sample, found: Floats) -> Sample:
    return Sample(sample.truth, found, sample.size, sample.image_id, sample.areas)


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
    samples, warnings = [], []
    for stem, path in tqdm(files.items(), "ground truth", disable=None, leave=False):
        rows, notes = _truth_rows(path)
        size = known.get(stem)
        if size is None and stem in pictures and (rows[:, 5] == IGNORED_REGION).any():
            size = read_size(pictures[stem])
        samples.append(Sample(rows, np.zeros((0, 6)), size, stem))
        warnings += notes
    numbers = {number: position for position, number in enumerate(range(1, len(files) + 1))}
    labels = {label: label for label in CLASSES}
    return TruthSet(
        folder, tuple(samples), numbers, CLASSES, labels, False, tuple(warnings), pictures
    )


def _truth_rows(path: Path) -> tuple[Floats, list[str]]:
    values, lines = read_rows(path, 8, visdrone.COLUMNS)
    for column, name in ((4, "score"), (5, "category")):
        whole(path, values[:, column], lines, name)
    _check_categories(path, values[:, 5], lines)
    bad = (values[:, 2:4] < 0).any(axis=1)
    notes = [f"{path}:{line}: negative width or height; row dropped" for line in lines[bad]]
    return values[~bad, :6], notes


def _check_categories(path: Path, labels: Floats, lines: Any) -> None:
    bad = np.flatnonzero((labels < IGNORED_REGION) | (labels > OTHERS))
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
    for row in rows:
        width, height = (str(row[side]).strip() for side in ("width", "height"))
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            reason = f"width '{width}' and height '{height}' must be whole numbers above 0"
            raise InputError(path, reason, rows.line_num)
        out[_stem(row["image"])] = (int(height), int(width))
    return out


def _stem(name: str) -> str:
    """Name without an image suffix; other dots belong to the name."""
    plain = PurePosixPath(name.strip())
    return plain.stem if plain.suffix.lower() in SUFFIXES else plain.name


def _read_found_folder(dt: Path, truth: TruthSet) -> tuple[list[Floats], list[str]]:
    files = _texts(dt)
    names = {sample.image_id for sample in truth.samples}
    if not names & files.keys():
        example = truth.samples[0].image_id if truth.samples else "<image>"
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
    for sample in tqdm(truth.samples, "detections", disable=None, leave=False):
        path = files.get(sample.image_id)
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


# --- COCO JSON -----------------------------------------------------------------------------------


def _read_truth_json(path: Path) -> TruthSet:
    data = _load(path)
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        reason = "no COCO ground truth: it needs images, annotations and categories"
        raise InputError(path, reason)
    classes, labels = _categories(path, data["categories"])
    images = _images(path, data["images"])
    ordered = sorted(images, key=lambda key: (images[key]["file_name"], key))
    numbers = {image_id: position for position, image_id in enumerate(ordered)}
    rows: list[list[list[float]]] = [[] for _ in ordered]
    warnings: list[str] = []
    for index, row in enumerate(_objects(path, data["annotations"], "annotations")):
        place = f"annotations[{index}]"
        if type(row.get("image_id")) is not int or row["image_id"] not in numbers:
            raise InputError(path, f"{place}: image_id {row.get('image_id')!r} is not listed")
        label = _truth_label(path, place, row, labels)
        box = _box(path, place, row)
        if box[2] <= 0 or box[3] <= 0:
            warnings.append(f"{path}: {place}: width or height is not above 0; row dropped")
            continue
        ignored = bool(row.get("iscrowd") or row.get("ignore"))
        area = row.get("area", box[2] * box[3])
        if not _finite(area):
            raise InputError(path, f"{place}: area {area!r} is not a finite number")
        rows[numbers[row["image_id"]]].append([*box, float(not ignored), label, area])
    samples = []
    for image_id, table in zip(ordered, rows, strict=True):
        values = np.array(table, dtype=np.float64).reshape(-1, 7)
        size = (images[image_id]["height"], images[image_id]["width"])
        stem = _stem(images[image_id]["file_name"])
        samples.append(Sample(values[:, :6], np.zeros((0, 6)), size, stem, values[:, 6]))
    return TruthSet(path, tuple(samples), numbers, classes, labels, True, tuple(warnings))


def _truth_label(path: Path, place: str, row: Json, labels: Mapping[int, int]) -> int:
    category = row.get("category_id")
    if type(category) is int and category in labels:
        return labels[category]
    if category in (IGNORED_REGION, OTHERS) and (row.get("iscrowd") or row.get("ignore")):
        return int(category)  # our own files keep these rows without listing the categories
    raise InputError(path, f"{place}: category_id {category!r} is not listed among the categories")


def _categories(path: Path, rows: object) -> tuple[dict[int, str], dict[int, int]]:
    """Names by label, and labels by category id: VisDrone's own where all names are VisDrone's."""
    names: dict[int, str] = {}
    for index, row in enumerate(_objects(path, rows, "categories")):
        if type(row.get("id")) is not int or not isinstance(row.get("name"), str):
            raise InputError(path, f"categories[{index}]: needs a whole number 'id' and a 'name'")
        if row["id"] in names:
            raise InputError(path, f"categories[{index}]: id {row['id']} occurs twice")
        names[row["id"]] = row["name"]
    if not names:
        raise InputError(path, "categories: empty")
    known = {category: visdrone.category_of(name) for category, name in names.items()}
    labels = {category: label for category, label in known.items() if label is not None}
    if len(labels) == len(names) == len(set(labels.values())):
        scored = {label: CLASSES[label] for label in sorted(labels.values()) if label in CLASSES}
        return scored, labels
    return dict(sorted(names.items())), {category: category for category in names}


def _images(path: Path, rows: object) -> dict[int, Json]:
    images: dict[int, Json] = {}
    stems = set[str]()
    for index, row in enumerate(_objects(path, rows, "images")):
        if type(row.get("id")) is not int or not isinstance(row.get("file_name"), str):
            reason = f"images[{index}]: needs a whole number 'id' and a text 'file_name'"
            raise InputError(path, reason)
        sides = (row.get("width"), row.get("height"))
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise InputError(path, f"images[{index}]: needs 'width' and 'height' above 0")
        stem = _stem(row["file_name"])
        if row["id"] in images or stem in stems:
            reason = f"images[{index}]: id {row['id']} or name {stem!r} occurs twice"
            raise InputError(path, reason)
        images[row["id"]] = row
        stems.add(stem)
    return images


def _read_found_json(path: Path, truth: TruthSet) -> list[Floats]:
    stems = {sample.image_id: position for position, sample in enumerate(truth.samples)}
    columns = array("d")
    for index, row in enumerate(stream_objects(path)):
        place = f"results[{index}]"
        position = _position(path, place, row.get("image_id"), truth, stems)
        label = row.get("category_id")
        if type(label) is not int or label not in truth.labels:
            listed = ", ".join(map(str, truth.labels))
            reason = f"{place}: category_id {label!r} is none of the categories {listed}"
            raise InputError(path, reason)
        box = _box(path, place, row)
        if box[2] <= 0 or box[3] <= 0:
            raise InputError(path, f"{place}: bbox {box} has a width or height that is not above 0")
        score = row.get("score")
        if not _finite(score):
            raise InputError(path, f"{place}: score {score!r} is not a finite number")
        columns.extend((position, *box, score, truth.labels[label]))  # type: ignore[arg-type]
    rows = np.array(columns, dtype=np.float64).reshape(-1, 7)
    _refuse_repetition(path, rows)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    edges = np.searchsorted(rows[:, 0], np.arange(len(truth.samples) + 1))
    return [rows[a:b, 1:] for a, b in pairwise(edges)]


def _refuse_repetition(path: Path, rows: Floats) -> None:
    order = np.lexsort(rows.T)
    same = (rows[order][1:] == rows[order][:-1]).all(axis=1)
    if same.any():
        pair = sorted(order[np.flatnonzero(same)[0] :][:2].tolist())
        raise InputError(
            path,
            f"{int(same.sum())} rows repeat another one exactly, the first are results[{pair[0]}] "
            f"and results[{pair[1]}]; was the file written twice? Remove the repetitions",
        )


def _position(
    path: Path, place: str, image_id: object, truth: TruthSet, stems: Mapping[str, int]
) -> int:
    """Position of a row's image; ids may also be file names."""
    if type(image_id) is int and image_id in truth.numbers:
        return truth.numbers[image_id]
    if isinstance(image_id, str) and _stem(image_id) in stems:
        return stems[_stem(image_id)]
    raise InputError(
        path,
        f"{place}: image_id {image_id!r} is none of the {len(stems)} images of {truth.path}"
        + ("" if truth.is_json else " (ids count from 1 in the order of file names)"),
    )


def _box(path: Path, place: str, row: Json) -> list[float]:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        raise InputError(path, f"{place}: bbox {box!r} is not four finite numbers")
    return box


def _finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _objects(path: Path, rows: object, section: str) -> list[Json]:
    if not isinstance(rows, list):
        raise InputError(path, f"{section} is not a list")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(path, f"{section}[{index}] is not an object")
    return rows


def _load(path: Path) -> Any:
    if path.stat().st_size > MAX_TRUTH_BYTES:
        gib = path.stat().st_size / (1 << 30)
        reason = f"{gib:.1f} GiB of ground truth; at most 1 GiB is read. Split the set"
        raise InputError(path, reason)
    text = read_text(path)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(path, f"not valid JSON, or cut short ({error})") from error


def stream_objects(path: Path) -> Iterator[Json]:
    """Yield the objects of a JSON list one by one; memory does not grow with the file.

    Raises:
        InputError: the file is no list of objects, is damaged, or ends too early; names the row.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as file:
        buffer, at, index, more = "", 0, -1, True
        while True:
            at = _skip(buffer, at)
            ready = at < len(buffer)
            if ready and index < 0:
                if buffer[at] != "[":
                    raise InputError(path, "no results list: the file has to begin with '['")
                index, at = 0, at + 1
                continue
            if ready and buffer[at] == "]":
                return
            if ready:
                try:
                    row, at = decoder.raw_decode(buffer, at)
                except (json.JSONDecodeError, RecursionError) as error:
                    if not more or len(buffer) - at > _MAX_ROW:
                        raise InputError(path, _damage(index, error, more)) from error
                else:
                    if not isinstance(row, dict):
                        raise InputError(path, f"results[{index}] is not an object")
                    yield row
                    index += 1
                    continue
            if not more:
                raise InputError(path, _damage(max(index, 0), "no closing ']'", more))
            chunk = _chunk(path, file)
            more = bool(chunk)
            buffer, at = buffer[at:] + chunk, 0


def _damage(index: int, error: object, more: bool) -> str:
    if more:
        return f"results[{index}]: not valid JSON ({error})"
    return f"the file ends too early, in results[{index}] ({error}); write it again"


def _skip(text: str, at: int) -> int:
    """Position of the next character that is neither white space nor a comma."""
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at


def _chunk(path: Path, file: Any) -> str:
    try:
        return str(file.read(_CHUNK))
    except UnicodeDecodeError as error:
        raise InputError(path, f"not a text file (byte {error.start} is not UTF-8)") from error
