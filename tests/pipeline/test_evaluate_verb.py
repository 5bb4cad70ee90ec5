"""The verb ``evaluate`` on small files: what it prints, writes, and says to bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dmnet.pipeline.cli import main

BOX = [10, 10, 20, 20]
ROW: dict[str, Any] = {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5}
OTHER: dict[str, Any] = {"image_id": 2, "category_id": 4, "bbox": [60, 60, 20, 20], "score": 0.4}
TRUTH: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 90},
        {"id": 2, "file_name": "b.jpg", "width": 100, "height": 90},
    ],
    "categories": [{"id": 1, "name": "pedestrian"}, {"id": 4, "name": "car"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "area": 400, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 4, "bbox": [50, 50, 20, 20], "area": 400},
    ],
}


@pytest.fixture
def gt(tmp_path: Path) -> Path:
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(TRUTH))
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The same ground truth and results as VisDrone txt; an ignored region, sizes in a CSV."""
    truth, found = tmp_path / "truth", tmp_path / "found"
    truth.mkdir()
    found.mkdir()
    (truth / "a.txt").write_text("10,10,20,20,1,1,0,0\n0,50,40,40,0,0,0,0\n")
    (truth / "b.txt").write_text("50,50,20,20,1,4,0,0\n")
    (found / "a.txt").write_text("10,10,20,20,0.5,1,-1,-1\n5,55,10,10,0.9,1,-1,-1\n")
    (found / "b.txt").write_text("")
    (truth / "image_sizes.csv").write_text("image,width,height\na,100,90\nb,100,90\n")
    return truth, found


