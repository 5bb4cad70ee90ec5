"""Published numbers through the command line, on VisDrone val annotations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmnet.core.formats import crops as crop_format
from dmnet.core.formats import density_h5
from dmnet.pipeline.cli import main

EVERY = 5
"""Every fifth of the golden images; the packages' own tests look at all of them."""


@pytest.fixture(scope="module")
def golden(shared: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(
        (shared / "data" / "golden" / "visdrone-val-reference.json").read_text()
    )
    return entries[::EVERY]


@pytest.fixture(scope="module")
def places(
    annotation_archive: Path, golden: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Options that name a data folder of the golden images alone."""
    root = tmp_path_factory.mktemp("golden")
    target = root / "VisDrone2019-DET-val" / "annotations"
    target.mkdir(parents=True)
    for entry in golden:
        source = annotation_archive / "VisDrone2019-DET-val" / "annotations"
        shutil.copy(source / f"{entry['image']}.txt", target)
    sizes = annotation_archive / "image_sizes.csv"
    return ["--data", str(root), "--sizes", str(sizes), "--artifacts", str(root / "artifacts")]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fixed", "geometry"])
def test_reference_maps_and_windows(
    places: list[str], golden: list[dict[str, Any]], method: str
) -> None:
    options = [*places, "--config", "reference", "--run", method]
    assert main(["density", *options, "--density.sigma.method", method]) == 0
    folder = Path(places[5]) / method / "val"
    prefix = {"fixed": "fixed15", "geometry": "geometry"}[method]
    for entry in golden:
        values = density_h5.read(folder / "density" / f"{entry['image']}.h5").values
        found = values.astype(np.float64)
        assert found.sum() == pytest.approx(entry[f"{prefix}_sum"], rel=1e-6)
        assert found.max() == pytest.approx(entry[f"{prefix}_max"], rel=1e-6)
        squares = entry[f"{prefix}_sum_of_squares"]
        assert (found**2).sum() == pytest.approx(squares, rel=1e-6)
    if method == "fixed":
        assert main(["crop", *options, "--crop.write-images", "false"]) == 0
        crops = crop_format.read(folder / "crop" / "crops.json").by_parent()
        for entry in golden:
            windows = sorted(list(crop.window) for crop in crops[entry["image"]])
            assert windows == sorted(entry["windows_kept"])


def test_corrected_maps_sum_to_the_objects(places: list[str], golden: list[dict[str, Any]]) -> None:
    assert main(["density", *places]) == 0
    folder = Path(places[5]) / "default" / "val" / "density"
    for entry in golden:
        found = density_h5.read(folder / f"{entry['image']}.h5").count
        assert found == pytest.approx(entry["points"], rel=1e-4)
