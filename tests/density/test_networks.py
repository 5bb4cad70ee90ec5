from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v2

from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.training.start import take
from dmnet.core.training.weights import read_weights, weights_bytes
from dmnet.density.mcnn import MCNN
from dmnet.density.mobilenet import MobileNet
from dmnet.density.names import NETWORKS
from dmnet.density.networks import build, folded, load_network, save_network
from dmnet.density.scale import Scaling
from dmnet.density.unet import UNet


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.manual_seed(0)


# MCNN


def test_mcnn_has_the_published_number_of_parameters() -> None:
    assert parameters(MCNN()) == 133_705


def test_mcnn_has_the_published_layers() -> None:
    layers = [
        [(m.kernel_size[0], m.out_channels) for m in column if isinstance(m, nn.Conv2d)]
        for column in MCNN().columns
        if isinstance(column, nn.Sequential)
    ]
    assert layers == [
        [(9, 16), (7, 32), (7, 16), (7, 8)],
        [(7, 20), (5, 40), (5, 20), (5, 10)],
        [(5, 24), (3, 48), (3, 24), (3, 12)],
    ]


@pytest.mark.parametrize(
    ("size", "expected"), [((4, 4), (1, 1)), ((64, 48), (16, 12)), ((67, 50), (16, 12))]
)
def test_mcnn_gives_a_quarter_of_the_input(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert MCNN()(torch.zeros(2, 3, *size)).shape == (2, 1, *expected)


def test_mcnn_starts_from_a_narrow_normal() -> None:
    network = MCNN()
    weights = torch.cat([p.flatten() for n, p in network.state_dict().items() if "weight" in n])
    assert weights.std().item() == pytest.approx(0.01, rel=0.02)
    assert all(not p.any() for n, p in network.named_parameters() if "bias" in n)


def test_mcnn_has_no_final_relu() -> None:
    network = MCNN()
    assert network.head.bias is not None
    nn.init.constant_(network.head.bias, -1)
    assert (network(torch.zeros(1, 3, 8, 8)) == -1).all()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_no_output_depends_on_input_beyond_the_reach(name: str) -> None:
    network = build(name, width=2).double().eval()
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.max_val = 1e300
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()  # nothing cancels, every ReLU is open
            if parameter.ndim == 1:
                parameter.fill_(1.0)
    multiple, reach, stride = (int(getattr(network, n)) for n in ("multiple", "reach", "stride"))
    side = 2 * (-(-reach // multiple) * multiple) + 4 * multiple
    for offset in range(0, multiple, 4):
        image = torch.rand(1, 3, side, side, dtype=torch.double, requires_grad=True)
        cell = side // 2 // stride + offset // stride
        network(image)[0, 0, cell, cell].backward()
        assert image.grad is not None
        touched = image.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten()
        first, last = int(touched.min()), int(touched.max())
        assert cell * stride - first <= reach
        assert last - (cell + 1) * stride + 1 <= reach


# U-Net


def test_unet_in_its_published_form() -> None:
    with torch.device("meta"):
        network = UNet(channels=1, width=64, padding="valid", stride=1, classes=2)
        assert network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert parameters(network) == 31_030_658


def test_unet_for_density() -> None:
    network = UNet(width=4)
    assert network(torch.zeros(1, 3, 32, 48)).shape == (1, 1, 8, 12)


def test_unet_sums_its_output_into_cells() -> None:
    fine, coarse = UNet(width=2, stride=1), UNet(width=2, stride=4)
    coarse.load_state_dict(fine.state_dict())
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(coarse(image).sum(), fine(image).sum())


@pytest.mark.parametrize("width", [8, 16])
def test_the_width_of_unet(width: int) -> None:
    network = UNet(width=width)
    assert network.down[0][0].out_channels == width  # type: ignore[index,union-attr]
    assert network.down[-1][0].out_channels == 16 * width  # type: ignore[index,union-attr]


# MobileNet


@pytest.mark.parametrize(("stride", "count"), [(4, 567_489), (8, 560_897)])
def test_mobilenet_answers_at_its_stride(stride: int, count: int) -> None:
    network = MobileNet(stride).eval()
    assert parameters(network) == count
    assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 1, 64 // stride, 96 // stride)


def test_mobilenet_is_cheap_enough_to_pay() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        MobileNet(8).eval()(torch.empty(1, 3, 368, 640))
    assert counter.get_total_flops() / 2 == pytest.approx(1.02e9, rel=0.01)


def test_folding_batch_norms_changes_nothing() -> None:
    network = MobileNet(8)
    network(torch.rand(2, 3, 64, 64))  # means and variances that are not 0 and 1
    network.eval()
    ready = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    image = torch.rand(1, 3, 48, 64)
    torch.testing.assert_close(ready(image), network(image), rtol=1e-4, atol=1e-5)


def test_the_encoder_starts_from_torchvisions_weights(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    whole = mobilenet_v2(weights=None, num_classes=2)
    half = {k: v.half() if v.ndim > 1 else v for k, v in whole.state_dict().items()}
    torch.save(half, path)
    network = MobileNet()
    found = take(network, read_weights(path)[0], path, "mobilenet")
    assert len(found.taken) == len(network.features.state_dict())
    for key, value in network.features.state_dict().items():
        torch.testing.assert_close(value, half[f"features.{key}"].to(value.dtype), rtol=0, atol=0)
    network.features.load_state_dict(whole.features[:14].state_dict())
    image = torch.rand(2, 3, 64, 48)
    for mode in (True, False):  # statistics of the batch, and the running ones
        own, theirs = network.train(mode).features, whole.train(mode).features[:14]
        torch.testing.assert_close(own(image), theirs(image), rtol=1e-5, atol=1e-5)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(MCNN().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"other\.pth: 1 of its 26 tensors has a n"):
        take(MobileNet(), read_weights(path)[0], path, "mobilenet")


def test_a_stride_that_a_network_has_not() -> None:
    with pytest.raises(ConfigError, match="mcnn answers at stride 4, not at 8"):
        build("mcnn", stride=8)


# weights files


@pytest.mark.parametrize("name", ["mobilenet", "unet"])
def test_size_and_stride_travel_with_the_weights(name: str, tmp_path: Path) -> None:
    network = build(name, 2, 8).eval()
    scaling = Scaling((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 640)
    path = tmp_path / "weights.pt"
    path.write_bytes(save_network(network, name, 2, scaling, {}))
    loaded, meta = load_network(path)
    assert Scaling.of(meta) == scaling
    assert (meta["stride"], loaded.stride) == (8, 8)
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(loaded(image), network(image), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "width"), [("mcnn", 0), ("unet", 4), ("mobilenet", 0)])
def test_own_weights_round_trip(name: str, width: int, tmp_path: Path) -> None:
    network = build(name, width)
    path = tmp_path / "weights.pt"
    data = save_network(network, name, width, Scaling(10.0, 2.0), {"seed": 1})
    path.write_bytes(data)
    assert data == save_network(network, name, width, Scaling(10.0, 2.0), {"seed": 1})
    loaded, meta = load_network(path)
    assert meta["architecture"] == name
    assert meta["stride"] == 4
    assert Scaling.of(meta) == Scaling(10.0, 2.0)
    assert not loaded.training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_foreign_mcnn_is_known_by_its_shapes(wrap: bool, tmp_path: Path) -> None:
    network = MCNN()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.1, 0.1)
    items = list(network.state_dict().items())
    # another order of columns and layers, other names
    renamed = {
        f"net.layer{i // 2}.conv.{key.split('.')[-1]}": value
        for i, (key, value) in enumerate(items)
    }
    state = dict(sorted(renamed.items(), reverse=True))
    path = tmp_path / "foreign.pth"
    torch.save({"state_dict": state} if wrap else state, path)
    loaded, meta = load_network(path)
    image = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(loaded(image), network.eval()(image))
    assert Scaling.of(meta) == Scaling(0.0, 1.0)


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"other\.pth: not an MCNN"):
        load_network(path)
    extra = {**MCNN().state_dict(), "more": torch.zeros(1)}
    torch.save(extra, path)
    with pytest.raises(CheckpointError, match="27 tensors, an MCNN has 26"):
        load_network(path)


def test_our_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(weights_bytes(MCNN().state_dict(), {"architecture": "fasterrcnn"}))
    with pytest.raises(CheckpointError, match="made for 'fasterrcnn'"):
        load_network(path)
    path.write_bytes(weights_bytes(MCNN().state_dict(), {"architecture": "unet", "width": 4}))
    with pytest.raises(CheckpointError, match=r"'head.weight' has shape .* but unet needs"):
        load_network(path)
    path.write_bytes(
        weights_bytes(build("unet", 8).state_dict(), {"architecture": "unet", "width": 4})
    )
    with pytest.raises(CheckpointError, match=r"has shape \(8,.*unet needs \(4,"):
        load_network(path)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_network(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError):
        load_network(path)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(
        ConfigError, match="no density network 'mnn'; there are mcnn, mobilenet, unet"
    ):
        build("mnn")
