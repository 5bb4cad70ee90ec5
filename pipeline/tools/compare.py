"""``dmnet compare``: runs side by side, from what their fuse-eval stages left, with intervals."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from dmnet.core.classes import Classes
from dmnet.core.dataset import split_name
from dmnet.core.errors import ConfigError, InputError, MissingInputError
from dmnet.core.files import write_atomic
from dmnet.core.images import read_image
from dmnet.core.journal import read_header, read_journal
from dmnet.core.records import Detections
from dmnet.fusion.evaluation.bootstrap import compare, intervals, resample
from dmnet.fusion.evaluation.coco import coco_images
from dmnet.fusion.evaluation.matched import Matched, matched
from dmnet.fusion.evaluation.scored_images import ScoredImage, scored_images, with_found
from dmnet.fusion.evaluation.scores import Scores, columns
from dmnet.fusion.report.page import ReportConfig, render
from dmnet.fusion.report.tables import Result
from dmnet.pipeline.chain import command
from dmnet.pipeline.context import STAGES, Context
from dmnet.pipeline.facts import flattened
from dmnet.pipeline.outcome import add_data, how_many
from dmnet.pipeline.stages.fuse_eval import RESULTS, read_parts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A scored run: its scores by protocol, settings of all its stages, and its images."""

    name: str
    folder: Path
    scores: Mapping[str, Scores]
    settings: Mapping[str, str]
    truth: Any
    ids: frozenset[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="names of runs; the first is the baseline")
    add_data(add)
    add("--artifacts", type=Path, default=Path("artifacts"), metavar="DIR", help="their artifacts")
    add("--result", choices=RESULTS, default="fused", help="whose scores are compared")
    add("--bootstrap", type=how_many, default=200, metavar="N",
        help="resamplings of the images behind intervals and differences; 0 for none")  # fmt: skip
    add("--out", type=Path, default=Path("compare.html"), metavar="HTML", help="the page")


def run(args: argparse.Namespace) -> int:
    """Print the tables and write the page."""
    split = split_name(args.data, args.split)
    context = Context(data=args.data, split=split, artifacts=args.artifacts, sizes=args.sizes)
    if len(set(args.runs)) < max(2, len(args.runs)):
        raise ConfigError("compare needs at least two runs, each named once")
    runs = [read_run(context, name, args.result) for name in args.runs]
    check_alike(runs)
    truths = _truths(context, runs[0].ids)
    found = {
        each.name: {t.image_id: read_parts(each.folder, t.image_id)[args.result] for t in truths}
        for each in runs
    }
    protocol = next(iter(runs[0].scores))
    classes = context.dataset.classes
    tables = {name: _table(truths, each, protocol, classes) for name, each in found.items()}
    print(f"{args.result} detections on {len(truths)} images of {split}; differences: minus "
          f"{runs[0].name}\n")  # fmt: skip
    for text in (*score_tables(runs), *interval_table(tables, args.bootstrap), *_settings(runs)):
        print(text + "\n")
    page = _page(context, runs, truths, found, args.bootstrap, args.result)
    write_atomic(args.out, [page.encode()])
    _log.info("written: %s", args.out)
    return 0


