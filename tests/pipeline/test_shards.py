"""Parts of a stage (``--shard``) and their union (``merge``): the bytes of one run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dmnet.core.artifact import Item
from dmnet.core.journal import read_header, read_journal
from dmnet.core.shards import Shard
from dmnet.pipeline.cli import main

from .conftest import Run, tree, write_split


def test_every_item_is_in_one_part_and_its_neighbours_with_it() -> None:
    parts = [Shard(index, 3) for index in (1, 2, 3)]
    held = []
    for number in range(60):
        image = {"image": Path(f"images/{number}.jpg")}
        pair = [Item(f"{part}/{number}", image) for part in ("whole", "crops")]
        holders = [[part.holds(item) for part in parts] for item in pair]
        assert holders[0] == holders[1] and sum(holders[0]) == 1
        held.append(holders[0].index(True))
    assert min(held.count(part) for part in range(3)) > 10


@pytest.fixture
def whole(tmp_path: Path, dmnet: Run) -> Path:
    """One run without parts; the same settings for both."""
    assert dmnet("density", "--run", "whole") == dmnet("crop", "--run", "whole") == 0
    return tmp_path / "artifacts" / "whole" / "val"


def test_merged_parts_are_the_bytes_of_one_run(
    whole: Path, dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("density", "crop"):
        for part in ("1/2", "2/2"):
            assert dmnet(stage, "--run", "parts", "--shard", part) == 0
        assert merge(tmp_path, stage) == 0
        folder = tmp_path / "artifacts" / "parts" / "val" / stage
        assert tree(folder) == tree(whole / stage)
        keys = [{i: r.key for i, r in read_journal(f).items()} for f in (folder, whole / stage)]
        assert keys[0] == keys[1]
        header = read_header(folder)
        assert header is not None and header["complete"] and header["items"] == 3
        capsys.readouterr()
        assert dmnet(stage, "--run", "parts") == 0  # and nothing is left to do
        assert "0 done, 3 kept" in capsys.readouterr().err


def merge(root: Path, stage: str) -> int:
    places = ["--data", str(root / "data"), "--artifacts", str(root / "artifacts")]
    return main(["merge", stage, *places, "--run", "parts"])


def test_parts_that_do_not_belong_are_refused(
    dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge"]) == 2
    assert "merge: name the stage, one of density" in capsys.readouterr().err
    assert merge(tmp_path, "density") == 2
    assert "no parts to merge; run the stage with --shard 1/N" in capsys.readouterr().err
    assert dmnet("density", "--run", "parts", "--shard", "1/2") == 0
    assert merge(tmp_path, "density") == 2
    assert "run the stage with --shard 2/2" in capsys.readouterr().err
    other = ["--density.stride", "8"]
    assert dmnet("density", "--run", "parts", "--shard", "2/2", *other) == 0
    assert merge(tmp_path, "density") == 2
    assert "was made from other inputs or with other settings" in capsys.readouterr().err
    assert dmnet("density", "--run", "parts", "--shard", "2/2") == 0
    write_split(tmp_path / "data", "val", range(103, 104))
    assert merge(tmp_path, "density") == 2
    assert "1 items are in no part (such as 103)" in capsys.readouterr().err
    shutil.copytree(
        tmp_path / "artifacts/parts/val/density.shards/1-of-2",
        tmp_path / "artifacts/parts/val/density.shards/1-of-3",
    )
    assert merge(tmp_path, "density") == 2
    assert "parts of different divisions (1-of-2, 1-of-3, 2-of-2)" in capsys.readouterr().err


def test_what_a_part_set_aside_is_set_aside(dmnet: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "VisDrone2019-DET-val"
    (folder / "annotations" / "101.txt").write_text("no numbers at all\n")
    assert [dmnet("density", "--run", "parts", "--shard", part) for part in ("1/1",)] == [1]
    assert merge(tmp_path, "density") == 1
    assert dmnet("density", "--run", "whole") == 1
    found = [
        read_journal(tmp_path / "artifacts" / run / "val/density") for run in ("parts", "whole")
    ]
    assert found[0]["101"].error == found[1]["101"].error is not None


def test_a_training_has_no_parts(dmnet: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert dmnet("train-density", "--shard", "1/2") == 2
    assert "is one piece of work; use torchrun" in capsys.readouterr().err
    assert dmnet("density", "--shard", "3/2") == 2
    assert "write it as 1/8 to 8/8, got '3/2'" in capsys.readouterr().err


def test_a_damaged_part_is_not_merged(
    dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One flipped bit under the same size and time, which ordinary runs trust."""
    assert dmnet("density", "--run", "parts", "--shard", "1/1") == 0
    path = tmp_path / "artifacts/parts/val/density.shards/1-of-1/101.h5"
    state, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert merge(tmp_path, "density") == 1
    said = capsys.readouterr().err
    assert f"{path}: not the bytes that were written" in said and "--force --verify" in said
    again = ["--shard", "1/1", "--force", "--verify"]
    assert dmnet("density", "--run", "parts", *again) == merge(tmp_path, "density") == 0
