"""``dmnet quantise``: a trained YOLOv6 with 8-bit weights and activations."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dmnet.core.errors import CheckpointError, ConfigError, MissingInputError
from dmnet.core.files import write_atomic
from dmnet.core.images import SUFFIXES, read_image
from dmnet.core.tables import csv_text
from dmnet.detectors.base import load_net, save_net, to_tensor
from dmnet.detectors.yolov6.model import YoloV6, quantised
from dmnet.detectors.yolov6.quantise import Sensitivity
from dmnet.pipeline.outcome import at_least_one, how_many

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("--weights", type=Path, required=True, metavar="FILE",
        help="weights file of train-detector with a YOLOv6")  # fmt: skip
    add("--images", type=Path, required=True, metavar="DIR",
        help="pictures like those to come, on which ranges are measured")  # fmt: skip
    add("--count", type=at_least_one, default=64, metavar="N", help="measure on so many of them")
    add("--keep", type=how_many, default=0, metavar="K",
        help="leave the K most sensitive layers in floating point")  # fmt: skip
    add("--out", type=Path, required=True, metavar="FILE.pt",
        help="weights file to write; beside it FILE.csv, how sensitive each layer is")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the quantised weights, and the sensitivities beside them."""
    if args.out.suffix.lower() != ".pt":
        raise ConfigError(f"--out {args.out}: the name must end in .pt")
    images = Pictures(args.images, args.count)
    net = load_net(args.weights)
    if not isinstance(net, YoloV6):
        raise CheckpointError(
            args.weights, f"holds {net.architecture}; only the YOLOv6 networks can be quantised"
        )
    made, layers = quantised(net, images, args.keep)
    write_atomic(args.out, [save_net(made)])
    write_atomic(args.out.with_suffix(".csv"), [_table(layers, args.keep)])
    _log.info(
        "%s, 8 bits from %d pictures, %d of %d layers in floating point: %s",
        net.architecture, len(images), min(args.keep, len(layers)), len(layers), args.out,
    )  # fmt: skip
    return 0


class Pictures(Sequence[Tensor]):
    """Pictures of a folder, evenly spaced in the order of their names, decoded when asked for."""

    def __init__(self, folder: Path, count: int) -> None:
        """List at most ``count`` pictures.

        Raises:
            MissingInputError: the folder holds none.
        """
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [path for path in found if path.suffix.lower() in SUFFIXES]
        if not found:
            raise MissingInputError(f"{folder}: holds no picture; give their folder with --images.")
        count = min(count, len(found))
        self.paths = [found[i * len(found) // count] for i in range(count)]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        """One picture, ``(3, h, w)``."""
        return to_tensor(read_image(self.paths[index]), torch.device("cpu"))


def _table(layers: Sequence[Sensitivity], keep: int) -> bytes:
    rows = [
        (layer.layer, f"{layer.error:.6g}", 32 if place < keep else 8)
        for place, layer in enumerate(layers)
    ]
    return csv_text([("layer", "relative_error", "bits"), *rows]).encode()
