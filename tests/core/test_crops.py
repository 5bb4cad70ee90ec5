"""crops.json: what is written comes back, and every damaged file is named with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet.core.errors import InputError
from dmnet.core.formats import crops
from dmnet.core.formats.crops import CropSet
from tests import written

PARENT = {"id": 1, "file_name": "a b.v2.jpg", "width": 100, "height": 50}
IMAGE = {
    "id": 7, "file_name": "0_10_20_40_a b.v2.jpg", "width": 30, "height": 20, "parent_id": 1,
    "window": [10, 0, 40, 20],
}  # fmt: skip


def put(folder: Path, data: object) -> Path:
    path = folder / "crops.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_nothing(tmp_path: Path) -> None:
    empty = written.crop_set({}, [])
    assert crops.read(put(tmp_path, written.crops_text(empty))) == empty == CropSet((), ())
    assert empty.by_parent() == {}


def test_ids_count_in_the_order_of_file_names() -> None:
    found = written.crop_set(
        {"b.jpg": (50, 100), "a.jpg": (50, 100)},
        [("b.jpg", (0, 0, 9, 9), "2.jpg"), ("b.jpg", (1, 1, 9, 9), "1.jpg")],
    )
    assert [(p.id, p.image_id) for p in found.parents] == [(1, "a"), (2, "b")]
    assert [(c.id, c.file_name, c.parent_id) for c in found.crops] == [
        (1, "1.jpg", 2),
        (2, "2.jpg", 2),
    ]
    assert [c.id for c in found.by_parent()["b"]] == [1, 2]
    assert found.by_parent()["a"] == []


def test_a_number_of_an_image_that_is_left_out_stays_free() -> None:
    ids = {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3}
    found = written.crop_set(
        {"c.jpg": (5, 5), "a.jpg": (5, 5)}, [("c.jpg", (0, 0, 5, 5), "x")], ids
    )
    assert [(p.id, p.file_name) for p in found.parents] == [(1, "a.jpg"), (3, "c.jpg")]
    assert found.crops[0].parent_id == 3


def test_the_contract_by_hand(tmp_path: Path) -> None:
    data = {"parents": [PARENT], "images": [IMAGE]}
    found = crops.read(put(tmp_path, data))
    assert found.parents[0].size == (50, 100) and found.parents[0].image_id == "a b.v2"
    assert found.crops[0].window == (10, 0, 40, 20) and found.crops[0].id == 7
    assert json.loads(written.crops_text(found)) == data


def test_names_beyond_ascii_a_byte_order_mark_and_whole_floats(tmp_path: Path) -> None:
    parent = {**PARENT, "file_name": "straße 1.jpg", "width": 100.0}
    path = tmp_path / "crops.json"
    text = json.dumps({"parents": [parent], "images": []}, ensure_ascii=False)
    path.write_text(text, encoding="utf-8-sig")
    assert crops.read(path).parents[0].image_id == "straße 1"


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 20), st.integers(1, 20)),
        max_size=6,
        unique=True,
    )
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, corners: list[Any]) -> None:
    windows = [(x, y, x + w, y + h) for x, y, w, h in corners]
    made = written.crop_set(
        {"p.jpg": (60, 60), "q.jpg": (70, 80)},
        [("pq"[i % 2] + ".jpg", window, f"{window}.jpg") for i, window in enumerate(windows)],
    )
    path = put(tmp_path_factory.mktemp("crops"), written.crops_text(made))
    assert crops.read(path) == made


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "not valid JSON"),
        ('{"parents": [', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ([], "'parents' and 'images' are needed"),
        ({"parents": []}, "'parents' and 'images' are needed"),
        ({"parents": None, "images": []}, "parents is not a list"),
        ({"parents": [], "images": {}}, "images is not a list"),
        ({"parents": [3], "images": []}, r"parents\[0\]: id, file_name, width, height are needed"),
        ({"parents": [without(PARENT, "id")], "images": []}, r"parents\[0\].*no 'id'"),
        ({"parents": [{**PARENT, "width": "9"}], "images": []}, "'9' is not a whole number"),
        ({"parents": [{**PARENT, "width": 9.5}], "images": []}, "9.5 is not a whole number"),
        ({"parents": [{**PARENT, "id": True}], "images": []}, "True is not a whole number"),
        ({"parents": [{**PARENT, "file_name": 5}], "images": []}, "5 is not a file name"),
        ({"parents": [{**PARENT, "height": 0}], "images": []}, "must be above 0"),
        ({"parents": [PARENT, PARENT], "images": []}, "two parents have the same id"),
        ({"parents": [PARENT, {**PARENT, "id": 2}], "images": []}, "parents have the same name"),
        ({"parents": [PARENT], "images": [7]}, r"images\[0\]: id, file_name, parent_id, window"),
        ({"parents": [PARENT], "images": [without(IMAGE, "window")]}, "no 'window'"),
        ({"parents": [PARENT], "images": [{**IMAGE, "window": [1, 2, 3]}]}, "window of four"),
        ({"parents": [PARENT], "images": [{**IMAGE, "window": [0, 0, 9.5, 9]}]}, "9.5 is not"),
        ({"parents": [PARENT], "images": [{**IMAGE, "window": [1, 2, 1, 9]}]}, "is empty"),
        ({"parents": [PARENT], "images": [{**IMAGE, "window": [-1, 2, 5, 9]}]}, "empty or leaves"),
        ({"parents": [PARENT], "images": [{**IMAGE, "window": [0, 0, 101, 9]}]}, "100x50 parent"),
        ({"parents": [PARENT], "images": [{**IMAGE, "parent_id": 2}]}, "2 is not among parents"),
        ({"parents": [PARENT], "images": [IMAGE, IMAGE]}, "two crops have the same id"),
        ('{"parents": [], "images": [{"id": 1, "file_name": "a", "parent_id": 1, '
         '"window": [0, 0, Infinity, NaN]}]}', "inf is not a whole number"),
    ],
)  # fmt: skip
def test_errors(tmp_path: Path, data: object, said: str) -> None:
    path = put(tmp_path, data)
    with pytest.raises(InputError, match=said) as raised:
        crops.read(path)
    assert str(path) in str(raised.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        crops.read(tmp_path / "absent.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="not UTF-8"):
        crops.read(tmp_path / "bytes.json")
