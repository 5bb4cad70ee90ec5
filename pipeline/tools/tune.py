"""``dmnet tune``: crop, packing and fusion settings of a detector by AP per millisecond."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dmnet.core import config
from dmnet.core.artifact import Artifact
from dmnet.core.dataset import open_dataset
from dmnet.core.errors import ConfigError, InputError, MissingInputError
from dmnet.core.journal import read_header
from dmnet.cropping.slicers import CropConfig
from dmnet.detectors.load import Detector
from dmnet.fusion.fuse import FuseConfig
from dmnet.pipeline.outcome import add_data, add_max_bad, exit_code, how_many, number
from dmnet.pipeline.worth import choice
from dmnet.pipeline.worth import stream as measuring
from dmnet.pipeline.worth.choice import Prices, Trial
from dmnet.pipeline.worth.measure import Row, Setup, frontier
from dmnet.pipeline.worth.stream import Gear, Table
from dmnet.pipeline.worth.table import table

VERSION = 1
THRESHOLDS = (0.08, 0.16, 0.32, 0.64)
WHOLE = 1.6
"""Times the detector's input: the larger of the two that whole images are tried with."""
_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add_data(add, "train")
    add("--judged", action="store_true",
        help="also on a split to be judged by; scores on it then prove nothing")  # fmt: skip
    measuring.add_arguments(parser)
    add("--maps", type=Path, metavar="DIR", help="predicted density maps, instead of --weights")
    add("--limit", type=how_many, default=100, metavar="N",
        help="images looked at, evenly drawn; 0: all")  # fmt: skip
    add("--thresholds", type=number(1e-9, 1e9, float), nargs="+", default=THRESHOLDS,
        metavar="X", help="values of crop.threshold")  # fmt: skip
    add("--max-sides", type=number(1, 1 << 20), nargs="+", default=(500, 800), metavar="N",
        help="values of crop.max-side, pixels")  # fmt: skip
    add("--min-objects", type=number(0, 1e9, float), nargs="+", default=(0.0, 4.0), metavar="X",
        help="values of crop.min-objects: what a crop has to hold")  # fmt: skip
    add("--pack", type=number(0, 1 << 14), metavar="SIDE",
        help="side of the canvases of packed crops, pixels; 0: never packed; "
        "by default the detector's input")  # fmt: skip
    add("--pack-zooms", type=number(0.1, 16, float), nargs="+", default=(1.0, 2.0), metavar="X",
        help="values of detect.pack.zoom")  # fmt: skip
    add("--whole-sides", type=number(0, 1 << 14), nargs="+", metavar="N",
        help="values of detect.whole-side, pixels; 0: as for crops; by default 0 and 1.6 times "
        "the detector's input, where that may have any size")  # fmt: skip
    add("--share", type=number(1e-9, 1e9, float), default=0.5, metavar="X",
        help="budget: share of the milliseconds of grid 512")  # fmt: skip
    add(
        "--budget-ms",
        type=number(1e-9, 1e9, float),
        metavar="X",
        help="budget in milliseconds per image instead",
    )
    add("--pass-ms", type=number(1e-9, 1e9, float), metavar="X",
        help="stated price of the detector on a whole image, instead of the clock's")  # fmt: skip
    add(
        "--density-ms",
        type=number(0, 1e9, float),
        metavar="X",
        help="stated price of a density map, beside it",
    )
    add("--out", type=Path, default=Path("artifacts/tune"), metavar="DIR",
        help="where tune.yaml, the table and all detections are written")  # fmt: skip
    add_max_bad(add)


def run(args: argparse.Namespace) -> int:
    """Measure, try, choose; write preset and table, print both."""
    prices = _checked(args)
    dataset = open_dataset(args.data, args.split, args.sizes)
    entries = measuring.usable(dataset, args.limit)
    if not entries:
        raise MissingInputError(f"{dataset.root}: no image of this split has annotations to score")
    gear = Gear.of(args)
    detector = gear.load(dataset.classes)
    side = _side(detector) if args.pack is None else args.pack
    wholes = _whole_sides(detector) if args.whole_sides is None else args.whole_sides
    setups = choice.candidates(
        args.thresholds, args.max_sides, args.min_objects, side, args.pack_zooms, wholes
    )
    settings = {"setups": [[s.name, config.resolved(s)] for s in setups]}
    with Artifact(args.out, "tune", VERSION, settings, facts=gear.facts) as artifact:
        work = partial(measuring.stream, gear, dataset, setups, "tune")
        artifact.process_stream(gear.items(entries), work)
        bad = dict(artifact.summary.bad)
        if not artifact.good:
            name, why = next(iter(bad.items()))
            raise InputError(dataset.root, f"no image can be used; {name}: {why}")
        tuning = Tuning(Table(artifact, dataset, setups, gear.seconds), prices)
        _write(artifact, tuning, args)
    return exit_code(bad, args.max_bad)


