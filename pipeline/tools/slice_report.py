"""``dmnet slice-report``: what each slicer is worth, without any detector."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from dmnet.core import config
from dmnet.core.artifact import Item
from dmnet.core.dataset import Labels, open_dataset
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.files import write_atomic
from dmnet.core.formats import density_h5
from dmnet.cropping import report
from dmnet.cropping.recall import SliceCounts, merge_counts
from dmnet.cropping.slicers import CropConfig
from dmnet.pipeline.outcome import add_data, add_max_bad, at_least_one, exit_code, number
from dmnet.pipeline.stages.density import annotated_items, map_of, read_item
from dmnet.pipeline.worth import table as slice_worth

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add_data(add)
    add("--maps", type=Path, metavar="DIR",
        help="density maps to cut by; without it, ground truth made in memory")  # fmt: skip
    add("--slicers", nargs="+", metavar="NAME", default=sorted(_standard()),
        help=f"curves of the figure, of: {', '.join(_standard())}")  # fmt: skip
    add("--setting", action="append", default=[], metavar="'name key=value ...'",
        help="one more row, with settings of 'crop': 'mine slicer=grid tile=800'")  # fmt: skip
    add("--detector-input", nargs=2, type=number(1, 100_000), default=(600, 1000),
        metavar=("MIN", "MAX"), help="shorter and longer side a detector resizes to")  # fmt: skip
    add("--only-settings", action="store_true", help="only the rows given with --setting")
    add("--limit", type=at_least_one, metavar="N", help="only every k-th image, so that N are read")
    add("--out", type=Path, default=Path("artifacts/slice-report"), metavar="DIR",
        help="where table and figure are written")  # fmt: skip
    add("--workers", type=number(1, 1_024), default=2, metavar="N", help="processes")
    add_max_bad(add)
    slice_worth.add_arguments(parser.add_argument_group("with a detector"))


def run(args: argparse.Namespace) -> int:
    """Write table (csv, json, html) and figure, and print the table."""
    if args.detector_weights is not None:
        return slice_worth.run(args)
    settings = _settings(args.slicers, args.setting)
    dataset = open_dataset(args.data, args.split, args.sizes)
    items = list(annotated_items(dataset, dataset.with_annotation))
    if not items:
        raise MissingInputError(
            f"{dataset.root}: no image of this split has annotations; recall needs them."
        )
    items = items[:: max(1, len(items) // args.limit)] if args.limit else items
    maps = density_h5.maps_in(args.maps) if args.maps else None
    counts, bad = _count(items, settings, args, maps, dataset.labels)
    if len(bad) == len(items):
        name, why = next(iter(bad.items()))
        raise InputError(args.maps or dataset.root, f"no image can be used; {name}: {why}")
    rows = report.report_rows(settings, counts, dataset.classes)
    args.out.mkdir(parents=True, exist_ok=True)
    title = f"{args.split}: {len(items) - len(bad)} images"
    for name, data in (
        ("slicers.csv", report.to_csv(rows).encode()),
        ("slicers.json", report.to_json(rows).encode()),
        ("slicers.html", report.to_html(rows).encode()),
        ("slicers.png", report.recall_figure(rows, title=title)),
        ("slicers-small.png", report.recall_figure(rows, "small", f"{title}, small objects")),
    ):
        write_atomic(args.out / name, [data])
    _log.info("%s", _table(rows))
    _log.info("written: %s", args.out)
    return exit_code(bad, args.max_bad)


def _standard() -> dict[str, list[report.Setting]]:
    """The curves of the default report by name."""
    curves: dict[str, list[report.Setting]] = {}
    for name, setting in report.standard_settings(CropConfig()):
        curves.setdefault(name, []).append((name, setting))
    return curves


def _settings(names: Sequence[str], extra: Sequence[str]) -> list[report.Setting]:
    standard = _standard()
    for name in names:
        if name not in standard:
            text = config.unknown(f"--slicers {name}", name, standard)
            raise InputError("slice-report", text.replace("setting", "curve"))
    settings = [setting for name in names for setting in standard[name]]
    return settings + [slice_worth.named_setting(text) for text in extra]


def _count(
    items: list[Item],
    settings: Sequence[report.Setting],
    args: argparse.Namespace,
    maps: Mapping[str, Path] | None,
    labels: Labels,
) -> tuple[list[SliceCounts], dict[str, str]]:
    """Counts of every setting, and why images were set aside."""
    one = partial(_count_item, settings, tuple(args.detector_input), maps, labels)
    total = [SliceCounts()] * len(settings)
    bad: dict[str, str] = {}
    parts = tqdm(
        _map(one, items, args.workers), total=len(items), desc="slice-report", disable=None
    )
    for item, part in zip(items, parts, strict=True):
        if isinstance(part, str):
            bad[item.id] = part
        else:
            total = [merge_counts(pair) for pair in zip(total, part, strict=True)]
    return total, bad


def _map(
    one: partial[list[SliceCounts] | str], items: list[Item], workers: int
) -> Iterator[list[SliceCounts] | str]:
    if workers < 2 or len(items) < 32:
        yield from map(one, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, items, chunksize=8)


def _count_item(
    settings: Sequence[report.Setting],
    detector_input: tuple[int, int],
    maps: Mapping[str, Path] | None,
    labels: Labels,
    item: Item,
) -> list[SliceCounts] | str:
    """Counts of every setting on one image, or why it cannot be used."""
    try:
        annotations, _ = read_item(labels, item)
        density = map_of(maps, item.id, annotations.size, annotations)
    except (InputError, MissingInputError) as error:
        return str(error)
    return report.count_image(annotations, density, settings, detector_input)


def _table(rows: Sequence[report.Row]) -> str:
    lines = [f"{'slicer':<18} {'setting':<26} {'crops':>6} {'pixels':>7} {'recall':>7} {'small':>7}"
             f" {'cut':>6} {'scale':>6}"]  # fmt: skip
    for row in rows:
        values = [row[n] for n in ("crops_per_image", "relative_pixels", "recall_all",
                                   "recall_small", "cut", "scale")]  # fmt: skip
        shown = [f"{v:.3f}" if isinstance(v, float) else "-" for v in values]
        lines.append(
            f"{row['slicer']:<18} {row['setting']:<26} {shown[0]:>6} {shown[1]:>7} {shown[2]:>7} "
            f"{shown[3]:>7} {shown[4]:>6} {shown[5]:>6}"
        )
    return "\n".join(lines)
