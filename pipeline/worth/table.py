"""``dmnet slice-report --detector-weights``: what each slicer is worth, with a detector."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dmnet.core import config
from dmnet.core.artifact import Artifact, Item, Result
from dmnet.core.dataset import Dataset, open_dataset
from dmnet.core.errors import ConfigError, InputError, MissingInputError
from dmnet.core.files import file_digest
from dmnet.core.formats import density_h5, parts
from dmnet.core.images import read_image
from dmnet.core.products import Product
from dmnet.core.records import Annotations, DensityMap, Detections, Image, Size
from dmnet.cropping import report
from dmnet.cropping.slicers import CropConfig
from dmnet.detectors.base import load_detector
from dmnet.detectors.packing import PackConfig
from dmnet.fusion.evaluation.evaluate import score
from dmnet.fusion.fuse import FuseConfig
from dmnet.pipeline.maps import load_mapper
from dmnet.pipeline.outcome import exit_code, number
from dmnet.pipeline.worth import measure as worth
from dmnet.pipeline.worth.figures import worth_figure
from dmnet.pipeline.worth.measure import Setup

VERSION = 1
THRESHOLDS = (0.04, 0.08, 0.16, 0.24, 0.32, 0.48, 0.64, 0.9)
SCORES = {"AP": "AP", "AP50": "AP50", "AP_small": "AP_small", "AR500": "AR500"}
_log = logging.getLogger(__name__)


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Options that concern a detector."""
    add = parser.add_argument
    add("--detector", metavar="NAME", help="with a detector: its kind, such as onnx")
    add("--detector-weights", type=Path, metavar="FILE", help="with a detector: its file")
    add("--detector-settings", type=Path, metavar="YAML", help="settings of the detector")
    add("--weights", type=Path, metavar="FILE", help="density network, with a detector")
    add("--long-side", type=number(0, 1 << 20), metavar="N",
        help="longer side of the density network's input, pixels; 0: as the image is")  # fmt: skip
    add("--device", default="auto", help="cpu, cuda, or auto")
    add("--clock", choices=sorted(worth.CLOCKS), default="wall",
        help="milliseconds that pass, or of processor time over all threads")  # fmt: skip
    add("--pack", type=number(0, 1 << 14), default=0, metavar="SIDE",
        help="also with crops packed onto canvases of this side, pixels")  # fmt: skip
    add("--pack-zoom", type=number(0.1, 16, float), default=PackConfig().zoom, metavar="X",
        help="packed crops are enlarged at most this many times")  # fmt: skip
    add("--fusion", action="append", default=[], metavar="KEY=VALUE",
        help="settings of 'fuse-eval', such as merge.iou=0.6")  # fmt: skip


def standard_setups() -> list[Setup]:
    """Whole image, uniform, two grids, density at several thresholds, oracle."""
    grid = CropConfig(slicer="grid")
    setups = [
        Setup("whole image", CropConfig(slicer="none")),
        Setup("uniform", CropConfig(slicer="uniform")),
        Setup("grid", replace(grid, tile=640)),
        Setup("grid", replace(grid, tile=512)),
    ]
    setups += [Setup("density", CropConfig(threshold=t)) for t in THRESHOLDS]
    return [*setups, Setup("oracle", CropConfig(slicer="oracle"))]


def setups_of(args: argparse.Namespace) -> list[Setup]:
    """The standard setups and the user's, each that cuts also packed if that is asked for."""
    setups = standard_setups() if not args.only_settings else []
    for text in args.setting:
        label, *pairs = text.split() or [""]
        if not label:
            raise ConfigError("--setting: needs a name, such as 'mine slicer=grid tile=800'")
        given = config.parse_overrides([f"--crop.{pair}" for pair in pairs]).get("crop", {})
        setups.append(Setup(label, config.build(CropConfig, given, "crop")))
    if args.weights is None and args.maps is None:
        setups = [setup for setup in setups if setup.crop.slicer != "density"]
    if not args.pack:
        return setups
    packable = [s for s in setups if s.crop.slicer in ("density", "oracle")]
    return setups + [replace(setup, packed=True) for setup in packable]