def _checked(args: argparse.Namespace) -> Prices | None:
    """The stated prices, after a look at all options.

    Raises:
        ConfigError: options that do not go together.
        MissingInputError: no detector, or no density network.
    """
    if args.split != "train" and not args.judged:
        raise ConfigError(
            f"--split {args.split}: settings chosen on a split that results are judged by make its "
            "scores too good; choose on train, or add --judged and report no score on it"
        )
    if args.detector_weights is None:
        raise MissingInputError("settings are chosen for a detector: add --detector-weights FILE")
    if args.weights is None and args.maps is None:
        raise MissingInputError(
            "settings are chosen with predicted maps: add --weights FILE, the density network, or "
            "--maps DIR, what it has predicted"
        )
    if args.maps is not None and (read_header(args.maps) or {}).get("stage") == "density":
        raise ConfigError(
            f"--maps {args.maps}: holds ground-truth maps, and what suits them suits no network; "
            "give the folder of predict-density, or --weights"
        )
    if (args.pass_ms is None) != (args.density_ms is None):
        raise ConfigError("--pass-ms and --density-ms are stated together or not at all")
    return None if args.pass_ms is None else Prices(args.pass_ms, args.density_ms)


def _side(detector: Detector) -> int:
    """Side of the detector's input for a square image; 0 where it does not say."""
    tell = getattr(detector, "input_shape", None)
    return 0 if tell is None else max(tell((4096, 4096)))


def _whole_sides(detector: Detector) -> Sequence[int]:
    """Its own side, and a larger one where it takes that."""
    side = round(WHOLE * _side(detector) / 32) * 32
    return (0, side) if side and getattr(detector, "resizable", False) else (0,)


@dataclass
class Tuning:
    """Measured setups, and the prices by which they are compared."""

    table: Table
    prices: Prices | None

    def trials(self) -> list[Trial]:
        """Every setup under the default fusion."""
        count = len(self.table.setups)
        return [Trial(k, FuseConfig(), self.row(k, FuseConfig())) for k in range(count)]

    def row(self, index: int, fusion: FuseConfig) -> Row:
        """A setup's scores and price."""
        row = self.table.row(index, fusion)
        if self.prices is None:
            return row
        return self.prices.of(row, self.table.setups[index], self.whole)

    @cached_property
    def whole(self) -> Row:
        """The whole image alone, as measured."""
        return self.table.row(0, FuseConfig())

    def walked(self, trials: Sequence[Trial], budget: float) -> list[Trial]:
        """Settings of fusion on the best setups within the budget."""
        found: list[Trial] = []
        for start in choice.finalists(trials, budget):
            found += choice.walk(start, partial(self.row, start.setup), budget)
        return found


def _write(artifact: Artifact, tuning: Tuning, args: argparse.Namespace) -> None:
    """Choose; write ``tune.txt``, ``tune.json`` and ``tune.yaml``."""
    trials = tuning.trials()
    setups = tuning.table.setups
    grid = _grid(setups)
    budget = args.budget_ms or args.share * trials[grid].row.ms
    text = _table([trial.row for trial in trials])
    artifact.output("tune.txt", (text + "\n").encode())
    _log.info("%s", text)
    tried = tuning.walked(trials, budget)
    best = choice.choose(tried, budget)
    rivals = {
        "chosen": best.row,
        "whole image": trials[0].row,
        "grid 512": trials[grid].row,
        "grid 512, same fusion": tuning.row(grid, best.fusion),
    }
    settings = choice.settings_of(setups[best.setup], best.fusion, args.long_side)
    found = {
        "images": len(artifact.good),
        "budget_ms": budget,
        "settings": settings,
        "rivals": {name: row.flat for name, row in rivals.items()},
        "setups": [trial.row.flat for trial in trials],
        "fusions": [{**config.resolved(t.fusion), **t.row.flat} for t in tried],
    }
    artifact.output("tune.json", (json.dumps(found, indent=1) + "\n").encode())
    comments = _comments(args, len(artifact.good), budget, best, rivals)
    data = choice.preset(settings, comments)
    artifact.output("tune.yaml", data)
    _log.info("%s", data.decode())
    if setups[best.setup].crop.slicer == "none":
        _log.warning(
            "no crops within %.0f ms per image gain %.3f AP over the whole image alone; a cheaper "
            "density network, or a larger --share or --budget-ms, would let crops in",
            budget,
            choice.GAIN,
        )
    _log.info("written: %s; use it with CONFIG=%s", args.out, args.out / "tune.yaml")


def _grid(setups: Sequence[Setup]) -> int:
    """Position of grid 512."""
    return [setup.crop for setup in setups].index(CropConfig.of("grid", tile=512))


def _table(rows: Sequence[Row]) -> str:
    return table(rows, frontier(rows))


def _comments(
    args: argparse.Namespace, images: int, budget: float, best: Trial, rivals: dict[str, Any]
) -> list[str]:
    """What the choice rests on."""
    eyes = f"density maps {(args.weights or args.maps).name}, detector {args.detector_weights.name}"
    price = "measured" if args.pass_ms is None else (
        f"stated ({args.pass_ms:g} ms a whole image, {args.density_ms:g} ms a map)"
    )  # fmt: skip
    setting = "" if best.row.setting == "-" else f" {best.row.setting}"
    lines = [
        f"Chosen by `dmnet tune` on {images} images of {args.split}: {eyes}.",
        f"Budget {budget:.0f} ms per image; prices {price}. AP by coco@500.",
        f"Chosen: {best.row.title}{setting}.",
        f"{'':<22} {'AP':>6} {'AP50':>6} {'crops':>6} {'pixels':>6} {'passes':>6} {'ms':>7}",
    ]
    for name, row in rivals.items():
        f = row.figures
        lines.append(
            f"{name:<22} {f['AP']:6.4f} {f['AP50']:6.4f} {f['crops']:6.2f} {f['pixels']:6.3f} "
            f"{f['passes']:6.2f} {row.ms:7.1f}"
        )
    return lines
