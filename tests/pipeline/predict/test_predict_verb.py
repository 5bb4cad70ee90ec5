"""`dmnet predict` from the outside."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from dmnet.core.errors import InputError
from dmnet.core.images import read_image
from dmnet.pipeline.cli import main
from tests.pipeline.conftest import tree
from tests.pipeline.predict.conftest import Finder, Predict, draw, write_png


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    write_png(root / "one.png", draw((200, 300), [(40, 30, 60, 50, 1), (70, 32, 90, 60, 4)]))
    write_png(root / "sub" / "two ä.png", draw((150, 150), [(100, 100, 120, 130, 1)]))
    write_png(root / "empty.png", draw((80, 90), []))
    return root


def test_what_is_written(
    predict: Predict, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(pictures, "--save", "pictures,coco,csv,visdrone,yolo,labelme,viewer") == 0
    out = tmp_path / "out"
    assert set(tree(out)) == {
        "predictions.json",
        "predictions.csv",
        "counts.csv",
        "viewer.html",
        *(
            f"{kind}/{stem}.{suffix}"
            for kind, suffix in [
                ("found", "json"),
                ("pictures", "jpg"),
                ("visdrone", "txt"),
                ("yolo", "txt"),
                ("labelme", "json"),
                ("found", "h5"),
                ("viewer", "jpg"),
                ("viewer", "density.png"),
            ]
            for stem in ("one", "sub/two ä", "empty")
        ),
    }
    counts = list(csv.DictReader((out / "counts.csv").read_text().splitlines()))
    shown = [(r["image"], r["pedestrian"], r["car"], r["all"], r["density"]) for r in counts]
    assert shown == [
        ("empty.png", "0", "0", "0", "0.0"),
        ("one.png", "1", "1", "2", "2.0"),
        ("sub/two ä.png", "1", "0", "1", "1.0"),
    ]
    coco = json.loads((out / "predictions.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [r["image"] for r in counts]
    assert [row["bbox"] for row in coco["annotations"]] == [
        [40.0, 30.0, 20.0, 20.0], [70.0, 32.0, 20.0, 28.0], [100.0, 100.0, 20.0, 30.0],
    ]  # fmt: skip
    assert (out / "visdrone/sub/two ä.txt").read_text() == "100,100,20,30,0.9,1,-1,-1\n"
    text = capsys.readouterr().out
    assert "3 pictures" in text
    assert "pedestrian" in text


def test_a_second_run_does_nothing_and_a_changed_option_detects_nothing(
    predict: Predict, pictures: Path, tmp_path: Path, finder: Finder
) -> None:
    assert predict(pictures) == 0
    before, seen = tree(tmp_path / "out"), len(finder.seen)
    assert predict(pictures) == 0
    assert tree(tmp_path / "out") == before
    assert predict(pictures, "--confidence", ".7", "--save", "csv") == 0
    assert len(finder.seen) == seen
    after = tree(tmp_path / "out")
    assert "pictures/one.jpg" not in after
    assert b"car" not in after["predictions.csv"]
    assert predict(pictures, "--crop.slicer", "none") == 0
    assert len(finder.seen) > seen


def test_a_new_picture_is_the_only_one_detected(
    predict: Predict, pictures: Path, tmp_path: Path, finder: Finder
) -> None:
    predict(pictures, "--slicer", "none")
    finder.seen.clear()
    write_png(pictures / "new.png", draw((60, 70), []))
    assert predict(pictures, "--slicer", "none") == 0
    assert finder.seen == [(60, 70)]
    (pictures / "one.png").unlink()
    assert predict(pictures, "--slicer", "none") == 0
    assert "pictures/one.jpg" not in tree(tmp_path / "out")


def test_changed_options_leave_what_a_fresh_run_leaves(
    predict: Predict, pictures: Path, tmp_path: Path
) -> None:
    """Found by the campaign kill_verbs: the parts of a result and a map that is gone."""
    assert predict(pictures, "--slicer", "density", out="old") == 0
    parts = json.loads((tmp_path / "old" / "found" / "one.json").read_text())["parts"]
    assert set(parts) == {"whole image", "crops"}
    (tmp_path / "old" / "found" / "one.h5").unlink()
    assert predict(pictures, "--slicer", "density", "--confidence", "0.7", out="old") == 0
    assert predict(pictures, "--slicer", "density", "--confidence", "0.7", out="new") == 0
    assert tree(tmp_path / "old") == tree(tmp_path / "new")


def test_stopped_and_started_again_gives_the_same_bytes(
    predict: Predict,
    pictures: Path,
    tmp_path: Path,
    finder: Finder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(6):
        write_png(pictures / f"more{number}.png", draw((90, 90), [(9, 9, 20, 20 + number, 1)]))
    predict(pictures, "--slicer", "none", out="whole")
    finder.seen.clear()
    usual = Finder.predict

    def stopping(self: Finder, images: list) -> list:
        if len(self.seen) == 6:
            raise KeyboardInterrupt
        return usual(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(Finder, "predict", stopping)
        assert predict(pictures, "--slicer", "none", out="torn") == 130
    done = {name for name in tree(tmp_path / "torn") if name.startswith("found/")}
    assert 0 < len(done) < 9
    finder.seen.clear()
    assert predict(pictures, "--slicer", "none", out="torn") == 0
    assert len(finder.seen) == 9 - len(done)
    assert tree(tmp_path / "torn") == tree(tmp_path / "whole")


def test_odd_input_is_named_and_the_rest_is_done(
    predict: Predict, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.jpg").write_bytes((pictures / "one.png").read_bytes()[:150])
    (pictures / "text.jpg").write_text("hello")
    (pictures / "notes.txt").write_text("hello")
    write_png(pictures / "dot.png", draw((1, 1), []))
    (pictures / "gone.jpg").symlink_to("nowhere")
    turned = Pil.Exif()
    turned[0x0112] = 6  # a quarter turn to the right
    on_its_side = draw((40, 80), [(10, 5, 30, 15, 1)])
    Pil.fromarray(on_its_side).save(pictures / 'tür\'n, "x" #1%.jpg', quality=95, exif=turned)
    grey = np.full((60, 90), 9000, np.uint16)
    Pil.fromarray(grey).save(pictures / "deep.tif")
    assert predict(pictures) == 1
    written = tree(tmp_path / "out")
    assert "pictures/deep.jpg" in written
    listed = csv.DictReader((tmp_path / "out/predictions.csv").read_text().splitlines())
    (row,) = (r for r in listed if r["image"].startswith("tür"))
    box = [float(row[side]) for side in ("x1", "y1", "x2", "y2")]
    assert box == pytest.approx([25, 10, 35, 30], abs=1)  # in pixels of the upright picture
    assert "pictures/dot.jpg" in written
    assert "pictures/sub/two ä.jpg" in written
    told = capsys.readouterr().err
    assert told.count("set aside broken.jpg") == told.count("set aside text.jpg") == 1
    assert "not pictures: 1 files .txt" in told
    assert predict(pictures, "--max-bad", "2") == 0


def test_refusals(
    predict: Predict, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, text in [
        (["--save", "pictures,gif"], "no 'gif'"),
        (["--classes", "cat"], "no class is called 'cat'"),
        (["--confidence", "2"], "--confidence: must be a number, 0 to 1"),
        (["--crop.treshold", ".1"], "did you mean 'threshold'"),
        (["--crop.slicer", "oracle"], "needs annotations"),
    ]:
        assert predict(pictures, *words) == 2
        assert text in capsys.readouterr().err
    assert main(["predict", str(pictures), "--model", "nothing"]) == 2
    assert "neither a model's name (visdrone, scenes, hit-uav)" in capsys.readouterr().err
    out = tmp_path / "mine"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    assert predict(pictures, out="mine") == 2
    assert "did not make" in capsys.readouterr().err


def test_a_picture_of_the_result(predict: Predict, pictures: Path, tmp_path: Path) -> None:
    predict(pictures)
    shown = read_image(tmp_path / "out/pictures/one.jpg")
    assert shown.shape[0] > 200  # a legend below
    red, blue = shown[30, 45].astype(int), shown[32, 75].astype(int)
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    with pytest.raises(InputError, match="damaged"):
        (pictures / "x.png").write_bytes((pictures / "one.png").read_bytes()[:150])
        read_image(pictures / "x.png")
