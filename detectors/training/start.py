"""Starting weights of a detector: from a file of weights, or a published YOLOX ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dmnet.core.errors import CheckpointError
from dmnet.core.training.start import Start, take
from dmnet.core.training.weights import read_weights
from dmnet.detectors.base import DetectionNet
from dmnet.detectors.yolox.folded import read_folded, settle
from dmnet.detectors.yolox.model import YoloX


def start_from(net: DetectionNet, path: Path, images: Sequence[Tensor]) -> Start:
    """Start a network from a file, and log what it took.

    Args:
        net: the network, changed in place.
        path: our weights, a plain state_dict, or a YOLOX ONNX file for one of its sizes.
        images: some of the training images, ``[3, h, w]`` RGB 0..1; their statistics go into the
            normalisation where the file has none.

    Raises:
        CheckpointError: unreadable, or nothing in it fits.
        MissingExtraError: an ONNX file without the extra ``onnx``.
    """
    if path.suffix.lower() == ".onnx":
        if not isinstance(net, YoloX):
            raise CheckpointError(
                path, f"an ONNX file can start a YOLOX network, not {net.architecture}"
            )
        start = take(net, read_folded(net, path), path, net.architecture)
        settle(net, images)
        return start
    return take(net, read_weights(path)[0], path, net.architecture)
