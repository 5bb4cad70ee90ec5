"""Published weights: the file's numbers come out of our network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmnet.core.errors import CheckpointError
from dmnet.core.images import read_image
from dmnet.detectors.base import build_model
from dmnet.detectors.training.start import start_from
from dmnet.detectors.yolox.folded import COCO_ROWS, read_folded, settle
from dmnet.detectors.yolox.model import YoloX

pytest.importorskip("onnx")


def file_of(net: YoloX, path: Path) -> Path:
    """An ONNX file with the normalisation folded, like the published ones."""
    body = net.deploy().body
    torch.onnx.export(body, (torch.zeros(1, 3, 64, 64),), str(path), dynamo=False, opset_version=17)
    return path


@pytest.fixture
def nano() -> Callable[..., YoloX]:
    def make(classes: int = 3, seed: int = 0, size: str = "yolox-nano") -> YoloX:
        torch.manual_seed(seed)
        net = build_model(size, {"input_size": 64}, classes)
        assert isinstance(net, YoloX)
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.bias, std=0.2)
                assert layer.running_var is not None
                layer.running_var.uniform_(0.5, 1.5)
        return net.eval()

    return make


@pytest.fixture
def file(nano: Callable[..., YoloX], tmp_path: Path) -> Path:
    return file_of(nano(), tmp_path / "net.onnx")


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def test_a_file_gives_back_its_network(nano: Callable[..., YoloX], file: Path) -> None:
    image = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        wanted, net = nano().predictions(image), nano(seed=1)
        start = start_from(net, file, list(torch.rand(2, 3, 64, 64)))
        got = net.predictions(image)
    assert not start.unused
    assert all(name.endswith("num_batches_tracked") for name in start.new)
    for a, b in zip(wanted, got, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_other_classes_keep_their_layer(nano: Callable[..., YoloX], file: Path) -> None:
    net = nano(classes=5)
    before = net.body.levels[0].class_out.weight.clone()
    start = start_from(net, file, [torch.rand(3, 64, 64)])
    new = {name for name in start.new if not name.endswith("num_batches_tracked")}
    assert new == {
        f"body.levels.{i}.class_out.{kind}" for i in range(3) for kind in ("weight", "bias")
    }
    assert torch.equal(net.body.levels[0].class_out.weight, before)


def test_settled_statistics_are_those_of_the_images(nano: Callable[..., YoloX], file: Path) -> None:
    net, images = nano(seed=1), list(torch.rand(3, 3, 64, 64))
    net.load_state_dict(read_folded(net, file), strict=False)
    seen: list[Tensor] = []
    block = net.body.backbone.stages[1][1].join
    block.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        wanted = net.predictions(torch.stack(images))
        seen.clear()
        settle(net, images)
        mean, var = torch.cat(seen).mean((0, 2, 3)), torch.cat(seen).var((0, 2, 3), correction=0)
        for a, b in zip(wanted, net.predictions(torch.stack(images)), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
    assert torch.allclose(block.norm.running_mean, mean, atol=1e-5)
    assert torch.allclose(block.norm.running_var, var, rtol=1e-4)


def test_files_that_do_not_fit(nano: Callable[..., YoloX], file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'body.backbone.stem.conv.conv' of yolox-s has"):
        read_folded(nano(size="yolox-s"), _plain(file, nano, tmp_path))
    with pytest.raises(CheckpointError, match="has 113 convolutions, yolox-tiny has 83"):
        read_folded(nano(size="yolox-tiny"), file)
    with pytest.raises(CheckpointError, match="an ONNX file can start a YOLOX network, not yolov6"):
        start_from(build_model("yolov6-n", {"input_size": 64}), file, [])
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_folded(nano(), tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\x08nonsense")
    with pytest.raises(CheckpointError, match="not a readable ONNX file"):
        read_folded(nano(), tmp_path / "bad.onnx")


def _plain(file: Path, nano: Callable[..., YoloX], folder: Path) -> Path:
    """A file with the number of convolutions of yolox-s and others' shapes."""
    return file_of(nano(size="yolox-tiny"), folder / "tiny.onnx")


# --- the published file --------------------------------------------------------------------------


@pytest.fixture
def published(shared: Path) -> Path:
    path = shared / "data" / "weights" / "yolox-nano-coco-416.onnx"
    if not path.is_file():
        pytest.skip("needs the published weights ../shared/data/weights/yolox-nano-coco-416.onnx")
    return path


@pytest.fixture
def picture(shared: Path, tmp_path: Path) -> NDArray[np.uint8]:
    import tarfile

    with tarfile.open(shared / "data" / "visdrone-pictures.tar") as tar:
        member = next(m for m in tar if m.name.endswith(".jpg"))
        member.name = "picture.jpg"
        tar.extract(member, tmp_path, filter="data")
    return read_image(tmp_path / "picture.jpg")[:416, :416]


def test_published_weights_on_a_real_picture(published: Path, picture: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")
    net = build_model("yolox-nano", {"input_size": 416}, 80).eval()
    assert isinstance(net, YoloX)
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    start_from(net, published, [image / 255])
    session = runtime.InferenceSession(str(published), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"images": image.flip(0)[None].float().numpy()})[0]
    with torch.no_grad():
        out = net.body(image[None] / 255)
    scores = out.objectness.sigmoid()[..., None]
    got = torch.cat([out.boxes, scores, out.logits.sigmoid()], -1)
    assert scores.max() > 0.3
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-3)


def test_published_classes_become_the_data_sets(published: Path) -> None:
    all_of, ten = (build_model("yolox-nano", {"input_size": 64}, n) for n in (80, 10))
    assert isinstance(all_of, YoloX) and isinstance(ten, YoloX)
    rows = read_folded(all_of, published)["body.levels.1.class_out.bias"]
    state = read_folded(ten, published)["body.levels.1.class_out.bias"]
    assert torch.equal(state, rows[list(COCO_ROWS.values())])
    assert rows[COCO_ROWS["car"]] != rows[COCO_ROWS["bus"]]
