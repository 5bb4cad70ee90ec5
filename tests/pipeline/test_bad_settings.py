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
        ("density", ["--density.stride", "-1"], "density.stride must be 1 to 1,024, got -1"),
        ("density", ["--density.stride", "0"], "density.stride must be 1 to 1,024, got 0"),
        ("crop", ["--crop.jpeg-quality", "500"], "crop.jpeg_quality must be 1 to 100"),
        ("crop", ["--crop.map-stride", "-8"], "crop.map_stride must be 1 to"),
        ("crop", ["--crop.max-side", "60"], "crop.max_side 60 is too small for min_side 200"),
        ("fuse-eval", ["--fuse-eval.merge.iou", "1.5"], "fuse_eval.merge.iou must be 0 to 1"),
        ("fuse-eval", ["--fuse-eval.merge.sigma", "0"], "fuse_eval.merge.sigma must be above 0"),
        ("fuse-eval", ["--fuse-eval.edge-cover", "0"], "fuse_eval.edge_cover must be above 0"),
        ("fuse-eval", ["--fuse-eval.crop-weight", "nan"], "fuse_eval.crop_weight must be above 0"),
        ("fuse-eval", ["--fuse-eval.edge-margin", "-1"], "fuse_eval.edge_margin must be 0 to"),
        ("fuse-eval", ["--fuse-eval.bootstrap", "-1"], "fuse_eval.bootstrap must be 0 to"),
        (
            "fuse-eval",
            ["--fuse-eval.bootstrap", "1" * 5000],
            "fuse_eval.bootstrap: must be a whole",
        ),
        (
            "fuse-eval",
            ["--fuse-eval.protocols", ""],
            "protocols: must be text, got nothing",
        ),
        ("fuse-eval", ["--fuse-eval.protocols", "coc"], "fuse_eval.protocols: no protocol 'coc'"),
        ("train-detector", ["--train-detector.epochs", "0"], "train_detector.epochs must be 1 to"),
        ("train-detector", ["--train-detector.batch", "0"], "train_detector.batch must be 1 to"),
        ("detect", ["--detect.decoders", "0"], "detect.decoders must be 1 to"),
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
    assert dmnet("density", option, "-1") == 2
    text = capsys.readouterr().err.strip()
    assert f"{option}: must be a whole number, 0 to" in text and "\n" not in text


def test_status_of_crops_without_maps(dmnet: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert dmnet("density") == 0
    assert dmnet("crop", "--crop.slicer", "uniform") == 0
    capsys.readouterr()
    assert dmnet("status", "--crop.slicer", "uniform") == 0
    line = next(t for t in capsys.readouterr().out.splitlines() if " val crop " in t)
    assert "fresh       3 items" in line
    assert dmnet("status") == 0  # the run knows how it was made
    assert line in capsys.readouterr().out
    assert dmnet("status", "--crop.slicer", "density") == 0
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
        (["--limit", "-2"], "--limit: must be a whole number, 1 to"),
        (["--detector-input", "0", "0"], "must be a whole number, 1 to"),
        (["--setting", "mine slicer=foo"], "crop.slicer must be one of density"),
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
