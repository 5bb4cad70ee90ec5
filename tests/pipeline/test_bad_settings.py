"""Options and settings out of their range: exit code 2 and one paragraph, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmnet.pipeline.cli import main

from .conftest import Run


@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        ("density", ["--density.stride", "-1"], "density.stride must be at least 1"),
        ("density", ["--density.stride", "0"], "density.stride must be at least 1"),
        ("crop", ["--crop.jpeg-quality", "500"], "crop.jpeg_quality must be 1 to 100"),
        ("crop", ["--crop.map-stride", "-8"], "crop.map_stride must be at least 1"),
        ("fuse-eval", ["--fuse-eval.merge.iou", "1.5"], "iou must be 0 to 1"),
        ("fuse-eval", ["--fuse-eval.merge.sigma", "0"], "sigma must be above 0"),
        ("fuse-eval", ["--fuse-eval.edge-cover", "0"], "edge_cover must be above 0"),
        ("fuse-eval", ["--fuse-eval.crop-weight", "nan"], "crop_weight must be above 0"),
        ("fuse-eval", ["--fuse-eval.edge-margin", "-1"], "edge_margin must be at least 0"),
        ("fuse-eval", ["--fuse-eval.bootstrap", "-1"], "fuse_eval.bootstrap must be at least 0"),
        ("density", ["--run", "../elsewhere"], "--run ../elsewhere"),
        ("density", ["--run", ""], "--run"),
    ],
)
def test_refused(
    dmnet: Run, capsys: pytest.CaptureFixture[str], verb: str, options: list[str], said: str
) -> None:
    assert dmnet(verb, *options) == 2
    text = capsys.readouterr().err.strip()
    assert text.startswith("dmnet: ") and said in text
    assert "\n" not in text


@pytest.mark.parametrize("option", ["--workers", "--max-bad"])
def test_counts_are_not_negative(
    dmnet: Run, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit) as end:
        dmnet("density", option, "-1")
    assert end.value.code == 2
    assert "whole number from 0 up" in capsys.readouterr().err


def test_status_of_crops_without_maps(dmnet: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert dmnet("density") == 0
    assert dmnet("crop", "--crop.slicer", "uniform") == 0
    capsys.readouterr()
    assert dmnet("status", "--crop.slicer", "uniform") == 0
    line = next(t for t in capsys.readouterr().out.splitlines() if " val crop " in t)
    assert "fresh       3 items" in line
    assert dmnet("status") == 0
    line = next(t for t in capsys.readouterr().out.splitlines() if " val crop " in t)
    assert "stale" in line and "slicer uniform -> density" in line


def test_reference_says_which_sigmas_it_caps(
    dmnet: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = ["--density.preset", "reference", "--density.sigma.method", "classwise"]
    assert dmnet("density", *wide) == 0
    assert "objects have a sigma above the kernel bank" in capsys.readouterr().err
    assert dmnet("density", *wide, "--density.sigma.above", "error") == 2
    assert "is above the largest of the kernel bank" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--setting", " "], "--setting: needs a name"),
        (["--limit", "-2"], "must be at least 1"),
        (["--detector-input", "0", "0"], "must be at least 1"),
        (["--setting", "mine slicer=foo"], "crop.slicer: must be one of density"),
    ],
)
def test_slice_report_refuses(
    data: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["slice-report", "--data", str(data), "--slicers", "uniform", *options]) == 2
    text = capsys.readouterr().err.strip()
    assert text.startswith("dmnet: ") and said in text and "\n" not in text


def test_crops_of_other_images_are_said(
    dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "crops.json"
    parent = {"id": 5, "file_name": "101.jpg", "width": 320, "height": 240}
    foreign.write_text(json.dumps({"parents": [parent], "images": []}))
    assert dmnet("convert", "--crops", str(foreign)) == 0
    said = "2 of the split's 3 images are not in it and are left out (such as 100)"
    assert said in capsys.readouterr().err
