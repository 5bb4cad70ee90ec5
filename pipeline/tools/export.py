"""``dmnet export``: a density network or a detector as an ONNX file, compared with the original."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.files import write_atomic
from dmnet.core.images import read_image
from dmnet.core.training.weights import read_weights
from dmnet.density import networks as density
from dmnet.density.names import NETWORKS as DENSITY
from dmnet.density.scale import Scaling
from dmnet.detectors import export
from dmnet.detectors.base import load_net
from dmnet.detectors.names import NETWORKS
from dmnet.pipeline.outcome import at_least_one
from dmnet.pipeline.tools.quantise import Pictures

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("--weights", type=Path, required=True, metavar="FILE",
        help="weights file of train-density or train-detector, or a plain state_dict")  # fmt: skip
    add("--network", metavar="NAME",
        help="what a plain state_dict is of: mcnn, or the name of a detector")  # fmt: skip
    add("--out", type=Path, required=True, metavar="FILE.onnx")
    add("--int8", action="store_true",
        help="8-bit weights: a third of the size or less, computed in floating point")  # fmt: skip
    add("--images", type=Path, metavar="DIR",
        help="with --int8, of a YOLOv6 or YOLOX: compute in 8 bits too, ranges measured on these "
        "pictures of the training split. Compare its AP: YOLOX-nano loses most of it")  # fmt: skip
    add("--count", type=at_least_one, default=64, metavar="N", help="measure on so many of them")


def run(args: argparse.Namespace) -> int:
    """Write the file; nothing is written where its outputs differ from the network's."""
    if args.out.suffix.lower() != ".onnx":
        raise ConfigError(f"--out {args.out}: the name must end in .onnx")
    _, meta = read_weights(args.weights)
    name = meta.get("architecture") or args.network
    if args.network not in (None, name):
        raise ConfigError(f"--network {args.network}: {args.weights} holds weights of {name}")
    if args.images is not None and not args.int8:
        raise ConfigError("--images DIR is for --int8: ranges are measured on pictures")
    data = _render(args.weights, name, meta)
    if args.int8:
        _write_int8(args, str(name), data)
        return 0
    write_atomic(args.out, [data])
    _log.info("%s, same outputs as the network's: %s (%d KiB)", name, args.out, len(data) >> 10)
    return 0


def _write_int8(args: argparse.Namespace, name: str, data: bytes) -> None:
    """Write an export in 8 bits.

    Raises:
        ConfigError: 8-bit activations of a network that cannot have them.
    """
    from dmnet.detectors.int8 import light, quantised

    if args.images is None:
        small, what = light(data), "8-bit weights"
    elif name in DENSITY:
        raise ConfigError(
            f"--images: {name} is a density network; leave --images away: the weights alone can be "
            "in 8 bits"
        )
    else:
        pictures = Pictures(args.images, args.count)
        small = quantised(data, (read_image(path) for path in pictures.paths))
        what = f"8-bit weights and activations, from {len(pictures)} pictures"
    write_atomic(args.out, [small])
    size = f"{len(small) >> 10} KiB, {len(small) / len(data):.2f} of the float file's"
    _log.info("%s, %s: %s (%s %d KiB)", name, what, args.out, size, len(data) >> 10)
    if name not in DENSITY:
        _log.info(
            "its AP and milliseconds: dmnet slice-report --detector onnx --detector-weights %s "
            "--only-settings --setting 'whole slicer=none'",
            args.out,
        )


def _render(path: Path, name: str | None, meta: dict[str, Any]) -> bytes:
    if name in DENSITY:
        network, meta = density.load_network(path)
        scaling = Scaling.of(meta)
        return export.export_density(network, str(name), scaling.stated())
    if name in NETWORKS:
        if meta.get("settings", {}).get("form") == "int8":
            raise ConfigError(
                f"{path}: holds {name} in int8 form, which ONNX has no faithful export of; export "
                "the weights it was quantised from, with --int8"
            )
        return export.export_detector(load_net(path, name))
    known = ", ".join([*sorted(DENSITY), *sorted(NETWORKS)])
    if name is None:
        raise CheckpointError(
            path, f"a plain state_dict does not say its network; add --network, one of: {known}"
        )
    raise ConfigError(f"{path}: '{name}' cannot be exported to ONNX; what can: {known}")
