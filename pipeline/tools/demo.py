"""``dmnet demo``: the whole pipeline on scenes it draws itself."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dmnet.core.files import write_atomic
from dmnet.pipeline.outcome import how_many, seed

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("demo"), metavar="DIR")
    add("--train", type=how_many, default=32, metavar="N", help="training scenes")
    add(
        "--val",
        type=how_many,
        default=4,
        metavar="N",
        help="scenes the density network is judged on",
    )
    add("--test", type=how_many, default=10, metavar="N", help="held-out scenes, scored at the end")
    add("--seed", type=seed, default=0, help="another seed, other scenes")
    add("--learn", action="store_true",
        help="train both networks on drawn scenes, from nothing")  # fmt: skip
    add("--set", nargs=argparse.REMAINDER, default=[], metavar="OPTION",
        help="further options of the stages, such as --set --crop.threshold 0.1")  # fmt: skip


def run(main: Callable[[Sequence[str]], int], args: argparse.Namespace) -> int:
    """Draw scenes, run every stage, and say where the report is."""
    start = time.perf_counter()
    data, artifacts = args.out / "data", args.out / "artifacts"
    drawn = (args.train, args.val) if args.learn else (0, 0)
    counts = ["--train", drawn[0], "--val", drawn[1], "--test-dev", args.test]
    code = main(["demo-data", "--out", str(data), *map(str, counts), "--seed", str(args.seed)])
    if code:
        return code
    places = ["--data", str(data), "--artifacts", str(artifacts), "--config", "demo"]
    shipped = [] if args.learn else ["--weights", "scenes", "--detector-weights", "scenes"]
    code = main(["all", "--split", "test-dev", *places, *shipped, *args.set])
    report = artifacts / "default" / "test-dev" / "fuse-eval" / "report.html"
    if code == 0:
        write_atomic(args.out / "report.html", [report.read_bytes()])
        minutes = (time.perf_counter() - start) / 60
        _log.info("demo: %.1f minutes; open %s", minutes, args.out / "report.html")
    return code
