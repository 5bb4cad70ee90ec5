from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmnet.core.errors import ConfigError
from dmnet.detectors.base import build_model, load_net, save_net
from dmnet.detectors.yolov6 import int8
from dmnet.detectors.yolov6.blocks import Conv
from dmnet.detectors.yolov6.int8 import Int8Conv, compile_int8
from dmnet.detectors.yolov6.model import YoloV6, quantised
from dmnet.detectors.yolov6.quantise import (
    QuantConv,
    activate,
    calibrate,
    insert,
    quant_convs,
    quantise,
    sensitivities,
)

Make = Callable[..., YoloV6]
needs_kernels = pytest.mark.skipif(
    not int8.available(), reason="this build of torch has no oneDNN 8-bit kernels"
)


def quant_conv(act: Any = "none", kernel: int = 3) -> QuantConv:
    return QuantConv(Conv(4, 6, kernel, act=act, normed=False)).eval()


def test_rounding_by_hand() -> None:
    layer = QuantConv(Conv(1, 1, 1, act="none", normed=False)).eval()
    assert layer.inner.conv.bias is not None
    with torch.no_grad():
        layer.inner.conv.weight.fill_(0.5)
        layer.inner.conv.bias.zero_()
    layer.low.fill_(-1.0)
    layer.high.fill_(1.55)  # 255 levels of 0.01, zero at 100
    layer.active.fill_(True)
    x = torch.tensor([0.114, -0.006, 9.0, -9.0]).view(1, 1, 1, 4)
    with torch.no_grad():
        found = layer(x).flatten()
    assert found.tolist() == pytest.approx([0.055, -0.005, 0.775, -0.5], abs=1e-5)


def test_inactive_layer_is_exact() -> None:
    layer = quant_conv()
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(layer(x), layer.inner(x))


def test_gradient_passes_straight_through() -> None:
    layer = quant_conv()
    x = torch.rand(2, 4, 8, 8)
    calibrate(layer, [x])
    layer(x).square().sum().backward()
    rounded = layer.inner.conv.weight.grad
    layer.zero_grad()
    layer.inner(x).square().sum().backward()
    assert rounded is not None and layer.inner.conv.weight.grad is not None
    torch.testing.assert_close(rounded, layer.inner.conv.weight.grad, rtol=0.05, atol=0.5)


def test_calibration_keeps_the_widest_range() -> None:
    layer = quant_conv()
    calibrate(layer, [torch.full((1, 4, 2, 2), 3.0), torch.full((1, 4, 2, 2), -2.0)])
    assert (layer.low.item(), layer.high.item()) == (-2.0, 3.0)
    assert bool(layer.active)
    assert not layer.observing


def test_calibration_without_images() -> None:
    with pytest.raises(ConfigError, match="at least one image"):
        calibrate(quant_conv(), [])


def test_only_fused_networks_are_quantised() -> None:
    with pytest.raises(ValueError, match="fuse"):
        insert(Conv(3, 4))


def test_sensitive_layer_is_found_and_left_in_float() -> None:
    body = torch.nn.Sequential(quant_conv(), QuantConv(Conv(6, 4, normed=False)), quant_conv())
    images = [torch.rand(2, 4, 8, 8) for _ in range(2)]
    with torch.no_grad():
        first = body[0]
        assert isinstance(first, QuantConv)
        first.inner.conv.weight[:, 0, 0, 0] = 1000.0  # leaves one level to all other weights
        images = [torch.cat([x[:, :1] * 1e-3, x[:, 1:]], 1) for x in images]
    rows = quantise(body, images, keep=1)
    assert rows[0].layer == "0"
    assert [bool(layer.active) for layer in quant_convs(body).values()] == [False, True, True]
    assert [row.error for row in rows] == sorted((row.error for row in rows), reverse=True)
    with pytest.raises(ConfigError, match="keep"):
        quantise(body, images, keep=-1)


