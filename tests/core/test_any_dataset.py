"""Data sets of every format, recognised by what is there: equal boxes from each."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.dataset import Dataset, open_dataset, split_name
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import dota, labelme, visdrone, voc, yolo
from dmnet.core.images import encode_jpeg
from dmnet.core.records import Annotations
from tests import written

SHIPS = Classes(("ship", "fishing boat"))
IDS = ("a", "north/a")  # one stem in two folders: two images


def truth(name: str, ignored: bool = True) -> Annotations:
    boxes = [[1, 2, 11, 12], [3.25, 4.5, 20, 19.125], [0, 0, 5, 5], [20, 1, 30, 9]]
    keep = slice(None if ignored else 2)
    found = Annotations.of(name, (20, 30), boxes, [2, 1, 0, 1], [1, 1, 0, 0], SHIPS)
    return found[keep]


def put(path: Path, data: str | bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def pictures(folder: Path) -> None:
    for name in IDS:
        put(folder / f"{name}.jpg", encode_jpeg(np.zeros((20, 30, 3), np.uint8)))


def make_coco(root: Path) -> Path:
    names = {name: f"{name}.jpg" for name in IDS}
    own = Classes(SHIPS.names, ids=(3, 90))
    items = [truth(name) for name in IDS]
    items = [Annotations.of(t.image_id, t.size, t.boxes, t.labels, t.score, own) for t in items]
    data = written.ground_truth(items, names, ignored=True, ids={"a.jpg": 7, "north/a.jpg": 4},
                             classes=own)  # fmt: skip
    put(root / "annotations" / "instances_val2017.json", json.dumps(data))
    pictures(root / "val2017")
    return root


def make_coco_file(root: Path) -> Path:
    return make_coco(root) / "annotations" / "instances_val2017.json"


def make_yolo(root: Path) -> Path:
    for name in IDS:
        put(root / "labels" / "val" / f"{name}.txt", yolo.write(truth(name)))
    pictures(root / "images" / "val")
    put(root / "data.yaml", "val: images/val\nnames: {0: ship, 1: fishing boat}\n")
    return root


def make_yolo_list(root: Path) -> Path:
    for name in IDS:
        text = "".join(f"{line} 0.9\n" for line in yolo.write(truth(name)).splitlines())
        put(root / "labels" / f"{name}.txt", text)
    pictures(root / "images")
    put(root / "lists" / "v.txt", "../images/a.jpg\n\n")
    put(root / "w.txt", f"images/{IDS[1]}.jpg\n")
    names = "names:\n- ship\n- fishing boat\n"
    return put(root / "sea.yaml", f"path: .\ntrain:\nval: [lists/v.txt, w.txt]\nnc: 2\n{names}")


def make_voc(root: Path) -> Path:
    for name in IDS:
        put(root / "Annotations" / f"{name}.xml", voc.write(truth(name), f"{name}.jpg"))
    put(root / "Annotations" / "other.xml", voc.write(truth("other"), "other.jpg"))
    pictures(root / "JPEGImages")
    put(root / "ImageSets" / "Main" / "val.txt", "a\nnorth/a 1\n")
    put(root / "classes.txt", "ship\nfishing boat\n")
    return root


def make_labelme(root: Path) -> Path:
    for name in IDS:
        put(root / "val" / f"{name}.json", labelme.write(truth(name), "a.jpg"))
    pictures(root / "val")
    put(root / "classes.txt", "ship\n\nfishing boat")
    return root


def make_dota(root: Path) -> Path:
    for name in IDS:
        head = "imagesource:GoogleEarth\ngsd:0.1\n"
        put(root / "val" / "labelTxt" / f"{name}.txt", head + dota.write(truth(name)))
    pictures(root / "val" / "images")
    put(root / "classes.txt", "ship\nfishing boat\n")
    return root


MAKERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "coco": (make_coco, "COCO data set (instances_val2017.json)"),
    "coco file": (make_coco_file, "COCO data set (instances_val2017.json)"),
    "yolo": (make_yolo, "YOLO data set (data.yaml)"),
    "yolo list": (make_yolo_list, "YOLO data set (sea.yaml)"),
    "voc": (make_voc, "Pascal VOC data set (Annotations/*.xml)"),
    "labelme": (make_labelme, "LabelMe data set (*.json)"),
    "dota": (make_dota, "DOTA data set (labelTxt/*.txt)"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_format_gives_the_same(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, found = MAKERS[kind]
    with caplog.at_level(logging.INFO, logger="dmnet"):
        data = open_dataset(make(tmp_path / "set é"), "val")
    line = f"{found}, split val: 2 images, 2 annotated, 2 classes: ship, fishing boat"
    assert caplog.messages == [line]
    assert (data.split, data.classes.names, data.problems) == ("val", SHIPS.names, ())
    assert [entry.image_id for entry in data.entries] == list(IDS)
    assert [entry.image.name for entry in data.with_image if entry.image] == ["a.jpg", "a.jpg"]
    for entry in data.entries:
        ann, warnings = data.annotations(entry)
        want = truth(entry.image_id, ignored="yolo" not in kind)
        assert (ann.image_id, ann.size, warnings) == (entry.image_id, (20, 30), [])
        np.testing.assert_array_equal(ann.boxes, want.boxes)
        assert ann.labels.tolist() == want.labels.tolist()
        assert ann.ignore.tolist() == want.ignore.tolist()
    own = {"a.jpg": 7, "north/a.jpg": 4} if "coco" in kind else {"a.jpg": 1, "north/a.jpg": 2}
    assert data.numbers == own


def test_visdrone_txt_with_classes_of_its_own(tmp_path: Path) -> None:
    put(tmp_path / "val" / "annotations" / "a.txt", visdrone.write_annotations(truth("a")))
    put(tmp_path / "val" / "images" / "a.jpg", encode_jpeg(np.zeros((20, 30, 3), np.uint8)))
    put(tmp_path / "classes.txt", "ship\nfishing boat\n")
    data = open_dataset(tmp_path, "val")
    assert data.classes == SHIPS
    np.testing.assert_array_equal(data.annotations(data.entries[0])[0].boxes, truth("a").boxes)
    put(tmp_path / "val" / "annotations" / "a.txt", "1,2,3,4,1,3,0,0\n")
    with pytest.raises(InputError, match="category 3 does not exist; the data set has 0 to 2"):
        data.annotations(data.entries[0])


def test_classes_without_a_list_are_those_that_occur(tmp_path: Path) -> None:
    (make_dota(tmp_path) / "classes.txt").unlink()
    assert open_dataset(tmp_path, "val").classes.names == ("fishing-boat", "ship")


def test_all_of_visdrones_names_are_visdrone(tmp_path: Path) -> None:
    labels = [*VISDRONE.scored, 11, 0]
    ann = Annotations.of("a", (20, 30), [[0, 0, 5, 5]] * 12, labels)
    put(tmp_path / "Annotations" / "a.xml", voc.write(ann, "a.jpg"))
    data = open_dataset(tmp_path, "val")
    assert data.classes == VISDRONE
    assert data.annotations(data.entries[0])[0].labels.tolist() == labels


@pytest.mark.parametrize("kind", ["coco", "yolo", "yolo list", "voc"])
def test_a_split_that_is_not_there(tmp_path: Path, kind: str) -> None:
    with pytest.raises(MissingInputError, match=r"'?test'?.*it has: val\."):
        open_dataset(MAKERS[kind][0](tmp_path), "test")


def test_names_of_splits(tmp_path: Path) -> None:
    assert split_name(tmp_path, "test") == "test-dev"
    put(tmp_path / "data.yaml", "test: images\nnames: [ship]\n")
    (tmp_path / "images").mkdir()
    assert split_name(tmp_path, "test") == "test"


def change(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("val: images/val\n", "it needs 'names'"),
        ("val: [\n", "not valid YAML"),
        ("val: images/val\nnames: {1: ship}\n", r"indices \[1\] are not 0 to 0"),
        ("val: images/val\nnames: [ship, ship]\n", "'ship' is listed twice"),
        ("val: images/val\nnames: []\n", "neither a list of class names nor a mapping"),
        ("val: ../other\nnames: [ship]\n", "leaves the data set's folder"),
        ("path: /elsewhere\nval: images\nnames: [ship]\n", "leaves the data set's folder"),
        ("val: [lines.txt]\nnames: [ship]\n", "lines.txt:2: the path '../../x.jpg' leaves"),
        ("val: lost.txt\nnames: [ship]\n", "there is no .*lost.txt"),
    ],
)
def test_bad_data_yaml(tmp_path: Path, text: str, reason: str) -> None:
    root = make_yolo(tmp_path / "sea")
    put(root / "lines.txt", "images/val/a.jpg\n../../x.jpg\n")
    change(root / "data.yaml", text)
    with pytest.raises((InputError, MissingInputError), match=reason):
        open_dataset(root, "val")


def test_roboflow_writes_paths_from_one_folder_too_deep(tmp_path: Path) -> None:
    change(make_yolo(tmp_path) / "data.yaml", "val: ../images/val\nnames: [ship, fishing boat]\n")
    assert len(open_dataset(tmp_path, "val").with_annotation) == 2


def bad_row(data: Dataset, text: str) -> str:
    entry = data.entries[0]
    assert entry.annotation is not None
    change(entry.annotation, text)
    with pytest.raises(InputError) as caught:
        data.annotations(entry)
    return str(caught.value)


def test_bad_rows_name_the_place(tmp_path: Path) -> None:
    boats = open_dataset(make_dota(tmp_path / "d"), "val")
    assert "a.txt:1: not a row of the form x1 y1" in bad_row(boats, "1 2 3 4 ship 0\n")
    assert "a.txt:2: class 'car' is none of: " in bad_row(boats, "\n1 1 2 1 2 2 1 2 car 0\n")
    shapes = open_dataset(make_labelme(tmp_path / "l"), "val")
    assert "cut short" in bad_row(shapes, '{"shapes": [')
    assert "it needs a list 'shapes'" in bad_row(shapes, "{}")
    assert "shapes[0]: needs a text" in bad_row(shapes, '{"shapes": [{}]}')
    text = '{"shapes": [{"label": "ship", "points": [[1, "x"]]}]}'
    assert "shapes[0]: points are not pairs of numbers" in bad_row(shapes, text)
    text = '{"shapes": [{"label": "car", "points": [[1, 2]]}]}'
    assert "shapes[0]: class 'car' is none of" in bad_row(shapes, text)


def test_shapes_and_oriented_boxes_become_upright(tmp_path: Path) -> None:
    shapes = [
        {"label": "ship", "shape_type": "polygon", "points": [[5, 1], [9, 6], [2, 8]]},
        {"label": "ship", "shape_type": "circle", "points": [[10, 10], [13, 14]]},
        {"label": "ship", "shape_type": "point", "points": [[3, 3]], "flags": None},
    ]
    path = put(tmp_path / "a.json", json.dumps({"shapes": shapes}))
    ann, warnings = labelme.read(path, "a", (20, 30), SHIPS)
    assert ann.boxes.tolist() == [[2, 1, 9, 8], [5, 5, 15, 15]]
    assert len(warnings) == 1 and "shapes[2]" in warnings[0]
    path = put(tmp_path / "a.txt", "10 2 16 8 10 14 4 8 ship 1\n1 1 4 1 4 5 1 5 ship\n")
    ann, _ = dota.read(path, "a", (20, 30), SHIPS)
    assert ann.boxes.tolist() == [[4, 2, 16, 14], [1, 1, 4, 5]]
    assert ann.ignore.tolist() == [True, False]


@pytest.mark.parametrize(
    ("label", "text", "reason"),
    [
        ("labels/a.txt", "0 0.5 0.5 0.1 0.1\n", r"YOLO labels \(labels/a.txt\).*data.yaml"),
        ("images/a.xml", "<annotation/>", r"XML labels \(images/a.xml\).*Pascal VOC"),
        ("images/x.json", "{}", r"JSON files \(images/x.json\)"),
        ("annotations/x.json", "[]", r"JSON labels \(annotations/x.json\).*DATA=file.json"),
    ],
)
def test_labels_that_nobody_reads_are_an_error(
    tmp_path: Path, label: str, text: str, reason: str
) -> None:
    put(tmp_path / "images" / "a.jpg", encode_jpeg(np.zeros((20, 30, 3), np.uint8)))
    put(tmp_path / label, text)
    with pytest.raises(InputError, match=reason):
        open_dataset(tmp_path, "val")


def test_a_coco_name_that_leaves_the_folder(tmp_path: Path) -> None:
    path = make_coco_file(tmp_path / "set")
    path.write_text(path.read_text().replace('"a.jpg"', '"../../a.jpg"'))
    with pytest.raises(InputError, match="leaves the data set's folder"):
        open_dataset(path, "val")
