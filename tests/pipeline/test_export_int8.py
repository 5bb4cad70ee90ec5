"""``dmnet export --int8``: a small ONNX file that finds what the float file finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmnet.core.images import read_image
from dmnet.core.training.weights import weights_bytes
from dmnet.density import networks
from dmnet.density.load import load_density
from dmnet.density.networks import Scaling
from dmnet.detectors.base import build_model, save_net
from dmnet.detectors.export import export_detector
from dmnet.detectors.int8 import light, rounded
from dmnet.detectors.onnx import OnnxDetector
from dmnet.pipeline.cli import main

onnx = pytest.importorskip("onnx")


def boxes_and_scores(path: Path, image: np.ndarray) -> list[np.ndarray]:
    detector = OnnxDetector(path, device="cpu")
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    found: list[np.ndarray] = detector.session.run(None, {"images": x[..., :192, :256].numpy()})
    return found


def stirred(name: str, settings: dict[str, Any], folder: Path) -> Path:
    """Weights of a network whose scores differ from place to place."""
    torch.manual_seed(0)
    net = build_model(name, settings)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.03 * torch.randn_like(weight)
    file = folder / "weights.pt"
    file.write_bytes(save_net(net))
    return file


def both(weights: Path, *options: str) -> tuple[Path, Path]:
    """The float file and the 8-bit file."""
    plain, small = weights.with_name("plain.onnx"), weights.with_name("small.onnx")
    assert main(["export", "--weights", str(weights), "--out", str(plain)]) == 0
    assert main(["export", "--weights", str(weights), "--out", str(small), "--int8", *options]) == 0
    assert small.stat().st_size * 3 <= plain.stat().st_size
    graph = onnx.load(str(small))
    assert {p.key: json.loads(p.value)["kind"] for p in graph.metadata_props if p.key == "dmnet"}
    return plain, small


def test_rounded_by_hand() -> None:
    whole, scale = rounded(np.array([[2.54, -0.64], [0.0, 0.0]], dtype=np.float32))
    assert whole.tolist() == [[127, -32], [0, 0]]
    assert scale.ravel().tolist() == pytest.approx([0.02, 1.0])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("yolov6-n", {"input_size": 256}),
        ("yolov6-n", {"input_size": 256, "fine": True}),
        ("yolox-nano", {"input_size": 256}),
    ],
)
def test_8_bit_weights_give_nearly_the_same(
    name: str, settings: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    plain, small = both(stirred(name, settings, tmp_path))
    image = read_image(sorted((data / "VisDrone2019-DET-train" / "images").iterdir())[0])
    for exact, rough in zip(
        boxes_and_scores(plain, image), boxes_and_scores(small, image), strict=True
    ):
        assert exact.shape == rough.shape and not np.array_equal(exact, rough)
        assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.97


def test_8_bit_weights_of_a_network_with_branches(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"min_size": 96, "max_size": 160, "score_threshold": 0.0, "max_detections": 50}
    plain = export_detector(build_model("fasterrcnn-mobilenetv3", settings))
    small = tmp_path / "small.onnx"
    small.write_bytes(light(plain))
    assert small.stat().st_size * 3 <= len(plain)
    image = read_image(sorted((data / "VisDrone2019-DET-train" / "images").iterdir())[0])
    assert len(OnnxDetector(small, device="cpu").predict([image])[0]) > 10


def test_8_bit_weights_of_a_density_network(tmp_path: Path, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    network = networks.build("mobilenet").eval()
    file = tmp_path / "weights.pt"
    facts = {"architecture": "mobilenet", **Scaling((100.0, 90.0, 80.0), 60.0, 100).stated()}
    file.write_bytes(weights_bytes(network.state_dict(), facts))
    image = rng.integers(0, 256, (75, 130, 3), np.uint8)
    exact, rough = (load_density(path).predict(image).values for path in both(file))
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(exact, rough, atol=0.05 * np.abs(exact).max())


@pytest.mark.parametrize("name", ["yolov6-n", "yolox-nano"])
def test_8_bit_activations(name: str, data: Path, tmp_path: Path) -> None:
    images = data / "VisDrone2019-DET-train" / "images"
    weights = stirred(name, {"input_size": 256}, tmp_path)
    plain, small = both(weights, "--images", str(images), "--count", "2")
    kinds = [node.op_type for node in onnx.load(str(small)).graph.node]
    assert kinds.count("DequantizeLinear") > kinds.count("Conv") > 0
    image = read_image(sorted(images.iterdir())[0])
    for exact, rough in zip(
        boxes_and_scores(plain, image), boxes_and_scores(small, image), strict=True
    ):
        assert exact.shape == rough.shape and not np.array_equal(exact, rough)
        assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.95


def test_what_8_bit_activations_are_not_for(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(save_net(build_model("fasterrcnn-mobilenetv3", {"min_size": 128})))
    order = ["export", "--weights", str(weights), "--out", str(tmp_path / "x.onnx")]
    images = ["--images", str(data / "VisDrone2019-DET-train" / "images")]
    assert main([*order, *images]) == 2
    assert "--images DIR is for --int8" in capsys.readouterr().err
    assert main([*order, *images, "--int8"]) == 2
    assert "8-bit activations are for YOLOv6 and YOLOX" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()
