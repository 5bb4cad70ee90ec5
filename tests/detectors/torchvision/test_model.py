from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision import models, ops
from torchvision.models.detection.image_list import ImageList

from dmnet.core.errors import CheckpointError, ConfigError, MissingInputError
from dmnet.core.training.weights import read_weights
from dmnet.detectors.base import DetectionNet, Target, build_model, load_net, save_net
from dmnet.detectors.torchvision import model as tv
from dmnet.detectors.torchvision.ignored import ignored_share

SMALL: dict[str, Any] = {
    "min_size": 64, "max_size": 64, "fpn_channels": 64, "head_channels": 16, "proposals": 20,
    "roi_samples": 16,
}  # fmt: skip


def target(boxes: list[list[float]], labels: list[int], ignore: list[list[float]]) -> Target:
    return Target(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        ignore=torch.tensor(ignore).reshape(-1, 4),
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((765, 1360), (900, 1600)),  # the longer side is bound: 1600 / 1360
        ((1000, 1000), (960, 960)),  # the shorter one
        ((100, 200), (400, 800)),  # small crops grow four times at most
        ((1, 4000), (1, 1600)),  # never 0
    ],
)
def test_input_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert tv.scaled_size(size, tv.TorchvisionConfig()) == expected


def test_padded_size() -> None:
    assert tv.padded_size((1, 33), 32) == (32, 64)
    assert tv.padded_size((64, 96), 32) == (64, 96)


def test_ignored_share_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 2], [2, 0, 6, 2], [9, 9, 9, 9]])
    regions = torch.tensor([[0.0, 0, 4, 1], [3, 0, 9, 9]])
    assert ignored_share(boxes, regions).tolist() == [0.5, 0.75, 0.0]
    assert ignored_share(boxes, regions[:0]).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", sorted(tv.ARCHITECTURES))
def test_each_network_trains_and_detects(name: str) -> None:
    net = build_model(name, SMALL)
    images = [torch.rand(3, 48, 64), torch.rand(3, 64, 40)]
    targets = [target([[8, 8, 30, 40]], [4], [[40, 0, 64, 48]]), target([], [], [])]
    losses = net.train()(images, targets)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    used = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in used)
    with torch.inference_mode():
        found = net.eval()(images)
    for image, one in zip(images, found, strict=True):
        height, width = image.shape[1:]
        assert len(one["boxes"]) == len(one["scores"]) == len(one["labels"]) <= 500
        assert one["boxes"].min() >= 0
        assert (one["boxes"].amax(0)[2:] <= torch.tensor([width, height]) + 1e-3).all()
        assert set(one["labels"].tolist()) <= set(range(1, 11))


@pytest.mark.parametrize("name", ["fasterrcnn-mobilenetv3", "retinanet-r50", "fcos-r50"])
def test_ignored_regions_are_no_background(name: str) -> None:
    net = build_model(name, SMALL).train()
    images = [torch.rand(3, 64, 64)]
    everywhere = [[-999.0, -999.0, 999.0, 999.0]]
    silent = net(images, [target([], [], everywhere)])
    assert sum(float(loss.detach()) for loss in silent.values()) == 0.0
    torch.stack(list(silent.values())).sum().backward()
    assert all(not p.grad.any() for p in net.parameters() if p.grad is not None)
    assert sum(float(v.detach()) for v in net(images, [target([], [], [])]).values()) > 1e-4
    inside = net(images, [target([[8, 8, 30, 40]], [4], everywhere)])
    assert sum(float(loss.detach()) for loss in inside.values()) > 0.01


def test_boxes_come_back_in_pixels_of_the_image() -> None:
    net = build_model("fasterrcnn-mobilenetv3", {**SMALL, "max_zoom": 4.0}).eval()
    assert net.input_shape((10, 20)) == (32, 64)
    with torch.inference_mode():
        boxes = net.detect([torch.rand(3, 10, 20)])[0]["boxes"]
    assert boxes[:, 2].max() <= 20.001
    assert boxes[:, 3].max() <= 10.001