def test_looking_for_sensitivity_changes_nothing() -> None:
    body = torch.nn.Sequential(quant_conv(), QuantConv(Conv(6, 4, normed=False)))
    images = [torch.rand(1, 4, 8, 8)]
    calibrate(body, images)
    activate(body, {"1"})
    sensitivities(body, images)
    assert [bool(layer.active) for layer in quant_convs(body).values()] == [True, False]


# --- integer kernels -----------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("act", ["relu", "silu", "none"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_integer_layer_equals_the_simulation(act: str, kernel: int) -> None:
    layer = quant_conv(act, kernel)
    x = torch.randn(2, 4, 9, 7)  # negative values: zero is not level 0, the padding must be
    calibrate(layer, [x])
    with torch.no_grad():
        torch.testing.assert_close(Int8Conv(layer)(x), layer(x), rtol=1e-3, atol=1e-3)


@needs_kernels
def test_layers_in_a_row_hand_over_levels() -> None:
    body = torch.nn.Sequential(quant_conv("relu"), QuantConv(Conv(6, 4, normed=False))).eval()
    x = torch.rand(1, 4, 8, 8)
    calibrate(body, [x])
    with torch.no_grad():
        wanted = body(x)
        found = compile_int8(body)
        first = found.get_submodule("0")
        assert isinstance(first, Int8Conv)
        assert first(x).dtype == torch.uint8
        step = float(wanted.abs().max()) / 100
        assert (found(x) - wanted).abs().max() < step


def test_no_kernels_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "available", lambda: False)
    with pytest.raises(ConfigError, match="no oneDNN kernels"):
        compile_int8(quant_conv())


# --- the whole network ---------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("name", ["yolov6-n", "yolov6-m", "yolov6-l"])
def test_quantised_network_is_near(name: str, make_net: Make, stir: Any) -> None:
    net = make_net(name)
    stir(net)
    net.eval()
    images = [torch.rand(3, 64, 64) for _ in range(3)]
    made, rows = quantised(net, images, keep=2)
    assert len(rows) == len(quant_convs(made.body)) > 30
    batch = torch.stack(images)
    with torch.no_grad():
        wanted, simulated = net.body(batch), made.body(batch)
        real = copy.deepcopy(made).deploy().body(batch)
    for a, b, c in zip(wanted, simulated, real, strict=True):
        assert (a - b).square().mean() < 0.05 * a.var()
        assert (b - c).square().mean() < 0.01 * a.var()
    assert net.config.form == "rep"
    with pytest.raises(ConfigError, match="quantised already"):
        quantised(made, images)


def test_quantised_network_goes_through_a_file(tmp_path: Path) -> None:
    net = build_model("yolov6-n", {"input_size": 64}, 2).eval()
    assert isinstance(net, YoloV6)
    made, _ = quantised(net, [torch.rand(3, 64, 64)], keep=3)
    path = tmp_path / "int8.pt"
    path.write_bytes(save_net(made))
    again = load_net(path).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(made.body(image), again.body(image), strict=True):  # type: ignore[operator]
            assert torch.equal(a, b)


def test_aware_training_brings_the_channels_nearer(
    make_net: Make, make_target: Any, stir: Any
) -> None:
    net = make_net("yolov6-n")
    stir(net)
    net.eval()
    images: list[Tensor] = [torch.rand(3, 64, 64) for _ in range(2)]
    made, _ = quantised(net, images)
    made.config = replace(made.config, teacher="given below")
    made._teacher.append(copy.deepcopy(net).deploy().requires_grad_(False))
    targets = [make_target([[8, 8, 40, 40]], [1]), make_target()]
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-3, momentum=0.9)
    made.train()
    values = []
    for _ in range(12):
        found = made.losses(images, targets)
        assert {"loss_classes", "loss_boxes", "loss_distil_channels"} == found.keys()
        optimizer.zero_grad()
        found["loss_distil_channels"].backward()
        optimizer.step()
        values.append(found["loss_distil_channels"].item())
    assert values[-1] < 0.9 * values[0]
    assert all(layer.active for layer in quant_convs(made.body).values())
