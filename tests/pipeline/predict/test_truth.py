"""Labels beside a picture, in the classes of the detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.formats import labelme, voc
from dmnet.core.records import Annotations
from dmnet.pipeline.predict.truth import label_file, truth_of

SIZE = (100, 200)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "north" / "a.1.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_visdrone(picture: Path, tmp_path: Path) -> None:
    assert label_file(picture) is None
    assert truth_of(picture, SIZE, VISDRONE) is None
    rows = "10,20,30,40,1,4,0,0\n0,0,50,50,0,0,0,0\n"
    write(tmp_path / "annotations" / "north" / "a.1.txt", rows)
    truth = truth_of(picture, SIZE, VISDRONE)
    assert truth is not None
    assert (truth.boxes.tolist(), truth.labels.tolist()) == ([[10, 20, 40, 60]], [4])


def test_yolo_goes_by_the_names_of_its_data_yaml(picture: Path, tmp_path: Path) -> None:
    write(
        tmp_path / "labels" / "north" / "a.1.txt", "1 .5 .5 .1 .2\n0 .5 .5 .5 .5\n2 .1 .1 .1 .1\n"
    )
    assert label_file(picture) is None  # nobody says what 0 and 1 are
    write(tmp_path / "data.yaml", "train: images\nnames: [boat, Car, person]\n")
    truth = truth_of(picture, SIZE, VISDRONE)
    assert truth is not None
    assert truth.labels.tolist() == [4, 1]  # the boat is none of the detector's classes
    assert truth.boxes[0].tolist() == [90, 40, 110, 60]


@pytest.mark.parametrize("kind", ["voc", "labelme"])
def test_voc_and_labelme(kind: str, picture: Path, tmp_path: Path) -> None:
    own = Classes(("bus", "tree"))
    made = Annotations.of("a.1", SIZE, [[5, 5, 25, 15], [50, 50, 60, 60]], [1, 2], classes=own)
    if kind == "voc":
        write(tmp_path / "Annotations" / "north" / "a.1.xml", voc.write(made, "a.1.jpg"))
    else:
        write(picture.with_suffix(".json"), labelme.write(made, "a.1.jpg"))
    truth = truth_of(picture, SIZE, VISDRONE)
    assert truth is not None
    assert (truth.boxes.tolist(), truth.labels.tolist()) == ([[5, 5, 25, 15]], [9])


def test_damaged_labels_are_a_warning(
    picture: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "annotations" / "north" / "a.1.txt", "1,2,3\n")
    assert truth_of(picture, SIZE, VISDRONE) is None
    assert "no ground truth in the viewer" in caplog.text
    write(picture.with_suffix(".json"), '{"other": 1}')
    (tmp_path / "annotations" / "north" / "a.1.txt").unlink()
    assert label_file(picture) is None


def test_labels_that_are_links_are_not_read(picture: Path, tmp_path: Path) -> None:
    place = picture.with_suffix(".json")
    (tmp_path / "secret.json").write_text('{"version": "5", "shapes": []}')
    place.symlink_to(tmp_path / "secret.json")
    assert label_file(picture) is None
    place.unlink()
    (tmp_path / "secret.json").rename(place)
    assert label_file(picture) is not None
