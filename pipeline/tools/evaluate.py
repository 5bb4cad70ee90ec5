"""``dmnet evaluate``: score anybody's detections by a named protocol."""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
from pathlib import Path

from dmnet.core.artifact import write_atomic
from dmnet.core.errors import ConfigError
from dmnet.fusion.analysis import best_f1, confusion, working_point
from dmnet.fusion.bootstrap import compare, intervals
from dmnet.fusion.coco import coco_samples
from dmnet.fusion.errors import error_costs
from dmnet.fusion.evaluate import PROTOCOLS, evaluate
from dmnet.fusion.inputs import read_found, read_truth
from dmnet.fusion.matched import Matched, matched
from dmnet.fusion.scores import columns

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("--gt", type=Path, required=True, metavar="DIR|JSON",
        help="VisDrone annotation folder, or COCO ground truth")  # fmt: skip
    add("--dt", type=Path, required=True, metavar="DIR|JSON",
        help="folder of VisDrone result txt, or COCO results")  # fmt: skip
    add("--protocol", default="visdrone", metavar="NAME",
        help=f"{', '.join(PROTOCOLS)}, or coco@ and any cap")  # fmt: skip
    add("--sizes", type=Path, metavar="CSV", help="image sizes (columns image,width,height)")
    add("--ignore-regions", action="store_true",
        help="COCO protocols: leave out what lies in ignored regions")  # fmt: skip
    add("--threshold", type=float, default=0.3, metavar="SCORE",
        help="score threshold of precision, recall, F1, mean IoU and confusions")  # fmt: skip
    add("--analyse", action="store_true", help="also working points, confusions, error types")
    add("--bootstrap", type=int, default=0, metavar="N",
        help="confidence intervals from N resamplings of the images")  # fmt: skip
    add("--against", type=Path, metavar="DIR|JSON", help="compare with a second result, paired")
    add("--out", type=Path, metavar="FILE", help="also write scores as .json or .csv")


def run(args: argparse.Namespace) -> int:
    """Print the scores; the protocol stands in every line."""
    scores = evaluate(
        args.gt, args.dt, args.protocol, sizes=args.sizes, ignore_regions=args.ignore_regions
    )
    print(scores.table())
    if args.analyse:
        table = _matched(args, args.dt, _coco(args.protocol))
        print(_working_points(table, args.threshold))
        print(_confusions(table, args.threshold))
        print(_errors(table))
    if args.bootstrap or args.against:
        print(_intervals(args))
    if args.out is not None:
        write_atomic(args.out, [_rendered(scores.to_json(), scores.csv_rows(), args.out)])
        _log.info("written: %s", args.out)
    return 0


def _coco(protocol: str) -> str:
    """Working points and error types are counted with COCO matches."""
    return protocol if protocol.startswith("coco") else "coco@500"


def _rendered(data: object, rows: list[tuple[str, ...]], path: Path) -> bytes:
    if path.suffix == ".json":
        return (json.dumps(data, indent=1) + "\n").encode()
    if path.suffix == ".csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()
    raise ConfigError(f"--out {path}: the name must end in .json or .csv")


def _matched(args: argparse.Namespace, dt: Path, protocol: str) -> Matched:
    truth = read_truth(args.gt, args.sizes)
    samples, _ = read_found(dt, truth)
    if protocol.startswith("coco"):
        samples = coco_samples(samples, ignore_regions=args.ignore_regions, crowd=truth.is_json)
    return matched(samples, protocol, classes=truth.classes)


def _working_points(table: Matched, threshold: float) -> str:
    rows: list[tuple[str, ...]] = [
        ("protocol", "point", "threshold", "precision", "recall", "F1", "mean IoU")
    ]
    for name, point in (
        ("given", working_point(table, threshold)),
        ("best F1", best_f1(table)),
        *((text, best_f1(table, label=label)) for label, text in table.classes.items()),
    ):
        values = (point.threshold, point.precision, point.recall, point.f1, point.mean_iou)
        rows.append((table.protocol, name, *(f"{value:.4f}" for value in values)))
    return "working points at IoU 0.5 (of each class: its best F1)\n\n" + columns(rows) + "\n"


def _confusions(table: Matched, threshold: float) -> str:
    counts = confusion(table, threshold)
    names = [*table.classes.values(), "background"]
    rows: list[tuple[str, ...]] = [("true class", "", *(name[:9] for name in names))]
    for name, row in zip(names, counts.tolist(), strict=True):
        rows.append((name, "", *map(str, row)))
    return f"confusions at score {threshold:g} (columns: predicted)\n\n" + columns(rows) + "\n"


def _errors(table: Matched) -> str:
    rows = [("protocol", "error type", "number", "AP50 it costs")]
    for error in error_costs(table):
        rows.append((table.protocol, error.kind, str(error.number), f"{error.cost:.4f}"))
    return columns(rows) + "\n"


def _intervals(args: argparse.Namespace) -> str:
    repeats = args.bootstrap or 200
    table = _matched(args, args.dt, args.protocol)
    rows: list[tuple[str, ...]] = [("protocol", "metric", "value", "95 % from", "to")]
    for name, found in intervals(table, repeats=repeats).items():
        rows.append(
            (args.protocol, name, *(f"{v:.4f}" for v in (found.value, found.low, found.high)))
        )
    text = f"bootstrap over images, {repeats} times\n\n" + columns(rows) + "\n"
    if args.against is None:
        return text
    other = _matched(args, args.against, args.protocol)
    rows = [("protocol", "metric", "difference", "95 % from", "to", "p")]
    for name, each in compare(other, table, repeats=repeats).items():
        gap = each.difference
        values = (gap.value, gap.low, gap.high, each.p_value)
        rows.append((args.protocol, name, *(f"{value:+.4f}" for value in values)))
    return text + f"\n{args.dt} minus {args.against}, paired\n\n" + columns(rows) + "\n"
