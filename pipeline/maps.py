"""A density network from a file, ready to predict maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmnet.core.records import DensityMap, Image

if TYPE_CHECKING:
    from torch import nn

    from dmnet.density.networks import Scaling


@dataclass(frozen=True)
class Mapper:
    """A density network: its name, how it wants its input, and where it runs."""

    name: str
    network: nn.Module
    scaling: Scaling
    device: str

    def __call__(self, image: Image, **how: Any) -> DensityMap:
        """The map of an image; ``how`` as in `dmnet.density.predict.predict`."""
        from dmnet.density.predict import predict

        return predict(self.network, image, self.scaling, device=self.device, **how)


def load_mapper(weights: Path, device: str = "auto", *, long_side: int | None = None) -> Mapper:
    """Load our weights file, its export (.onnx), or a foreign MCNN.

    Args:
        weights: the file.
        device: torch device, or ``auto``.
        long_side: of the network's input, pixels; 0 the image's own, None as the file says.

    Raises:
        CheckpointError: unreadable, or made for another network.
    """
    from dmnet.core.training import pick_device
    from dmnet.density import networks, onnx

    network: nn.Module
    if weights.suffix.lower() == ".onnx":
        network, scaling = onnx.load(weights)
        name, place = "onnx", "cpu"
    else:
        network, meta = networks.load_network(weights)
        name, place = meta["architecture"], pick_device(device)
        network, scaling = networks.folded(network), networks.Scaling.of(meta)
    if long_side is not None:
        scaling = replace(scaling, long_side=long_side)
    return Mapper(name, network, scaling, place)
