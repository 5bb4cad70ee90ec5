"""``dmnet slice-report --detector-weights``: what each slicer is worth, with a detector."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dmnet.core import config
from dmnet.core.artifact import Artifact
from dmnet.core.dataset import open_dataset
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.presets import from_pairs
from dmnet.cropping.slicers import CropConfig
from dmnet.detectors.packing import PackConfig
from dmnet.fusion.fuse import FuseConfig
from dmnet.pipeline.outcome import exit_code, number
from dmnet.pipeline.worth import measure as worth
from dmnet.pipeline.worth.figures import worth_figure
from dmnet.pipeline.worth.measure import Setup
from dmnet.pipeline.worth.stream import Gear, Table, stream, usable
from dmnet.pipeline.worth.stream import add_arguments as add_gear

VERSION = 1
THRESHOLDS = (0.04, 0.08, 0.16, 0.24, 0.32, 0.48, 0.64, 0.9)
_log = logging.getLogger(__name__)


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Options that concern a detector."""
    add_gear(parser)
    add = parser.add_argument
    add("--pack", type=number(0, 1 << 14), default=0, metavar="SIDE",
        help="also with crops packed onto canvases of this side, pixels")  # fmt: skip
    add("--pack-zoom", type=number(0.1, 16, float), default=PackConfig().zoom, metavar="X",
        help="packed crops are enlarged at most this many times")  # fmt: skip
    add("--whole-sides", type=number(0, 1 << 14), nargs="+", default=(0,), metavar="N",
        help="longer sides of the detector's input for whole images; 0: as for crops")  # fmt: skip
    add("--fusion", action="append", default=[], metavar="KEY=VALUE",
        help="settings of 'fuse-eval', such as merge.iou=0.6")  # fmt: skip


def standard_setups() -> list[Setup]:
    """Whole image, uniform, two grids, density at several thresholds, oracle."""
    setups = [
        Setup("whole image", CropConfig.of("none")),
        Setup("uniform", CropConfig.of("uniform")),
        Setup("grid", CropConfig.of("grid", tile=640)),
        Setup("grid", CropConfig.of("grid", tile=512)),
    ]
    setups += [Setup("density", CropConfig.of(threshold=t)) for t in THRESHOLDS]
    return [*setups, Setup("oracle", CropConfig.of("oracle"))]


def named_setting(text: str) -> tuple[str, CropConfig]:
    """Name and settings of ``--setting``: ``mine slicer=grid tile=800``.

    Raises:
        ConfigError: there is no name, or no such setting.
    """
    label, *pairs = text.split() or [""]
    if not label:
        raise ConfigError("--setting: needs a name, such as 'mine slicer=grid tile=800'")
    return label, from_pairs(CropConfig, "crop", pairs)


def setups_of(args: argparse.Namespace) -> list[Setup]:
    """The standard setups and the user's, each that cuts also packed if that is asked for."""
    setups = standard_setups() if not args.only_settings else []
    for text in args.setting:
        setups.append(Setup(*named_setting(text)))
    if args.weights is None and args.maps is None:
        setups = [setup for setup in setups if setup.crop.needs != "map"]
    if args.pack:
        packable = [s for s in setups if s.crop.needs != "nothing"]
        setups += [replace(setup, pack=_pack(args)) for setup in packable]
    return [replace(setup, whole_side=side) for side in args.whole_sides for setup in setups]


def run(args: argparse.Namespace) -> int:
    """Detect, score and price every setup; write table and figures, print the table."""
    dataset = open_dataset(args.data, args.split, args.sizes)
    entries = usable(dataset, args.limit)
    if not entries:
        raise MissingInputError(f"{dataset.root}: no image of this split has annotations to score")
    gear, setups = Gear.of(args), setups_of(args)
    fusion = from_pairs(FuseConfig, "fusion", args.fusion)
    settings = {
        "setups": [[s.name, config.resolved(s.crop), s.packed, s.whole_side] for s in setups],
        "pack": config.resolved(_pack(args)),
    }
    totals = {"fusion": config.resolved(fusion)}
    with Artifact(
        args.out, "slice-report", VERSION, settings, facts=gear.facts, totals=totals
    ) as artifact:
        work = partial(stream, gear, dataset, setups, "slice-report")
        artifact.process_stream(gear.items(entries), work)
        if artifact.good:
            measured = Table(artifact, dataset, setups, gear.seconds)
            rows = [measured.row(index, fusion) for index in range(len(setups))]
            _write(artifact, rows, args.split)
        bad = dict(artifact.summary.bad)
    return exit_code(bad, args.max_bad)


def _pack(args: argparse.Namespace) -> PackConfig:
    return PackConfig(side=args.pack, zoom=args.pack_zoom)


def _write(artifact: Artifact, rows: Sequence[worth.Row], split: str) -> None:
    best = worth.frontier(rows)
    artifact.output("worth.json", worth.to_json(rows, best))
    count = len(artifact.good)
    for axis, name in (("ms", "ap-over-ms.png"), ("pixels", "ap-over-pixels.png")):
        artifact.output(name, worth_figure(rows, best, axis, f"{split}, {count} images, coco@500"))
    text = table(rows, best)
    artifact.output("worth.txt", (text + "\n").encode())
    _log.info("%s", text)
    _log.info("written: %s", artifact.root)


def table(rows: Sequence[worth.Row], best: Sequence[bool]) -> str:
    """The table as text; ``*`` marks the frontier of AP over milliseconds."""
    wide = max([24, *(len(row.setting) for row in rows)])
    left = max([14, *(len(row.title) for row in rows)])
    head = (
        f"  {'slicer':<{left}} {'setting':<{wide}} {'AP':>6} {'AP50':>6} {'small':>6} {'AR500':>6} "
        f"{'crops':>6} {'pixels':>6} {'passes':>6} {'padded':>6} {'density':>8} {'detect':>8} "
        f"{'fuse':>6} {'ms':>8}"
    )
    lines = [head]
    for row, mark in zip(rows, best, strict=True):
        f = row.figures
        lines.append(
            f"{'*' if mark else ' '} {row.title:<{left}} {row.setting:<{wide}} {f['AP']:6.4f} "
            f"{f['AP50']:6.4f} {f['AP_small']:6.4f} {f['AR500']:6.4f} {f['crops']:6.2f} "
            f"{f['pixels']:6.3f} {f['passes']:6.2f} {f['padded']:6.3f} {f['density_ms']:8.1f} "
            f"{f['detect_ms']:8.1f} {f['fuse_ms']:6.1f} {row.ms:8.1f}"
        )
    return "\n".join([*lines, *_break_evens(rows)])


def _break_evens(rows: Sequence[worth.Row]) -> list[str]:
    """For the best density row against each grid of at most its AP."""
    dense = [row for row in rows if row.name.startswith("density")]
    lines = []
    for grid in (row for row in rows if row.name == "grid" and not row.whole_side):
        prices = [
            (price, row)
            for row in dense
            if row.figures["AP"] >= grid.figures["AP"]
            and (price := worth.break_even(row, grid)) is not None
        ]
        if not prices:
            lines.append(f"no density setting reaches grid {grid.setting} in fewer passes")
            continue
        price, row = min(prices, key=lambda pair: pair[0])
        lines.append(
            f"from {price:.0f} ms per pass on, {row.title} ({row.setting}) is the cheaper way "
            f"to the AP of grid {grid.setting}"
        )
    return lines
