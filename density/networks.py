"""The density networks by name, and their weights files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.training import read_weights, weights_bytes
from dmnet.density.mcnn import MCNN
from dmnet.density.unet import UNet


def _mcnn(width: int) -> nn.Module:
    return MCNN()


def _unet(width: int) -> nn.Module:
    return UNet(width=width)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"mcnn": _mcnn, "unet": _unet}
"""Name to a function of the width (channels of the first U-Net level; MCNN has a fixed one)."""


@dataclass(frozen=True)
class Scaling:
    """How a network wants its input: RGB, ``(value - mean) / std`` of 0..255."""

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Scaling:
        """Take the scaling from a weights file's metadata; unscaled RGB where it says nothing."""
        stated = meta.get("input", {})
        return cls(float(stated.get("mean", 0.0)), float(stated.get("std", 1.0)))


def build(name: str, width: int = 64) -> nn.Module:
    """Make a network that maps ``(N, 3, H, W)`` to objects per 4x4 cell ``(N, 1, H/4, W/4)``.

    Raises:
        ConfigError: there is no network of that name.
    """
    if name not in NETWORKS:
        raise ConfigError(f"no density network '{name}'; there are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](width)


def save_network(
    network: nn.Module, name: str, width: int, scaling: Scaling, config: Mapping[str, Any]
) -> bytes:
    """Render weights and metadata as one file that `load_network` reads."""
    meta = {
        "architecture": name,
        "width": width,
        "stride": 4,
        "input": {"mean": scaling.mean, "std": scaling.std, "colour": "RGB"},
        "config": dict(config),
    }
    return weights_bytes(network.state_dict(), meta)


def load_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a network and its metadata from our weights file or from a foreign MCNN state_dict.

    A foreign MCNN is known by the shapes of its convolutions, whatever their names; it is taken to
    want unscaled RGB 0..255.

    Raises:
        CheckpointError: unreadable, or made for another network.
    """
    state, meta = read_weights(path)
    if "architecture" not in meta:
        network: nn.Module = MCNN()
        network.load_state_dict(_rename(path, state, network.state_dict()))
        meta = {"architecture": "mcnn", "width": 0, "stride": 4, "input": {}, "config": {}}
        return network.eval(), meta
    name = str(meta["architecture"])
    if name not in NETWORKS:
        raise CheckpointError(
            path, f"made for '{name}', not for a density network ({', '.join(sorted(NETWORKS))})"
        )
    network = build(name, int(meta.get("width", 64)))
    _same_shapes(path, name, state, network.state_dict())
    network.load_state_dict(state)
    return network.eval(), meta


def _same_shapes(
    path: Path, name: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    for key in sorted(wanted.keys() | state.keys()):
        here = tuple(wanted[key].shape) if key in wanted else "absent"
        there = tuple(state[key].shape) if key in state else "absent"
        if here != there:
            raise CheckpointError(
                path, f"does not fit {name}: '{key}' is {there} in the file, {here} in the network"
            )


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