def read_run(context: Context, name: str, result: str) -> Run:
    """Read what fuse-eval left of a run.

    Raises:
        MissingInputError: it has not been scored; names the command.
        InputError: its scores cannot be read.
    """
    folder = context.artifacts / name / context.split / "fuse-eval"
    header = read_header(folder)
    path = folder / "scores.json"
    if header is None or not header.get("complete") or not path.is_file():
        raise MissingInputError(
            f"{folder}: run '{name}' has no finished scores of {context.split}. Make them with: "
            f"{command(replace(context, run=name), 'fuse-eval')}"
        )
    try:
        protocols = json.loads(path.read_text(encoding="utf-8"))["protocols"]
        scores = {p: Scores.from_json(row[result], name) for p, row in protocols.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(path, f"not the scores of a run ({error}); run fuse-eval again") from error
    good = frozenset(i for i, record in read_journal(folder).items() if not record.error)
    settings = _all_settings(folder.parents[1], context.split)
    return Run(name, folder, scores, settings, header.get("totals", {}).get("truth"), good)


def _all_settings(run: Path, split: str) -> dict[str, str]:
    """Settings of every stage of a run, as their artifacts recorded them."""
    out: dict[str, str] = {}
    for stage in STAGES:
        header = read_header(run / ("train" if stage.startswith("train-") else split) / stage) or {}
        found = header.get("settings") or header.get("config") or {}
        out |= {f"{stage}.{name}": text for name, text in flattened(found)}
    return out


def check_alike(runs: Sequence[Run]) -> None:
    """Refuse runs that were scored on other images, other ground truth or by other protocols.

    Raises:
        ConfigError: names the first that differs from the baseline, and in what.
    """
    first = runs[0]
    for other in runs[1:]:
        if other.ids != first.ids:
            alone = len(first.ids ^ other.ids)
            what = f"{alone} images are only in one of them"
        elif other.truth != first.truth:
            what = "their ground truth differs"
        elif set(other.scores) != set(first.scores):
            what = f"protocols {', '.join(other.scores)} instead of {', '.join(first.scores)}"
        else:
            continue
        raise ConfigError(
            f"runs {first.name} and {other.name} cannot be compared: {what}. Run fuse-eval of both "
            f"on the same data and with the same fuse-eval.protocols"
        )


def _truths(context: Context, ids: frozenset[str]) -> list[ScoredImage]:
    dataset = context.dataset
    entries = [entry for entry in dataset.with_annotation if entry.image_id in ids]
    if len(entries) < len(ids):
        raise MissingInputError(
            f"{context.data}: {len(ids) - len(entries)} of the {len(ids)} scored images have no "
            f"annotations here; name the data of the runs with --data"
        )
    return scored_images([dataset.annotations(entry)[0] for entry in entries], {})


def _table(
    truths: Sequence[ScoredImage],
    found: Mapping[str, Detections],
    protocol: str,
    classes: Classes,
) -> Matched:
    images = with_found(truths, found)
    scored = coco_images(images) if protocol.startswith("coco") else images
    return matched(scored, protocol, classes=classes.scored)


def score_tables(runs: Sequence[Run]) -> Iterator[str]:
    """Scores of every protocol, runs in rows with differences below; then AP by class."""
    first = runs[0]
    for protocol, base in first.scores.items():
        shown = [name for name in base.summary if name.startswith(("AP", "AR500"))]
        rows = [("protocol", "run", *shown)]
        for each in runs:
            summary = each.scores[protocol].summary
            rows.append((protocol, each.name, *(f"{summary[name]:.4f}" for name in shown)))
        for each in runs[1:]:
            gaps = [each.scores[protocol].summary[name] - base.summary[name] for name in shown]
            rows.append((protocol, f"{each.name} - {first.name}", *(f"{gap:+.4f}" for gap in gaps)))
        yield columns(rows)
        rows = [("protocol", "AP of class", *(each.name for each in runs), *_minus(runs))]
        for label, facts in base.classes.items():
            values = [each.scores[protocol].classes[label]["AP"] for each in runs]
            minus = [f"{value - facts['AP']:+.4f}" for value in values[1:]]
            rows.append((protocol, label, *(f"{value:.4f}" for value in values), *minus))
        yield columns(rows)


def _minus(runs: Sequence[Run]) -> list[str]:
    return [f"{each.name} - {runs[0].name}" for each in runs[1:]]


def interval_table(tables: Mapping[str, Matched], repeats: int) -> Iterator[str]:
    """95 % intervals of each run, and of its difference to the first, on the same draws."""
    if repeats == 0:
        return
    first, *others = tables
    drawn = {name: resample(table, repeats=repeats) for name, table in tables.items()}
    head = ("protocol", "run", "metric", "value", "95 % from", "to", "p")
    rows: list[tuple[str, ...]] = [head]
    for name, table in tables.items():
        for metric, each in intervals(table, drawn[name]).items():
            bounds = (each.value, each.low, each.high)
            rows.append((table.protocol, name, metric, *(f"{x:.4f}" for x in bounds), ""))
    for name in others:
        gaps = compare(tables[first], tables[name], (drawn[first], drawn[name]))
        for metric, gap in gaps.items():
            bounds = (gap.difference.value, gap.difference.low, gap.difference.high)
            texts = (*(f"{x:+.4f}" for x in bounds), f"{gap.p_value:.4f}")
            rows.append((tables[name].protocol, f"{name} - {first}", metric, *texts))
    yield columns(rows)


def differing(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Settings that are not the same in all runs: name, then the value in each."""
    names = dict.fromkeys(name for each in runs for name in each.settings)
    rows = [(name, *(each.settings.get(name, "-") for each in runs)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _settings(runs: Sequence[Run]) -> Iterator[str]:
    rows = differing(runs)
    yield (
        columns([("setting", *(each.name for each in runs)), *rows])
        if rows
        else "no setting differs"
    )


def _page(
    context: Context,
    runs: Sequence[Run],
    truths: Sequence[ScoredImage],
    found: Mapping[str, Mapping[str, Detections]],
    bootstrap: int,
    result: str,
) -> str:
    images = context.dataset.images
    return render(
        " against ".join(each.name for each in runs),
        truths,
        [Result(each.name, found[each.name], list(each.scores.values())) for each in runs],
        classes=context.dataset.classes,
        image=lambda name: read_image(images[name]) if name in images else None,
        config=ReportConfig(
            protocol=next(iter(runs[0].scores)), bootstrap=bootstrap, against="first"
        ),
        sections=[("Settings that differ", _settings_html(runs))],
        subtitle=f"{result} detections on {len(truths)} images of {context.split}",
    )


def _settings_html(runs: Sequence[Run]) -> str:
    rows = differing(runs)
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(each.name)}</th>" for each in runs)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr><th>setting</th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'
