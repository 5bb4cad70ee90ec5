"""Tables of numbers in text files, and boxes that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet.core.boxes import as_boxes, clip
from dmnet.core.errors import InputError
from dmnet.core.formats.rows import fit, read_rows, whole


def put(folder: Path, text: str) -> Path:
    path = folder / "a.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["", "\n\n", " , \n"])
def test_no_rows(tmp_path: Path, text: str) -> None:
    values, lines = read_rows(put(tmp_path, text), 3, "a,b,c")
    assert values.shape == (0, 3)
    assert lines.tolist() == []


def test_rows_and_line_numbers(tmp_path: Path) -> None:
    values, lines = read_rows(put(tmp_path, "1,2, 3,\r\n\n4 5\t6e0 \n-.5,+1,0"), 3, "a,b,c")
    assert values.tolist() == [[1, 2, 3], [4, 5, 6], [-0.5, 1, 0]]
    assert lines.tolist() == [1, 3, 4]


def test_the_first_bad_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt:2: 'x' is not a number; expected a,b,c"):
        read_rows(put(tmp_path, "1,2,3\n1,x,3\n1,2\n"), 3, "a,b,c")


def test_whole_numbers(tmp_path: Path) -> None:
    lines = np.array([4, 9])
    assert whole(tmp_path, np.array([2.0, -1.0]), lines, "n").tolist() == [2, -1]
    with pytest.raises(InputError, match=r":9: n 1\.5 is not a whole number"):
        whole(tmp_path, np.array([2.0, 1.5]), lines, "n")


def test_fit_nothing() -> None:
    boxes, keep, warnings = fit(as_boxes([]), (10, 10), str)
    assert (boxes.shape, keep.tolist(), warnings) == ((0, 4), [], [])


def test_fit_by_hand() -> None:
    boxes = as_boxes([[0, 0, 20, 10], [5, 5, 5, 9], [-5, 0, 5, 5], [20, 0, 25, 5]])
    fitted, keep, warnings = fit(boxes, (10, 20), lambda row: f"row {row}")
    assert keep.tolist() == [0, 2]
    assert fitted[keep].tolist() == [[0, 0, 20, 10], [0, 0, 5, 5]]
    assert warnings == [
        "row 1: box left 5, top 5, width 0, height 4 has no area; row dropped",
        "row 2: box left -5, top 0, width 10, height 5 reaches beyond the 20x10 image; clipped",
        "row 3: box left 20, top 0, width 5, height 5 lies outside the 20x10 image; row dropped",
    ]


@given(st.lists(st.tuples(*[st.integers(-30, 30)] * 4), max_size=20))
def test_kept_boxes_have_area_and_lie_inside(rows: list[tuple[int, ...]]) -> None:
    boxes = as_boxes(rows)
    fitted, keep, warnings = fit(boxes, (10, 20), str)
    kept = fitted[keep]
    assert (kept[:, 2:] > kept[:, :2]).all()
    assert np.array_equal(kept, clip(kept, (10, 20)))
    changed = sum(
        row not in keep or bool((fitted[row] != boxes[row]).any()) for row in range(len(boxes))
    )
    assert len(warnings) == changed
