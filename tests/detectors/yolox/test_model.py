"""YOLOX as a detection network: losses, ignored regions, deployed form, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmnet.core.errors import ConfigError
from dmnet.detectors.base import Target, build_model, load_net, save_net
from dmnet.detectors.dense import centres_in
from dmnet.detectors.yolox import criterion
from dmnet.detectors.yolox.model import YoloX


@pytest.fixture
def net() -> YoloX:
    made = build_model("yolox-nano", {"input_size": 64}, 3)
    assert isinstance(made, YoloX)
    return made


def total(net: YoloX, images: Tensor, targets: list[Target]) -> dict[str, float]:
    return {name: value.item() for name, value in net.losses(images, targets).items()}


def test_losses_are_scalars_with_gradients(net: YoloX, make_target: Callable[..., Target]) -> None:
    targets = [make_target([[8, 8, 40, 40], [50, 50, 60, 61]], [1, 3]), make_target()]
    losses = net.train().losses(torch.rand(2, 3, 64, 64), targets)
    assert sorted(losses) == ["loss_boxes", "loss_classes", "loss_objects"]
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_nothing_to_find(net: YoloX, make_target: Callable[..., Target]) -> None:
    losses = total(net.train(), torch.rand(1, 3, 64, 64), [make_target()])
    assert losses["loss_boxes"] == losses["loss_classes"] == 0 < losses["loss_objects"]


def test_l1_in_the_last_epochs_only(make_target: Callable[..., Target]) -> None:
    net = build_model("yolox-nano", {"input_size": 64, "l1_epochs": 2}, 3).train()
    targets, names = [make_target([[8, 8, 40, 40]], [1])], []
    for epoch in range(4):
        net.start_epoch(epoch, 4)
        names.append("loss_sides" in net.losses(torch.rand(1, 3, 64, 64), targets))
    assert names == [False, False, True, True]


def test_background_in_ignored_regions_has_no_loss(
    net: YoloX, make_target: Callable[..., Target]
) -> None:
    image = torch.rand(1, 3, 64, 64)
    everywhere = [make_target(ignore=[[0, 0, 64, 64]])]
    assert total(net.eval(), image, everywhere)["loss_objects"] == 0
    box = [[8, 8, 40, 40]]
    apart, within = (make_target(box, [1], r) for r in ([[60, 60, 61, 61]], [[0, 0, 64, 64]]))
    one, other = total(net, image, [apart]), total(net, image, [within])
    assert other["loss_boxes"] == one["loss_boxes"] > 0  # the object itself still counts
    assert 0 < other["loss_objects"] < one["loss_objects"]


def test_processes_share_the_count_of_positives(
    net: YoloX, make_target: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(2, 3, 64, 64)
    targets = [make_target([[8, 8, 40, 40], [2, 2, 20, 10]], [1, 2]), make_target()]
    whole, counts = total(net.eval(), images, targets), []
    monkeypatch.setattr(criterion, "shared_count", lambda count: counts.append(count) or count)
    total(net, images, targets)
    monkeypatch.setattr(criterion, "shared_count", lambda count: counts[0] / 2)
    parts = [total(net, images[i : i + 1], targets[i : i + 1]) for i in range(2)]
    for name, value in whole.items():
        assert (parts[0][name] + parts[1][name]) / 2 == pytest.approx(value, rel=1e-4)


def test_centres_in_regions() -> None:
    regions = torch.tensor([[0.0, 0, 5, 13], [12, 4, 16, 8]])
    covered = centres_in(((2, 2), (1, 1)), (8, 16), regions)
    # centres (4, 4) (12, 4) (4, 12) (12, 12) and (8, 8); regions are half-open
    assert covered.tolist() == [True, True, True, False, False]
    assert not centres_in(((2, 2),), (8,), torch.zeros(0, 4)).any()


def test_deployed_gives_the_same(net: YoloX) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        wanted = net.eval().predictions(images)
        got = net.deploy().predictions(images)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
    for a, b in zip(wanted, got, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_input_too_small() -> None:
    with pytest.raises(ConfigError, match="leaves no 32 pixels"):
        build_model("yolox-nano", {"input_size": 64, "border": 30})


def test_weights_go_through_a_file(net: YoloX, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(save_net(net))
    again, image = load_net(path).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(net.eval().predictions(image), again.predictions(image), strict=True):  # type: ignore[operator]
            assert torch.equal(a, b)


@pytest.mark.slow
def test_learns_eight_pictures_by_heart(
    drawings: tuple[list[Tensor], list[Target]], ap50: Any
) -> None:
    images, targets = drawings
    net = build_model("yolox-nano", {"input_size": 96}, 3).train()
    steps, lr = 120, 0.01
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 15) * max(0.05, 1 - step / steps)
        loss = torch.stack(list(net.losses(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
    net.eval()
    with torch.inference_mode():
        assert ap50(net.detect(images), targets) > 0.9
        assert ap50(net.deploy().detect(images), targets) > 0.9
