"""Evaluation of files: formats agree with one another, and bad input gives named errors."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmnet.core.classes import VISDRONE
from dmnet.core.errors import ConfigError, DmnetError, InputError, MissingInputError
from dmnet.core.formats import coco, coco_results
from dmnet.core.formats.coco_results import stream_objects
from dmnet.fusion.evaluation.evaluate import evaluate
from dmnet.fusion.evaluation.inputs import read_found, read_truth
from dmnet.fusion.evaluation.scores import Scores
from dmnet.fusion.report.analyse import analyse, names_of, report_files
from dmnet.fusion.report.page import ReportConfig

TRUTH = {
    "a": ["10,10,20,20,1,4,0,0", "60,60,30,30,0,0,0,0", "5,40,10,10,1,1,0,0,"],
    "b": ["10,10,20,20,1,4,0,0", "50,50,8,8,0,11,0,0"],
    "c": [],
}
FOUND = {
    "a": ["10.5 10 20 20 0.9 4 -1 -1", "65 65 10 10 0.8 4 -1 -1", "5 40 10 9 0.7 1 -1 -1"],
    "b": ["70 70 20 20 0.6 4 -1 -1", "10 10 20 20 0.5 4 -1 -1"],
}
SIZES = "split,image,width,height\nval,a,100,100\nval,b,120,90\nval,c,50,50\n"


def texts(folder: Path, files: dict[str, list[str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text("".join(line + "\n" for line in lines))
    return folder


@pytest.fixture
def gt(tmp_path: Path) -> Path:
    (tmp_path / "image_sizes.csv").write_text(SIZES)
    return texts(tmp_path / "annotations", TRUTH)


def coco_truth() -> dict[str, Any]:
    images = [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 100},
        {"id": 3, "file_name": "b.jpg", "width": 120, "height": 90},
        {"id": 5, "file_name": "c.jpg", "width": 50, "height": 50},
    ]
    ids = {"a": 7, "b": 3, "c": 5}
    rows = []
    for name, lines in TRUTH.items():
        for line in lines:
            left, top, width, height, value, label = map(int, line.strip(",").split(",")[:6])
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": ids[name],
                    "category_id": label,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 1 - value,
                }
            )
    categories = [{"id": label, "name": name} for label, name in VISDRONE.scored.items()]
    return {"images": images, "annotations": rows, "categories": categories}


def coco_found(ids: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, lines in FOUND.items():
        for line in lines:
            *box, value, label = map(float, line.split()[:6])
            row = {"image_id": ids[name], "category_id": int(label), "bbox": box, "score": value}
            rows.append(row)
    return rows


def save(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("protocol", ["visdrone", "visdrone-macro", "coco@100", "coco@500"])
def test_all_formats_agree(gt: Path, tmp_path: Path, protocol: str) -> None:
    folder = texts(tmp_path / "pred", FOUND)
    truth = save(tmp_path / "gt.json", coco_truth())
    own = save(tmp_path / "own.json", coco_found({"a": 7, "b": 3}))
    numbered = save(tmp_path / "numbered.json", coco_found({"a": 1, "b": 2}))
    named = save(tmp_path / "named.json", coco_found({"a": "a.jpg", "b": "b"}))
    expected = evaluate(gt, folder, protocol)
    for pair in ((gt, numbered), (gt, named), (truth, own), (truth, folder)):
        scores = evaluate(*pair, protocol)
        assert scores.summary == pytest.approx(expected.summary, nan_ok=True)
        assert scores.protocol == protocol
    assert expected.summary["AP50"] > 0.5


def test_by_hand(gt: Path, tmp_path: Path) -> None:
    scores = evaluate(gt, texts(tmp_path / "pred", FOUND), "visdrone", name="mine")
    # car: TP .9, (one removed in the region), FP .6, TP .5 -> 0.5 * 1 + 0.5 * 2 / 3
    assert scores.classes["car"]["AP50"] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))
    assert scores.classes["pedestrian"]["AP50"] == 100
    assert math.isnan(scores.classes["bus"]["AP"])
    assert scores.counts == {"images": 3, "objects": 3, "detections": 5}
    assert any("1 of 3 images have no result file" in text for text in scores.warnings)
    table = scores.table()
    assert all(
        line.startswith(("visdrone", "protocol"))
        for line in table.split("\n\n")[1].splitlines() + table.split("\n\n")[2].splitlines()
    )
    assert {row[1] for row in scores.csv_rows()[1:]} == {"visdrone"}
    json.dumps(scores.to_json(), allow_nan=False)


def test_unsorted_subset_of_files(gt: Path, tmp_path: Path) -> None:
    folder = texts(tmp_path / "pred", {**FOUND, "z": []})
    assert any("belong to no image" in text for text in evaluate(gt, folder).warnings)


def test_other_categories_by_any_protocol(tmp_path: Path) -> None:
    truth = coco_truth()
    truth["categories"] = [{"id": 4, "name": "ship"}, {"id": 1, "name": "whale"}]
    truth["annotations"] = [row for row in truth["annotations"] if row["category_id"] in (1, 4)]
    path = save(tmp_path / "gt.json", truth)
    found = save(tmp_path / "dt.json", coco_found({"a": 7, "b": 3}))
    assert list(evaluate(path, found, "coco@500").classes) == ["whale", "ship"]
    scores = evaluate(path, found, "visdrone")
    assert list(scores.classes) == ["whale", "ship"]
    assert scores.classes["whale"]["AP50"] == 100


def test_categories_are_matched_by_name(tmp_path: Path) -> None:
    truth = coco_truth()
    truth["categories"] = [{"id": i - 1, "name": name} for i, name in VISDRONE.scored.items()]
    truth["annotations"] = [
        {**row, "category_id": row["category_id"] - 1}
        for row in truth["annotations"]
        if row["category_id"] in VISDRONE.scored
    ]
    found = coco_found({"a": 7, "b": 3})
    for row in found:
        row["category_id"] -= 1
    scores = evaluate(
        save(tmp_path / "g.json", truth), save(tmp_path / "d.json", found), "visdrone"
    )
    assert scores.classes["pedestrian"]["AP50"] == 100


def test_golden_subset_from_txt_and_from_json(
    annotation_archive: Path, thirdparty_detections: Path, tmp_path: Path
) -> None:
    """Every 14th image of VisDrone val, as the official toolkit scores it."""
    folder = annotation_archive / "VisDrone2019-DET-val" / "annotations"
    subset = tmp_path / "annotations"
    subset.mkdir()
    rows = []
    for number, path in enumerate(sorted(folder.glob("*.txt"))[::14], start=1):
        shutil.copy(path, subset)
        for line in (thirdparty_detections / path.name).read_text().splitlines():
            *box, value, label = map(float, line.split()[:6])
            row = {"image_id": number, "category_id": int(label), "bbox": box, "score": value}
            rows.append(row)
    sizes = annotation_archive / "image_sizes.csv"
    expected = [36.2524683874, 60.1998457821, 36.9865168925]
    expected += [3.1026240314, 12.1304182413, 43.1321809577, 49.7813004273]
    for found in (thirdparty_detections, save(tmp_path / "results.json", rows)):
        scores = evaluate(subset, found, "visdrone", sizes=sizes)
        assert list(scores.summary.values()) == pytest.approx(expected, abs=1e-7)


class TestSizes:
    def test_missing(self, tmp_path: Path) -> None:
        folder = texts(tmp_path / "deep" / "er" / "annotations", TRUTH)
        found = texts(tmp_path / "pred", FOUND)
        with pytest.raises(MissingInputError, match=r"a has ignored regions.*--sizes"):
            evaluate(folder, found, "visdrone")
        assert evaluate(folder, found, "coco@500").summary["AP50"] > 0
        with pytest.raises(MissingInputError, match="image size is needed"):
            evaluate(folder, found, "coco@500", ignore_regions=True)

    def test_from_images_beside(self, tmp_path: Path) -> None:
        folder = texts(tmp_path / "x" / "y" / "annotations", TRUTH)
        images = tmp_path / "x" / "y" / "images"
        images.mkdir()
        Image.new("RGB", (100, 100)).save(images / "a.jpg")
        assert evaluate(folder, texts(tmp_path / "pred", FOUND)).summary["AP50"] > 0
        assert evaluate(folder.parent, texts(tmp_path / "pred", FOUND)).summary["AP50"] > 0


# --- bad input -----------------------------------------------------------------------------------

ROW = {"image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "ends too early"),
        ("{}", "has to begin with"),
        ('{"annotations": []}', "has to begin with"),
        ("[1, 2]", r"results\[0\] is not an object"),
        (json.dumps([ROW])[:-1], "ends too early"),
        (json.dumps([ROW, ROW])[:-20], r"ends too early, in results\[1\]"),
        ("[{'a': 1}]", r"results\[0\]"),
        (json.dumps([ROW, {**ROW, "image_id": 99}]), r"results\[1\]: image_id 99 is none of the 3"),
        (json.dumps([{**ROW, "image_id": 1.5}]), "image_id 1.5"),
        (json.dumps([{**ROW, "image_id": True}]), "image_id True"),
        (json.dumps([{**ROW, "category_id": 0}]), "category_id 0 is none of the categories 1, 2"),
        (json.dumps([{**ROW, "category_id": 11}]), "category_id 11"),
        (json.dumps([{**ROW, "category_id": "car"}]), "category_id 'car'"),
        (json.dumps([{**ROW, "score": math.nan}]), "score nan is not a finite"),
        (json.dumps([{**ROW, "score": None}]), "score None"),
        (json.dumps([{**ROW, "score": 10**400}]), "not a finite"),
        ('[{"image_id": ' + "1" * 5000 + "}]", "results"),
        (json.dumps([{**ROW, "bbox": [1, 2, math.nan, 4]}]), "four finite numbers"),
        (json.dumps([{**ROW, "bbox": [1, 2, math.inf, 4]}]), "four finite numbers"),
        (json.dumps([{**ROW, "bbox": [1, 2, 3]}]), "four finite numbers"),
        (json.dumps([{**ROW, "bbox": [1, 2, 0, 4]}]), "not above 0"),
        (json.dumps([{**ROW, "bbox": [1, 2, 3, -4]}]), "not above 0"),
        (json.dumps([{"image_id": 1}]), "category_id None"),
        (json.dumps([ROW, {**ROW, "score": 0.4}, ROW]), r"results\[0\] and results\[2\]"),
        ("[" + "[" * 100000, "results"),
    ],
)
def test_bad_results_json(gt: Path, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        evaluate(gt, path)
    assert str(path) in str(caught.value)


def test_results_that_are_no_text(gt: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"[\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        evaluate(gt, path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 3 4 nan 4 -1 -1", "nan"),
        ("1 2 inf 4 0.5 4 -1 -1", "inf"),
        ("1 2 -3 4 0.5 4 -1 -1", "negative width or height"),
        ("1 2 3 4 0.5 12 -1 -1", "category 12 does not exist"),
        ("1 2 3 4 0.5 4.5 -1 -1", "whole number"),
        ("1 2 3 4 0.5", "5 columns"),
        ("1 2 3 4 x 4 -1 -1", "'x' is not a number"),
    ],
)
def test_bad_result_txt(gt: Path, tmp_path: Path, line: str, message: str) -> None:
    folder = texts(tmp_path / "pred", {"a": ["1 2 3 4 0.5 4 -1 -1", line]})
    with pytest.raises(InputError, match=message) as caught:
        evaluate(gt, folder)
    assert "a.txt:2" in str(caught.value)


def test_repeated_rows_in_txt_are_named_and_scored(gt: Path, tmp_path: Path) -> None:
    folder = texts(tmp_path / "pred", {"a": FOUND["a"] * 2})
    assert any("3 rows are exact repetitions" in text for text in evaluate(gt, folder).warnings)


def test_no_detections(gt: Path, tmp_path: Path) -> None:
    for path in (save(tmp_path / "r.json", []), texts(tmp_path / "pred", {"a": []})):
        for protocol in ("visdrone", "coco@500"):
            scores = evaluate(gt, path, protocol)
            assert scores.summary["AP"] == 0
            assert any("no detections at all" in text for text in scores.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "images is not a list"),
        ({"images": [{"id": 1}]}, "file_name"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "width": 0, "height": 5}]}, "above 0"),
        ({"categories": []}, "categories: empty"),
        ({"categories": [{"id": "4", "name": "car"}]}, "whole number 'id'"),
        ({"annotations": [{"image_id": 99}]}, "image_id 99 is not listed"),
        ({"annotations": [{"image_id": 7, "category_id": 99}]}, "category_id 99 is not listed"),
        ({"annotations": [{"image_id": 7, "category_id": 4, "bbox": [1, 2, None, 4]}]}, "finite"),
        ({"annotations": [3]}, r"annotations\[0\]: is not an object"),
    ],
)
def test_bad_truth_json(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "gt.json", {**coco_truth(), **change})
    with pytest.raises(InputError, match=message):
        read_truth(path)


def test_truth_json_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(coco_truth())[:-30])
    with pytest.raises(InputError, match="cut short"):
        read_truth(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="needs images, annotations and categories"):
        read_truth(path)


def test_images_of_one_name(tmp_path: Path) -> None:
    truth = coco_truth()
    truth["images"].append({"id": 8, "file_name": "a.png", "width": 5, "height": 5})
    with pytest.raises(InputError, match="'a' occurs twice"):
        read_truth(save(tmp_path / "gt.json", truth))


def test_truth_of_several_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="bytes are more than the limit of 100"):
        read_truth(save(tmp_path / "gt.json", coco_truth()))


def test_results_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_results, "_CHUNK", 7)
    rows = [{**ROW, "bbox": [index, 2, 3, 4], "text": '}, "]['} for index in range(50)]
    assert list(stream_objects(save(tmp_path / "r.json", rows))) == rows


def test_dropped_truth_rows_are_counted(tmp_path: Path) -> None:
    truth = coco_truth()
    truth["annotations"][0]["bbox"] = [1, 2, 0, 4]
    read = read_truth(save(tmp_path / "gt.json", truth))
    assert "annotations[0]" in read.warnings[0]
    folder = texts(tmp_path / "annotations", {"a": ["1,2,-3,4,1,4,0,0", "1,2,3,4,1,4,0,0"]})
    read = read_truth(folder)
    assert (len(read.images[0].truth), len(read.warnings)) == (1, 1)


def test_nothing_there(gt: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for pair in (
        (tmp_path / "no", tmp_path),
        (tmp_path / "empty", tmp_path),
        (gt, tmp_path / "no"),
    ):
        with pytest.raises(MissingInputError):
            evaluate(*pair)
    with pytest.raises(InputError, match=r"no result txt belongs to an image.*a\.txt"):
        evaluate(gt, texts(tmp_path / "pred", {"z": []}))


@pytest.mark.parametrize("protocol", ["voc", "coco", "coco@", "coco@0", "coco@x", "visdrone@500"])
def test_unknown_protocol(gt: Path, tmp_path: Path, protocol: str) -> None:
    with pytest.raises(ConfigError, match="there are visdrone, visdrone-macro, coco@100"):
        evaluate(gt, tmp_path, protocol)


def test_arbitrary_bytes_give_named_errors(gt: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = json.dumps(coco_found({"a": 1, "b": 2})).encode()
    truth = read_truth(gt)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(text)
        damaged[rng.integers(0, len(text))] = rng.choice([*b"0123456789]}{,", 0xFF])
        path = tmp_path / "r.json"
        path.write_bytes(bytes(damaged))
        try:
            read_found(path, truth)
            outcomes.add("read")
        except DmnetError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


# --- several results -----------------------------------------------------------------------------


def test_analyse_several_results(gt: Path, tmp_path: Path) -> None:
    good = texts(tmp_path / "good", FOUND)
    poor = save(tmp_path / "poor.json", coco_found({"a": 1, "b": 2})[:1])
    for protocol in ("coco@500", "visdrone"):
        first, second = analyse(gt, [good, poor], protocol, bootstrap=20, score_threshold=0.6)
        expected = evaluate(gt, good, protocol)
        assert first.scores.summary == pytest.approx(expected.summary, nan_ok=True)
        scale = 1 if protocol.startswith("coco") else 100
        assert first.intervals["AP50"].value * scale == pytest.approx(expected.summary["AP50"])
        assert (first.point.tp, first.point.fn) == (2, 1)
        assert (second.point.tp, second.point.fn) == (1, 2)
        assert first.against is None
        assert second.against is not None
        assert second.against["AP50"].difference.value < 0
        assert len(first.matrix) == len(VISDRONE) + 1
        text = json.dumps([each.to_json() for each in (first, second)], allow_nan=False)
        assert "against_first" in text


def test_report_of_files(gt: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, size in (("a", (100, 100)), ("b", (120, 90)), ("c", (50, 50))):
        Image.new("RGB", size, (90, 90, 90)).save(images / f"{name}.jpg")
    one = texts(tmp_path / "one" / "pred", FOUND)
    two = texts(tmp_path / "two" / "pred", FOUND)
    html = report_files(gt, [one, two], config=ReportConfig(bootstrap=3))
    assert "one/pred" in html
    assert "two/pred" in html
    assert "data:image/jpeg" in html
    with pytest.raises(ConfigError, match="at least one"):
        report_files(gt, [])


def test_scores_come_back_from_json(gt: Path, tmp_path: Path) -> None:
    found = evaluate(gt, texts(tmp_path / "pred", FOUND), "visdrone")
    data = json.loads(json.dumps(found.to_json()))
    assert Scores.from_json(data).to_json() == data
    assert Scores.from_json(data, "other").name == "other"
    del data["classes"]
    with pytest.raises(KeyError):
        Scores.from_json(data)


def test_names_never_repeat() -> None:
    paths = [Path("x/r.json"), Path("y/r.json"), Path("z.json")]
    assert names_of(paths) == ["x/r", "y/r", "z"]
    assert len(set(names_of([Path("x/r.json"), Path("x/r.txt")]))) == 2
