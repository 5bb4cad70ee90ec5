"""YOLO txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet.core.errors import InputError
from dmnet.core.formats import yolo
from dmnet.core.records import Annotations

SIZE = (100, 200)


def put(folder: Path, text: str) -> Path:
    path = folder / "a.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_written_by_hand() -> None:
    boxes = [[0, 10, 20, 60], [0, 0, 9, 9], [5, 5, 9, 9], [1, 1, 2, 2]]
    ann = Annotations.of("a", SIZE, boxes, [10, 0, 11, 4], [1, 0, 0, 0])
    assert yolo.write(ann) == "9 0.050000000 0.350000000 0.100000000 0.500000000\n"


def test_no_objects(tmp_path: Path) -> None:
    assert yolo.write(Annotations.of("a", SIZE, [], [])) == ""
    ann, warnings = yolo.read(put(tmp_path, ""), "a", SIZE)
    assert (len(ann), warnings) == (0, [])


def test_foreign_file_with_six_digits(tmp_path: Path) -> None:
    ann, warnings = yolo.read(put(tmp_path, "3 0.05 0.35 0.1 0.5\n\n0 0.5 0.5 1 1"), "a", SIZE)
    assert ann.boxes.tolist() == [[0, 10, 20, 60], [0, 0, 200, 100]]
    assert ann.labels.tolist() == [4, 1]
    assert ann.score.tolist() == [1, 1]
    assert warnings == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 0.5 0.5 1", "4 columns, expected 5: class cx cy width height"),
        ("car 0.5 0.5 1 1", "'car' is not a number"),
        ("10 0.5 0.5 1 1", "class index 10 does not exist; there are 0 to 9"),
        ("-1 0.5 0.5 1 1", "class index -1 does not exist"),
        ("0.5 0.5 0.5 1 1", "class 0.5 is not a whole number"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path: Path, row: str, reason: str) -> None:
    path = put(tmp_path, f"0 0.5 0.5 1 1\n{row}\n")
    with pytest.raises(InputError) as caught:
        yolo.read(path, "a", SIZE)
    assert str(caught.value).startswith(f"{path}:2: {reason}")


def test_boxes_without_area_or_beyond_the_image(tmp_path: Path) -> None:
    path = put(tmp_path, "0 0.5 0.5 0 1\n1 0 0.5 0.5 1\n")
    ann, warnings = yolo.read(path, "a", SIZE)
    assert ann.boxes.tolist() == [[0, 0, 50, 100]]
    assert warnings[0].startswith(f"{path}:1: ")
    assert warnings[1].endswith("reaches beyond the 200x100 image; clipped")


@given(
    st.tuples(st.integers(1, 12_000), st.integers(1, 12_000)).flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.tuples(st.integers(0, size[1] - 1), st.integers(0, size[0] - 1)),
            st.tuples(st.integers(1, size[1]), st.integers(1, size[0])),
        )
    )
)
def test_whole_pixels_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
) -> None:
    size, (x1, y1), (width, height) = case
    box = [[x1, y1, min(size[1], x1 + width), min(size[0], y1 + height)]]
    ann = Annotations.of("a", size, box, [7])
    back, warnings = yolo.read(put(tmp_path_factory.mktemp("yolo"), yolo.write(ann)), "a", size)
    assert np.array_equal(back.boxes, ann.boxes)
    assert warnings == []