def results(folder: Path, data: object, name: str = "dt.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def evaluate(gt: Path, *dt: Path, options: tuple[str, ...] = ()) -> int:
    return main(["evaluate", "--gt", str(gt), "--dt", *map(str, dt), *options])


@pytest.mark.parametrize(
    ("protocol", "ap"), [("visdrone", "50.0000"), ("visdrone-macro", "50.0000"),
                         ("coco@100", "0.5000"), ("coco@500", "0.5000"), ("coco@7", "0.5000")],
)  # fmt: skip
def test_every_protocol_names_itself(
    gt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str, ap: str
) -> None:
    assert evaluate(gt, results(tmp_path, [ROW, OTHER]), options=("--protocol", protocol)) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert [protocol, "AP", ap] in lines
    assert [protocol, "AP50", ap] in lines


def test_ignored_regions_under_each_protocol(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    # the false alarm of score 0.9 lies in the ignored region; car is missed
    found = {}
    for key, options in {
        "visdrone": (),
        "plain": ("--protocol", "coco@500"),
        "ignoring": ("--protocol", "coco@500", "--ignore-regions"),
    }.items():
        assert evaluate(*folders, options=options) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        found[key] = next(line[2] for line in lines if line[1:2] == ["AP"])
    assert found == {"visdrone": "50.0000", "plain": "0.2500", "ignoring": "0.5000"}


def test_nothing_found(gt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ((), ("--analyse", "--bootstrap", "2")):
        assert evaluate(gt, results(tmp_path, []), options=options) == 0
        out = capsys.readouterr().out
        assert "no detections at all" in out
        assert ["visdrone", "AP", "0.0000"] in [line.split() for line in out.splitlines()]


def test_files_that_are_written(gt: Path, tmp_path: Path) -> None:
    one, two = results(tmp_path, [ROW, OTHER]), results(tmp_path, [ROW], "two.json")
    for name in ("s.json", "s.csv"):
        assert evaluate(gt, one, two, options=("--out", str(tmp_path / name))) == 0
    listed = json.loads((tmp_path / "s.json").read_text())
    assert [(row["name"], row["protocol"], row["AP"]) for row in listed] == [
        ("dt", "visdrone", 50.0),
        ("two", "visdrone", 50.0),
    ]
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert {row["name"] for row in rows} == {"dt", "two"}
    assert {row["protocol"] for row in rows} == {"visdrone"}


def test_the_analysis_has_the_protocols_unit_and_is_written(
    gt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.json"
    options = ("--analyse", "--bootstrap", "3", "--out", str(out))
    assert evaluate(gt, results(tmp_path, [ROW, OTHER]), options=options) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    values = [line[2] for line in lines if line[:2] == ["visdrone", "AP"]]
    assert values == ["50.0000", "50.0000"]  # in the score table, and beside its interval
    written = json.loads(out.read_text())
    assert written["AP"] == 50 and written["analysis"]["at_threshold"]["recall"] == 0.5


def test_the_page_is_of_the_protocol_asked_for(gt: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = ("--protocol", "coco@7", "--bootstrap", "0", "--report", str(page))
    assert evaluate(gt, results(tmp_path, [ROW]), options=options) == 0
    text = page.read_text()
    assert text.index("coco@7") < text.index("coco@500") and "visdrone" in text


def test_the_page_of_other_classes(tmp_path: Path) -> None:
    truth = {**TRUTH, "categories": [{"id": 1, "name": "ship"}, {"id": 4, "name": "plane"}]}
    page = tmp_path / "page.html"
    options = ("--protocol", "coco@100", "--bootstrap", "0", "--report", str(page))
    assert (
        evaluate(results(tmp_path, truth, "gt.json"), results(tmp_path, [ROW]), options=options)
        == 0
    )
    assert "plane" in page.read_text()


BAD = {
    "nothing in the file": ("", "ends too early"),
    "no list": ({}, "has to begin with '['"),
    "cut short": (json.dumps([ROW, OTHER])[:-20], "ends too early, in results[1]"),
    "no objects": ([1], "results[0] is not an object"),
    "NaN score": ([{**ROW, "score": float("nan")}], "results[0]: score nan is not a finite number"),
    "NaN box": ([{**ROW, "bbox": [1, float("nan"), 3, 4]}], "is not four finite numbers"),
    "infinite box": ([{**ROW, "bbox": [1, 2, float("inf"), 4]}], "is not four finite numbers"),
    "unknown image": ([ROW, {**ROW, "image_id": 99}], "results[1]: image_id 99 is none of the 2"),
    "unknown category": ([{**ROW, "category_id": 77}], "category_id 77 is none of the categories"),
    "no score": ([{k: v for k, v in ROW.items() if k != "score"}], "score None is not"),
    "text as score": ([{**ROW, "score": "0.5"}], "score '0.5' is not a finite number"),
    "negative side": ([{**ROW, "bbox": [1, 1, -3, 4]}], "not above 0"),
    "no side": ([{**ROW, "bbox": [1, 1, 0, 4]}], "not above 0"),
    "three numbers": ([{**ROW, "bbox": [1, 1, 3]}], "is not four finite numbers"),
    "twice the same": ([ROW, OTHER, ROW], "results[0] and results[2]"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD)
def test_bad_results(
    gt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: object, said: str
) -> None:
    assert evaluate(gt, results(tmp_path, data)) == 2
    refused(capsys, said, "dt.json")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (json.dumps(TRUTH)[:-20], "the file is cut short"),
        ([], "no COCO ground truth"),
        ({**TRUTH, "images": []}, "annotations[0]: image_id 1 is not listed"),
        ({**TRUTH, "images": None}, "images is not a list"),
        ({**TRUTH, "categories": []}, "categories: empty"),
        ({**TRUTH, "images": [{"id": 1, "file_name": "a.jpg"}]}, "needs 'width' and 'height'"),
    ],
)
def test_bad_ground_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: object, said: str
) -> None:
    assert evaluate(results(tmp_path, data, "gt.json"), results(tmp_path, [ROW])) == 2
    refused(capsys, said, "gt.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3,4,0.5\n", "a.txt:1: 5 columns"),
        ("1,2,3,4,0.5,1,-1,-1\n1,2,3,4,nan,1,-1,-1\n", "a.txt:2: 'nan' is not a number"),
        ("1,2,-3,4,0.5,1,-1,-1\n", "a.txt:1: negative width or height"),
        ("1,2,3,4,0.5,12,-1,-1\n", "a.txt:1: category 12 does not exist"),
    ],
)
def test_bad_result_rows(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (folders[1] / "a.txt").write_text(text)
    assert evaluate(*folders) == 2
    refused(capsys, said)


def test_missing_things(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, found = folders
    assert evaluate(truth, tmp_path / "none.json") == 2
    refused(capsys, "no such detections")
    assert evaluate(tmp_path / "none", found) == 2
    refused(capsys, "no such ground truth")
    (tmp_path / "empty").mkdir()
    assert evaluate(tmp_path / "empty", found) == 2
    refused(capsys, "no images or annotations of split 'val' in")
    assert evaluate(truth, tmp_path / "empty") == 2
    refused(capsys, "no result txt belongs to an image")
    (truth / "image_sizes.csv").unlink()
    assert evaluate(truth, found) == 2
    refused(capsys, "a has ignored regions, so its image size is needed", "--sizes")
    (tmp_path / "s.csv").write_text("width,height,image\n10,20\n")
    assert evaluate(truth, found, options=("--sizes", str(tmp_path / "s.csv"))) == 2
    refused(capsys, "s.csv:2: no image name in this row")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--protocol", "coco@0"), "no protocol 'coco@0'; there are visdrone"),
        (("--threshold", "nan"), "--threshold: must be a number, -1,000,000 to"),
        (("--bootstrap", "-3"), "--bootstrap: must be a whole number, 0 to 100,000, got"),
        (("--out", "x.txt"), "must end in .json or .csv"),
        (("--images", "no/such/folder", "--report", "x.html"), "no such folder"),
    ],
)
def test_bad_options(
    gt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    assert evaluate(gt, results(tmp_path, [ROW]), options=options) == 2
    refused(capsys, said)


def refused(capsys: pytest.CaptureFixture[str], *said: str) -> None:
    """One paragraph on stderr, nothing on stdout."""
    captured = capsys.readouterr()
    text = captured.err.strip()
    assert text.startswith("dmnet: ") and "\n" not in text and "Traceback" not in text
    assert all(part in text for part in said), text
    assert captured.out == ""
