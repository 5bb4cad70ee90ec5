"""The density networks by name, and their weights files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmnet.core import plugins
from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.training.weights import load_state, read_weights, weights_bytes
from dmnet.density.names import NETWORKS
from dmnet.density.scale import Scaling

PARTS = ("stride", "multiple", "reach", "head")
"""What a density network has, see `NETWORKS`."""


IMAGENET: tuple[tuple[float, ...], tuple[float, ...]] = (
    (123.675, 116.28, 103.53),
    (58.395, 57.12, 57.375),
)
"""Mean and standard deviation of RGB 0..255 that torchvision's backbones were trained with."""


def build(
    name: str, width: int = 64, stride: int = 4, own: Mapping[str, Any] | None = None
) -> nn.Module:
    """Make a network that maps ``(N, 3, H, W)`` to objects per cell, ``(N, 1, H / s, W / s)``.

    Args:
        name: of `NETWORKS`, or ``module:function`` of an outside package.
        width: channels of the first U-Net level; the others have a fixed one.
        stride: side ``s`` of a cell in pixels.
        own: settings of an outside network.

    Raises:
        ConfigError: there is no network of that name, or not at that stride or with such settings.
    """
    if name not in NETWORKS and not plugins.is_outside(name):
        raise ConfigError(f"no density network '{name}'; there are {', '.join(sorted(NETWORKS))}")
    make = plugins.load(NETWORKS.get(name, name))
    settings = {"width": width} if name == "unet" else dict(own or {})
    try:
        network = make(stride=stride, **settings)
    except TypeError as error:
        raise ConfigError(f"{name}: cannot be made of stride and {settings} ({error})") from error
    lacks = [part for part in PARTS if not hasattr(network, part)]
    if lacks or not isinstance(network, nn.Module):
        raise ConfigError(f"{name}: gives no density network, it lacks {', '.join(lacks) or 'all'}")
    return network


def folded(network: nn.Module) -> nn.Module:
    """A copy for prediction, its batch norms folded into the convolutions before them."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for index in range(len(module) - 1):
                first, second = module[index], module[index + 1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    module[index] = nn.utils.fuse_conv_bn_eval(first, second)
                    module[index + 1] = nn.Identity()
    return network


class TorchNetwork:
    """A torch network as `dmnet.density.predict.predict` runs it; it is moved to its device."""

    def __init__(self, network: nn.Module, device: str = "cpu") -> None:
        """Put the network into its form for prediction, on ``device``."""
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.device = device
        self.stride, self.multiple, self.reach = (
            int(cast(Any, getattr(network, name))) for name in ("stride", "multiple", "reach")
        )

    @torch.inference_mode()
    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `dmnet.density.predict.Network.run`."""
        # twice as fast as the default layout on a CPU
        images = torch.from_numpy(inputs).to(self.device, memory_format=torch.channels_last)
        outputs: NDArray[np.float32] = self.network(images).float().cpu().numpy()
        return outputs


def save_network(
    network: nn.Module, name: str, width: int, scaling: Scaling, config: Mapping[str, Any]
) -> bytes:
    """Render weights and metadata as one file that `load_network` reads."""
    meta = {
        "architecture": name,
        "width": width,
        "stride": int(cast(Any, network.stride)),
        "input": scaling.stated() | {"colour": "RGB"},
        "settings": dict(config.get("own", {})),
        "config": dict(config),
    }
    return weights_bytes(network.state_dict(), meta)


def load_network(path: str | Path, outside: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Read a network and its metadata from our weights file or from a foreign MCNN state_dict.

    A foreign MCNN is known by the shapes of its convolutions, whatever their names; it is taken to
    want unscaled RGB 0..255.

    Args:
        path: the file.
        outside: ``module:function`` of the network, where it is none of this package: no file says
            what code is run.

    Raises:
        CheckpointError: unreadable, or made for another network.
    """
    path = Path(path)
    state, meta = read_weights(path)
    if "architecture" not in meta:
        network = build("mcnn")
        network.load_state_dict(_rename(path, state, network.state_dict()))
        meta = {"architecture": "mcnn", "width": 0, "stride": 4, "input": {}, "config": {}}
        return network.eval(), meta
    name = str(meta["architecture"])
    if plugins.is_outside(name) and name != outside:
        raise CheckpointError(
            path,
            f"holds weights of '{name}', which is no network of this package; no file says what "
            f"code is run: name it, --train-density.network {name}",
        )
    if name not in NETWORKS and name != outside:
        raise CheckpointError(
            path, f"made for '{name}', not for a density network ({', '.join(sorted(NETWORKS))})"
        )
    size = int(meta.get("width", 64)), int(meta.get("stride", 4))
    network = build(name, *size, meta.get("settings"))
    load_state(network, state, path, name)
    return network.eval(), meta


def _rename(
    path: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give a foreign MCNN our names; each weight has a shape of its own, each bias its prefix."""
    by_shape = {tuple(v.shape): k.removesuffix("weight") for k, v in state.items() if v.ndim == 4}
    renamed: dict[str, Tensor] = {}
    for key, tensor in wanted.items():
        if tensor.ndim != 4:
            continue
        shape = tuple(tensor.shape)
        theirs = by_shape.get(shape)
        bias = state.get(f"{theirs}bias")
        if theirs is None or bias is None or tuple(bias.shape) != shape[:1]:
            raise CheckpointError(
                path,
                f"not an MCNN: it holds no convolution {shape} with a bias. Plain state_dicts are "
                "read for MCNN only; other networks need a file written by this project",
            )
        renamed[key] = state[f"{theirs}weight"]
        renamed[key.removesuffix("weight") + "bias"] = bias
    if len(state) != len(wanted):
        raise CheckpointError(path, f"not an MCNN: {len(state)} tensors, an MCNN has {len(wanted)}")
    return {key: value.float() for key, value in renamed.items()}
