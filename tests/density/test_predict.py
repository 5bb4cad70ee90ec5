from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmnet.core.errors import ConfigError
from dmnet.core.images import read_image
from dmnet.density.networks import TorchNetwork, build, load_network
from dmnet.density.predict import predict
from dmnet.density.scale import Scaling


class Mean(nn.Module):
    """Sum of the red channel of each 4x4 cell, minus 100: a network whose answer is known."""

    stride, multiple, reach = 4, 4, 4

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images[:, :1], 4) * 16 - 100


def lively(name: str) -> nn.Module:
    """A network with random weights whose output varies over the image."""
    torch.manual_seed(1)
    network = build(name, 4)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            assert module.bias is not None
            nn.init.uniform_(module.bias, -0.1, 0.1)
    head = network.get_submodule("head")
    nn.init.uniform_(head.weight, 0, 1)  # type: ignore[arg-type]
    return network


def image_of(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_values_by_hand() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4, 4:, 0] = 10  # 160 in all
    image[4:, :4, 1] = 255  # another channel
    found = predict(TorchNetwork(Mean()), image)
    np.testing.assert_allclose(found.values, [[0, 60], [0, 0]])
    assert (found.stride, found.size) == (4, (8, 8))


def test_the_scaling_is_applied() -> None:
    image = np.full((4, 4, 3), 50, np.uint8)
    found = predict(TorchNetwork(Mean()), image, Scaling(mean=20.0, std=2.0))
    np.testing.assert_allclose(found.values, [[15 * 16 - 100]])


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (765, 1360), (17, 4)])
def test_odd_sizes_are_rounded_up(size: tuple[int, int]) -> None:
    found = predict(TorchNetwork(Mean()), np.full((*size, 3), 255, np.uint8))
    assert found.values.shape == (-(-size[0] // 4), -(-size[1] // 4))
    assert found.size == size


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("name", "size", "pixels"),
    [
        ("mcnn", (150, 210), 128 * 128),
        ("mcnn", (149, 97), 100 * 100),
        ("mcnn", (90, 700), 150 * 150),
        ("mcnn", (700, 90), 150 * 150),
        ("unet", (250, 330), 240 * 240),
    ],
)
def test_tiles_give_what_the_whole_image_gives(
    name: str, size: tuple[int, int], pixels: int, batch: int, rng: np.random.Generator
) -> None:
    network, image = TorchNetwork(lively(name)), image_of(rng, *size)
    scaling = Scaling(128.0, 64.0)
    whole = predict(network, image, scaling)
    tiled = predict(network, image, scaling, max_pixels=pixels, batch=batch)
    assert whole.values.max() > 0
    np.testing.assert_allclose(tiled.values, whole.values, atol=2e-5 * whole.values.max())


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_each_channel_has_its_own_scaling(channel: int) -> None:
    class One(Mean):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(images[:, channel : channel + 1], 4)

    image = np.full((4, 4, 3), 90, np.uint8)
    found = predict(TorchNetwork(One()), image, Scaling((10.0, 20.0, 30.0), (2.0, 5.0, 10.0)))
    assert found.values.tolist() == [[[40.0, 14.0, 6.0][channel]]]


def test_a_shrunk_image_by_hand() -> None:
    """A third of the size: a cell of the network is 12 pixels wide; the map has stride 8."""
    image = np.zeros((24, 48, 3), np.uint8)
    image[:12, 12:24, 0] = 20
    found = predict(TorchNetwork(Mean()), image, Scaling(long_side=16))
    assert (found.stride, found.size) == (8, (24, 48))
    mass = 20 * 16 - 100
    expected = np.zeros((3, 6))
    expected[:2, 1:3] = np.outer([8, 4], [4, 8]) * mass / 144
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)


def test_an_overlap_below_the_reach_leaves_a_seam(rng: np.random.Generator) -> None:
    network, image = TorchNetwork(lively("mcnn")), image_of(rng, 150, 210)
    whole = predict(network, image)
    seamed = predict(network, image, max_pixels=128 * 128, overlap=4)
    assert np.abs(seamed.values - whole.values).max() > 1e-3 * whole.values.max()


@pytest.mark.parametrize("bad", [{"batch": 0}, {"overlap": -4}])
def test_values_out_of_range_are_errors(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="batch must be at least 1 and overlap at least 0"):
        predict(TorchNetwork(Mean()), np.zeros((8, 8, 3), np.uint8), **bad)


def test_too_small_a_budget_is_an_error(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match="max_pixels 4096 is too small for an overlap of 40 px"):
        predict(TorchNetwork(build("mcnn")), image_of(rng, 200, 200), max_pixels=4096)


@pytest.mark.slow
def test_thirdparty_weights_give_their_known_counts(shared: Path) -> None:
    network, meta = load_network(shared / "data/weights/mcnn-visdrone-thirdparty.pth")
    folder = shared / "data/visdrone-mini/VisDrone2019-DET-val/images"
    # the published counts are sums before negative cells are set to 0
    image = read_image(folder / "0000364_01765_d_0000782.jpg")
    assert predict(TorchNetwork(network), image, Scaling.of(meta)).count == pytest.approx(
        97.4, abs=0.1
    )
    with torch.inference_mode():
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()
        assert float(network(pixels[None]).sum()) == pytest.approx(97.1, abs=0.1)
    image = read_image(folder / "0000301_00001_d_0000156.jpg")
    assert predict(TorchNetwork(network), image, Scaling.of(meta)).count == pytest.approx(
        112.6, abs=0.1
    )


MEMORY = """
import resource, sys
import numpy as np, torch
from dmnet.density.networks import TorchNetwork
from dmnet.density.predict import predict
torch.set_num_threads(1)
class Cheap(torch.nn.Module):
    stride, multiple, reach = 4, 4, 40
    def __init__(self):
        super().__init__()
        self.widest = torch.nn.Conv2d(3, 24, 1)  # MCNN has no more than 24 channels at full size
    def forward(self, x):
        return torch.nn.functional.avg_pool2d(self.widest(x).relu_(), 4)[:, :1]
image = np.zeros((8000, 12000, 3), np.uint8)
found = predict(TorchNetwork(Cheap()), image)
assert found.values.shape == (2000, 3000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_a_huge_image_fits_in_two_gigabytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < 2048