def run(args: argparse.Namespace) -> int:
    """Detect, score and price every setup; write table and figures, print the table."""
    dataset = open_dataset(args.data, args.split, args.sizes)
    entries = [e for e in dataset.with_annotation if e.image is not None]
    entries = entries[:: max(1, len(entries) // args.limit)] if args.limit else entries
    if not entries:
        raise MissingInputError(f"{dataset.root}: no image of this split has annotations to score")
    setups = setups_of(args)
    pack = PackConfig(side=args.pack, zoom=args.pack_zoom)
    given = config.parse_overrides([f"--fusion.{pair}" for pair in args.fusion])
    fusion = config.build(FuseConfig, given.get("fusion", {}), "fusion")
    maps = density_h5.maps_in(args.maps) if args.maps else {}
    items = [_item(dataset, entry, maps) for entry in entries]
    facts: dict[str, Any] = {"clock": args.clock}
    facts |= {"detector": file_digest(args.detector_weights), "kind": args.detector}
    if args.detector_settings:
        facts["settings"] = config.read_yaml(args.detector_settings)
    if args.weights:
        facts |= {"network": file_digest(args.weights), "long_side": args.long_side}
    settings = {
        "setups": [[s.name, config.resolved(s.crop), s.packed] for s in setups],
        "pack": config.resolved(pack),
    }
    totals = {"fusion": config.resolved(fusion)}
    with Artifact(
        args.out, "slice-report", VERSION, settings, facts=facts, totals=totals
    ) as artifact:
        artifact.process_stream(items, partial(_stream, args, dataset, setups, pack))
        if artifact.good:
            rows = _rows(artifact, dataset, setups, fusion, worth.CLOCKS[args.clock])
            _write(artifact, rows, args.split)
        bad = dict(artifact.summary.bad)
    return exit_code(bad, args.max_bad)


def _item(dataset: Dataset, entry: Any, maps: dict[str, Path]) -> Item:
    files = {"image": entry.image, "annotation": entry.annotation}
    if entry.image_id in maps:
        files["density"] = maps[entry.image_id]
    return Item(entry.image_id, files)


def _stream(
    args: argparse.Namespace,
    dataset: Dataset,
    setups: Sequence[Setup],
    pack: PackConfig,
    items: list[Item],
) -> Iterator[tuple[Item, Result]]:
    """Measure image by image."""
    given = config.read_yaml(args.detector_settings) if args.detector_settings else None
    detector = load_detector(
        args.detector or args.detector_weights,
        args.detector_weights if args.detector else None,
        settings=given,
        device=args.device,
    )
    network: worth.Predict | None = None
    if args.weights:
        network = load_mapper(args.weights, args.device, long_side=args.long_side)
    by_id = {entry.image_id: entry for entry in dataset.with_annotation}
    warm = False
    for item in tqdm(items, desc="slice-report", unit="image"):
        try:
            image = read_image(item.files["image"])
            truth, _ = dataset.annotations(by_id[item.id])
            predict = _from_map(item, truth) if "density" in item.files else network
            if not warm:  # the first pass allocates
                detector.predict([image])
                warm = True
            clock = worth.CLOCKS[args.clock]
            looks = worth.measure(image, truth, predict, detector, setups, pack, clock)
        except InputError as error:
            yield item, error
            continue
        files = {_file(k, item.id): parts.write(look.sources) for k, look in enumerate(looks)}
        value = {
            "prices": [look.price for look in looks],
            "windows": [look.windows for look in looks],
        }
        yield item, Product(files, value)


def _file(setup: int, image_id: str) -> str:
    """Detections of a setup on an image, whole and crops."""
    return f"found/{setup}/{image_id}.json"


def _from_map(item: Item, truth: Annotations) -> worth.Predict:
    def predict(image: Image) -> DensityMap:
        return density_h5.read_foreign(item.files["density"], truth.size)

    return predict


def _rows(
    artifact: Artifact,
    dataset: Dataset,
    setups: Sequence[Setup],
    fusion: FuseConfig,
    clock: Callable[[], float],
) -> list[worth.Row]:
    """Scores and prices of every setup over all measured images."""
    good = artifact.good
    truths = [
        dataset.annotations(entry)[0] for entry in dataset.with_annotation if entry.image_id in good
    ]
    pixels = sum(truth.size[0] * truth.size[1] for truth in truths)
    sizes = {truth.image_id: truth.size for truth in truths}
    rows = []
    for index, setup in enumerate(setups):
        results, fuse_ms = _fused(artifact, index, sizes, fusion, clock)
        scores = score(truths, results, "coco@500").summary
        prices = [record.value["prices"][index] for record in good.values()]
        figures = worth.figures_of(prices, pixels)
        figures["fuse_ms"] = fuse_ms
        figures |= {name: float(scores[key]) for name, key in SCORES.items()}
        rows.append(worth.Row(setup.name, report.describe(setup.crop), setup.packed, figures))
    return rows


def _fused(
    artifact: Artifact,
    setup: int,
    sizes: Mapping[str, Size],
    fusion: FuseConfig,
    clock: Callable[[], float],
) -> tuple[dict[str, Detections], float]:
    """Fused detections of a setup by image, and the milliseconds an image that it took."""
    results: dict[str, Detections] = {}
    seconds = 0.0
    for name, record in artifact.good.items():
        sources = parts.read(artifact.root / _file(setup, name))
        start = clock()
        results[name] = worth.fused(record.value["windows"][setup], sources, sizes[name], fusion)
        seconds += clock() - start
    return results, 1000 * seconds / max(1, len(results))


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
    head = (
        f"  {'slicer':<14} {'setting':<24} {'AP':>6} {'AP50':>6} {'small':>6} {'AR500':>6} "
        f"{'crops':>6} {'pixels':>6} {'passes':>6} {'padded':>6} {'density':>8} {'detect':>8} "
        f"{'fuse':>6} {'ms':>8}"
    )
    lines = [head]
    for row, mark in zip(rows, best, strict=True):
        f = row.figures
        name = f"{row.name}{' packed' if row.packed else ''}"
        lines.append(
            f"{'*' if mark else ' '} {name:<14} {row.setting:<24} {f['AP']:6.4f} {f['AP50']:6.4f} "
            f"{f['AP_small']:6.4f} {f['AR500']:6.4f} {f['crops']:6.2f} {f['pixels']:6.3f} "
            f"{f['passes']:6.2f} {f['padded']:6.3f} {f['density_ms']:8.1f} {f['detect_ms']:8.1f} "
            f"{f['fuse_ms']:6.1f} {row.ms:8.1f}"
        )
    return "\n".join([*lines, *_break_evens(rows)])


def _break_evens(rows: Sequence[worth.Row]) -> list[str]:
    """For the best density row against each grid of at most its AP."""
    dense = [row for row in rows if row.name.startswith("density")]
    lines = []
    for grid in (row for row in rows if row.name == "grid"):
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
        packed = ", packed" if row.packed else ""
        lines.append(
            f"from {price:.0f} ms per pass on, density ({row.setting}{packed}) is the cheaper way "
            f"to the AP of grid {grid.setting}"
        )
    return lines
