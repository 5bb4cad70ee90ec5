"""``dmnet demo-data``: draw aerial scenes with annotations in the layout of VisDrone-DET."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dmnet.core import config
from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.dataset import open_dataset
from dmnet.core.formats import visdrone
from dmnet.core.images import encode_jpeg
from dmnet.core.records import Annotations, Image
from dmnet.pipeline.outcome import at_least_one, how_many, processes, seed
from dmnet.pipeline.scenes import SceneConfig, make_item
from dmnet.pipeline.scenes.layout import render_layout

VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoData:
    """What to draw."""

    scene: SceneConfig
    quality: int = 90


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("demo/data"), metavar="DIR")
    add("--train", type=how_many, default=40, metavar="N", help="training scenes")
    add("--val", type=how_many, default=12, metavar="N", help="held-out scenes")
    add("--test-dev", type=how_many, default=0, metavar="N", help="further held-out scenes")
    add("--seed", type=seed, default=0, help="another seed, other scenes")
    add("--layout", type=Path, metavar="DIR",
        help="take boxes, classes and ignored regions from the annotation files of a VisDrone "
        "folder, and draw only the pixels (image sizes: --sizes)")  # fmt: skip
    add("--sizes", type=Path, metavar="CSV", help="image sizes for --layout")
    add("--limit", type=at_least_one, metavar="N", help="at most N scenes a split with --layout")
    add("--workers", type=processes, default=2, metavar="N")
    add("--force", action="store_true", help="overwrite scenes that were changed by hand")


def run(args: argparse.Namespace) -> int:
    """Draw what is not there yet."""
    settings = DemoData(SceneConfig(seed=args.seed))
    items = list(_layout_items(args) if args.layout else _items(args))
    with Artifact(
        args.out, "demo-data", VERSION, config.resolved(settings), force=args.force
    ) as artifact:
        summary = artifact.process(
            items, partial(draw, settings), workers=args.workers, label="demo-data"
        )
    _log.info("demo-data: %d drawn, %d kept -> %s", summary.done, summary.kept, args.out)
    return 1 if summary.bad else 0


def _items(args: argparse.Namespace) -> Iterator[Item]:
    for split, count in (("train", args.train), ("val", args.val), ("test-dev", args.test_dev)):
        for index in range(count):
            yield Item(f"{split} {index}", facts={"split": split, "index": index})


def _layout_items(args: argparse.Namespace) -> Iterator[Item]:
    for split, count in (("train", args.train), ("val", args.val), ("test-dev", args.test_dev)):
        if count == 0:
            continue
        dataset = open_dataset(args.layout, split, args.sizes)
        for index, entry in enumerate(dataset.with_annotation[: args.limit or count]):
            assert entry.annotation is not None
            facts = {"split": split, "index": index, "size": dataset.size(entry)}
            yield Item(f"{split} {entry.image_id}", {"annotation": entry.annotation}, facts)


def draw(settings: DemoData, item: Item) -> Product:
    """Draw one scene."""
    split, index = item.facts["split"], item.facts["index"]
    if "annotation" in item.files:
        name = item.id.removeprefix(f"{split} ")
        size = tuple(item.facts["size"])
        annotations, _ = visdrone.read_annotations(item.files["annotation"], name, size)
        image = render_layout(annotations, index)
    else:
        image, annotations = make_item(split, index, settings.scene)
    return Product(_files(split, image, annotations, settings.quality))


def _files(split: str, image: Image, annotations: Annotations, quality: int) -> dict[str, bytes]:
    folder, name = f"VisDrone2019-DET-{split}", annotations.image_id
    return {
        f"{folder}/images/{name}.jpg": encode_jpeg(image, quality),
        f"{folder}/annotations/{name}.txt": visdrone.write_annotations(annotations).encode(),
    }
