"""MMDetection through the verbs: train, resume after a kill, detect, fuse."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmnet.core.journal import read_header
from dmnet.detectors.mmdet.libraries import read_checkpoint

from .conftest import Run, tree

KILLER = Path(__file__).with_name("killer.py")
SMALL = ["--detector", "mmdet", "--train-detector.mmdet.input-size", "160,128"]
SMALL += ["--train-detector.mmdet.batch", "4", "--train-detector.mmdet.epochs", "2"]
SMALL += ["--train-detector.mmdet.options", "model.test_cfg.score_thr=0.0"]


@pytest.fixture
def ready(dmnet: Run) -> Run:
    """Density, crops and labels of the training split are there."""
    for verb in ("density", "crop", "convert"):
        assert dmnet(verb, "--crop.threshold", "0.3", "--crop.min-side", "60", split="train") == 0
    return dmnet


needs_mmdet = pytest.mark.skipif(
    importlib.util.find_spec("mmdet") is None, reason="needs the extra mmdet"
)


@needs_mmdet
@pytest.mark.slow
def test_train_detect_and_fuse(ready: Run, tmp_path: Path) -> None:
    assert ready("train-detector", *SMALL) == 0
    folder = tmp_path / "artifacts" / "default" / "train" / "train-detector"
    _, meta = read_checkpoint(folder / "weights.pt")
    assert meta["architecture"] == "mmdet" and len(meta["classes"]) == 10
    lines = (folder / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,loss") and len(lines) == 3
    value = json.loads((folder / "items.jsonl").read_text().splitlines()[-1])["value"]
    crops = json.loads((folder.parent / "crop" / "crops.json").read_text())["images"]
    assert crops and value["samples"] == 4 + len(crops)
    assert not list(folder.glob("checkpoint-*"))
    assert ready("crop", "--crop.slicer", "uniform") == 0
    assert ready("convert") == 0
    assert ready("detect", "--detector", "mmdet", "--detect.score-threshold", "0") == 0
    assert ready("fuse-eval", "--fuse-eval.protocols", "coco@500") == 0
    fused = tmp_path / "artifacts" / "default" / "val" / "fuse-eval"
    assert json.loads((fused / "results.json").read_text())
    tables = json.loads((fused / "scores.json").read_text())["protocols"]["coco@500"]
    assert len(tables) >= 3 and all(0 <= table["AP"] <= 1 for table in tables.values())
    assert ready("detect", "--detect.score-threshold", "0") == 0  # known without its name


@needs_mmdet
@pytest.mark.slow
def test_killed_training_goes_on(ready: Run, data: Path, tmp_path: Path) -> None:
    def command(artifacts: str) -> list[str]:
        places = ["--data", str(data), "--artifacts", str(tmp_path / artifacts)]
        return ["train-detector", *places, "--split", "train", *SMALL]

    assert ready("train-detector", *SMALL) == 0
    folder = tmp_path / "artifacts" / "default" / "train" / "train-detector"
    calm = tree(folder)
    (folder / "stage.json").unlink()
    for name in (*calm, "items.jsonl", "log.txt", ".lock"):
        (folder / name).unlink()
    killed = subprocess.run(
        [sys.executable, str(KILLER), "2", *command("artifacts")],
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    header = read_header(folder)
    assert header is not None and not header["complete"]
    (work,) = folder.glob("checkpoint-*")
    assert (work / "epoch_1.pth").is_file()
    assert ready("train-detector", *SMALL) == 0
    assert tree(folder) == calm


def test_crops_without_files_say_the_way_out(
    ready: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = ["--crop.threshold", "0.3", "--crop.min-side", "60", "--crop.write-images", "false"]
    assert ready("crop", *cut, split="train") == 0
    capsys.readouterr()
    assert ready("train-detector", *SMALL) == 2
    said = capsys.readouterr().err
    assert "have no image file" in said and "make crop MODE=train" in said
    assert "--train-detector.crops false" in said


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--train-detector.epochs", "3"], "say --train-detector.mmdet.epochs"),
        (["--train-detector.momentum", "0.5"], "say --train-detector.mmdet.options"),
        (["--train-detector.judge-train", "2"], "not available with the model mmdet"),
        (["--train-detector.validate-on", "val"], "--train-detector.protocol coco@100"),
        (["--train-detector.mmdet.config", "nonsense"], "rtmdet_tiny"),
    ],
)
def test_settings_that_do_not_count_are_refused(
    ready: Run, options: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert ready("train-detector", *SMALL, *options) == 2
    assert text in capsys.readouterr().err


def test_detector_of_another_kind_is_named(ready: Run, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--train-detector.epochs", "1", "--train-detector.yolov6.input-size", "64"]
    assert ready("train-detector", "--detector", "yolov6-n", *small) == 0
    assert ready("crop", "--crop.slicer", "uniform") == 0
    capsys.readouterr()
    assert ready("detect", "--detector", "mmdet") == 2
    said = capsys.readouterr().err
    assert "trained here is yolov6-n" in said and "DETECTOR=mmdet" in said
