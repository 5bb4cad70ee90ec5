from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dmnet.core.classes import VISDRONE
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.records import Annotations, DensityMap
from dmnet.cropping.recall import count_crops
from dmnet.cropping.report import (
    TITLES,
    Row,
    Setting,
    count_image,
    recall_figure,
    report_rows,
    standard_settings,
    sweep,
    to_csv,
    to_html,
    to_json,
)
from dmnet.cropping.slicers import CropConfig, slice_image
from tests.written import pooled

SIZE = (280, 350)


def images(number: int = 3) -> Iterator[tuple[Annotations, DensityMap]]:
    rng = np.random.default_rng(0)
    for i in range(number):
        low = rng.integers(0, [300, 230], (12, 2))
        boxes = np.hstack([low, low + rng.integers(5, 50, (12, 2))])
        values = np.zeros(SIZE, np.float32)
        values[low[:, 1] + 5, low[:, 0] + 5] = rng.random(12)
        density = DensityMap(values, 1, SIZE)
        yield Annotations.of(f"{i}", SIZE, boxes, rng.integers(1, 11, 12)), pooled(density, 4)


SETTINGS: list[Setting] = [
    *sweep("density", CropConfig(), [0.05, 0.4]),
    ("uniform", CropConfig.of(slicer="uniform")),
    ("none", CropConfig.of(slicer="none")),
]


def test_rows_equal_slicing_one_setting_at_a_time() -> None:
    for truth, density in images():
        for got, (_, config) in zip(count_image(truth, density, SETTINGS), SETTINGS, strict=True):
            alone = count_crops(truth, slice_image(config, SIZE, density, truth))
            assert got.covered.tolist() == alone.covered.tolist()
            assert (got.pixels, got.scale) == (alone.pixels, alone.scale)


def test_table_by_hand(slicer_report: Callable[..., list[Row]]) -> None:
    truth = Annotations.of("a", (100, 100), [[0, 0, 10, 10], [45, 0, 55, 10]], [4, 4])
    (row,) = slicer_report(
        [(truth, None), (truth, None)],
        [("two", CropConfig.of(slicer="uniform", rows=1, cols=2))],
        detector_input=(100, 300),
    )
    assert row["setting"] == "1x2"
    assert (row["images"], row["crops_per_image"], row["relative_pixels"]) == (2, 2, 1)
    assert (row["recall_all"], row["recall_car"], row["cut"], row["lost"]) == (0.5, 0.5, 0.5, 0.5)
    assert row["recall_bus"] is None
    assert (row["scale"], row["whole_scale"], row["object_side"]) == (2, 1, 20)
    names = [name for name in row if not name.startswith("recall_")]
    assert names == list(TITLES) and list(row)[9] == "recall_pedestrian"


def test_an_empty_set_has_no_averages(slicer_report: Callable[..., list[Row]]) -> None:
    rows = slicer_report([], SETTINGS)
    assert [row["images"] for row in rows] == [0] * 4
    assert rows[0]["recall_all"] is None and rows[0]["crops_per_image"] is None
    assert ",,," in to_csv(rows)
    assert "–" in to_html(rows)
    assert recall_figure(rows).startswith(b"\x89PNG")


def test_formats_agree(slicer_report: Callable[..., list[Row]]) -> None:
    rows = slicer_report(images(), SETTINGS)
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    loaded = json.loads(to_json(rows))
    assert loaded == rows
    for text, row in zip(read, rows, strict=True):
        assert float(text["recall_all"]) == pytest.approx(row["recall_all"], abs=1e-6)
    fragment = to_html([{**rows[0], "slicer": "<b>"}])
    assert "&lt;b&gt;" in fragment and "<b>" not in fragment
    assert fragment.count("<td>") == len(rows[0])


def test_figure_is_a_picture_and_repeats_byte_for_byte(
    slicer_report: Callable[..., list[Row]],
) -> None:
    rows = slicer_report(images(), SETTINGS)
    first = recall_figure(rows, "small", "title")
    assert first == recall_figure(rows, "small", "title")
    assert first != recall_figure(rows[:2], "small", "title")
    picture = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (600, 960, 3)
    assert picture.std() > 5


def test_merged_shards_give_the_same_table(slicer_report: Callable[..., list[Row]]) -> None:
    parts = [count_image(truth, density, SETTINGS) for truth, density in images()]
    sums = [part[0] + part[1] for part in zip(parts[2], parts[0], strict=True)]
    both = [a + b for a, b in zip(sums, parts[1], strict=True)]
    assert report_rows(SETTINGS, both, VISDRONE) == slicer_report(images(), SETTINGS)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (CropConfig(), "threshold 0.08"),
        (CropConfig.of(threshold=0.16, min_objects=4), "threshold 0.16, min objects 4"),
        (CropConfig.of(max_crops=4, pixel_budget=0.5), "max crops 4, pixel budget 0.5"),
        (CropConfig.of(preset="reference", max_crops=4), "threshold 0.08"),
        (CropConfig.of(slicer="grid"), "tile 512, overlap 0.2"),
        (CropConfig.of(slicer="uniform"), "2x3"),
        (CropConfig.of(slicer="none"), "-"),
    ],
)
def test_describe(config: CropConfig, text: str) -> None:
    assert str(config.settings) == text


def test_standard_settings_run_on_an_image(slicer_report: Callable[..., list[Row]]) -> None:
    settings = standard_settings(CropConfig())
    names = dict.fromkeys(name for name, _ in settings)
    density = ["density", "density-reference", "density-budget"]
    assert [*names] == [*density, "uniform", "grid", "oracle", "none"]
    rows = slicer_report(images(1), settings)
    oracle = next(row for row in rows if row["slicer"] == "oracle")
    assert oracle["recall_all"] == 1
    only = standard_settings(CropConfig.of(preset="reference"))
    assert {name for name, _ in only if name.startswith("density")} == {"density"}


def test_a_missing_or_foreign_map_is_an_error(slicer_report: Callable[..., list[Row]]) -> None:
    truth, density = next(images())
    with pytest.raises(MissingInputError, match="needs a density map"):
        slicer_report([(truth, None)], SETTINGS)
    other = replace(truth, size=(281, 350))
    with pytest.raises(ConfigError, match="density map is for an image of 280x350"):
        slicer_report([(other, density)], SETTINGS)
