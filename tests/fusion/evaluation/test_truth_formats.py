"""Ground truth of every data-set format: equal scores through each."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import visdrone
from dmnet.fusion.evaluation.evaluate import evaluate
from dmnet.fusion.evaluation.inputs import read_truth
from tests.core.test_any_dataset import MAKERS, SHIPS, put, truth


def results(folder: Path) -> Path:
    """Class 2: two hits and a better false one; class 1: one hit (IoU .94), one object lost."""
    put(folder / "a.txt", "1,2,10,10,0.8,2,-1,-1\n3,5,17,14,0.7,1,-1,-1\n")
    put(folder / "north" / "a.txt", "1,2,10,10,0.6,2,-1,-1\n15,10,4,4,0.9,2,-1,-1\n")
    return folder


@pytest.mark.parametrize("protocol", ["coco@100", "visdrone"])
def test_equal_scores_through_every_format(tmp_path: Path, protocol: str) -> None:
    found = results(tmp_path / "found")
    scores = {
        kind: evaluate(make(tmp_path / kind), found, protocol) for kind, (make, _) in MAKERS.items()
    }
    first = scores["yolo"] if protocol == "coco@100" else scores["voc"]
    for kind, each in scores.items():
        if protocol == "coco@100" or "yolo" not in kind:
            # YOLO holds no ignored rows; in the toolkit these stay in the base of recall
            assert each.summary == pytest.approx(first.summary, nan_ok=True), kind
        assert list(each.classes) == list(SHIPS.names) and each.counts["objects"] == 4
    # class 2: precision 2/3 at both recalls; class 1: 1 up to recall 1/2
    unit, half = (100, 0.5) if protocol == "visdrone" else (1, 51 / 101)
    assert scores["yolo"].classes["fishing boat"]["AP50"] == pytest.approx(unit * 2 / 3)
    assert scores["yolo"].classes["ship"]["AP50"] == pytest.approx(unit * half)


def test_a_visdrone_folder_by_its_root_its_split_and_its_annotations(tmp_path: Path) -> None:
    put(tmp_path / "data" / "classes.txt", "ship\nfishing boat\n")
    split = tmp_path / "data" / "val"
    put(split / "annotations" / "a.txt", visdrone.write_annotations(truth("a")[:2]))
    read = [read_truth(place) for place in (tmp_path / "data", split, split / "annotations")]
    assert [each.classes.names == SHIPS.names for each in read] == [True, False, False]
    assert [each.images[0].truth.tolist() for each in read] == [
        read[0].images[0].truth.tolist()
    ] * 3
    put(split / "annotations" / "a.txt", "1,2,3,4,1,3,0,0\n")
    with pytest.raises(InputError, match="category 3 does not exist; the data set has 0 to 2"):
        read_truth(tmp_path / "data")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    root = MAKERS["yolo"][0](tmp_path / "yolo")
    with pytest.raises(MissingInputError, match="split 'train'"):
        read_truth(root, split="train")
    with pytest.raises(MissingInputError, match="no such ground truth"):
        read_truth(tmp_path / "nothing")
    (tmp_path / "images").mkdir()
    with pytest.raises(MissingInputError, match="no annotation txt"):
        read_truth(tmp_path)
