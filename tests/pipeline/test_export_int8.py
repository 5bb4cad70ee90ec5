"""``dmnet export --int8``: an 8-bit ONNX file that finds what the float file finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dmnet.core.images import read_image
from dmnet.detectors.base import build_model, save_net
from dmnet.detectors.onnx import OnnxDetector
from dmnet.pipeline.cli import main

onnx = pytest.importorskip("onnx")


def boxes_and_scores(path: Path, image: np.ndarray) -> list[np.ndarray]:
    detector = OnnxDetector(path, device="cpu")
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    found: list[np.ndarray] = detector.session.run(None, {"images": x[..., :192, :256].numpy()})
    return found


@pytest.mark.parametrize("name", ["yolov6-n", "yolox-nano"])
def test_8_bits_find_what_the_float_file_finds(name: str, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    net = build_model(name, {"input_size": 256})
    with torch.no_grad():  # a fresh network gives the same score everywhere
        for weight in net.parameters():
            weight += 0.03 * torch.randn_like(weight)
    weights.write_bytes(save_net(net))
    images = data / "VisDrone2019-DET-train" / "images"
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    assert main(["export", "--weights", str(weights), "--out", str(plain)]) == 0
    int8 = ["--int8", "--images", str(images), "--count", "2"]
    assert main(["export", "--weights", str(weights), "--out", str(small), *int8]) == 0
    assert small.stat().st_size * 3 <= plain.stat().st_size
    graph = onnx.load(str(small))
    assert {p.key: json.loads(p.value)["kind"] for p in graph.metadata_props if p.key == "dmnet"}
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("DequantizeLinear") > kinds.count("Conv") > 0

    image = read_image(sorted(images.iterdir())[0])
    for exact, rough in zip(
        boxes_and_scores(plain, image), boxes_and_scores(small, image), strict=True
    ):
        assert exact.shape == rough.shape and not np.array_equal(exact, rough)
        assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.95


def test_what_8_bits_are_not_for(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(save_net(build_model("fasterrcnn-mobilenetv3", {"min_size": 128})))
    order = ["export", "--weights", str(weights), "--out", str(tmp_path / "x.onnx"), "--int8"]
    assert main(order) == 2
    assert "--int8 and --images DIR go together" in capsys.readouterr().err
    images = ["--images", str(data / "VisDrone2019-DET-train" / "images")]
    assert main([*order, *images]) == 2
    assert "8 bits are for YOLOv6 and YOLOX" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()
