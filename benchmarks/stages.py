"""Whole stages density and crop: one worker against two, and what the disk alone would need.

The annotation files are made on the spot (clusters as in aerial images), 1360 x 765 pixels each.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
from table import Row, show

from dmnet.core.formats.visdrone import write_annotations
from dmnet.core.records import Annotations
from dmnet.pipeline.cli import main as dmnet

COUNT = 2400
SIZE = (765, 1360)


def write_files(root: Path) -> Path:
    """Annotation files of clustered objects and the table of sizes; returns the table."""
    folder = root / "VisDrone2019-DET-val" / "annotations"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        middle = rng.uniform(0, SIZE[::-1], (5, 2))
        low = middle[rng.integers(5, size=54)] + rng.normal(0, 60, (54, 2))
        low = low.clip(0, np.array(SIZE[::-1]) - 40).round()
        boxes = np.concatenate([low, low + rng.integers(8, 40, (54, 2))], axis=1)
        made = Annotations.of("", SIZE, boxes, rng.integers(1, 11, 54))
        (folder / f"{index:05d}.txt").write_text(write_annotations(made))
    table = root / "sizes.csv"
    rows = [f"val,{index:05d},{SIZE[1]},{SIZE[0]}" for index in range(COUNT)]
    table.write_text("\n".join(["split,image,width,height", *rows]) + "\n")
    return table


def run(root: Path, table: Path, stage: str, workers: int) -> float:
    """Seconds of one stage on an empty run."""
    places = ["--data", str(root), "--sizes", str(table), "--artifacts", str(root / "artifacts")]
    options = ["--run", f"w{workers}", "--workers", str(workers), "--crop.write-images", "false"]
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        code = dmnet([stage, *places, *options])
    logging.getLogger().handlers.clear()
    assert code == 0
    return time.perf_counter() - start


def write_floor(root: Path, folder: Path) -> float:
    """Seconds to write the same bytes to as many files, and nothing else."""
    sizes = [path.stat().st_size for path in folder.glob("*.h5")]
    target = root / "floor"
    target.mkdir()
    start = time.perf_counter()
    for index, size in enumerate(sizes):
        (target / str(index)).write_bytes(b"\1" * size)
    return time.perf_counter() - start


def rows() -> list[Row]:
    """Seconds with two workers, with one, their ratio."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        table = write_files(root)
        for stage in ("density", "crop"):
            one, two, again = (run(root, table, stage, n) for n in (1, 2, 2))
            found.append((f"{stage}, {COUNT} files, 2 workers", two, one, one / two, "1 worker"))
            found.append((f"{stage}, the same again", again, two, two / again, "first time"))
        floor = write_floor(root, root / "artifacts" / "w2" / "val" / "density")
        note = "floor of density: the same bytes written by one process"
        found.append(("writing the maps' bytes alone", floor, None, None, note))
    return found


def main() -> None:
    """Print the table."""
    show("stages", rows())


if __name__ == "__main__":
    main()
