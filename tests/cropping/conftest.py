"""Real annotations and the density maps of the published definition, a few lines each."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dmnet.core.classes import VISDRONE
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.cropping.recall import merge_counts
from dmnet.cropping.report import Row, Setting, count_image, report_rows

MakeMap = Callable[[np.ndarray, Size], DensityMap]


@pytest.fixture(scope="session")
def val(annotation_archive: Path) -> list[Annotations]:
    """All 548 images of VisDrone val, in the order of image_sizes.csv."""
    found = []
    with (annotation_archive / "image_sizes.csv").open() as sizes:
        for row in csv.DictReader(sizes):
            if row["split"] != "val":
                continue
            folder = annotation_archive / "VisDrone2019-DET-val" / "annotations"
            text = (folder / f"{row['image']}.txt").read_text()
            table = np.array([line.strip().strip(",").split(",")[:8] for line in text.split()])
            t = table.astype(np.int64).reshape(-1, 8)
            t = t[(t[:, 2] > 0) & (t[:, 3] > 0)]
            boxes = np.concatenate([t[:, :2], t[:, :2] + t[:, 2:4]], axis=1)
            size = int(row["height"]), int(row["width"])
            found.append(Annotations(row["image"], size, boxes, t[:, 5], t[:, 4], t[:, 6], t[:, 7]))
    return found


@pytest.fixture(scope="session")
def reference_map() -> MakeMap:
    """Density of boxes by the published code: sigma 15, kernels cut, last row and column empty."""
    impulse = np.zeros((121, 121))
    impulse[60, 60] = 1
    kernel = gaussian_filter(impulse, 15, mode="constant")
    kernel /= kernel.sum()

    def make(boxes: np.ndarray, size: Size) -> DensityMap:
        height, width = size
        values = np.zeros(size, np.float32)
        centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int)
        for x, y in np.clip(centres, 0, [width - 1, height - 1]):
            x1, x2 = max(0, x - 60), min(x + 61, width - 1)
            y1, y2 = max(0, y - 60), min(y + 61, height - 1)
            part = kernel[y1 - y + 60 : y2 - y + 60, x1 - x + 60 : x2 - x + 60]
            values[y1:y2, x1:x2] += part
        return DensityMap(values, 1, size)

    return make


@pytest.fixture(scope="session")
def slicer_report() -> Callable[..., list[Row]]:
    """The whole table of some images, one image after the other."""

    def make(
        images: Iterable[tuple[Annotations, DensityMap | None]],
        settings: Sequence[Setting],
        detector_input: tuple[int, int] = (600, 1000),
    ) -> list[Row]:
        parts = [count_image(*image, settings, detector_input) for image in images]
        counts = [merge_counts([part[k] for part in parts]) for k in range(len(settings))]
        return report_rows(settings, counts, VISDRONE)

    return make
