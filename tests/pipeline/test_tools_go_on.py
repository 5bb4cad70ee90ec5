"""Verbs beside the stages go on past maps they cannot use, and say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.images import read_image
from dmnet.pipeline.cli import main

from .conftest import Run

Tool = Callable[..., int]


@pytest.fixture
def maps(dmnet: Run, tmp_path: Path) -> Path:
    assert dmnet("density") == 0
    return tmp_path / "artifacts" / "default" / "val" / "density"


@pytest.fixture
def report(data: Path, maps: Path, tmp_path: Path) -> Tool:
    def run(*options: str) -> int:
        places = ["--data", str(data), "--maps", str(maps), "--out", str(tmp_path / "report")]
        return main(["slice-report", *places, "--slicers", "uniform", *options])

    return run


@pytest.fixture
def pictures(data: Path, maps: Path, tmp_path: Path) -> Tool:
    def run(*options: str) -> int:
        places = ["--data", str(data), "--maps", str(maps), "--out", str(tmp_path / "sheet.jpg")]
        return main(["pictures", *places, *options])

    return run


def spoil(maps: Path) -> None:
    """One map of NaN, one cut short; the third is left."""
    (maps / "100.h5").unlink()
    np.save(maps / "100.npy", np.full((60, 80), np.nan, np.float32))
    (maps / "101.h5").write_bytes((maps / "101.h5").read_bytes()[:300])


def test_slice_report_goes_on(
    report: Tool, maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report() == 0
    (maps / "102.h5").rename(maps.parent / "102.h5")
    assert report() == 1
    assert "1 items were set aside" in (said := capsys.readouterr().err)
    assert "102: there is no density map of it" in said
    (maps.parent / "102.h5").rename(maps / "102.h5")
    spoil(maps)
    assert report() == 1
    said = capsys.readouterr().err
    assert "2 items were set aside" in said and "100.npy" in said and "101.h5" in said
    rows = json.loads((tmp_path / "report" / "slicers.json").read_text())
    assert all(row["images"] == 1 for row in rows)
    assert report("--max-bad", "2") == 0


def test_slice_report_of_nothing(
    report: Tool, maps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(maps)
    (maps / "102.h5").write_bytes(b"no map")
    assert report() == 2
    assert "no image can be used; 100: " in capsys.readouterr().err
    for path in [*maps.glob("*.h5"), *maps.glob("*.npy")]:
        path.unlink()
    assert report() == 2
    assert "holds no density map" in capsys.readouterr().err


def test_pictures_go_on(
    pictures: Tool, maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pictures() == 0
    whole = read_image(tmp_path / "sheet.jpg").shape
    spoil(maps)
    assert pictures() == 1
    assert "2 items were set aside" in capsys.readouterr().err
    assert read_image(tmp_path / "sheet.jpg").shape[0] < whole[0] / 2
    assert pictures("--max-bad", "2") == 0
    assert pictures("100") == 2
    assert "no image can be drawn" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["slice-report", "pictures"])
def test_allowed_number_is_not_negative(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--max-bad", "-1"]) == 2
    assert "--max-bad: must be a whole number, 0 to" in capsys.readouterr().err
