"""``dmnet quantise``: 8-bit weights, trained further, and detecting in the place of the others."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from dmnet.core.training.weights import read_weights
from dmnet.detectors.base import build_model, save_net
from dmnet.detectors.yolov6 import int8
from dmnet.pipeline.cli import main

from .conftest import Run


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "float.pt"
    path.write_bytes(save_net(build_model("yolov6-n", {"input_size": 96})))
    return path


def quantise(weights: Path, data: Path, *options: str) -> int:
    images = data / "VisDrone2019-DET-train" / "images"
    out = ["--out", str(weights.with_name("int8.pt"))]
    return main(["quantise", "--weights", str(weights), "--images", str(images), *out, *options])


def test_weights_and_sensitivities_are_written(weights: Path, data: Path) -> None:
    assert quantise(weights, data, "--keep", "2") == 0
    made = weights.with_name("int8.pt")
    assert read_weights(made)[1]["settings"]["form"] == "int8"
    rows = list(csv.DictReader(made.with_suffix(".csv").read_text().splitlines()))
    errors = [float(row["relative_error"]) for row in rows]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0
    assert [row["bits"] for row in rows[:3]] == ["32", "32", "8"]


@pytest.mark.skipif(not int8.available(), reason="this torch has no 8-bit kernels")
def test_quantised_weights_train_further_and_detect(
    weights: Path, data: Path, dmnet: Run, tmp_path: Path
) -> None:
    assert quantise(weights, data, "--count", "2") == 0
    assert dmnet("convert", "--convert.crops", "false", split="train") == 0
    assert dmnet("density") == dmnet("crop") == 0
    before = read_weights(weights.with_name("int8.pt"))[0]
    how = {
        "model": "yolov6-n", "epochs": "1", "crops": "false", "batch": "4", "lr": "0.001",
        "yolov6.form": "int8", "yolov6.weights": str(weights.with_name("int8.pt")),
        "yolov6.teacher": str(weights), "yolov6.input-size": "96",
    }  # fmt: skip
    options = [part for k, v in how.items() for part in (f"--train-detector.{k}", v)]
    assert dmnet("train-detector", *options, "--device", "cpu", split="train") == 0
    trained = tmp_path / "artifacts" / "default" / "train" / "train-detector" / "weights.pt"
    after = read_weights(trained)[0]
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert dmnet("detect", "--detector-weights", str(trained), "--device", "cpu") == 0
    results = tmp_path / "artifacts" / "default" / "val" / "detect" / "results_images.json"
    assert isinstance(json.loads(results.read_text()), list)


def test_refused(weights: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(message: str, *options: str, source: Path = weights) -> None:
        assert quantise(source, data, *options) == 2
        assert message in capsys.readouterr().err

    refused("--count: must be a whole number, 1 to", "--count", "0")
    refused("--keep: must be a whole number, 0 to", "--keep", "-1")
    refused("the name must end in .pt", "--out", "x.onnx")
    refused("holds no picture", "--images", str(weights.parent))
    other = weights.with_name("other.pt")
    other.write_bytes(save_net(build_model("fasterrcnn-mobilenetv3", {"fpn_channels": 8})))
    refused("only the YOLOv6 networks", source=other)
    assert quantise(weights, data) == 0
    refused("quantised already", source=weights.with_name("int8.pt"))
