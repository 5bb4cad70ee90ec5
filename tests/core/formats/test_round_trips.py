"""Every pair of formats on all official annotation files: txt -> VOC -> COCO -> txt, and YOLO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.dataset import open_dataset
from dmnet.core.formats import coco, visdrone, voc, yolo
from dmnet.core.records import Annotations

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


@pytest.mark.slow
@pytest.mark.parametrize(("split", "files", "rows", "objects"), SPLITS)
def test_official_files(
    annotation_archive: Path, tmp_path: Path, split: str, files: int, rows: int, objects: int
) -> None:
    data = open_dataset(annotation_archive, split, annotation_archive / "image_sizes.csv")
    read = [data.annotations(entry) for entry in data.entries]
    items = [ann for ann, _ in read]
    warnings = [warning for _, found in read for warning in found]
    assert (len(items), sum(map(len, items))) == (files, rows)
    assert sum(int(ann.is_object.sum()) for ann in items) == objects
    assert len(warnings) == (3 if split == "train" else 0)

    through_voc = []
    for entry, ann in zip(data.entries, items, strict=True):
        assert entry.annotation is not None
        original = rendered(entry.annotation.read_text(encoding="utf-8"))
        assert visdrone.write_annotations(ann) == original
        path = tmp_path / f"{ann.image_id}.xml"
        path.write_text(voc.write(ann, entry.file_name), encoding="utf-8")
        through_voc.append(voc.read(path)[0])
        path.write_text(yolo.write(ann), encoding="utf-8")
        boxes, _ = yolo.read(path, ann.image_id, ann.size)
        assert np.array_equal(boxes.boxes, ann[~ann.ignore].boxes)
        assert np.array_equal(boxes.labels, ann[~ann.ignore].labels)
        path.unlink()

    names = {entry.image_id: entry.file_name for entry in data.entries}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(coco.ground_truth(through_voc, names, ignored=True)))
    for ann, back in zip(items, coco.read_ground_truth(path), strict=True):
        assert_same(ann, back)


def test_third_party_results(thirdparty_detections: Path, tmp_path: Path) -> None:
    """Sorted files come back with every box, score and label as they were."""
    total = 0
    for index, path in enumerate(sorted(thirdparty_detections.glob("*.txt"))):
        det = visdrone.read_results(path)
        total += len(det)
        if index % 20:
            continue
        copy = tmp_path / path.name
        copy.write_text(visdrone.write_results(det), encoding="utf-8")
        back = visdrone.read_results(copy)
        assert np.array_equal(back.boxes, det.boxes)
        assert np.array_equal(back.scores, det.scores)
        assert np.array_equal(back.labels, det.labels)
    assert total == 138_939
