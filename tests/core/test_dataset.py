"""Finding images and annotations on disk."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.dataset import Dataset, open_dataset
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.images import encode_jpeg, encode_png
from dmnet.core.listing import canonical_split
from dmnet.core.sizes import read_sizes

ROW = "1,2,3,4,1,4,0,0\n"


def fill(root: Path, images: list[str], annotations: list[str] | None) -> Path:
    (root / "images").mkdir(parents=True)
    for name in images:
        (root / "images" / name).write_bytes(encode_jpeg(np.zeros((20, 30, 3), np.uint8)))
    if annotations is not None:
        (root / "annotations").mkdir()
        for name in annotations:
            (root / "annotations" / name).write_text(ROW, encoding="utf-8")
    return root


def table(folder: Path, text: str) -> Path:
    path = folder / "sizes é.csv"
    path.write_text(text, encoding="utf-8")
    return path


def ids(data: Dataset) -> list[str]:
    return [entry.image_id for entry in data.entries]


@pytest.mark.parametrize("below", ["VisDrone2019-DET-val", "val", "."])
def test_layouts(tmp_path: Path, below: str) -> None:
    root = fill(tmp_path / "data" / below, ["b.jpg", "a.JPG"], ["a.txt", "b.txt"])
    data = open_dataset(tmp_path / "data", "val")
    assert ids(data) == ["a", "b"]
    assert data.root == root
    assert data.entries[0].image == root / "images" / "a.JPG"
    assert data.entries[0].annotation == root / "annotations" / "a.txt"
    assert data.entries[0].file_name == "a.JPG"
    assert (data.problems, data.notes) == ((), ())
    assert data.size(data.entries[0]) == (20, 30)
    ann, warnings = data.annotations(data.entries[0])
    assert ann.boxes.tolist() == [[1, 2, 4, 6]]
    assert (ann.image_id, ann.size, warnings) == ("a", (20, 30), [])


def test_the_split_itself_may_be_given(tmp_path: Path) -> None:
    root = fill(tmp_path / "VisDrone2019-DET-val", ["a.jpg"], None)
    assert open_dataset(root, "val").root == root


def test_test_means_test_dev(tmp_path: Path) -> None:
    fill(tmp_path / "VisDrone2019-DET-test-dev", ["a.jpg"], ["a.txt"])
    fill(tmp_path / "test", ["b.jpg"], ["b.txt"])
    for split in ("test", "test-dev"):
        assert ids(open_dataset(tmp_path, split)) == ["a"]
        assert open_dataset(tmp_path, split).split == "test-dev"
        assert canonical_split(split) == "test-dev"


def test_a_folder_of_loose_images(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encode_png(np.zeros((3, 4, 3), np.uint8)))
    data = open_dataset(tmp_path, "val")
    assert ids(data) == ["x"]
    assert data.size(data.entries[0]) == (3, 4)


def test_nothing_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(MissingInputError) as caught:
            open_dataset(folder, "val")
        text = str(caught.value)
        assert f"no images or annotations of split 'val' in {folder}" in text
        assert str(folder / "VisDrone2019-DET-val" / "images") in text
        assert str(folder / "val" / "images") in text
        assert "DATA=" in text
        assert "make data" in text


def test_an_empty_folder_is_a_set_without_images(tmp_path: Path) -> None:
    data = open_dataset(fill(tmp_path, [], []), "train")
    assert (len(data), data.entries, data.problems, data.notes) == (0, (), (), ())


def test_names_are_kept_verbatim(tmp_path: Path) -> None:
    names = ["gpj.jpg", "a b.c.jpg", "übung 图.jpg", "..x.jpg", "jpg.jpg", "a.jpg.jpg"]
    texts = [f"{name.removesuffix('.jpg')}.txt" for name in names]
    data = open_dataset(fill(tmp_path, names, texts), "val")
    visible = [name for name in names if not name.startswith(".")]
    assert ids(data) == [name.removesuffix(".jpg") for name in sorted(visible)]
    assert data.problems == ()
    for entry in data.entries:
        assert len(data.annotations(entry)[0]) == 1


def test_other_files_do_not_matter(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a.jpg", "Thumbs.db", "._a.jpg", "noend"], ["a.txt", "readme.md"])
    (root / "images" / "folder.jpg").mkdir()
    assert ids(open_dataset(root, "val")) == ["a"]


def test_order_is_that_of_file_names(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a.jpg", "a-1.jpg", "a b.jpg", "B.jpg"], None)
    assert [entry.file_name for entry in open_dataset(root, "val").entries] == [
        "B.jpg",
        "a b.jpg",
        "a-1.jpg",
        "a.jpg",
    ]


def test_two_images_of_one_name(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a.jpg", "a.png", "b.jpg"], ["a.txt", "b.txt"])
    data = open_dataset(root, "val")
    assert ids(data) == ["a", "b"]
    assert data.entries[0].image == root / "images" / "a.jpg"
    assert data.problems == (f"{root / 'images' / 'a.png'}: same name as a.jpg; a.png is left out",)


def test_an_image_without_annotation(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a.jpg", "b.jpg"], ["b.txt"])
    data = open_dataset(root, "val")
    assert data.notes == (f"{root / 'images' / 'a.jpg'}: image without annotation",)
    assert data.problems == ()
    assert [entry.image_id for entry in data.with_annotation] == ["b"]
    with pytest.raises(InputError, match=r"a\.jpg: no annotation file a\.txt for this image"):
        data.annotations(data.entries[0])


def test_no_annotations_at_all(tmp_path: Path) -> None:
    data = open_dataset(fill(tmp_path, ["a.jpg", "b.jpg"], None), "test-challenge")
    assert len(data.with_image) == 2
    assert data.notes == ("no folder 'annotations': images without annotation",)


def test_an_annotation_without_image(tmp_path: Path) -> None:
    root = fill(tmp_path, ["b.jpg"], ["a.txt", "b.txt"])
    data = open_dataset(root, "val")
    place = root / "annotations" / "a.txt"
    assert data.problems == (f"{place}: annotation without image, and no known size",)
    assert [entry.image_id for entry in data.with_image] == ["b"]
    with pytest.raises(InputError, match=r"a\.txt: no image file and no row in the sizes table"):
        data.size(data.entries[0])
    sizes = table(tmp_path, "split,image,width,height\nval,a,7,9\n")
    data = open_dataset(root, "val", sizes)
    assert data.problems == ()
    assert data.notes == (f"{place}: annotation without image file",)
    assert data.size(data.entries[0]) == (9, 7)
    assert data.size(data.entries[1]) == (20, 30)


def test_without_any_image_file(tmp_path: Path) -> None:
    (tmp_path / "val" / "annotations").mkdir(parents=True)
    (tmp_path / "val" / "annotations" / "x.y.txt").write_text(ROW, encoding="utf-8")
    sizes = table(tmp_path, "split,image,width,height\nval,x.y,30,20\ntrain,x.y,1,1\n")
    data = open_dataset(tmp_path, "val", sizes)
    assert data.entries[0].file_name == "x.y.jpg"
    assert data.annotations(data.entries[0])[0].size == (20, 30)
    assert data.problems == ()
    assert data.notes == ("no folder 'images': sizes come from the sizes table",)


def test_a_damaged_image_has_no_size(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a.jpg"], ["a.txt"])
    (root / "images" / "a.jpg").write_bytes(b"")
    data = open_dataset(root, "val")
    with pytest.raises(InputError, match=r"a\.jpg: empty file \(0 bytes\)"):
        data.annotations(data.entries[0])


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("", "columns image,width,height are needed in the first line", 1),
        ("split,image,w,h\nval,a,1,2\n", "columns image,width,height are needed", 1),
        ("split,image,width,height\nval,,1,2\n", "no image name", 2),
        ("split,image,width,height\nval,a,1\n", "width '1' and height 'None' must be", 2),
        ("split,image,width,height\nval,a,1,2\nval,b,x,2\n", "width 'x' and height '2'", 3),
        ("split,image,width,height\nval,a,0,2\n", "width '0' and height '2' must be", 2),
        ("split,image,width,height\nval,a,-1,2\n", "width '-1' and height '2' must be", 2),
        ("split,image,width,height\nval,a,1,2\nval,a,2,1\n", "image a occurs with two sizes", 3),
    ],
)
def test_bad_size_tables(tmp_path: Path, text: str, reason: str, line: int) -> None:
    path = table(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_sizes(path, "val")
    assert str(caught.value).startswith(f"{path}:{line}: {reason}")


def test_size_tables(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffheight,split,image,width\n2,val,a b,1\n3,test,c,4\n2,val,a b,1\n")
    assert read_sizes(path, "val") == {"a b": (2, 1)}
    assert read_sizes(path, "test-dev") == {"c": (3, 4)}
    assert read_sizes(path, "train") == {}
    assert read_sizes(path) == {"a b": (2, 1), "c": (3, 4)}
    plain = table(tmp_path, "image,width,height\na.jpg,100,90\n")
    assert read_sizes(plain) == read_sizes(plain, "val") == {"a": (90, 100)}
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        read_sizes(tmp_path / "none.csv", "val")


def test_the_official_archive_is_listed_in_well_under_a_second(annotation_archive: Path) -> None:
    sizes = annotation_archive / "image_sizes.csv"
    start = time.process_time()
    counts = [len(open_dataset(annotation_archive, s, sizes)) for s in ("train", "val", "test")]
    assert counts == [6471, 548, 1610]
    assert time.process_time() - start < 5  # 0.1 s on an idle machine


def test_real_pictures(shared: Path) -> None:
    mini = shared / "data" / "visdrone-mini"
    sizes = {"train": 12, "val": 5, "test": 1, "test-challenge": 2}
    for split, count in sizes.items():
        data = open_dataset(mini, split)
        assert len(data) == count
        assert data.problems == ()
        assert all(min(data.size(entry)) > 100 for entry in data.entries)
