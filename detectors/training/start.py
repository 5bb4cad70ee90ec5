"""Starting weights for a training from any file of weights that fits, in whole or in part."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dmnet.core import training
from dmnet.core.errors import CheckpointError
from dmnet.detectors.base import DetectionNet
from dmnet.detectors.yolox.folded import read_folded, settle
from dmnet.detectors.yolox.model import YoloX

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What a network took from a file: names of the network's tensors, and of the file's."""

    taken: tuple[str, ...]
    """of the network, now as in the file"""
    new: tuple[str, ...]
    """of the network, left as they were: the file has none of this name and shape"""
    unused: tuple[str, ...]
    """of the file"""


def prefix_of(own: Iterable[str], names: Iterable[str]) -> str:
    """What has to precede the names for most of them to be among ``own``; of equals the shortest.

    >>> prefix_of(["body.stem.weight", "head.bias"], ["stem.weight", "fc.bias"])
    'body.'
    """
    mine, found = set(own), {""}
    for name in names:
        found |= {key.removesuffix(name) for key in mine if key.endswith(f".{name}")}
    wanted = list(names)
    return min(found, key=lambda p: (-sum(p + name in mine for name in wanted), len(p), p))


def take(net: DetectionNet, state: Mapping[str, Tensor], path: Path) -> Start:
    """Put every tensor whose name and shape fit into a network.

    Names of a backbone alone are found in the network where most of them fit.

    Raises:
        CheckpointError: none fits.
    """
    own = net.state_dict()
    prefix = prefix_of(own, state)
    fits = {k for k, v in state.items() if prefix + k in own and own[prefix + k].shape == v.shape}
    if not fits:
        raise CheckpointError(
            path,
            f"none of its {len(state)} tensors has a name and shape of {net.architecture} "
            f"(its first is '{next(iter(state))}'); give weights of a network of this family",
        )
    net.load_state_dict({prefix + name: state[name] for name in fits}, strict=False)
    taken = {prefix + name for name in fits}
    return Start(
        tuple(name for name in own if name in taken),
        tuple(name for name in own if name not in taken),
        tuple(name for name in state if name not in fits),
    )


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
        start = take(net, read_folded(net, path), path)
        settle(net, images)
    else:
        start = take(net, training.read_weights(path)[0], path)
    new = [name for name in start.new if not name.endswith("num_batches_tracked")]
    _log.info(
        "%s: %d tensors taken, %d of the network start anew%s, %d of the file unused",
        path.name,
        len(start.taken),
        len(new),
        f" ({', '.join(new[:4])}{' ...' if len(new) > 4 else ''})" if new else "",
        len(start.unused),
    )
    return start
