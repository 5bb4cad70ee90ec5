"""``dmnet evaluate``: score anybody's detections by a named protocol."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmnet.core.dataset import split_name
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.files import write_atomic
from dmnet.core.tables import csv_text
from dmnet.fusion.evaluation.evaluate import PROTOCOLS, evaluate
from dmnet.fusion.evaluation.scores import Scores, columns
from dmnet.fusion.report.analyse import Analysis, analyse, report_files
from dmnet.fusion.report.page import ReportConfig
from dmnet.pipeline.outcome import number

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("--gt", type=Path, required=True, metavar="DATA|DIR|JSON",
        help="ground truth: a data set of any format (as --data of the stages), a folder of "
        "VisDrone annotations, or a COCO JSON")  # fmt: skip
    add("--split", default="val", metavar="NAME", help="of a data set that has several")
    add("--dt", type=Path, required=True, nargs="+", metavar="DIR|JSON",
        help="results: folders of VisDrone txt, or COCO results; the first is compared with the "
        "others")  # fmt: skip
    add("--protocol", default="visdrone", metavar="NAME",
        help=f"{', '.join(PROTOCOLS)}, or coco@ and any cap")  # fmt: skip
    add("--sizes", type=Path, metavar="CSV", help="image sizes (columns image,width,height)")
    add("--ignore-regions", action="store_true",
        help="COCO protocols: leave out what lies in ignored regions")  # fmt: skip
    add("--analyse", action="store_true",
        help="also operating points, confusions, error types and confidence intervals")  # fmt: skip
    add("--threshold", type=number(-1_000_000, 1_000_000, float), default=0.3, metavar="SCORE",
        help="score threshold of precision, recall, F1, mean IoU and confusions")  # fmt: skip
    add("--bootstrap", type=number(0, 100_000), default=100, metavar="N",
        help="resamplings of the images behind intervals and comparisons")  # fmt: skip
    add("--report", type=Path, metavar="HTML", help="write the comparison page")
    add("--images", type=Path, metavar="DIR", help="pictures for the page")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="also write the scores as .json (with --analyse the analysis too) or .csv",
    )


def run(args: argparse.Namespace) -> int:
    """Print the scores; the protocol stands in every line."""
    if args.out is not None and args.out.suffix not in (".json", ".csv"):
        raise ConfigError(f"--out {args.out}: the name must end in .json or .csv")
    if args.images is not None and not args.images.is_dir():
        raise MissingInputError(f"--images {args.images}: no such folder")
    details: list[dict[str, Any]] = []
    options = {
        "sizes": args.sizes,
        "split": split_name(args.gt, args.split),
        "ignore_regions": args.ignore_regions,
    }
    if args.analyse:
        threshold, repeats = args.threshold, args.bootstrap
        found = analyse(args.gt, args.dt, args.protocol, **options,
                        score_threshold=threshold, bootstrap=repeats)  # fmt: skip
        scores = [each.scores for each in found]
        details = [each.to_json() for each in found]
        for each in found:
            print("\n".join(_analysis(each, args.protocol, threshold)))
    else:
        scores = [evaluate(args.gt, dt, args.protocol, **options) for dt in args.dt]
        for result in scores:
            print(result.table())
    if args.out is not None:
        write_atomic(args.out, [_rendered(scores, details, args.out)])
        _log.info("written: %s", args.out)
    if args.report is not None:
        config = ReportConfig(
            protocol=args.protocol, score_threshold=args.threshold, bootstrap=args.bootstrap
        )
        page = report_files(args.gt, args.dt, protocols=_of_page(args.protocol),
                            images=args.images, config=config, **options)  # fmt: skip
        write_atomic(args.report, [page.encode()])
        _log.info("written: %s", args.report)
    return 0


def _of_page(protocol: str) -> list[str]:
    """Protocols of the page's score tables: the one asked for, and those every reader knows."""
    return list(dict.fromkeys([protocol, "coco@500", "visdrone"]))


def _rendered(scores: list[Scores], details: list[dict[str, Any]], path: Path) -> bytes:
    if path.suffix == ".json":
        data = [each.to_json() for each in scores]
        for row, detail in zip(data, details, strict=False):
            row["analysis"] = {name: part for name, part in detail.items() if name != "scores"}
        return (json.dumps(data[0] if len(data) == 1 else data, indent=1) + "\n").encode()
    rows = [row for each in scores for row in each.csv_rows()[1:]]
    return csv_text([scores[0].csv_rows()[0], *rows]).encode()


def _analysis(each: Analysis, protocol: str, threshold: float) -> Iterator[str]:
    yield each.scores.table()
    rows: list[tuple[str, ...]] = [
        ("protocol", "point", "score", "precision", "recall", "F1", "mean IoU")
    ]
    for name, point in ((f"score {threshold:g}", each.point), ("best F1", each.best)):
        values = (point.threshold, point.precision, point.recall, point.f1, point.mean_iou)
        rows.append((protocol, name, *(f"{value:.4f}" for value in values)))
    yield columns(rows) + "\n"
    names = [*each.scores.classes, "background"]
    if len(names) == len(each.matrix):
        head = ("true class", "", *(name[:9] for name in names))
        body = [(n, "", *map(str, row)) for n, row in zip(names, each.matrix, strict=True)]
        yield f"confusions at score {threshold:g}, columns: predicted\n"
        yield columns([head, *body]) + "\n"
    unit = 100 if each.scores.unit == "per cent" else 1  # as in the score table above
    rows = [("protocol", "error type", "number", "AP50 it costs")]
    rows += [(protocol, e.kind, str(e.number), f"{unit * e.cost:.4f}") for e in each.errors]
    yield columns(rows) + "\n"
    rows = [("protocol", "metric", "value", "95 % from", "to")]
    for name, found in each.intervals.items():
        bounds = (found.value, found.low, found.high)
        rows.append((protocol, name, *(f"{unit * value:.4f}" for value in bounds)))
    yield columns(rows) + "\n"
    if each.against:
        rows = [("protocol", "metric", "minus first", "95 % from", "to", "p")]
        for name, gap in each.against.items():
            change = (gap.difference.value, gap.difference.low, gap.difference.high)
            texts = (f"{unit * value:+.4f}" for value in change)
            rows.append((protocol, name, *texts, f"{gap.p_value:.4f}"))
        yield columns(rows) + "\n"
