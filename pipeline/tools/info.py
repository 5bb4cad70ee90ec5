"""``dmnet info PATH``: what a data set is, in words and as one picture."""

from __future__ import annotations

import argparse
import io
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dmnet.core.dataset import Dataset, open_dataset
from dmnet.core.errors import InputError
from dmnet.core.files import write_atomic
from dmnet.core.records import Annotations, Size
from dmnet.pipeline.outcome import number

EDGES = (0, 4, 8, 16, 32, 64, 128, 256, float("inf"))
"""Borders of the histogram, pixels on the detector's input."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("path", type=Path, metavar="PATH", help="folder, data.yaml or COCO JSON")
    add("--split", "--mode", default="val", help="part of the data; its own name of it")
    add("--sizes", type=Path, metavar="CSV", help="image sizes instead of image files")
    add("--input", type=number(32, 16_384), default=640, metavar="PIXELS",
        help="longest side that a detector shrinks images to")  # fmt: skip
    add("--out", type=Path, metavar="FILE.png", help="also draw it")


@dataclass
class Facts:
    """What was counted in a data set."""

    images: int = 0
    annotated: int = 0
    ignored: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[Size] = field(default_factory=Counter)
    sides: list[float] = field(default_factory=list)
    """Square root of each object's area, in pixels of the detector's input."""
    per_image: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, truth: Annotations, longest: int) -> None:
        """Count one annotated image."""
        objects = truth.objects
        self.annotated += 1
        self.ignored += len(truth) - len(objects)
        self.sizes[truth.size] += 1
        self.per_image.append(len(objects))
        names = truth.classes.scored
        self.objects.update(names[label] for label in objects.labels.tolist())
        sides = np.sqrt(np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=1))
        self.sides += (sides * min(1.0, longest / max(truth.size))).tolist()

    def histogram(self) -> list[tuple[str, int]]:
        """Objects by size on the detector's input."""
        counts = np.histogram(self.sides, EDGES)[0].tolist()
        names = [f"{a:g} to {b:g} px" if np.isfinite(b) else f"from {a:g} px"
                 for a, b in pairwise(EDGES)]  # fmt: skip
        return list(zip(names, counts, strict=True))


def run(args: argparse.Namespace) -> int:
    """Print and, if asked, draw; exit code 1 where there are problems."""
    dataset = open_dataset(args.path, args.split, args.sizes)
    facts = collect(dataset, args.input)
    for line in text(dataset, facts, args.input):
        print(line)
    if args.out is not None and facts.annotated:
        write_atomic(args.out, [picture(facts, args.input)])
        print(f"drawn: {args.out}")
    elif args.out is not None:
        print(f"not drawn: {args.out}, there are no labels")
    return 1 if facts.problems else 0


def collect(dataset: Dataset, longest: int) -> Facts:
    """Read every annotation once; of images without one, the size."""
    facts = Facts(images=len(dataset), problems=list(dataset.problems))
    for entry in dataset.entries:
        try:
            if not entry.annotated:
                facts.sizes[dataset.size(entry)] += 1
                continue
            truth, warnings = dataset.annotations(entry)
        except InputError as error:
            facts.problems.append(str(error))
            continue
        facts.problems += warnings
        facts.add(truth, longest)
    return facts


def text(dataset: Dataset, facts: Facts, longest: int) -> Iterator[str]:
    """The facts, line by line."""
    yield f"{dataset.root}, split '{dataset.split}'"
    if facts.annotated:
        yield from _counts(dataset, facts)
    else:
        way = f"dmnet predict {shlex.quote(str(dataset.root))}"
        yield f"{facts.images} images, none annotated: {way} finds objects in them"
    common = [f"{w}x{h} ({n})" for (h, w), n in facts.sizes.most_common(5)]
    more = f" and {len(facts.sizes) - 5} more" if len(facts.sizes) > 5 else ""
    yield f"sizes: {', '.join(common)}{more}"
    if facts.annotated:
        yield from _histogram(facts, longest)
    for problem in facts.problems[:20]:
        yield f"problem: {problem}"
    if len(facts.problems) > 20:
        yield f"and {len(facts.problems) - 20} more problems"


def _counts(dataset: Dataset, facts: Facts) -> Iterator[str]:
    count = len(facts.sides)
    shown = (
        f"{count} objects, {count / facts.annotated:.1f} per image; {facts.ignored} ignored rows"
    )
    yield f"{facts.images} images, {facts.annotated} annotated; {shown}"
    for name in dataset.classes.names:
        yield f"  {name:<24}{facts.objects[name]:>9}"


def _histogram(facts: Facts, longest: int) -> Iterator[str]:
    yield f"objects by size on an input of {longest} px (square root of the area):"
    for name, number_of in facts.histogram():
        share = number_of / max(1, len(facts.sides))
        yield f"  {name:<16}{number_of:>9}{share:>7.1%} {'#' * round(40 * share)}".rstrip()


def picture(facts: Facts, longest: int) -> bytes:
    """Classes, sizes on the input, and objects per image, side by side, as PNG."""
    figure = Figure(figsize=(13, 3.6), dpi=110, layout="constrained")
    classes, sizes, images = figure.subplots(1, 3)
    names = [name for name, _ in facts.objects.most_common()]
    classes.barh(names[::-1], [facts.objects[name] for name in names[::-1]], color="#409cff")
    classes.set_title("objects by class")
    bars = facts.histogram()
    sizes.barh([name for name, _ in bars], [n for _, n in bars], color="#46cd5a")
    sizes.invert_yaxis()
    sizes.set_title(f"objects by size on an input of {longest} px")
    images.hist(facts.per_image, bins=20, color="#ff9e40")
    images.set_title("images by number of objects")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
