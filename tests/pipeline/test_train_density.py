"""``dmnet train-density``: several splits, held-out scenes, and weights that know their scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

from dmnet.core.formats import density_h5
from dmnet.core.training.weights import read_weights
from dmnet.density.networks import build
from dmnet.pipeline.stages.train_density import held_out

from .conftest import Run, write_split

QUICK = (
    *("--train-density.network", "mobilenet", "--train-density.stride", "8"),
    *("--train-density.long-side", "160", "--train-density.crop", "96"),
    *("--train-density.epochs", "1", "--train-density.windows", "4", "--device", "cpu"),
    *("--train-density.validate-on", "null"),
)


def test_scenes_are_held_out_whole() -> None:
    ids = [f"train/{scene}_{i}" for scene in "abcd" for i in range(5)]
    kept = held_out(ids, 0.3)
    assert len(kept) == 10  # two scenes of five, as one is below the share
    assert {name.partition("_")[0] for name in kept} & {
        name.partition("_")[0] for name in set(ids) - kept
    } == set()
    assert held_out(reversed(ids), 0.3) == kept
    assert held_out(["train/b_1", "test-dev/b_2"], 0.1) == {"train/b_1", "test-dev/b_2"}


def test_two_splits_and_a_held_out_part(dmnet: Run, data: Path, tmp_path: Path) -> None:
    write_split(data, "test-dev", range(50, 52))
    backbone = tmp_path / "backbone.pth"
    torch.save(mobilenet_v2(weights=None, num_classes=2).state_dict(), backbone)
    for split in ("train", "test-dev"):
        assert dmnet("density", "--split", split) == 0
    command = (
        *("train-density", *QUICK, "--train-density.train-on", "train,test-dev"),
        *("--train-density.hold-out", "0.3", "--train-density.init", str(backbone)),
    )
    assert dmnet(*command) == 0
    folder = tmp_path / "artifacts" / "default" / "train" / "train-density"
    line = json.loads((folder / "items.jsonl").read_text().splitlines()[-1])
    assert line["value"]["images"] == 4  # of six, two are held out
    assert "val_region_recall" in line["value"]["best"]
    _, meta = read_weights(folder / "weights.pt")
    assert (meta["stride"], meta["input"]["long_side"]) == (8, 160)
    torch.save(build("mobilenet").state_dict(), backbone)
    assert dmnet("status") == 0 and dmnet(*command) == 0  # other weights to start from: made anew
    lines = (folder / "items.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["key"] != line["key"]


def test_prediction_takes_the_scale_of_the_weights_or_another(
    dmnet: Run, data: Path, tmp_path: Path
) -> None:
    assert dmnet("density", "--split", "train") == 0
    assert dmnet("train-density", *QUICK) == 0
    maps = tmp_path / "artifacts" / "default" / "val" / "predict-density"
    for settings, side, stride in (
        ((), 160, 16),
        (("--predict-density.long-side", "0"), 0, 8),
        (("--predict-density.long-side", "200"), 200, 8),
    ):
        assert dmnet("predict-density", "--device", "cpu", *settings) == 0
        found = density_h5.read(maps / "100.h5")
        assert (found.stride, found.size) == (stride, (240, 320)), side


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("hold-out", "0.9"), "leaves nothing to train on: whole scenes are held out, and the 4"),
        (("hold-out", "1"), "train_density.hold_out must be 0 to below 1"),
        (("train-on", "train,test-dev"), "make density MODE=test-dev"),
        (("init", "none.pth"), "train-density.init: there is no file none.pth, nor a"),
    ],
)
def test_what_cannot_be_trained_with(
    setting: tuple[str, str],
    message: str,
    dmnet: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_split(tmp_path / "data", "train", range(1))
    assert dmnet("density", "--split", "train") == 0
    assert dmnet("train-density", *QUICK, f"--train-density.{setting[0]}", setting[1]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
