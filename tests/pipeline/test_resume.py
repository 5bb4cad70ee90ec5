"""SIGKILL in the middle of every stage, then the same command: the same bytes at the end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmnet.core.journal import read_header, read_journal
from dmnet.pipeline.cli import main
from dmnet.pipeline.context import STAGES

from .conftest import tree, write_split

KILLER = Path(__file__).with_name("killer.py")

SETTINGS = """
density: {stride: 4}
train_density: {epochs: 3, batch: 1, crop: 64, lr: 0.01, warmup_epochs: 0, ema: 0}
crop: {threshold: 0.3, min_side: 60}
train_detector:
  model: yolov6-n
  epochs: 3
  batch: 4
  yolov6: {input_size: 128}
fuse_eval: {protocols: [coco@500], pictures: 1, bootstrap: 5}
"""

STEPS = [("train", s) for s in ("density", "crop", "convert")] + [("val", "density")]
STEPS += [("train", "train-density"), ("train", "train-detector")]
STEPS += [("val", s) for s in ("predict-density", "crop", "convert", "detect", "fuse-eval")]


def arguments(root: Path, artifacts: Path, split: str, stage: str) -> list[str]:
    words = [stage, "--data", str(root / "data"), "--artifacts", str(artifacts), "--split", split]
    density = ["--density", "predicted"] if (split, stage) == ("val", "crop") else []
    return [*words, *density, "--config", str(root / "small.yaml"), "--workers", "1"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, settings and a whole run that nothing disturbed."""
    root = tmp_path_factory.mktemp("resume")
    write_split(root / "data", "train", range(4))
    write_split(root / "data", "val", range(100, 103))
    (root / "small.yaml").write_text(SETTINGS)
    for split, stage in STEPS:
        assert main(arguments(root, root / "calm", split, stage)) == 0
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("split", "stage"), STEPS, ids=[f"{a} {b}" for a, b in STEPS])
def test_killed_stage_goes_on_and_ends_with_the_same_bytes(
    undisturbed: Path, split: str, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(undisturbed, undisturbed / "rough", split, stage)
    killed = subprocess.run(
        [sys.executable, str(KILLER), "2", *command], capture_output=True, timeout=300, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    folder = undisturbed / "rough" / "default" / split / stage
    header = read_header(folder)
    assert header is not None and not header["complete"]
    done = len(read_journal(folder))
    training = stage.startswith("train-")
    assert done == (0 if training else 2)
    assert bool(list(folder.glob("checkpoint-*.pt"))) == training
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().err
    items = len(read_journal(folder))
    assert f"{items - done} done, {done} kept" in said
    assert tree(folder) == tree(undisturbed / "calm" / "default" / split / stage)


def test_again_does_nothing(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(undisturbed / "calm")
    for split, stage in STEPS:
        assert main(arguments(undisturbed, undisturbed / "calm", split, stage)) == 0
        assert " 0 done, " in capsys.readouterr().err.replace(":", ": ")
    assert tree(undisturbed / "calm") == before


def test_changed_threshold_redoes_what_depends_on_it(
    undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Crop and what follows are redone; density and whole-image detections are not."""
    said: dict[str, str] = {}
    for split, stage in STEPS:
        if split == "val":
            command = arguments(undisturbed, undisturbed / "calm", split, stage)
            assert main([*command, "--crop.threshold", "0.9"]) == 0
            said[stage] = capsys.readouterr().err
    assert "0 done, 3 kept" in said["density"] and "0 done, 3 kept" in said["predict-density"]
    assert "3 done, 0 kept" in said["crop"]
    assert ", 3 kept" in said["detect"]  # the whole images, not the crops
    for split, stage in STEPS:  # and back, so that the order of tests does not matter
        assert main(arguments(undisturbed, undisturbed / "calm", split, stage)) == 0


def test_fusing_with_two_workers_gives_the_same_bytes(undisturbed: Path) -> None:
    """Every stage that can use several processes, on top of the same inputs."""
    calm = undisturbed / "calm" / "default" / "val"
    before = tree(calm / "fuse-eval")
    command = arguments(undisturbed, undisturbed / "calm", "val", "fuse-eval")
    shutil.rmtree(calm / "fuse-eval")
    assert main([*command, "--workers", "2"]) == 0
    assert tree(calm / "fuse-eval") == before


def test_every_stage_is_killed_somewhere() -> None:
    assert {stage for _, stage in STEPS} == set(STAGES)
