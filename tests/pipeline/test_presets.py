"""Every shipped preset holds settings that exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmnet.core.config import merged
from dmnet.core.errors import InputError
from dmnet.core.presets import read_preset
from dmnet.pipeline.context import Context
from dmnet.pipeline.models import entries
from dmnet.pipeline.options import context_of, stage_parser

from .conftest import Run

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


PRESETS = [path for path in sorted(CONFIGS.glob("*.yaml")) if path.stem != "models"]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_fits_the_settings(path: Path) -> None:
    settings = read_preset(path)
    assert settings
    Context(settings=settings).check_settings()


@pytest.mark.parametrize("name", sorted(entries()))
def test_a_model_is_a_preset_too(name: str) -> None:
    options, rest = stage_parser("detect").parse_known_args(["--config", name])
    context = context_of(options, rest)
    assert context.settings == entries()[name].settings
    context.check_settings()


def test_no_such_preset(dmnet: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert dmnet("crop", "--config", "visdron") == 2
    assert "no such preset; did you mean 'visdrone'?" in capsys.readouterr().err
    assert dmnet("crop", "--config", "models") == 2  # the table of models is none


def test_readme_names_only_verbs_and_presets_that_exist() -> None:
    readme = (CONFIGS.parent / "README.md").read_text(encoding="utf-8")
    makefile = (CONFIGS.parent / "Makefile").read_text(encoding="utf-8")
    verbs = {line.split()[1] for line in readme.splitlines() if line.startswith("make ")}
    assert verbs
    for verb in verbs:
        assert f"\n{verb}:" in makefile or f"\n{verb} " in makefile, verb


def test_a_preset_takes_in_others(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("crop: {threshold: 0.1, rows: 3}\nfuse-eval: {pictures: 1}")
    (tmp_path / "two.yaml").write_text("include: [one]\ncrop: {threshold: 0.2}")
    own = tmp_path / "own.yaml"
    own.write_text("include: [one, two]\ncrop: {cols: 5}")
    assert read_preset(own) == {
        "crop": {"threshold": 0.2, "rows": 3, "cols": 5},
        "fuse_eval": {"pictures": 1},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("include: [own]", "includes itself"),
        ("include: [onee]", "did you mean 'one'"),
        ("include: [../one]", "include ../one: no such preset"),
        ("include: one", "include lists names of presets beside it, got 'one'"),
    ],
)
def test_wrong_includes_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("crop: {threshold: 0.1}")
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(InputError) as caught:
        read_preset(own)
    assert said in str(caught.value)


def test_the_paper_in_one_word_is_its_three_parts() -> None:
    settings = read_preset(CONFIGS / "dmnet-paper.yaml")
    for part in ("reference", "density-mcnn-paper", "detector-dmnet-paper"):
        assert merged(settings, read_preset(CONFIGS / f"{part}.yaml")) == settings
    assert settings["train_detector"]["model"] == "fasterrcnn-r50"
    assert settings["fuse_eval"]["merge"]["iou"] == 0.7


@pytest.mark.parametrize(
    "detector", ["fasterrcnn-mobilenetv3", pytest.param("fasterrcnn-r50", marks=pytest.mark.slow)]
)
def test_the_paper_in_one_word_runs_from_pictures_to_scores(
    detector: str, dmnet: Run, tmp_path: Path
) -> None:
    """One epoch of everything on the drawn scenes; only sizes and lengths are reduced."""
    small = ["--train-detector.model", detector, "--train-detector.pictures", "0"]
    small += ["--train-detector.torchvision.fpn-channels", "32"]
    small += ["--train-detector.torchvision.head-channels", "32"]
    small += ["--train-density.epochs", "1", "--train-detector.epochs", "1", "--device", "cpu"]
    small += ["--train-detector.torchvision.weights", "none"]
    small += ["--train-detector.torchvision.min-size", "64"]
    small += ["--train-detector.torchvision.max-size", "96"]
    small += ["--train-detector.torchvision.proposals", "50", "--fuse-eval.bootstrap", "2"]
    small += ["--crop.threshold", "0.000001"]  # an MCNN of one epoch predicts nothing
    assert dmnet("all", "--config", "dmnet-paper", *small) == 0
    run = tmp_path / "artifacts" / "default"
    header = json.loads((run / "val" / "fuse-eval" / "stage.json").read_text())
    assert header["config"]["merge"]["plus_one"] is True
    assert (run / "train" / "train-density" / "weights.pt").exists()
    scores = (run / "val" / "fuse-eval" / "scores.csv").read_text()
    assert scores.splitlines()[1].split(",")[1] == "coco@500"
    crops = json.loads((run / "train" / "crop" / "crops.json").read_text())
    assert len(crops["images"]) > 0
