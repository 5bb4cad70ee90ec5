"""COCO JSON: ground truth and results."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet.core.errors import InputError
from dmnet.core.formats import coco, coco_results
from dmnet.core.records import Annotations, Detections
from tests import written


def put(folder: Path, data: object) -> Path:
    path = folder / "a é.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def example() -> list[Annotations]:
    b = Annotations.of("b", (10, 20), [[0, 1, 5, 9], [0, 0, 20, 10], [1, 1, 2, 2]], [4, 0, 3])
    hidden = Annotations("a.x", (30, 40), [[1, 2, 3.5, 4]], [9], [0], [1], [2])
    return [b, hidden, Annotations.of("c", (5, 6), [], [])]


NAMES = {"b": "b.jpg", "a.x": "a.x.png", "c": "c.jpg"}


def test_ground_truth_by_hand() -> None:
    data = written.ground_truth(example(), NAMES, ignored=False)
    assert data["images"] == [
        {"id": 1, "file_name": "a.x.png", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.jpg", "width": 20, "height": 10},
        {"id": 3, "file_name": "c.jpg", "width": 6, "height": 5},
    ]
    rest = {"iscrowd": 0, "ignore": 0, "score": 1, "truncation": 0, "occlusion": 0}
    assert data["annotations"] == [
        {"id": 1, "image_id": 2, "category_id": 4, "bbox": [0, 1, 5, 8], "area": 40, **rest},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [1, 1, 1, 1], "area": 1, **rest},
    ]
    assert [(row["id"], row["name"]) for row in data["categories"]][:4] == [
        (1, "pedestrian"),
        (2, "people"),
        (3, "bicycle"),
        (4, "car"),
    ]
    assert [row["id"] for row in data["categories"]] == list(range(1, 11))


def test_rows_not_to_be_scored_are_written_only_when_asked() -> None:
    rows = written.ground_truth(example(), NAMES, ignored=True)["annotations"]
    assert [(r["category_id"], r["iscrowd"], r["ignore"], r["score"]) for r in rows] == [
        (9, 1, 1, 0),
        (4, 0, 0, 1),
        (0, 1, 1, 0),
        (3, 0, 0, 1),
    ]
    assert rows[0]["bbox"] == [1.0, 2.0, 2.5, 2.0]
    assert (rows[0]["truncation"], rows[0]["occlusion"]) == (1, 2)


def test_a_file_is_written_piece_by_piece() -> None:
    """The bytes of one object, and no image's rows are asked for before the last one's are out."""
    items = sorted(example(), key=lambda ann: NAMES[ann.image_id])
    out: list[bytes] = []
    asked = []

    def rows() -> Iterator[Annotations]:
        for ann in items:
            asked.append(len(out))
            yield ann

    images = [(NAMES[ann.image_id], ann.size) for ann in items]
    for piece in coco.ground_truth_json(images, rows(), {"a.x.png": 5, "b.jpg": 9, "c.jpg": 7}):
        out.append(piece)
    assert asked == [5, 6, 7]
    data = json.loads(b"".join(out))
    assert json.dumps(data).encode() == b"".join(out)
    assert [row["image_id"] for row in data["annotations"]] == [5, 9, 9, 9]
    assert [row["id"] for row in data["annotations"]] == [1, 2, 3, 4]
    assert data["images"][1] == {"id": 9, "file_name": "b.jpg", "width": 20, "height": 10}


def test_no_images_at_all(tmp_path: Path) -> None:
    data = written.ground_truth([], {}, ignored=True)
    assert (data["images"], data["annotations"]) == ([], [])
    assert coco.read_ground_truth(put(tmp_path, data)) == []


def test_every_row_comes_back(tmp_path: Path) -> None:
    items = example()
    back = coco.read_ground_truth(put(tmp_path, written.ground_truth(items, NAMES, ignored=True)))
    assert [ann.image_id for ann in back] == ["a.x", "b", "c"]
    for was, now in zip(sorted(items, key=lambda ann: ann.image_id), back, strict=True):
        assert was.size == now.size
        for name in ("boxes", "labels", "score", "truncation", "occlusion"):
            assert np.array_equal(getattr(was, name), getattr(now, name)), name


def foreign() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "val/x y.jpg", "width": 20, "height": 10}],
        "annotations": [
            {"image_id": 7, "category_id": 0, "bbox": [1, 2, 3, 4]},
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1},
        ],
        "categories": [{"id": 0, "name": "Pedestrian"}, {"id": 1, "name": "awning tricycle"}],
    }


def test_foreign_ground_truth_is_read_by_class_names(tmp_path: Path) -> None:
    (ann,) = coco.read_ground_truth(put(tmp_path, foreign()))
    assert (ann.image_id, ann.size) == ("val/x y", (10, 20))
    assert ann.classes.scored == {1: "Pedestrian", 2: "awning tricycle"}
    assert ann.labels.tolist() == [1, 2]
    assert ann.score.tolist() == [1, 0]


def test_boxes_without_area_or_beyond_the_image(tmp_path: Path) -> None:
    data = foreign()
    data["annotations"][0]["bbox"] = [1, 2, -3, 4]
    data["annotations"][1]["bbox"] = [15, 2, 9, 4]
    path = put(tmp_path, data)
    truth = coco.read(path)
    (image,) = truth.images
    ann, warnings = coco.annotations_of(path, truth.classes, "a", image.size, image.rows)
    assert ann.boxes.tolist() == [[15, 2, 20, 6]]
    assert warnings == [
        f"{path}: annotations[0]: box left 1, top 2, width -3, height 4 has no area; row dropped",
        f"{path}: annotations[1]: box left 15, top 2, width 9, height 4 reaches beyond the 20x10 "
        "image; clipped",
    ]


@pytest.mark.parametrize(
    ("section", "index", "change", "reason"),
    [
        ("annotations", 1, {"image_id": 8}, "annotations[1]: image_id 8 is not listed"),
        ("annotations", 1, {"image_id": []}, "annotations[1]: image_id [] is not listed"),
        ("annotations", 1, {"category_id": 3}, "annotations[1]: category_id 3 is not listed"),
        ("annotations", 0, {"bbox": [1, 2, 3]}, "annotations[0]: bbox [1, 2, 3] is not four"),
        ("annotations", 0, {"bbox": [1, 2, float("nan"), 4]}, "annotations[0]: bbox [1, 2, nan"),
        ("annotations", 0, {"bbox": [1, 2, 10**400, 4]}, "annotations[0]: bbox [1, 2, inf"),
        ("annotations", 0, {"score": 0.5}, "annotations[0]: score 0.5 is not a whole number"),
        ("images", 0, {"width": 0}, "images[0]: needs 'width' and 'height' above 0"),
        ("images", 0, {"file_name": None}, "images[0]: needs a whole number 'id' and a text"),
        (
            "categories",
            1,
            {"name": 3},
            "categories[1]: needs a whole number 'id'",
        ),
        ("categories", 1, {"id": 0}, "categories[1]: id 0 occurs twice"),
    ],
)
def test_bad_ground_truth_names_the_place(
    tmp_path: Path, section: str, index: int, change: dict[str, Any], reason: str
) -> None:
    data = foreign()
    data[section][index].update(change)
    path = put(tmp_path, data)
    with pytest.raises(InputError) as caught:
        coco.read_ground_truth(path)
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_two_images_of_one_name(tmp_path: Path) -> None:
    data = foreign()
    data["images"].append({"id": 8, "file_name": "val/x y.png", "width": 1, "height": 1})
    with pytest.raises(InputError, match=r"images\[1\]: id 8 or name 'val/x y' occurs twice"):
        coco.read_ground_truth(put(tmp_path, data))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "a é.json: no COCO ground truth: it needs images, annotations and cat"),
        ('{"images": [],\n "annotations": [', ":2: not valid JSON .* the file is cut short"),
        ("", ":1: not valid JSON .* the file is cut short"),
        ('{"images": 1, "annotations": [], "categories": []}', "images is not a list"),
        ('{"images": [3], "annotations": [], "categories": []}', r"images\[0\]: is not an object"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_damaged_ground_truth(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        coco.read_ground_truth(put(tmp_path, text))


def test_results_by_hand(tmp_path: Path) -> None:
    det = Detections([[1, 2, 4.12345, 6], [0, 0, 1, 1]], [1 / 3, 0.5], [4, 1])
    text = coco_results.write_results([(2, det), (1, Detections.empty()), (3, det[1:])])
    assert json.loads(text) == [
        {"image_id": 2, "category_id": 4, "bbox": [1, 2, 3.123, 4], "score": 1 / 3},
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5},
        {"image_id": 3, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5},
    ]
    back = coco_results.read_results(put(tmp_path, text), known={1, 2, 3})
    assert back.keys() == {2, 3}
    assert back[2].scores.tolist() == [1 / 3, 0.5]
    assert back[2].labels.tolist() == [4, 1]
    np.testing.assert_allclose(back[2].boxes, det.boxes, atol=5e-4)


def test_no_results(tmp_path: Path) -> None:
    assert coco_results.write_results([]) == "[]\n"
    assert coco_results.read_results(put(tmp_path, "[]")) == {}


def test_rows_of_images_that_alternate(tmp_path: Path) -> None:
    rows = [{"image_id": i, "category_id": 4, "bbox": [x, 2, 3, 4], "score": 0.5}
            for i, x in ((9, 1), (2, 5), (9, 7))]  # fmt: skip
    found = coco_results.read_results(put(tmp_path, rows))
    assert list(found) == [9, 2]
    assert found[9].boxes.tolist() == [[1, 2, 4, 6], [7, 2, 10, 6]]
    rows[1]["image_id"] = 10**30
    with pytest.raises(InputError, match=r"results\[1\]: image_id 10{30} is not in the image list"):
        coco_results.read_results(put(tmp_path, rows))


def test_results_that_name_images(tmp_path: Path) -> None:
    row = {"image_id": "x y", "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}
    assert coco_results.read_results(put(tmp_path, [row]), names={"x y": 5}).keys() == {5}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": 9}, "image_id 9 is not in the image list"),
        ({"image_id": "x"}, "image_id 'x' is not in the image list"),
        ({"image_id": None}, "image_id None is not in the image list"),
        ({"category_id": 0}, "category_id 0 is no category"),
        ({"category_id": 11}, "category_id 11 is no category"),
        ({"category_id": "car"}, "category_id 'car' is no category"),
        ({"score": float("nan")}, "score nan is not a finite number"),
        ({"score": float("inf")}, "score inf is not a finite number"),
        ({"score": None}, "score None is not a finite number"),
        ({"bbox": [0, 0, -1, 1]}, "negative width or height in bbox"),
        ({"bbox": [0, 0, 1, float("nan")]}, "bbox [0, 0, 1, nan] is not four finite numbers"),
        ({"bbox": None}, "bbox None is not four finite numbers"),
    ],
)
def test_bad_results_name_the_row(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    good = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}
    path = put(tmp_path, [good, good | change])
    reason = reason.replace("no category", "none of the categories 1, 2, 3, 4, 5, 6, 7, 8, 9, 10")
    with pytest.raises(InputError) as caught:
        coco_results.read_results(path, known={1, 2})
    assert str(caught.value) == f"{path}: results[1]: {reason}"


def test_results_cut_short(tmp_path: Path) -> None:
    det = Detections([[0, 0, 1, 1]] * 3, [0.5] * 3, [1] * 3)
    text = coco_results.write_results([(1, det)])
    for end in (1, 20, len(text) // 2, len(text) - 3):
        with pytest.raises(InputError, match="ends too early"):
            coco_results.read_results(put(tmp_path, text[:end]))


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9000), st.floats(0, 1)), max_size=20))
def test_results_keep_order_and_scores(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, float]]
) -> None:
    items = [
        (image, Detections([[x, 0, x + 1, 2]], [score], [1 + x % 10])) for image, x, score in rows
    ]
    text = coco_results.write_results(items)
    back = coco_results.read_results(put(tmp_path_factory.mktemp("coco"), text))
    for image in {row[0] for row in rows}:
        whole = Detections.concat([det for number, det in items if number == image])
        assert np.array_equal(back[image].boxes, whole.boxes)
        assert np.array_equal(back[image].scores, whole.scores)
        assert np.array_equal(back[image].labels, whole.labels)


def test_pycocotools_reads_both(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects = example()[0]
    truth = put(tmp_path, written.ground_truth(example(), NAMES, ignored=True))
    found = objects.objects
    det = Detections(found.boxes, np.full(len(found), 0.9), found.labels)
    results = tmp_path / "results.json"
    results.write_text(coco_results.write_results([(2, det)]), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth))
        evaluation = COCOeval(gt, gt.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert gt.getCatIds() == list(range(1, 11))
    assert evaluation.stats[0] == pytest.approx(1.0)
