"""Two and three processes train what one does: every kind of network, five steps, on a CPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dmnet.core.training.weights import read_weights

from . import together
from .conftest import Run

NAMES = [*together.DENSITY, *together.SETTINGS]
SCRIPT = Path(together.__file__)


def run(count: int, root: Path, *names: str) -> Path:
    """The folder of weights that so many processes made."""
    out = root / str(count)
    out.mkdir()
    started = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [sys.executable, *(started if count > 1 else []), str(SCRIPT), str(root), str(out)]
    subprocess.run([*command, *names], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    together.draw(folder)
    return folder


@pytest.fixture(scope="module")
def alone(root: Path) -> Path:
    return run(1, root, *NAMES)


@pytest.fixture(scope="module")
def two(root: Path) -> Path:
    return run(2, root, "norm", *NAMES)


@pytest.fixture(scope="module")
def three(root: Path) -> Path:
    return run(3, root, *NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", ["two", "three"])
def test_several_processes_train_what_one_does(
    count: str, name: str, alone: Path, request: pytest.FixtureRequest
) -> None:
    folders = (alone, request.getfixturevalue(count))
    one, many = (read_weights(folder / f"{name}.pt")[0] for folder in folders)
    assert one.keys() == many.keys()
    for key, value in one.items():
        torch.testing.assert_close(many[key], value, rtol=1e-5, atol=1e-5)
    rows = [json.loads((folder / f"{name}.json").read_text()) for folder in folders]
    assert rows[0][0]["loss"] != rows[0][-1]["loss"]  # it learned something


@pytest.mark.slow
def test_a_norm_over_two_processes_by_hand(two: Path) -> None:
    """1, 3 | 5, 7: mean 4, variance 5; gradient of the first answer."""
    first, second = (json.loads((two / f"norm{rank}.json").read_text()) for rank in (0, 1))
    side = math.sqrt(5)
    assert first["answers"] + second["answers"] == pytest.approx([n / side for n in (-3, -1, 1, 3)])
    slopes = [n / side for n in (0.3, -0.4, -0.1, 0.2)]  # (g - mean g - y * mean(g y)) / side
    assert first["gradient"] + second["gradient"] == pytest.approx(slopes, abs=1e-6)
    assert first["mean"] == second["mean"] == pytest.approx([0.4])
    assert first["variance"] == second["variance"] == pytest.approx([0.9 + 0.1 * 20 / 3])
    assert (first["bias"], second["bias"]) == ([1.0], [0.0])


TRAINING = ("--train-density.epochs", "2", "--train-density.crop", "64", "--train-density.batch",
            "4", "--train-density.validate-on", "null")  # fmt: skip


@pytest.mark.slow
def test_a_stage_is_trained_by_torchrun(dmnet: Run, tmp_path: Path, data: Path) -> None:
    """One artifact, written by the first process; again there is nothing to do for either."""
    assert dmnet("density", split="train") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    places = ["--data", str(data), "--artifacts", str(tmp_path / "artifacts"), "--device", "cpu"]
    stage = [*command, "2", "-m", "dmnet", "train-density", *places, *TRAINING]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(stage, check=True, env=env)
    folder = tmp_path / "artifacts" / "default" / "train" / "train-density"
    made = (folder / "weights.pt").read_bytes()
    again = subprocess.run(stage, check=True, env=env, capture_output=True, text=True)
    assert "0 done, 1 kept" in again.stderr
    assert (folder / "weights.pt").read_bytes() == made
    assert len((folder / "items.jsonl").read_text().splitlines()) == 1
    assert dmnet("train-density", *TRAINING, "--device", "cpu") == 0  # fresh for one process too
    assert (folder / "weights.pt").read_bytes() == made


def test_other_stages_are_not_for_torchrun(
    dmnet: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert dmnet("density") == 2
    assert "torchrun: density is no training; use --workers" in capsys.readouterr().err
