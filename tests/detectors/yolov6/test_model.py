from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.detectors.base import Target, build_model, load_net, save_net
from dmnet.detectors.dense import GREY, Letterbox
from dmnet.detectors.yolov6.model import YoloConfig, YoloV6

Make = Callable[..., YoloV6]
NAMES = ["yolov6-n", "yolov6-m", "yolov6-l"]


# --- input ---------------------------------------------------------------------------------------


def test_letterbox_scales_pads_and_comes_back() -> None:
    images = [torch.ones(3, 40, 80), torch.ones(3, 20, 10)]
    box = Letterbox(images, YoloConfig(input_size=160, border=16, max_zoom=3.0))
    assert box.scaled == [(64, 128), (60, 30)]  # 128 pixels inside the border; at most 3 times
    assert box.canvas.shape == (2, 3, 96, 160)
    assert box.canvas[1, 0, 0, 0].item() == pytest.approx(GREY)
    assert box.canvas[1, 0, 16, 16].item() == box.canvas[1, 0, 75, 45].item() == 1.0
    assert box.canvas[1, 0, 76, 45].item() == pytest.approx(GREY)
    boxes = torch.tensor([[1.0, 2.0, 9.0, 18.0]])
    assert box.onto(boxes, 1).tolist() == [[19.0, 22.0, 43.0, 70.0]]
    assert torch.equal(box.back(box.onto(boxes, 1), 1), boxes)
    assert box.back(torch.tensor([[0.0, 0.0, 999.0, 999.0]]), 1).tolist() == [[0, 0, 10, 20]]


def test_input_shape_is_that_of_the_canvas(make_net: Make) -> None:
    net = make_net("yolov6-n", border=4)
    for size in ((64, 64), (33, 100), (7, 5)):
        canvas = Letterbox([torch.zeros(3, *size)], net.config).canvas
        assert net.input_shape(size) == tuple(canvas.shape[-2:])
        assert all(side % 32 == 0 for side in canvas.shape[-2:])


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients(name: str, make_net: Make, make_target: Any) -> None:
    net = make_net(name).train()
    images = [torch.rand(3, 64, 64), torch.rand(3, 48, 64)]
    found = net.losses(images, [make_target([[8, 8, 40, 40]], [2]), make_target()])
    wanted = {"loss_classes", "loss_boxes"} | ({"loss_sides"} if net.size.bins else set())
    assert found.keys() == wanted
    assert all(value.ndim == 0 and value.isfinite() and value > 0 for value in found.values())
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("settings", [{}, {"atss_epochs": 1}, {"fine": True}])
def test_no_objects_at_all(settings: dict[str, Any], make_net: Make, make_target: Any) -> None:
    net = make_net("yolov6-m", **settings).train()
    found = net.losses(torch.rand(2, 3, 64, 64), [make_target(), make_target()])
    assert found["loss_boxes"].item() == found["loss_sides"].item() == 0.0
    assert found["loss_classes"] > 0
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_nine_hundred_objects(make_net: Make, make_target: Any) -> None:
    net = make_net("yolov6-n", input_size=320).train()
    low = torch.rand(900, 2) * 300
    boxes = torch.cat([low, low + 3 + torch.rand(900, 2) * 15], 1)
    found = net.losses(
        [torch.rand(3, 320, 320)], [make_target(boxes.tolist(), [1 + i % 3 for i in range(900)])]
    )
    assert all(value.isfinite() for value in found.values())
    assert found["loss_boxes"] > 0


def test_ignored_regions_are_no_background(make_net: Make, make_target: Any) -> None:
    net = make_net("yolov6-n").train()
    image = torch.rand(1, 3, 64, 64)
    whole = net.losses(image, [make_target(ignore=[[0, 0, 64, 64]])])
    assert whole["loss_classes"].item() == 0.0
    none, half = (
        net.losses(image, [make_target(ignore=ignore)])["loss_classes"]
        for ignore in ([], [[0, 0, 32, 64]])
    )
    assert half.item() == pytest.approx(none.item() / 2, rel=0.1)


def test_object_inside_an_ignored_region_is_still_learnt(make_net: Make, make_target: Any) -> None:
    net = make_net("yolov6-n").train()
    region = make_target([[16, 16, 48, 48]], [1], [[0, 0, 64, 64]])
    found = net.losses(torch.rand(1, 3, 64, 64), [region])
    assert found["loss_classes"] > 0
    assert found["loss_boxes"] > 0


