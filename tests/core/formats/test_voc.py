"""Pascal VOC XML."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet.core.errors import InputError
from dmnet.core.formats import voc
from dmnet.core.records import Annotations

FOREIGN = """<?xml version="1.0" encoding="UTF-8"?>
<annotation><filename>x.jpg</filename><size><width>200</width><height>100</height></size>
<object><name>Car</name><truncated>1</truncated><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>20.5</ymax></bndbox></object>
<object><name>bus</name><occluded>1</occluded>
<bndbox><ymax>9</ymax><xmax>9</xmax><ymin>9</ymin><xmin>9</xmin></bndbox></object>
<object><name>ignored-region</name>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>200</xmax><ymax>100</ymax></bndbox></object>
</annotation>"""


def put(folder: Path, text: str, name: str = "a.b c é.xml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def same(a: Annotations, b: Annotations) -> bool:
    names = ("boxes", "labels", "score", "truncation", "occlusion")
    columns = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    return columns and (a.image_id, a.size) == (b.image_id, b.size)


def test_written_by_hand() -> None:
    ann = Annotations.of("a", (100, 200), [[0, 10, 30, 100]], [8])
    assert voc.write(ann, "a & b.jpg") == (
        "<annotation>\n  <folder>images</folder>\n  <filename>a &amp; b.jpg</filename>\n"
        "  <source><database>VisDrone-DET</database></source>\n"
        "  <size><width>200</width><height>100</height><depth>3</depth></size>\n"
        "  <segmented>0</segmented>\n"
        '  <object score="1" truncation="0" occlusion="0">\n'
        "    <name>awning-tricycle</name>\n    <pose>Unspecified</pose>\n"
        "    <truncated>0</truncated>\n    <occluded>0</occluded>\n    <difficult>0</difficult>\n"
        "    <bndbox><xmin>1</xmin><ymin>11</ymin><xmax>30</xmax><ymax>100</ymax></bndbox>\n"
        "  </object>\n</annotation>\n"
    )


def test_an_image_without_objects(tmp_path: Path) -> None:
    empty = Annotations.of("a", (3, 4), [], [])
    back, warnings = voc.read(put(tmp_path, voc.write(empty, "a.jpg"), "a.xml"))
    assert same(back, empty)
    assert warnings == []


def test_foreign_file(tmp_path: Path) -> None:
    ann, warnings = voc.read(put(tmp_path, FOREIGN))
    assert ann.image_id == "a.b c é"
    assert ann.boxes.tolist() == [[0, 1, 10, 20.5], [8, 8, 9, 9], [0, 0, 200, 100]]
    assert ann.labels.tolist() == [4, 9, 0]
    assert ann.score.tolist() == [0, 1, 0]
    assert ann.truncation.tolist() == [1, 0, 0]
    assert ann.occlusion.tolist() == [0, 1, 0]
    assert warnings == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<name>bus", "<name>tree", "object 2: class 'tree' is none of: ignored-region, pede"),
        ("<name>bus</name>", "", "object 2: class '' is none of"),
        ("<xmin>9</xmin>", "", "object 2: xmin '' is not a number"),
        ("<xmin>9", "<xmin>nan", "object 2: xmin 'nan' is not a number"),
        ("<occluded>1", "<occluded>0.5", "object 2: occlusion '0.5' is not a whole number"),
        ("<width>200", "<width>0", "size/width '0' is not a whole number above 0"),
        ("<height>100</height>", "", "size/height '' is not a whole number above 0"),
    ],
)
def test_bad_values_name_file_and_object(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = put(tmp_path, FOREIGN.replace(old, new))
    with pytest.raises(InputError) as caught:
        voc.read(path)
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_boxes_without_area_or_beyond_the_image(tmp_path: Path) -> None:
    text = FOREIGN.replace("<xmax>9", "<xmax>8").replace("<xmax>200", "<xmax>201")
    path = put(tmp_path, text)
    ann, warnings = voc.read(path)
    assert ann.labels.tolist() == [4, 0]
    assert warnings == [
        f"{path}: object 2: box left 8, top 8, width 0, height 1 has no area; row dropped",
        f"{path}: object 3: box left 0, top 0, width 201, height 100 reaches beyond the 200x100 "
        "image; clipped",
    ]


def test_syntax_errors_name_the_line(tmp_path: Path) -> None:
    cut = FOREIGN[: FOREIGN.index("<difficult>")]
    path = put(tmp_path, cut)
    with pytest.raises(InputError, match="not well-formed XML") as caught:
        voc.read(path)
    assert caught.value.line == 3


@pytest.mark.parametrize("text", ["", "no xml at all"])
def test_no_xml(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="not well-formed XML"):
        voc.read(put(tmp_path, text))


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(FOREIGN.replace("UTF-8", "GB2312").replace("x.jpg", "图.jpg").encode("gb2312"))
    with pytest.raises(InputError, match="not well-formed XML"):
        voc.read(path)  # expat knows no multi-byte encodings besides UTF-8 and UTF-16
    path.write_bytes(FOREIGN.replace("UTF-8", "ISO-8859-1").encode("latin-1"))
    assert len(voc.read(path)[0]) == 3
    with pytest.raises(InputError, match=r"b\.xml: cannot be read \(No such file"):
        voc.read(tmp_path / "b.xml")


def test_another_kind_of_xml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the root is <html>, not <annotation>"):
        voc.read(put(tmp_path, "<html/>"))


def test_entities_are_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]>' + FOREIGN.partition("?>")[2].strip()
    with pytest.raises(InputError, match="refused: it declares a document type"):
        voc.read(put(tmp_path, bomb))


@given(
    st.lists(
        st.tuples(
            *(st.integers(0, 90), st.integers(0, 90), st.integers(1, 10), st.integers(1, 10)),
            *(st.integers(0, 11), st.integers(0, 1), st.integers(0, 1), st.integers(0, 2)),
        )
    )
)
def test_every_column_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, ...]]
) -> None:
    table = np.array(rows, dtype=np.int64).reshape(-1, 8)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    ann = Annotations("a", (100, 100), boxes, *table[:, 4:].T)
    path = put(tmp_path_factory.mktemp("voc"), voc.write(ann, "a.jpg"), "a.xml")
    back, warnings = voc.read(path)
    assert same(back, ann)
    assert warnings == []
