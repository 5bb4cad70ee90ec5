"""Files as users have them: damaged, odd and misnamed. The rest of the run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from dmnet.core.formats import density_h5

from .conftest import Run, tree

Change = Callable[[Path], None]


@pytest.fixture
def val(data: Path) -> Path:
    return data / "VisDrone2019-DET-val"


def rows(text: str) -> Change:
    return lambda split: (split / "annotations" / "100.txt").write_text(text) and None


def image_bytes(change: Callable[[bytes], bytes]) -> Change:
    def apply(split: Path) -> None:
        path = split / "images" / "100.jpg"
        path.write_bytes(change(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (image_bytes(lambda data: data[:300]), "100.jpg"),
        (image_bytes(lambda data: b""), "100.jpg"),
        (image_bytes(lambda data: b"just some text"), "100.jpg"),
        (rows("1,2,3,4,1\n"), "100.txt:1"),
        (rows("1,2,30,40,1,4,0,0\n1,x,3,4,1,4,0,0\n"), "100.txt:2"),
        (rows("1,2,30,40,1,77,0,0\n"), "100.txt:1"),
    ],
    ids=["truncated", "zero bytes", "text", "5 columns", "letters", "category"],
)
def test_one_bad_file_sets_one_image_aside(
    dmnet: Run, val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    damage: Change, said: str,
) -> None:  # fmt: skip
    damage(val)
    codes = {dmnet("density"), dmnet("crop")}
    assert codes <= {0, 1} and 1 in codes
    captured = capsys.readouterr().err
    assert said in captured and "Traceback" not in captured
    crops = json.loads((tmp_path / "artifacts/default/val/crop/crops.json").read_text())
    names = {parent["file_name"] for parent in crops["parents"]}
    assert names == {"101.jpg", "102.jpg"}


@pytest.mark.parametrize(
    ("row", "said", "objects"),
    [
        ("10,10,0,20,1,4,0,0", "100.txt:1", 0),
        ("10,10,-5,20,1,4,0,0", "100.txt:1", 0),
        ("300,200,100,100,1,4,0,0", "100.txt:1", 1),
        ("900,900,10,10,1,4,0,0", "100.txt:1", 0),
    ],
    ids=["no width", "negative", "beyond the border", "outside"],
)
def test_unusable_rows_are_dropped_and_named(
    dmnet: Run, val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    row: str, said: str, objects: int,
) -> None:  # fmt: skip
    rows(f"{row}\n20,30,40,50,1,4,0,0\n")(val)
    assert dmnet("density") == 0
    assert said in capsys.readouterr().err
    found = density_h5.read(tmp_path / "artifacts/default/val/density/100.h5")
    assert found.count == pytest.approx(objects + 1, rel=1e-4)


def test_bad_image_keeps_what_was_done_before(dmnet: Run, val: Path, tmp_path: Path) -> None:
    assert dmnet("density") == 0 and dmnet("crop") == 0
    before = tree(tmp_path / "artifacts/default/val/crop")
    (val / "images" / "100.jpg").write_bytes(b"broken")
    assert dmnet("crop") == 2  # its map is of another image
    assert tree(tmp_path / "artifacts/default/val/crop") == before
    assert dmnet("density") == 1 and dmnet("crop") == 1
    after = tree(tmp_path / "artifacts/default/val/crop")
    others = [name for name in before if "100" not in name and name != "crops.json"]
    assert others and all(after[name] == before[name] for name in others)


def as_grey(image: Pil.Image) -> Pil.Image:
    return image.convert("L")


def as_cmyk(image: Pil.Image) -> Pil.Image:
    return image.convert("CMYK")


@pytest.mark.parametrize("change", [as_grey, as_cmyk])
def test_other_colour_modes_are_ordinary(
    dmnet: Run, val: Path, change: Callable[[Pil.Image], Pil.Image]
) -> None:
    path = val / "images" / "100.jpg"
    with Pil.open(path) as image:
        image.load()
        change(image).save(path)
    assert dmnet("density") == 0 and dmnet("crop") == 0


def test_16_bit_png_is_ordinary(dmnet: Run, val: Path) -> None:
    (val / "images" / "100.jpg").unlink()
    deep = np.full((240, 320), 40000, np.uint16)
    Pil.fromarray(deep).save(val / "images" / "100.png")
    assert dmnet("density") == 0 and dmnet("crop") == 0


def test_exif_rotation_counts_for_size_and_crops(dmnet: Run, val: Path, tmp_path: Path) -> None:
    path = val / "images" / "100.jpg"
    with Pil.open(path) as image:
        turned = image.transpose(Pil.Transpose.ROTATE_90)
        exif = image.getexif()
    exif[0x0112] = 6  # stored turned to the left: viewers turn it back
    turned.save(path, exif=exif)
    assert dmnet("density") == 0 and dmnet("crop") == 0
    crops = json.loads((tmp_path / "artifacts/default/val/crop/crops.json").read_text())
    parent = next(p for p in crops["parents"] if p["file_name"] == "100.jpg")
    assert (parent["width"], parent["height"]) == (320, 240)


def test_missing_counterparts(
    dmnet: Run, val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (val / "annotations" / "101.txt").unlink()  # an image without annotation
    (val / "images" / "102.jpg").unlink()  # an annotation without image
    assert dmnet("density") == 1
    assert "102.txt" in capsys.readouterr().err
    maps = {path.stem for path in (tmp_path / "artifacts/default/val/density").glob("*.h5")}
    assert maps == {"100"}


def test_image_and_set_without_objects(dmnet: Run, val: Path, tmp_path: Path) -> None:
    for path in (val / "annotations").iterdir():
        path.write_text("")
    assert dmnet("density") == 0 and dmnet("crop") == 0 and dmnet("convert") == 0
    crops = json.loads((tmp_path / "artifacts/default/val/crop/crops.json").read_text())
    assert len(crops["parents"]) == 3 and crops["images"] == []
    truth = json.loads((tmp_path / "artifacts/default/val/convert/instances.json").read_text())
    assert len(truth["images"]) == 3 and truth["annotations"] == []


@pytest.mark.parametrize("name", ["a b", "a.b.c", "Straße 日本", "images.jpg"])
def test_unusual_names(dmnet: Run, val: Path, tmp_path: Path, name: str) -> None:
    shutil.move(val / "images" / "100.jpg", val / "images" / f"{name}.jpg")
    shutil.move(val / "annotations" / "100.txt", val / "annotations" / f"{name}.txt")
    for verb in ("density", "crop", "convert"):
        assert dmnet(verb) == 0
    crops = json.loads((tmp_path / "artifacts/default/val/crop/crops.json").read_text())
    assert f"{name}.jpg" in {parent["file_name"] for parent in crops["parents"]}


def test_duplicate_stems_are_named(
    dmnet: Run, val: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(val / "images" / "100.jpg", val / "images" / "100.png")
    assert dmnet("density") == 1
    assert "100.png" in capsys.readouterr().err


def test_missing_data_says_the_way_out(
    dmnet: Run, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(data)
    assert dmnet("density") == 2
    said = capsys.readouterr().err
    assert "make data" in said and "\n" not in said.strip()