def test_assigner_changes_after_the_warm_up(
    make_net: Make, make_target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net("yolov6-n", atss_epochs=2).train()
    called = []
    for name in ("adaptive", "task_aligned"):
        monkeypatch.setattr(
            f"dmnet.detectors.yolov6.model.{name}",
            lambda *a, _n=name, **k: called.append(_n) or _nothing(),  # type: ignore[func-returns-value]
        )
    for epoch in range(3):
        net.start_epoch(epoch, 3)
        net.losses(torch.rand(1, 3, 64, 64), [make_target([[8, 8, 40, 40]], [1])])
    assert called == ["adaptive", "adaptive", "task_aligned"]


def _nothing() -> Any:
    from dmnet.detectors.yolov6.assigner import Positives

    none = torch.zeros(0, dtype=torch.long)
    return Positives(none, none, none, torch.zeros(0))


# --- detections ----------------------------------------------------------------------------------


def test_detections_are_sorted_inside_and_labelled(make_net: Make) -> None:
    net = make_net("yolov6-n", score_threshold=0.005, max_detections=7).eval()
    images = [torch.rand(3, 50, 70), torch.rand(3, 64, 64)]
    with torch.inference_mode():
        found = net.detect(images)
    for image, one in zip(images, found, strict=True):
        height, width = image.shape[1:]
        assert len(one["boxes"]) == 7
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"][:, 2] <= width).all() and (one["boxes"][:, 3] <= height).all()
        assert one["scores"].diff().le(0).all()
        assert set(one["labels"].tolist()) <= {1, 2, 3}


def test_nothing_found(make_net: Make) -> None:
    net = make_net("yolov6-n", score_threshold=0.99).eval()
    (found,) = net.detect(torch.rand(1, 3, 64, 64))
    assert [len(found[key]) for key in ("boxes", "scores", "labels")] == [0, 0, 0]  # type: ignore[literal-required]


def test_image_does_not_depend_on_its_companions(make_net: Make, stir: Any) -> None:
    net = make_net("yolov6-n", score_threshold=0.0).eval()
    stir(net)
    images = [torch.rand(3, 64, 48), torch.rand(3, 64, 64)]
    with torch.inference_mode():
        alone, together = net.detect(images[:1])[0], net.detect(images)[0]
    torch.testing.assert_close(alone["scores"], together["scores"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "form"),
    [(n, "rep") for n in NAMES] + [(n, f) for n in NAMES[:2] for f in ("search", "repopt")],
)
def test_deployed_network_equals_trained_one(
    name: str, form: str, make_net: Make, stir: Callable[[nn.Module], None]
) -> None:
    net = make_net(name, form=form)
    stir(net)
    net.eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        before = net.body(images)
        after = copy.deepcopy(net).deploy().body(images)
    for a, b in zip(before, after, strict=True):
        assert (a - b).abs().max() < 1e-4 * max(1.0, float(a.abs().max()))


def test_fine_network_learns_what_lies_in_one_cell_and_is_deployed(
    make_net: Make, make_target: Any, stir: Callable[[nn.Module], None]
) -> None:
    net = make_net("yolov6-n", fine=True).train()
    two = make_target([[0, 0, 4, 4], [4, 0, 8, 4]], [1, 2])
    found = net.losses(torch.rand(1, 3, 64, 64), [two])
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    stir(net)
    net.eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        boxes, scores = net.predictions(images)
        after, _ = copy.deepcopy(net).deploy().predictions(images)
    assert boxes.shape == (1, sum((64 // s) * (96 // s) for s in (4, 8, 16, 32)), 4)
    assert scores.shape[1] == boxes.shape[1]
    assert (boxes - after).abs().max() < 1e-4 * float(boxes.abs().max())


# --- settings and files --------------------------------------------------------------------------


def test_build_through_the_table() -> None:
    net = build_model("yolov6-n", {"input_size": 96, "nms": 0.5}, 4)
    assert net.settings["nms"] == 0.5
    assert (net.architecture, net.classes) == ("yolov6-n", 4)
    with pytest.raises(ConfigError, match=r"yolov6-n.input_siz: .*did you mean 'input_size'"):
        build_model("yolov6-n", {"input_siz": 96})


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("yolov6-l", {"form": "repopt"}, "no branches"),
        ("yolov6-n", {"input_size": 64, "border": 30}, "leaves no 32 pixels"),
    ],
)
def test_settings_that_do_not_fit(name: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build_model(name, settings)


def test_weights_go_through_a_file(tmp_path: Path) -> None:
    net = build_model("yolov6-n", {"input_size": 64}, 3).eval()
    path = tmp_path / "net.pt"
    path.write_bytes(save_net(net))
    again = load_net(path).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(net.body(image), again.body(image), strict=True):  # type: ignore[operator]
            assert torch.equal(a, b)
    started = build_model("yolov6-n", {"weights": str(path)}, 3)
    assert torch.equal(started.state_dict()["body.backbone.stem.wide.conv.weight"],
                       net.state_dict()["body.backbone.stem.wide.conv.weight"])  # fmt: skip
    with pytest.raises(CheckpointError, match="made for another number of classes"):
        build_model("yolov6-n", {"weights": str(path)}, 5)


def test_teacher_adds_divergences_that_fade(tmp_path: Path, make_target: Any) -> None:
    path = tmp_path / "teacher.pt"
    path.write_bytes(save_net(build_model("yolov6-n", {"input_size": 64}, 2)))
    net = build_model("yolov6-n", {"input_size": 64, "teacher": str(path)}, 2).train()
    assert not any("teacher" in key for key in net.state_dict())
    targets: list[Target] = [make_target([[8, 8, 40, 40]], [1])]
    values = []
    for epoch in (0, 9):
        net.start_epoch(epoch, 10)
        torch.manual_seed(0)
        values.append(net.losses(torch.ones(1, 3, 64, 64), targets)["loss_distil_classes"].item())
    assert values[1] == pytest.approx(values[0] * 0.01, rel=0.2)
    assert not any("teacher" in key for key in net.state_dict())


def test_teacher_of_bins_adds_sides(make_net: Make, make_target: Any) -> None:
    net = make_net("yolov6-m", teacher="given below").train()
    net._teacher.append(make_net("yolov6-m").deploy().requires_grad_(False))
    found = net.losses(torch.rand(1, 3, 64, 64), [make_target([[8, 8, 40, 40]], [1])])
    assert {"loss_distil_classes", "loss_distil_sides"} <= found.keys()


# --- it learns -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_learns_eight_pictures_by_heart(
    drawings: tuple[list[Tensor], list[Target]], ap50: Any
) -> None:
    images, targets = drawings
    net = build_model("yolov6-n", {"input_size": 96}, 3).train()
    steps, lr = 70, 0.02
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, nesterov=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 15) * max(0.05, 1 - step / steps)
        loss = torch.stack(list(net.losses(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
    net.eval()
    with torch.inference_mode():
        assert ap50(net.detect(images), targets) > 0.9
        assert ap50(net.deploy().detect(images), targets) > 0.9
