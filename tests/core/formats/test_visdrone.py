"""VisDrone txt: rows by hand, what happens to bad ones, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from dmnet.core.classes import VISDRONE
from dmnet.core.errors import InputError
from dmnet.core.formats import visdrone
from dmnet.core.records import Annotations, Detections
from tests import written

SIZE = (100, 200)


def put(folder: Path, text: str) -> Path:
    path = folder / "a.b c é.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_by_hand(tmp_path: Path) -> None:
    path = put(tmp_path, "10,20,30,40,1,4,0,2\n0, 0 ,200,100, 0,0,0,0,\n\n5,5,1,1,0,11,1,1")
    ann, warnings = visdrone.read_annotations(path, "a.b c é", SIZE)
    assert warnings == []
    assert ann.image_id == "a.b c é"
    assert ann.size == SIZE
    assert ann.boxes.tolist() == [[10, 20, 40, 60], [0, 0, 200, 100], [5, 5, 6, 6]]
    assert ann.labels.tolist() == [4, 0, 11]
    assert ann.score.tolist() == [1, 0, 0]
    assert ann.truncation.tolist() == [0, 0, 1]
    assert ann.occlusion.tolist() == [2, 0, 1]


@pytest.mark.parametrize("text", ["", "\n", " \r\n", "\ufeff"])
def test_a_file_without_rows_is_an_image_without_objects(tmp_path: Path, text: str) -> None:
    ann, warnings = visdrone.read_annotations(put(tmp_path, text), "a", SIZE)
    assert (len(ann), ann.boxes.shape, warnings) == (0, (0, 4), [])
    assert visdrone.write_annotations(ann) == ""


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2,3,4,1", "5 columns, expected 8: left,top,width,height,score,category"),
        ("1,2,3,4,1,4,0,0,0", "9 columns, expected 8"),
        ("1,,3,4,1,4,0,0", "'' is not a number"),
        ("1,2,x,4,1,4,0,0", "'x' is not a number"),
        ("1,2,nan,4,1,4,0,0", "'nan' is not a number"),
        ("1,2,inf,4,1,4,0,0", "'inf' is not a number"),
        ("1_0,2,3,4,1,4,0,0", "'1_0' is not a number"),
        ("1,2 3,3,4,1,4,0,0", "'2 3' is not a number"),
        ("1,2,3,4,1,12,0,0", "category 12 does not exist; VisDrone has 0 to 11"),
        ("1,2,3,4,1,-1,0,0", "category -1 does not exist"),
        ("1,2,3,4,1,4.5,0,0", "category 4.5 is not a whole number"),
        ("1,2,3,4,.5,4,0,0", "score 0.5 is not a whole number"),
        ("1,2,3,4,1e300,4,0,0", "score 1e+300 is not a whole number"),
        ("1,2,3,4,1,4,0.5,0", "truncation 0.5 is not a whole number"),
        ("1,2,3,4,1,4,0,0.5", "occlusion 0.5 is not a whole number"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path: Path, row: str, reason: str) -> None:
    path = put(tmp_path, f"1,2,3,4,1,4,0,0\n\n{row}\n1,2,3,4,1,4,0,0\n")
    with pytest.raises(InputError) as caught:
        visdrone.read_annotations(path, "a", SIZE)
    assert str(caught.value).startswith(f"{path}:3: {reason}")
    assert caught.value.line == 3


def test_a_row_count_that_makes_up_for_itself_is_still_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, "1,2,3,4,1,4,0\n1,2,3,4,1,4,0,0,0\n")
    with pytest.raises(InputError, match=":1: 7 columns"):
        visdrone.read_annotations(path, "a", SIZE)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"a\.txt: not a text file \(byte 0 is not UTF-8\)"):
        visdrone.read_annotations(path, "a", SIZE)
    with pytest.raises(InputError, match=r"b\.txt: cannot be read \(No such file"):
        visdrone.read_annotations(tmp_path / "b.txt", "b", SIZE)


@pytest.mark.parametrize("side", ["0,5", "5,0", "-5,5", "5,-1"])
def test_rows_without_area_are_dropped_and_named(tmp_path: Path, side: str) -> None:
    path = put(tmp_path, f"1,2,3,4,1,4,0,0\n7,8,{side},1,4,0,0\n9,9,9,9,1,5,0,0\n")
    ann, warnings = visdrone.read_annotations(path, "a", SIZE)
    assert ann.labels.tolist() == [4, 5]
    width, height = side.split(",")
    assert warnings == [
        f"{path}:2: box left 7, top 8, width {width}, height {height} has no area; row dropped"
    ]


@pytest.mark.parametrize(
    ("box", "kept", "reason"),
    [
        ("-5,10,10,10", [0, 10, 5, 20], "reaches beyond the 200x100 image; clipped"),
        ("195,95,10,10", [195, 95, 200, 100], "reaches beyond the 200x100 image; clipped"),
        ("-9,-9,900,900", [0, 0, 200, 100], "reaches beyond the 200x100 image; clipped"),
        ("200,10,10,10", None, "lies outside the 200x100 image; row dropped"),
        ("10,-10,10,10", None, "lies outside the 200x100 image; row dropped"),
    ],
)
def test_boxes_beyond_the_image(
    tmp_path: Path, box: str, kept: list[float] | None, reason: str
) -> None:
    path = put(tmp_path, f"0,0,200,100,1,1,0,0\n{box},1,4,0,0\n")
    ann, warnings = visdrone.read_annotations(path, "a", SIZE)
    assert ann.boxes.tolist()[1:] == ([] if kept is None else [kept])
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{path}:2: box ")
    assert warnings[0].endswith(reason)


RESULTS = (
    "783 228 38 60 0.9700530171394348 5 -1 -1 \n1.5,2.25,3,4,.2,11,-1,-1\n5,5,0,9,1e-3,1,-1,-1\n"
)


def test_results_keep_the_order_of_the_file(tmp_path: Path) -> None:
    det = written.read_results(put(tmp_path, RESULTS))
    assert det.boxes.tolist() == [[783, 228, 821, 288], [1.5, 2.25, 4.5, 6.25], [5, 5, 5, 14]]
    assert det.scores.tolist() == [0.9700530171394348, 0.2, 0.001]
    assert det.labels.tolist() == [5, 11, 1]


def test_an_empty_result_file(tmp_path: Path) -> None:
    assert len(written.read_results(put(tmp_path, ""))) == 0
    assert visdrone.write_results(Detections.empty()) == ""


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1 2 3 4 nan 4 -1 -1", "'nan' is not a number"),
        ("1 2 -3 4 .5 4 -1 -1", "negative width or height"),
        ("1 2 3 4 .5 12 -1 -1", "category 12 does not exist"),
        ("1 2 3 4 .5 4", "6 columns, expected 8"),
        ("1 2 3 4 .5 car -1 -1", "'car' is not a number"),
    ],
)
def test_bad_results_name_file_and_line(tmp_path: Path, row: str, reason: str) -> None:
    path = put(tmp_path, f"1 2 3 4 .5 4 -1 -1\n{row}\n")
    with pytest.raises(InputError) as caught:
        written.read_results(path)
    assert str(caught.value).startswith(f"{path}:2: {reason}")


def test_results_are_sorted_stable_and_at_most_500(tmp_path: Path) -> None:
    count = 600
    boxes = np.array([[i, 0, i + 2, 3] for i in range(count)], dtype=float)
    scores = np.where(np.arange(count) % 2, 0.75, 0.25)
    text = visdrone.write_results(Detections(boxes, scores, np.ones(count, dtype=np.int64)))
    lines = text.splitlines()
    assert len(lines) == 500
    assert lines[:2] == ["1,0,2,3,0.75,1,-1,-1", "3,0,2,3,0.75,1,-1,-1"]
    assert lines[299:301] == ["599,0,2,3,0.75,1,-1,-1", "0,0,2,3,0.25,1,-1,-1"]


@given(
    st.integers(0, 30).flatmap(
        lambda n: st.tuples(
            nps.arrays(np.int64, (n, 4), elements=st.integers(0, 10_000_000)),
            nps.arrays(np.float64, n, elements=st.floats(0, 1)),
            nps.arrays(np.int64, n, elements=st.integers(0, 11)),
        )
    )
)
def test_results_come_back(
    tmp_path_factory: pytest.TempPathFactory, columns: tuple[np.ndarray, ...]
) -> None:
    thousandths, scores, labels = columns
    boxes = thousandths / 1000
    boxes[:, 2:] += boxes[:, :2]
    det = Detections(boxes, scores, labels)
    path = tmp_path_factory.mktemp("results") / "a.txt"
    path.write_text(visdrone.write_results(det), encoding="utf-8")
    back, order = written.read_results(path), np.argsort(-scores, kind="stable")
    np.testing.assert_allclose(back.boxes, boxes[order], atol=1e-3, rtol=0)
    assert (back.scores == scores[order]).all()
    assert (back.labels == labels[order]).all()
    again = path.read_text(encoding="utf-8")
    assert visdrone.write_results(back) == again


@given(
    st.lists(
        st.tuples(
            st.integers(0, 190),
            st.integers(0, 90),
            st.integers(1, 10),
            st.integers(1, 10),
            st.integers(0, 1),
            st.integers(0, 11),
            st.integers(0, 1),
            st.integers(0, 2),
        )
    )
)
def test_annotations_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, ...]]
) -> None:
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    path = tmp_path_factory.mktemp("annotations") / "a.txt"
    path.write_text(text, encoding="utf-8")
    ann, warnings = visdrone.read_annotations(path, "a", SIZE)
    assert warnings == []
    assert visdrone.write_annotations(ann) == text


def test_fractional_annotations_come_back(tmp_path: Path) -> None:
    ann = Annotations.of("a", SIZE, [[1.5, 2.25, 10.125, 20]], [3])
    path = put(tmp_path, visdrone.write_annotations(ann))
    assert path.read_text(encoding="utf-8") == "1.5,2.25,8.625,17.75,1,3,0,0\n"
    assert visdrone.read_annotations(path, "a", SIZE)[0].boxes.tolist() == ann.boxes.tolist()


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("car", 4),
        ("Awning_Tricycle", 8),
        (" awning tricycle ", 8),
        ("ignored regions", 0),
        ("others", 11),
        ("tree", None),
    ],
)
def test_names_of_categories(name: str, category: int | None) -> None:
    assert VISDRONE.label_of(name) == category