def test_neighbours_of_equal_shape_change_nothing() -> None:
    net = build_model("fasterrcnn-mobilenetv3", SMALL).eval()
    images = [torch.rand(3, 60, 64), torch.rand(3, 50, 60), torch.rand(3, 64, 64)]
    assert len({net.input_shape((i.shape[1], i.shape[2])) for i in images}) == 1
    with torch.inference_mode():
        together = net.detect(images)
        alone = [net.detect([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a["scores"], b["scores"], atol=1e-5, rtol=1e-4)


def shake(net: nn.Module) -> None:
    """Give every batch norm its own statistics."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            mean, var = module.running_mean, module.running_var
            assert isinstance(mean, Tensor) and isinstance(var, Tensor)
            mean.uniform_(-0.1, 0.1)
            var.uniform_(0.7, 1.4)


@pytest.mark.parametrize("name", ["fasterrcnn-mobilenetv2", "fasterrcnn-r50-v2"])
def test_folded_norms_give_the_same_features(name: str) -> None:
    net = build_model(name, {**SMALL, "norm": "batch"}).eval()
    shake(net)
    assert isinstance(net, tv.TorchvisionNet)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = net.model.backbone(pixels)
        after = net.deploy().model.backbone(pixels)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.model.backbone.modules())
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, atol=1e-4, rtol=1e-3)


NORMS = {"GroupNorm", "BatchNorm2d", "FrozenBatchNorm2d"}


def norms(net: DetectionNet) -> set[str]:
    return {type(m).__name__ for m in net.modules()} & NORMS


def test_random_weights_are_not_frozen() -> None:
    net = build_model("fasterrcnn-r50", SMALL)
    assert norms(net) == {"GroupNorm"}
    assert all(p.requires_grad for p in net.parameters())


def test_resnet50_from_a_file_with_stride_on_conv1(shared: Path) -> None:
    path = shared / "data" / "weights" / "resnet50-imagenet-nofc-fp16.pth"
    net = build_model("fasterrcnn-r50", {**SMALL, "weights": str(path), "stride_on_first": True})
    assert norms(net) == {"FrozenBatchNorm2d"}
    body: Any = net.get_submodule("model.backbone.body")
    assert body.layer3[0].conv1.stride == (2, 2)
    assert body.layer3[0].conv2.stride == (1, 1)
    assert body.conv1.weight.dtype == torch.float32
    assert not body.layer1[0].conv1.weight.requires_grad
    assert body.layer2[0].conv1.weight.requires_grad


def test_mobilenet_from_a_file(shared: Path) -> None:
    path = shared / "data" / "weights" / "mobilenet_v2-imagenet.pth"
    net = build_model("fasterrcnn-mobilenetv2", {**SMALL, "weights": str(path)})
    first: Any = net.get_submodule("model.backbone.body.0.0")
    saved = torch.load(path, weights_only=True)["features.0.0.weight"]
    torch.testing.assert_close(first.weight, saved.float())
    with pytest.raises(CheckpointError, match=r"not weights of this backbone: .* is absent"):
        build_model("fasterrcnn-r50", {"weights": str(path)})
    with pytest.raises(ConfigError, match="only ResNet-50"):
        build_model("fasterrcnn-mobilenetv2", {"weights": "none", "stride_on_first": True})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchors": [8, 16]}, "needs 5 sides"),
        ({"weights": "imagenet", "norm": "group"}, "made with batch norm"),
        ({"norm": "frozen"}, "no statistics to freeze"),
        ({"weights": "nowhere.pth"}, "no such weights file"),
        ({"trainable_layers": 9}, "must be 0 to 5"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        build_model("fasterrcnn-mobilenetv3", settings)


def test_without_a_network_the_file_and_the_way_out_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(MissingInputError) as caught:
        build_model("fasterrcnn-r50", {**SMALL, "weights": "imagenet"})
    text = str(caught.value)
    assert text.startswith("https://download.pytorch.org/models/resnet50-0676ba61.pth could not")
    assert "(Temporary failure in name resolution)" in text
    assert "--train-detector.torchvision.weights FILE" in text


def test_width_that_does_not_fit_fcos() -> None:
    with pytest.raises(ConfigError, match="a multiple of 32, such as 64, got 48"):
        build_model("fcos-r50", {"fpn_channels": 48})


def test_anchors_are_exact_in_half_precision() -> None:
    generator = tv.Anchors([(8,)], [(1.0,)])
    images = ImageList(torch.zeros(1, 3, 32, 1024), [(32, 1024)])
    half = generator(images, [torch.zeros(1, 4, 4, 128, dtype=torch.bfloat16)])
    last = half[0][-1]  # the centre of the last column is 127 x 8 = 1016
    assert last.dtype == torch.float32
    assert last.tolist() == [1012.0, 20.0, 1020.0, 28.0]


def test_network_from_backbone_weights_goes_through_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    backbone, whole = tmp_path / "backbone.pth", tmp_path / "whole.pt"
    torch.save(models.mobilenet_v2(weights=None).state_dict(), backbone)
    net = build_model("fasterrcnn-mobilenetv2", {**SMALL, "weights": str(backbone)}).eval()
    whole.write_bytes(save_net(net))
    backbone.unlink()  # the file holds everything
    assert str(tmp_path) not in str(read_weights(whole)[1])
    again = load_net(whole).eval()
    assert any(isinstance(m, ops.FrozenBatchNorm2d) for m in again.modules())
    image = [torch.rand(3, 64, 64)]
    with torch.inference_mode():
        for key, value in net(image)[0].items():
            assert torch.equal(value, again(image)[0][key])


def test_a_low_first_image_does_not_change_the_next_ones() -> None:
    """torchvision infers its levels' strides from the first image, padded 36 rows to 64."""
    torch.manual_seed(0)
    net = build_model("fasterrcnn-mobilenetv3", {**SMALL, "score_threshold": 0.0}).eval()
    image = torch.rand(3, 64, 64)
    with torch.inference_mode():
        alone = net.detect([image])[0]
    other = build_model("fasterrcnn-mobilenetv3", {**SMALL, "score_threshold": 0.0}).eval()
    other.load_state_dict(net.state_dict())
    with torch.inference_mode():
        other.detect([torch.rand(3, 36, 64)])
        found = other.detect([image])[0]
    torch.testing.assert_close(found["boxes"], alone["boxes"], rtol=0, atol=0)
