"""The published scripts on VisDrone val, and the figures of the slicers there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmnet.core.records import Annotations
from dmnet.cropping import regions
from dmnet.cropping.report import Row
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.cropping.windows import scan_windows
from tests.written import pooled

REFERENCE = CropConfig.of(preset="reference")


def test_golden_windows(shared: Path, val: list[Annotations], reference_map: Any) -> None:
    path = shared / "data" / "golden" / "visdrone-val-reference.json"
    golden = {entry["image"]: entry for entry in json.loads(path.read_text())}
    known = [found for found in val if found.image_id in golden]
    assert len(known) == len(golden) == 274
    for found in known:
        expected = golden[found.image_id]
        density = reference_map(found.objects.boxes, found.size)
        scan = scan_windows(density, (70, 70))
        assert scan.mask(0.08).sum() == expected["mask_pixels"], found.image_id
        extents = regions.components(scan, scan.passed(0.08), connectivity=4)
        windows = [list(regions.reference_extent(window)) for window in extents]
        assert windows == expected["windows"], found.image_id
        kept = [list(window) for window in slice_image(REFERENCE, found.size, density)]
        assert kept == expected["windows_kept"], found.image_id


def test_golden_figures_of_the_slicers(
    val: list[Annotations], reference_map: Any, slicer_report: Callable[..., list[Row]]
) -> None:
    settings = [
        ("reference", REFERENCE),
        ("uniform", CropConfig.of(slicer="uniform", rows=2, cols=3)),
        ("grid", CropConfig.of(slicer="grid", tile=512, overlap=0.2)),
        ("corrected", CropConfig()),
    ]
    maps = ((found, reference_map(found.objects.boxes, found.size)) for found in val)
    reference, uniform, grid, corrected = slicer_report(maps, settings)
    assert (reference["images"], round(548 * reference["crops_per_image"])) == (548, 2298)
    assert round(reference["crops_per_image"], 2) == 4.19
    assert round(reference["relative_pixels"], 3) == 0.525
    assert round(reference["recall_all"], 3) == 0.972
    assert round(reference["recall_small"], 4) == 0.9998
    assert (round(uniform["recall_all"], 3), uniform["relative_pixels"]) == (0.900, 1.0)
    assert (round(grid["recall_all"], 3), round(grid["relative_pixels"], 2)) == (0.998, 2.24)
    assert corrected["recall_all"] > 0.98
    assert corrected["recall_all"] > uniform["recall_all"]
    assert corrected["relative_pixels"] < 0.7
    assert corrected["crops_per_image"] < 4


def test_a_stride_4_map_keeps_nearly_every_window(
    val: list[Annotations], reference_map: Any
) -> None:
    differing = total = 0
    for found in val[::20]:
        density = reference_map(found.objects.boxes, found.size)
        full = scan_windows(density, (70, 70))
        coarse = scan_windows(pooled(density, 4), (70, 70))
        np.testing.assert_allclose(coarse.sums, full.sums, rtol=0.01, atol=0.01)
        differing += int((full.passed(0.08) != coarse.passed(0.08)).sum())
        total += full.sums.size
    assert differing / total < 0.002


@pytest.mark.parametrize("config", [CropConfig(), REFERENCE])
def test_every_crop_of_val_lies_in_its_image(
    config: CropConfig, val: list[Annotations], reference_map: Any
) -> None:
    for found in val[::40]:
        density = reference_map(found.objects.boxes, found.size)
        crops = slice_image(config, found.size, density)
        assert crops
        for x1, y1, x2, y2 in crops:
            assert 0 <= x1 < x2 <= found.size[1] and 0 <= y1 < y2 <= found.size[0]
