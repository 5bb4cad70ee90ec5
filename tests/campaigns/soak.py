"""``soak``: many items through the stages, and drawn pictures through predict: memory stays flat.

Items are annotation files with a table of image sizes and no pictures; density, crop, convert and
fuse-eval run on them, each in a process of its own. Predict runs on drawn pictures with the network
shipped with the package. Two sizes of each, N and a smaller one (``--base``, N/2 if not given): the
slope is the growth of the peak of resident memory from one to the other, in bytes an item. What a
journal holds of an item is some kilobytes; a picture or a map that is kept would be hundreds. A
stage survives if its slope is below the limit, it ends with exit code 0, and as many descriptors
stay open with N items as with the smaller number.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dmnet.core.formats import coco_results, visdrone
from dmnet.core.images import encode_jpeg
from dmnet.core.records import Annotations, Detections
from tests.campaigns.world import forked, place, preload
from tests.pipeline.conftest import draw_scene

LIMIT = 16_384
"""Bytes an item that memory may grow by."""

PICTURE = 65_536
"""The same of a picture of predict, whose pixels are 230,400 bytes."""

Measure = tuple[int, int]
"""Peak of resident memory in bytes, and descriptors that stayed open."""


def annotations(root: Path, n: int, seed: int) -> None:
    """``n`` images of 540x960 with 5 to 40 objects, as files and sizes."""
    folder = root / "data" / "VisDrone2019-DET-val" / "annotations"
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    with (root / "sizes.csv").open("w") as sizes:
        sizes.write("split,image,width,height\n")
        for index in range(n):
            boxes = [_box(rng) for _ in range(rng.randint(5, 40))]
            found = Annotations.of("", (540, 960), boxes, [rng.randint(1, 10) for _ in boxes])
            (folder / f"{index:07d}.txt").write_text(visdrone.write_annotations(found))
            sizes.write(f"val,{index:07d},960,540\n")


def _box(rng: random.Random) -> list[int]:
    x, y = rng.randint(0, 900), rng.randint(0, 480)
    return [x, y, x + rng.randint(4, 60), y + rng.randint(4, 60)]


def pictures(root: Path, n: int) -> None:
    """``n`` drawn pictures of 240x320."""
    (root / "pictures").mkdir(parents=True)
    for index in range(n):
        path = root / "pictures" / f"{index:06d}.jpg"
        path.write_bytes(encode_jpeg(draw_scene(index)[0]))


def found(root: Path) -> None:
    """Detections of every image and crop as another program would give them."""
    crops = json.loads((root / "runs" / "default" / "val" / "crop" / "crops.json").read_text())
    (root / "found").mkdir()
    for name, key in (("images", "parents"), ("crops", "images")):
        one = Detections([[2.0, 3, 30, 20]], [0.5], [4])  # type: ignore[list-item,arg-type]
        text = coco_results.write_results([(row["id"], one) for row in crops[key]])
        (root / "found" / f"results_{name}.json").write_text(text)


def descriptors() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def aside(work: Callable[..., None], *args: object) -> None:
    """Do something in a process of its own, so that its memory is no verb's."""
    child = multiprocessing.get_context("fork").Process(target=work, args=args)
    child.start()
    child.join()
    assert child.exitcode == 0


def measured(command: list[str], report: Path) -> Measure:
    """Run a verb in a process of its own that says at its end what it took."""

    def first() -> None:
        before = descriptors()
        end = os._exit

        def leave(code: int) -> None:
            gc.collect()  # what waits for the collector is no leak
            kept = descriptors() - before
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            report.write_text(json.dumps([peak, kept]))
            end(code)

        os._exit = leave  # type: ignore[assignment]

    code, said = forked(command, first)
    assert code == 0, said[-2000:]
    peak, kept = json.loads(report.read_text())
    return peak, kept


@contextlib.contextmanager
def timed(name: str, n: int) -> Iterator[None]:
    """Say what is done while it is done, then how long it took."""
    print(f"    {n:7} items: {name:12}", end="", flush=True)
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:8.1f} s", flush=True)


def stages(root: Path, n: int, seed: int) -> dict[str, Measure]:
    """Peak and descriptors of every stage on ``n`` items."""
    with timed("data", n):
        aside(annotations, root, n, seed)
    places = ["--data", str(root / "data"), "--artifacts", str(root / "runs"), "--workers", "1"]
    places += ["--sizes", str(root / "sizes.csv")]
    usual = {"fuse-eval": ["--detections", str(root / "found"), "--fuse-eval.pictures", "0",
                           "--fuse-eval.bootstrap", "0"],
             "crop": ["--crop.write-images", "false"],
             "density": ["--density.stride", "16"]}  # fmt: skip
    out = {}
    for stage in ("density", "crop", "convert", "fuse-eval"):
        if stage == "fuse-eval":
            with timed("detections", n):
                aside(found, root)
        with timed(stage, n):
            out[stage] = measured([stage, *places, *usual.get(stage, [])], root / "report.json")
    return out


def predicted(root: Path, n: int) -> dict[str, Measure]:
    """Peak and descriptors of predict on ``n`` pictures."""
    with timed("pictures", n):
        aside(pictures, root, n)
    command = ["predict", str(root / "pictures"), "--out", str(root / "out")]
    with timed("predict", n):
        return {"predict": measured([*command, "--device", "cpu"], root / "report.json")}


def compared(
    sizes: tuple[int, int],
    limit: int,
    where: Path | None,
    run: Callable[[Path, int], dict[str, Measure]],
) -> list[str]:
    """Print one line a stage; what fell."""
    fell = []
    made = []
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=where) as folder:
            made.append(run(Path(folder), count))
    base, n = sizes
    for name in made[1]:
        (low, few), (high, many) = made[0][name], made[1][name]
        slope = (high - low) / (n - base)
        print(
            f"{name:12} {base} to {n} items: peak {low / 1e6:.0f} to {high / 1e6:.0f} MB, slope "
            f"{slope:,.0f} bytes an item, {many - few} descriptors more stay open",
            flush=True,
        )
        if slope > limit or many > few:
            fell.append(name)
    return fell


def two_sizes(n: int, base: int | None) -> tuple[int, int]:
    """The smaller number and ``n``."""
    if base is not None and not 0 < base < n:
        raise SystemExit(
            f"--base {base}: give a number above 0 and below the items or pictures, {n}"
        )
    return n // 2 if base is None else base, n


def main() -> int:
    """Run the campaign; exit 1 if anything fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=2000, help="items through the stages")
    parser.add_argument("--pictures", type=int, default=0, help="pictures through predict")
    parser.add_argument("--base", type=int, help="the smaller number of both; half if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, default=place(), help="a folder for the files")
    args = parser.parse_args()
    items, drawn = (two_sizes(n, args.base) if n else None for n in (args.n, args.pictures))
    preload(heavy=args.pictures > 0)
    fell = []
    if items:
        fell += compared(items, LIMIT, args.place, lambda root, n: stages(root, n, args.seed))
    if drawn:
        fell += compared(drawn, PICTURE, args.place, predicted)
    print(f"soak: seed {args.seed}, {args.n} items, {args.pictures} pictures, {len(fell)} fell")
    return 1 if fell else 0


if __name__ == "__main__":
    sys.exit(main())
