"""Exports: what an ONNX file gives is what the network gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dmnet.core.errors import CheckpointError, ConfigError, DmnetError
from dmnet.core.records import Detections
from dmnet.density import onnx as density_onnx
from dmnet.density.load import load_density
from dmnet.density.networks import TorchNetwork, build
from dmnet.density.predict import predict
from dmnet.density.scale import Scaling
from dmnet.detectors.base import NetDetector, build_model
from dmnet.detectors.export import (
    check_detections,
    check_equal,
    export_density,
    export_detector,
)
from dmnet.detectors.onnx import OnnxDetector
from dmnet.detectors.yolox.model import YoloX

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def partners(a: Detections, b: Detections) -> float:
    """Share of detections of ``a`` that ``b`` has too, whatever the order of near ties."""
    near = np.abs(a.boxes[:, None] - b.boxes).max(-1) < 0.1
    near &= np.abs(a.scores[:, None] - b.scores) < 1e-3
    near &= a.labels[:, None] == b.labels
    return float(near.any(1).mean())


TORCHVISION = {"min_size": 96, "max_size": 160, "score_threshold": 0.0, "max_detections": 100}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("yolov6-n", {"input_size": 96, "border": 8, "score_threshold": 0.0099}),
        ("yolov6-n", {"input_size": 96, "fine": True, "score_threshold": 0.0099}),
        ("fcos-mobilenetv2", {**TORCHVISION, "fpn_channels": 64}),
        (
            "yolox-nano",
            {"input_size": 96, "border": 8, "score_threshold": 0.00009, "max_detections": 5000},
        ),
        pytest.param(
            "fasterrcnn-mobilenetv3", {**TORCHVISION, "proposals": 200}, marks=pytest.mark.slow
        ),
        pytest.param("fcos-r50", TORCHVISION, marks=pytest.mark.slow),
    ],
)
def test_detector_file_gives_what_the_network_gives(
    name: str, settings: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    net = build_model(name, settings, classes=3)
    if isinstance(net, YoloX):  # scores apart, or every detection is a tie
        for level in net.body.levels:
            nn.init.normal_(level.object_out.weight)  # type: ignore[union-attr,arg-type]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    path = tmp_path / "net.onnx"
    path.write_bytes(export_detector(net))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    images = [
        rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((90, 140), (70, 60), (90, 140))
    ]
    wanted = NetDetector(net, "cpu").predict(images)
    got = OnnxDetector(path, {}, "cpu").predict(images)
    for a, b in zip(wanted, got, strict=True):
        assert len(a) > 10 and abs(len(a) - len(b)) <= 0.02 * len(a)
        assert partners(a, b) > 0.95 and partners(b, a) > 0.95
        assert set(b.labels.tolist()) <= {1, 2, 3}


def test_own_file_describes_itself_and_can_be_overridden(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "net.onnx"
    net = build_model("yolov6-n", {"input_size": 64, "score_threshold": 0.009}, classes=2)
    path.write_bytes(export_detector(net))
    detector = OnnxDetector(path, {}, "cpu")
    assert detector.table.tolist() == [1, 2]
    assert detector.input_shape((100, 50)) == (64, 32)
    image = np.zeros((64, 64, 3), np.uint8)
    assert len(detector.predict([image])[0]) > 0
    strict = OnnxDetector(path, {"score_threshold": 0.9}, "cpu")
    assert len(strict.predict([image])[0]) == 0
    with pytest.raises(CheckpointError, match="not a density network"):
        density_onnx.load(path)


@pytest.mark.parametrize(("name", "width"), [("mcnn", 0), ("unet", 8), ("mobilenet", 0)])
def test_density_file_gives_what_the_network_gives(
    name: str, width: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    network = build(name, width).eval()
    with torch.no_grad():
        network.head.bias.fill_(5.0)  # type: ignore[union-attr,operator]
    path = tmp_path / f"{name}.onnx"
    scaling = Scaling((100.0, 90.0, 80.0), 60.0, 100)
    path.write_bytes(export_density(network, name, scaling.stated()))
    image = rng.integers(0, 256, (75, 130, 3), np.uint8)
    wanted = predict(TorchNetwork(network), image, scaling)
    got = load_density(path).predict(image)
    assert density_onnx.load(path)[1] == scaling
    assert wanted.count > 1
    assert got.stride == wanted.stride and got.size == (75, 130)
    np.testing.assert_allclose(got.values, wanted.values, atol=1e-4)
    with pytest.raises(CheckpointError, match="holds a density network"):
        OnnxDetector(path, {}, "cpu")


def test_bad_density_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such ONNX file"):
        density_onnx.load(tmp_path / "none.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nonsense" * 10)
    with pytest.raises(CheckpointError, match="not a usable ONNX file"):
        density_onnx.load(bad)


def test_a_network_whose_trace_is_wrong_is_refused() -> None:
    class Fixed(nn.Module):
        stride, multiple, reach = 1, 1, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(1, keepdim=True) * float(x.shape[3])  # frozen while tracing

    with pytest.raises(DmnetError, match=r"export of fixed: output 0 differs .* nothing was"):
        export_density(Fixed(), "fixed", {"mean": 0.0, "std": 1.0})


def test_comparison_of_dense_outputs() -> None:
    a = [np.array([1.0, 2.0])]
    check_equal([(a, [a[0] + 1e-4])], "x")
    with pytest.raises(DmnetError, match=r"differs by 0\.1"):
        check_equal([(a, [a[0] + 0.1])], "x")
    with pytest.raises(DmnetError, match=r"shape \(1,\)"):
        check_equal([(a, [a[0][:1]])], "x")
    with pytest.raises(DmnetError, match="differs by nan"):
        check_equal([(a, [a[0] * np.nan])], "x")


def test_comparison_of_detections() -> None:
    boxes = np.array([[0.0, 0, 5, 5], [9, 9, 12, 12]])
    scores, labels = np.array([0.9, 0.9]), np.array([1, 2])
    one = [boxes, scores, labels]
    assert check_detections([(one, [boxes[::-1], scores, labels[::-1]])], "x") == 2
    empty = [np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)]
    assert check_detections([(empty, empty)], "x") == 0
    for other in ([boxes + 1, scores, labels], [boxes, scores - 0.1, labels],
                  [boxes, scores, labels[::-1]], empty):  # fmt: skip
        with pytest.raises(DmnetError, match="no counterpart"):
            check_detections([(one, other)], "x")


def test_other_networks_have_no_export() -> None:
    class Other(nn.Module):
        architecture = "other"

        def deploy(self) -> Other:
            return self.eval()

    with pytest.raises(ConfigError, match="other: there is no export"):
        export_detector(Other())  # type: ignore[arg-type]
