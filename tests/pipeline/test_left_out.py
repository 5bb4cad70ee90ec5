"""Images that a stage leaves out: the numbers of the others stay, and nothing old stands in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmnet.core.artifact import Artifact
from dmnet.core.formats import parts
from dmnet.core.formats.coco_results import write_results
from dmnet.core.records import Detections
from dmnet.pipeline.stages import fuse_eval

from .conftest import Run


@pytest.fixture
def val(data: Path) -> Path:
    return data / "VisDrone2019-DET-val"


def numbers(path: Path, section: str = "images") -> dict[str, int]:
    return {row["file_name"]: row["id"] for row in json.loads(path.read_text())[section]}


def test_ids_are_those_of_the_data_set_in_every_file(dmnet: Run, val: Path, tmp_path: Path) -> None:
    made = tmp_path / "artifacts" / "default" / "val"
    (val / "annotations" / "100.txt").unlink()
    cut = ["--crop.slicer", "uniform", "--crop.rows", "1", "--crop.cols", "2"]
    assert dmnet("crop", *cut) == 0 and dmnet("convert") == 0
    every = {"100.jpg": 1, "101.jpg": 2, "102.jpg": 3}
    assert numbers(made / "crop" / "crops.json", "parents") == every
    annotated = {"101.jpg": 2, "102.jpg": 3}
    assert numbers(made / "convert" / "instances.json") == annotated
    crops = numbers(made / "crop" / "crops.json")
    labelled = numbers(made / "convert" / "crop-instances.json")
    assert len(labelled) == 4 and labelled.items() <= crops.items()

    (val / "images" / "101.jpg").write_bytes(b"no picture")
    assert dmnet("crop", *cut) == 1
    assert numbers(made / "crop" / "crops.json", "parents") == {"100.jpg": 1, "102.jpg": 3}


def test_other_numbers_make_the_summary_again_and_no_item(
    dmnet: Run, val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "artifacts" / "default" / "val"
    assert dmnet("convert", "--convert.crops", "false") == 0
    first = val / "images" / "000.jpg"
    first.write_bytes((val / "images" / "100.jpg").read_bytes())
    capsys.readouterr()
    assert dmnet("status", "--convert.crops", "false") == 0
    assert "inputs of the summary changed" in capsys.readouterr().out
    assert dmnet("convert", "--convert.crops", "false") == 0
    assert "convert val: 0 done, 3 kept" in capsys.readouterr().err
    assert numbers(made / "convert" / "instances.json")["100.jpg"] == 2
    before = (made / "convert" / "instances.json").stat().st_mtime_ns
    assert dmnet("convert", "--convert.crops", "false") == 0
    assert (made / "convert" / "instances.json").stat().st_mtime_ns == before


def test_an_old_map_does_not_stand_in_for_one_that_cannot_be_made(
    dmnet: Run, val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "artifacts" / "default" / "val"
    assert dmnet("density") == 0 and dmnet("crop") == 0
    (val / "annotations" / "101.txt").write_text("1,2,3\n")
    assert dmnet("density") == 1
    capsys.readouterr()
    assert dmnet("crop", "--crop.write-images", "false") == 1
    assert f"{made / 'density'}/101.*: no density map for the image 101" in capsys.readouterr().err
    assert set(numbers(made / "crop" / "crops.json", "parents")) == {"100.jpg", "102.jpg"}


def detected_elsewhere(folder: Path) -> list[str]:
    """A foreign result, one car in the second image; the options that score it."""
    folder.mkdir()
    found = Detections([[1, 2, 30, 40]], [0.5], [4])  # type: ignore[arg-type]
    (folder / "results_images.json").write_text(write_results([(2, found)]))
    plain = ["--fuse-eval.pictures", "0", "--fuse-eval.bootstrap", "0"]
    return ["--detections", str(folder), *plain]


def test_detections_elsewhere_are_scored_under_the_same_ids(
    dmnet: Run, val: Path, tmp_path: Path
) -> None:
    (val / "annotations" / "100.txt").unlink()
    assert dmnet("crop", "--crop.slicer", "none") == 0 and dmnet("convert") == 0
    options = detected_elsewhere(tmp_path / "given")
    assert dmnet("fuse-eval", *options) == 0
    fused = tmp_path / "artifacts" / "default" / "val" / "fuse-eval"
    assert len(parts.read(fused / "parts" / "101.json")[2]) == 1
    rows = json.loads((fused / "results.json").read_text())
    truth = numbers(fused.parent / "convert" / "instances.json")
    assert [row["image_id"] for row in rows] == [truth["101.jpg"]]


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("name", ["annotations/101.txt", "images/101.jpg"])
def test_data_that_change_while_they_are_scored(
    dmnet: Run, val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], gone: bool, name: str,
) -> None:  # fmt: skip
    """No scores without them are left behind, not even when they are put back."""
    assert dmnet("crop", "--crop.slicer", "none") == 0
    options = detected_elsewhere(tmp_path / "given")
    path = val / name
    good, state = path.read_bytes(), path.stat()

    def spoil(artifact: Artifact) -> Iterator[str]:
        path.unlink() if gone else path.write_text("0,0,9,9,1,4,0,0\n")
        return iter(())

    monkeypatch.setattr(fuse_eval, "caps_hit", spoil)
    assert dmnet("fuse-eval", *options) == 2
    assert f"{path.name}: changed or went away while" in capsys.readouterr().err
    path.write_bytes(good)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    monkeypatch.undo()
    assert dmnet("fuse-eval", *options) == 0
    fused = tmp_path / "artifacts" / "default" / "val" / "fuse-eval"
    counts = json.loads((fused / "scores.json").read_text())["protocols"]["coco@500"]["fused"]
    assert counts["counts"]["images"] == 3


def test_scored_otherwise_nothing_is_merged_again(
    dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dmnet("crop", "--crop.slicer", "none") == 0 and dmnet("convert") == 0
    options = detected_elsewhere(tmp_path / "given")
    assert dmnet("fuse-eval", *options) == 0
    scores = tmp_path / "artifacts" / "default" / "val" / "fuse-eval" / "scores.json"
    assert "visdrone-macro" not in json.loads(scores.read_text())["protocols"]
    capsys.readouterr()
    more = ["--fuse-eval.protocols", "coco@500", "visdrone-macro"]
    assert dmnet("fuse-eval", *options, *more) == 0
    assert "0 done, 3 kept" in capsys.readouterr().err
    assert "visdrone-macro" in json.loads(scores.read_text())["protocols"]
    assert dmnet("fuse-eval", *options, *more, "--fuse-eval.merge.iou", "0.4") == 0
    assert "3 done, 0 kept" in capsys.readouterr().err
