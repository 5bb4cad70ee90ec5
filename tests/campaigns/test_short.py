"""The campaigns in their short form: a few seconds each."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dmnet.pipeline.cli import main
from dmnet.pipeline.scenes.scene import SceneConfig
from tests.campaigns import faults, fuzz, raster, settings, soak
from tests.campaigns.kill import Killer
from tests.campaigns.kill_verbs import VerbKiller, data_verb, predict_verb
from tests.campaigns.seeds import SEEDS
from tests.campaigns.world import World, preload

HEAVY = ("weights.pt", "settings.yaml", "onnx.yaml", "density.onnx", "detector.onnx", "raster.tif",
         "found.json", "frames.json", "video.avi")  # fmt: skip
LIGHT = [name for name in SEEDS if name not in HEAVY]
"""Kinds whose readers need neither torch nor an extra."""


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.filterwarnings("ignore")
def test_fuzz(name: str, tmp_path: Path) -> None:
    for good in SEEDS[name].make():
        assert fuzz.attempt(name, good, tmp_path) == "read"
    verdicts = [fuzz.attempt(name, fuzz.contents(name, 1, i), tmp_path) for i in range(25)]
    assert [verdict for verdict in verdicts if verdict.startswith("fell")] == []


def test_fuzz_notices_what_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> None:
        raise IndexError("out of it")

    monkeypatch.setitem(SEEDS, "a.txt", fuzz.SEEDS["yolo.txt"].__class__("a.txt", list, fails))
    assert "fell: IndexError: out of it" in fuzz.attempt("a.txt", b"", tmp_path)


def test_settings(tmp_path: Path) -> None:
    where = settings.prepare(tmp_path)
    every = settings.cases()
    assert len(every) > 2000
    _, fallen = settings.check(where, random.Random(1).sample(every, 60))
    assert fallen == {}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    preload(heavy=False)
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("stage", ["density", "crop", "fuse-eval"])
def test_kill(world: World, stage: str) -> None:
    killer = Killer(world, seed=1)
    assert [killer.attempt("val", stage, index) for index in range(2)] == ["", ""]


def test_kill_verbs(tmp_path: Path) -> None:
    with data_verb(tmp_path / "b") as data:
        for verb in (data, predict_verb(tmp_path / "a")):
            (tmp_path / verb.name).mkdir()
            killer = VerbKiller(tmp_path / verb.name, verb, seed=1)
            assert [killer.attempt(index) for index in range(2)] == ["", ""]


def test_kill_notices_what_is_left(world: World) -> None:
    world.copy("rough")
    folder = world.made("rough", "val", "density")
    assert world.flaw("rough", "val", "density") == ""
    (folder / ".100.h5.77.tmp").write_bytes(b"half")
    assert "other files" in world.flaw("rough", "val", "density")
    (folder / ".100.h5.77.tmp").unlink()
    (folder / "100.h5").write_bytes(b"")
    assert "other bytes: ['100.h5']" in world.flaw("rough", "val", "density")


@pytest.mark.parametrize("name", [fault.__name__ for fault in faults.FAULTS])
def test_faults(world: World, name: str) -> None:
    try:
        assert [faults.attempt(world, name, 1, index) for index in range(2)] == ["", ""]
    except faults.CannotTry as reason:
        pytest.skip(str(reason))


def test_soak(tmp_path: Path) -> None:
    preload(heavy=False)
    few, more = (soak.stages(tmp_path / str(n), n, seed=1) for n in (3, 6))
    assert list(more) == ["density", "crop", "convert", "fuse-eval"]
    open_files = [{verb: kept for verb, (_, kept) in found.items()} for found in (few, more)]
    assert open_files[0] == open_files[1]


def test_raster(tmp_path: Path) -> None:
    """One scene across the borders of blocks, in this process; the campaign kills and resumes."""
    pytest.importorskip("rasterio", reason="needs the extra geo")
    town, out = tmp_path / "town.tif", tmp_path / "out"
    placed = raster.mosaic(town, (900, 1100), [3], 1, SceneConfig(width=(800, 800)))
    assert main(raster.command(town, out, ["--raster.block", "640", "--save", "geo"])[3:]) == 0
    found = raster.on_the_map(out / "geo" / "town.native.geojson")
    middle, _, matched = raster.offsets(found, placed)
    assert middle < 1
    assert matched > len(placed[0].boxes) / 5
