"""``dmnet train-detector``: what it may learn from, and the picture of what it learnt."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest
import torch

from dmnet.core.errors import InputError
from dmnet.core.images import read_image
from dmnet.core.training.weights import read_weights
from dmnet.detectors.base import build_model, save_net

from .conftest import Run

SMALL = ["--detector", "yolov6-n", "--device", "cpu", "--train-detector.epochs", "1"]
SMALL += ["--train-detector.batch", "4", "--train-detector.crops", "false"]
SMALL += ["--train-detector.yolov6.input-size", "64"]


@pytest.fixture
def folder(dmnet: Run, tmp_path: Path) -> Path:
    assert dmnet("convert", "--convert.crops", "false", split="train") == 0
    return tmp_path / "artifacts" / "default" / "train"


def test_own_annotations_teach_the_same(dmnet: Run, folder: Path) -> None:
    def weights(*options: str) -> dict[str, object]:
        assert dmnet("train-detector", *SMALL, *options, split="train") == 0
        return dict(read_weights(folder / "train-detector" / "weights.pt")[0])

    usual = weights()
    voc = weights("--train-detector.annotations", str(folder / "convert" / "voc"))
    coco = weights("--train-detector.annotations", str(folder / "convert" / "instances.json"))
    for key, value in usual.items():
        assert str(value) == str(voc[key]) == str(coco[key])


def test_starts_from_what_fits_in_another_networks_weights(
    dmnet: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--device", "cpu", "--detector", "yolox-nano", "--train-detector.epochs", "1"]
    small += ["--train-detector.batch", "4", "--train-detector.crops", "false"]
    small += ["--train-detector.yolox.input-size", "64", "--train-detector.pictures", "0"]
    given = tmp_path / "given.pt"
    init = ["--train-detector.init", str(given)]
    assert dmnet("train-detector", *small, *init, split="train") == 2
    assert f"train-detector.init: there is no file {given}" in capsys.readouterr().err

    made = folder / "train-detector" / "weights.pt"
    given.write_bytes(save_net(build_model("yolox-nano", {}, 3)))
    assert dmnet("train-detector", *small, *init, split="train") == 0
    state, meta = read_weights(made)
    assert meta["init"] == {"file": "given.pt", "taken": 636}
    assert "body.neck.reduce5.conv.weight" in state
    before = made.read_bytes()
    assert dmnet("train-detector", *small, *init, split="train") == 0
    assert made.read_bytes() == before
    torch.manual_seed(1)
    given.write_bytes(save_net(build_model("yolox-nano", {}, 3)))  # other numbers in the file
    assert dmnet("train-detector", *small, *init, split="train") == 0
    assert made.read_bytes() != before

    mmdet = ["--detector", "mmdet", "--train-detector.crops", "false", *init]
    assert dmnet("train-detector", *mmdet, split="train") == 2
    assert (
        "init: has no effect with the model mmdet; say --train-detector.mmdet.init"
        in capsys.readouterr().err
    )


def test_annotations_that_cannot_be_used(
    dmnet: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(message: str, *options: str, code: int = 2) -> None:
        assert dmnet("train-detector", *SMALL, *options, split="train") == code
        assert message in capsys.readouterr().err

    own = "--train-detector.annotations"
    refused("neither a COCO JSON file nor a folder with VOC XML", own, str(folder))
    voc = folder / "convert" / "voc"
    refused("Say --train-detector.crops false", own, str(voc), "--train-detector.crops", "true")
    next(voc.glob("*.xml")).write_text("<annotation>")
    refused(".xml:1: not well-formed", own, str(voc), code=1)


def test_pictures_show_annotations_and_detections(dmnet: Run, folder: Path) -> None:
    low = ["--train-detector.score-threshold", "0.0", "--train-detector.pictures", "2"]
    judged = ["--train-detector.validate-on", "val", "--train-detector.judge-train", "2"]
    assert dmnet("train-detector", *SMALL, *low, *judged, split="train") == 0
    height, width = read_image(folder / "train-detector" / "predictions.jpg").shape[:2]
    assert width == 2 * 320 + 8 and height >= 2 * 240
    row = next(csv.DictReader(io.StringIO((folder / "train-detector/history.csv").read_text())))
    assert {"AP", "precision", "recall", "F1", "mean_iou", "train_mean_iou"} <= row.keys()
    assert dmnet("train-detector", *SMALL, "--train-detector.pictures", "0", split="train") == 0
    assert not (folder / "train-detector" / "predictions.jpg").exists()


def test_what_was_trained_survives_a_failure_at_the_end(
    dmnet: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **options: object) -> bytes:
        raise InputError("sheet", "cannot be drawn")

    with monkeypatch.context() as patch:
        patch.setattr("dmnet.pipeline.learning.detector.history_csv", fail)
        assert dmnet("train-detector", *SMALL, split="train") == 1
    assert list((folder / "train-detector").glob("checkpoint-*.pt"))
    assert dmnet("train-detector", *SMALL, split="train") == 0
    assert "going on after epoch 1" in capsys.readouterr().err
    assert not list((folder / "train-detector").glob("checkpoint-*.pt"))


def test_weights_are_not_lost_to_a_picture(
    dmnet: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **options: object) -> bytes:
        raise InputError("sheet", "cannot be drawn")

    monkeypatch.setattr("dmnet.pipeline.learning.detector.predictions_jpg", fail)
    assert dmnet("train-detector", *SMALL, split="train") == 0
    assert "no predictions.jpg: sheet: cannot be drawn" in capsys.readouterr().err
    assert (folder / "train-detector" / "weights.pt").exists()


def test_scores_on_a_split_without_annotations(
    dmnet: Run, folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before training; a COCO file of the same images will do."""
    judged = [*SMALL, "--train-detector.validate-on", "val"]
    assert dmnet("convert", "--convert.crops", "false") == 0
    truth = tmp_path / "truth.json"
    shutil.copy(folder.parent / "val" / "convert" / "instances.json", truth)
    shutil.rmtree(data / "VisDrone2019-DET-val" / "annotations")
    capsys.readouterr()
    assert dmnet("train-detector", *judged, split="train") == 2
    assert "--train-detector.validation FILE" in capsys.readouterr().err
    given = ["--train-detector.validation", str(truth)]
    assert dmnet("train-detector", *judged, *given, split="train") == 0
    row = next(csv.DictReader(io.StringIO((folder / "train-detector/history.csv").read_text())))
    assert "AP" in row
    assert dmnet("train-detector", *SMALL, *given[:1], str(tmp_path / "no"), split="train") == 2
    assert "train-detector.validation: no such file" in capsys.readouterr().err
