"""How fast files are read: ``python benchmarks/formats.py`` prints a markdown table.

Baselines: annotation files through ``numpy.loadtxt``, which parses in C but checks neither columns
nor categories nor the image's border and names no line; image sizes by decoding the pixels. Data:
200 seeded annotation files of 55 rows (the mean of VisDrone) and 40 noisy 1360 x 765 JPEG files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from table import Row, show

from dmnet.core.formats import visdrone, voc, yolo
from dmnet.core.images import encode_jpeg, read_image, read_size
from dmnet.core.records import Annotations

FILES, ROWS, PICTURES, SIZE = 200, 55, 40, (765, 1360)


def annotations(seed: int) -> Annotations:
    """One image's worth of boxes."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, [1300, 700], (ROWS, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 60, (ROWS, 2))], axis=1)
    return Annotations.of(f"{seed:04d}", SIZE, boxes, rng.integers(1, 11, ROWS))


def timed(work: Callable[[], object]) -> float:
    """The best of three."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def read_all(folder: Path) -> list[Row]:
    """Every format in ``folder``, read back."""
    items = [annotations(seed) for seed in range(FILES)]
    for ann in items:
        (folder / f"{ann.image_id}.txt").write_text(visdrone.write_annotations(ann))
        (folder / f"{ann.image_id}.xml").write_text(voc.write(ann, f"{ann.image_id}.jpg"))
        (folder / f"{ann.image_id}.yolo").write_text(yolo.write(ann))
    txt = [folder / f"{ann.image_id}.txt" for ann in items]
    note = f"{FILES} files of {ROWS} rows"
    ours = timed(lambda: [visdrone.read_annotations(p, p.stem, SIZE) for p in txt])
    plain = timed(lambda: [np.loadtxt(p, delimiter=",") for p in txt])
    rows: list[Row] = [("VisDrone txt", ours, plain, plain / ours, note)]
    xml = timed(lambda: [voc.read(p.with_suffix(".xml")) for p in txt])
    short = timed(lambda: [yolo.read(p.with_suffix(".yolo"), p.stem, SIZE) for p in txt])
    return [*rows, ("VOC XML", xml, None, None, note), ("YOLO txt", short, None, None, note)]


def sizes(folder: Path) -> list[Row]:
    """Sizes from headers against sizes from pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    paths = [folder / f"{index}.jpg" for index in range(PICTURES)]
    for path in paths:
        path.write_bytes(encode_jpeg(noise))
    ours = timed(lambda: [read_size(path) for path in paths])
    decoded = timed(lambda: [read_image(path).shape for path in paths])
    return [("image size", ours, decoded, decoded / ours, f"{PICTURES} JPEG files")]


def run() -> list[Row]:
    """All rows."""
    with tempfile.TemporaryDirectory() as name:
        return [*read_all(Path(name)), *sizes(Path(name))]


def main() -> None:
    """Print the table."""
    show("formats", run(), "ms")


if __name__ == "__main__":
    main()
