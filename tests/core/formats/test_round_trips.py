"""Every format gives back all official annotation files exactly, so every pair of formats does."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.dataset import Dataset, open_dataset
from dmnet.core.formats import coco, visdrone, voc, yolo
from dmnet.core.records import Annotations
from tests import written

SPLITS = [("train", 6471, 353_547, 343_204), ("val", 548, 40_169, 38_759)]
SPLITS += [("test-dev", 1610, 77_547, 75_102)]


def rendered(text: str) -> str:
    """An official file as we write it: no trailing commas, no rows of zero size."""
    rows = [line.strip().strip(",").split(",") for line in text.splitlines()]
    return "".join(",".join(row) + "\n" for row in rows if int(row[2]) > 0 and int(row[3]) > 0)


def assert_same(a: Annotations, b: Annotations) -> None:
    assert (a.image_id, a.size) == (b.image_id, b.size)
    for name in ("boxes", "labels", "score", "truncation", "occlusion"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), (a.image_id, name)


@dataclass(frozen=True)
class Case:
    data: Dataset
    items: list[Annotations]
    warnings: list[str]


@pytest.fixture(scope="module")
def official(annotation_archive: Path) -> Callable[[str], Case]:
    """Every annotation file of a split, read once."""

    @functools.cache
    def read(split: str) -> Case:
        data = open_dataset(annotation_archive, split, annotation_archive / "image_sizes.csv")
        read = [data.annotations(entry) for entry in data.entries]
        return Case(data, [ann for ann, _ in read], [text for _, found in read for text in found])

    return read


@pytest.mark.slow
@pytest.mark.parametrize(("split", "files", "rows", "objects"), SPLITS)
def test_txt(
    official: Callable[[str], Case], split: str, files: int, rows: int, objects: int
) -> None:
    case = official(split)
    assert (len(case.items), sum(map(len, case.items))) == (files, rows)
    assert sum(int((~ann.ignore).sum()) for ann in case.items) == objects
    assert len(case.warnings) == (3 if split == "train" else 0)
    assert all("height 0 has no area; row dropped" in text for text in case.warnings)
    for entry, ann in zip(case.data.entries, case.items, strict=True):
        assert entry.annotation is not None
        original = entry.annotation.read_text(encoding="utf-8")
        assert visdrone.write_annotations(ann) == rendered(original)


@pytest.mark.slow
@pytest.mark.parametrize("split", [name for name, *_ in SPLITS])
def test_voc(official: Callable[[str], Case], tmp_path: Path, split: str) -> None:
    case = official(split)
    for entry, ann in zip(case.data.entries, case.items, strict=True):
        path = tmp_path / f"{ann.image_id}.xml"
        path.write_text(voc.write(ann, entry.file_name), encoding="utf-8")
        back, warnings = voc.read(path)
        assert_same(ann, back)
        assert warnings == []


@pytest.mark.slow
@pytest.mark.parametrize("split", [name for name, *_ in SPLITS])
def test_coco(official: Callable[[str], Case], tmp_path: Path, split: str) -> None:
    case = official(split)
    names = {entry.image_id: entry.file_name for entry in case.data.entries}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(written.ground_truth(case.items, names, ignored=True)))
    for ann, back in zip(case.items, coco.read_ground_truth(path), strict=True):
        assert_same(ann, back)


@pytest.mark.slow
@pytest.mark.parametrize("split", [name for name, *_ in SPLITS])
def test_yolo(official: Callable[[str], Case], tmp_path: Path, split: str) -> None:
    """YOLO carries the scored objects; their boxes and classes are exact."""
    for ann in official(split).items:
        path = tmp_path / f"{ann.image_id}.txt"
        path.write_text(yolo.write(ann), encoding="utf-8")
        back, warnings = yolo.read(path, ann.image_id, ann.size)
        scored = ann[~ann.ignore]
        assert np.array_equal(back.boxes, scored.boxes)
        assert np.array_equal(back.labels, scored.labels)
        assert warnings == []


def test_third_party_results(thirdparty_detections: Path, tmp_path: Path) -> None:
    """Sorted files come back with every box, score and label as they were."""
    total = 0
    for index, path in enumerate(sorted(thirdparty_detections.glob("*.txt"))):
        det = written.read_results(path)
        total += len(det)
        if index % 20:
            continue
        copy = tmp_path / path.name
        copy.write_text(visdrone.write_results(det), encoding="utf-8")
        back = written.read_results(copy)
        assert np.array_equal(back.boxes, det.boxes)
        assert np.array_equal(back.scores, det.scores)
        assert np.array_equal(back.labels, det.labels)
    assert total == 138_939
