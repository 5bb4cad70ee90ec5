"""``dmnet predict``: objects in your own pictures, in one command."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dmnet.core import config
from dmnet.pipeline.executors.base import Engine
from dmnet.pipeline.models import entries
from dmnet.pipeline.options import add_executor
from dmnet.pipeline.outcome import add_max_bad, at_least_one, exit_code, number
from dmnet.pipeline.predict.inputs import Inputs, find_inputs
from dmnet.pipeline.predict.named import DEFAULT, find
from dmnet.pipeline.predict.outputs import KINDS, LAYERS, SaveConfig, Totals
from dmnet.pipeline.predict.run import Job, predict
from dmnet.pipeline.predict.settings import PredictConfig

SETTINGS = PredictConfig
_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    models = "; ".join(f"{name}: {entry.about}" for name, entry in entries().items())
    add("paths", nargs="+", metavar="PATH",
        help="picture, video, GeoTIFF, folder with its subfolders, glob, list (.txt)")  # fmt: skip
    add("--model", default=DEFAULT, metavar="NAME|FILE",
        help=f"model by name ({models}), or a detector's file")  # fmt: skip
    add("--density-model", type=Path, metavar="FILE", help="density network's file")
    add("--detector-settings", type=Path, metavar="YAML",
        help="settings of the detector, for example how an ONNX file is decoded")  # fmt: skip
    add("--out", type=Path, default=Path("predictions"), metavar="DIR", help="where results go")
    add("--confidence", type=number(0, 1, float), default=0.25, metavar="P",
        help="detections with lower scores are not written (default .25)")  # fmt: skip
    add("--classes", default="", metavar="NAME,NAME", help="only these classes")
    add("--slicer", choices=["density", "grid", "uniform", "none"],
        help="how windows are chosen; none: whole pictures only")  # fmt: skip
    add("--save", default=",".join(SaveConfig().kinds), metavar="KIND,KIND",
        help=f"what is written, of {', '.join(KINDS)} (default %(default)s)")  # fmt: skip
    add("--layers", default="", metavar="LAYER,LAYER",
        help=f"what pictures show beside the boxes, of {', '.join(LAYERS)}")  # fmt: skip
    add("--bands", metavar="R,G,B", help="bands of a raster that are shown as colours, from 1")
    add("--density-every", type=at_least_one, metavar="K",
        help="in a video the density network looks at every k-th frame (default 10)")  # fmt: skip
    add("--track", action="store_true", help="follow objects through a video (extra viz)")
    add("--line", metavar="X1,Y1,X2,Y2",
        help="in a video count the objects that cross this line, pixels; follows them")  # fmt: skip
    add("--device", default="auto", help="cpu, cuda, cuda:1, or auto")
    add_executor(add)
    add("--force", action="store_true", help="overwrite own files that were changed by hand")
    add_max_bad(add, "pictures")


def run(args: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Predict, write, and say what was found."""
    start = time.perf_counter()
    settings = config.merged(settings, _short(args))
    save = SaveConfig(_names(args.save), _names(args.layers), args.confidence, _names(args.classes))
    files = find(
        args.model, args.density_model,
        detector_settings=args.detector_settings, settings=settings, device=args.device,
    )  # fmt: skip
    inputs = find_inputs(args.paths)
    _say_left_out(inputs)
    engine = Engine(args.executor, 0, args.device, args.ray_address, args.ray_actors, args.ray_gpus)
    bad, totals = predict(Job(inputs.files, files, save, args.out, engine, args.force))
    for line in table(totals, time.perf_counter() - start):
        print(line)
    print(f"written to {args.out}")
    return exit_code(inputs.problems | bad, args.max_bad)


def _short(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that have an option of their own."""
    given: dict[str, dict[str, Any]] = {"crop": {}, "raster": {}, "video": {}}
    if args.slicer:
        given["crop"]["slicer"] = args.slicer
    if args.bands:
        given["raster"]["bands"] = args.bands
    if args.density_every:
        given["video"]["density_every"] = args.density_every
    if args.track:
        given["video"]["track"] = True
    if args.line:
        given["video"]["line"] = args.line
    return given


def _names(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _say_left_out(inputs: Inputs) -> None:
    for name, why in inputs.problems.items():
        _log.error("left out %s: %s", name, why)
    for suffix, paths in sorted(inputs.left_out.items()):
        _log.info("not pictures: %d files %s, such as %s", len(paths), suffix, paths[0])


def table(totals: Totals, seconds: float) -> Iterator[str]:
    """Objects by class, most frequent first."""
    per_image = max(1, totals.images)
    windows = totals.windows / per_image
    yield f"{totals.images} pictures, {windows:.1f} windows per image, {seconds:.1f} s"
    if totals.usage.passes:
        share = totals.usage.padded_share
        yield f"{totals.usage.passes} passes of the detector, {share:.0%} of their pixels padding"
    ordered = sorted(totals.objects.items(), key=lambda pair: (-pair[1], pair[0]))
    for name, count in [*ordered, ("all", sum(totals.objects.values()))]:
        yield f"{name:<20}{count:>8}{count / per_image:>10.1f} per image"
    if totals.density:
        mean = totals.density / per_image
        yield f"{'density network':<20}{totals.density:>8.0f}{mean:>10.1f} per image"
    for video, rows in totals.followed.items():
        yield f"{video}: each object once, and over the line inwards and outwards"
        yield from (f"{name:<20}{each:>8}{into:>10}{out:>10}" for name, each, into, out in rows)
