"""A density network ready to predict, whatever file it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dmnet.core.records import DensityMap, Image
from dmnet.density import onnx
from dmnet.density.predict import MAX_PIXELS, Network, predict
from dmnet.density.scale import Scaling


@dataclass(frozen=True)
class DensityNetwork:
    """A network in its form for prediction, and the scaling of its input."""

    name: str
    network: Network
    scaling: Scaling

    def predict(
        self,
        image: Image,
        *,
        long_side: int | None = None,
        max_pixels: int = MAX_PIXELS,
        overlap: int | None = None,
        batch: int = 1,
    ) -> DensityMap:
        """Predict the map of one RGB uint8 image ``(h, w, 3)``; see `dmnet.density.predict`.

        Args:
            image: the image.
            long_side: larger images are shrunk to it first; None: as the network was trained.
            max_pixels: largest tile that the network sees.
            overlap: of two tiles, pixels; None: as far as the network sees.
            batch: tiles at a time.
        """
        scaling = self.scaling
        if long_side is not None:
            scaling = replace(scaling, long_side=long_side)
        return predict(
            self.network,
            image,
            scaling,
            max_pixels=max_pixels,
            overlap=overlap,
            batch=batch,
        )


def load_density(
    path: str | Path, device: str = "auto", *, network: str | None = None
) -> DensityNetwork:
    """Load a density network.

    Args:
        path: weights file of ``train-density``, its ONNX export, or a state_dict of an MCNN.
        device: torch device, or ``auto``.
        network: ``module:function`` of weights that are of an outside package's network.

    Raises:
        CheckpointError: unreadable, or no density network.

    >>> import numpy as np
    >>> from dmnet import configs
    >>> weights = Path(configs.__file__).parent / "weights" / "mcnn-hit-uav.pt"
    >>> network = load_density(weights, "cpu")
    >>> network.predict(np.zeros((64, 96, 3), np.uint8)).values.shape
    (16, 24)
    """
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        exported, scaling = onnx.load(path)
        return DensityNetwork("onnx", exported, scaling)
    from dmnet.core.training.device import pick_device
    from dmnet.density.networks import TorchNetwork, folded, load_network  # torch: two seconds

    loaded, meta = load_network(path, network)
    ready = TorchNetwork(folded(loaded), pick_device(device))
    return DensityNetwork(meta["architecture"], ready, Scaling.of(meta))
