"""``dmnet tune``: candidates, prices, budget, the walk over fusion, and the preset it writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import ndimage

from dmnet.core.errors import ConfigError
from dmnet.core.records import Detections, Image
from dmnet.cropping.slicers import CropConfig
from dmnet.detectors.packing import PackConfig
from dmnet.fusion.fuse import FuseConfig
from dmnet.fusion.merge import MergeConfig
from dmnet.pipeline.cli import main
from dmnet.pipeline.worth import choice, stream
from dmnet.pipeline.worth.choice import Prices, Trial
from dmnet.pipeline.worth.measure import Row, Setup

from .conftest import COLOURS, Run


def row(ap: float, ms: float, pixels: float = 1.0) -> Row:
    figures = {"AP": ap, "density_ms": 0.0, "detect_ms": ms, "fuse_ms": 0.0}
    return Row("density", "", False, figures | {"input_pixels": pixels})


def trial(ap: float, ms: float, setup: int = 0) -> Trial:
    return Trial(setup, FuseConfig(), row(ap, ms))


def test_candidates_are_every_threshold_side_and_packing() -> None:
    setups = choice.candidates((0.1, 0.2), (500, 800), (0.0, 4.0), 416, (1.0,))
    assert [setup.name for setup in setups] == ["whole image", "grid", "grid", *["density"] * 16]
    assert setups[3].setting == "threshold 0.1, side 500, objects 0" and setups[3].pack is None
    assert setups[-1].crop == CropConfig.of(threshold=0.2, max_side=800, min_objects=4)
    assert setups[-1].pack == PackConfig(side=416, zoom=1.0)
    assert not any(setup.packed for setup in choice.candidates((0.1,), (500,), (0,), 0, (1.0,)))
    both = choice.candidates((0.1,), (500,), (0,), 416, (1.0,), (0, 672))
    assert [setup.whole_side for setup in both] == [0, 0, 0, 672, 0, 0, 672, 672]
    assert choice.settings_of(both[-1], FuseConfig(), 384)["detect"]["whole_side"] == 672


def test_stated_prices_count_input_pixels_and_maps_of_density_alone() -> None:
    prices, whole = Prices(75.0, 20.0), row(0.1, 999.0, pixels=100.0)
    dense = prices.of(row(0.2, 1.0, pixels=250.0), Setup("", CropConfig()), whole)
    assert dense.ms == pytest.approx(2.5 * 75 + 20)
    grid = prices.of(row(0.2, 1.0, pixels=250.0), Setup("", CropConfig.of(slicer="grid")), whole)
    assert grid.ms == pytest.approx(2.5 * 75)


def test_choice_is_the_greatest_ap_in_the_budget() -> None:
    assert choice.choose([trial(0.2, 10), trial(0.3, 20), trial(0.4, 30)], 25).ap == 0.3
    near = [trial(0.3, 20), trial(0.2995, 12), trial(0.298, 5)]
    assert choice.choose(near, 25).ap == 0.2995  # within GAIN of the best, and cheaper
    assert choice.choose([trial(0.3, 20), trial(0.3005, 20)], 25).ap == 0.3005


def test_finalists_are_on_the_frontier_and_in_the_budget() -> None:
    trials = [trial(0.2, 10, 0), trial(0.1, 12, 1), trial(0.3, 20, 2), trial(0.4, 40, 3)]
    assert [t.setup for t in choice.finalists(trials, 25)] == [2, 0]
    with pytest.raises(ConfigError, match="nothing fits 5 ms per image, the cheapest setup takes"):
        choice.finalists(trials, 5)


def test_the_walk_takes_what_gains_and_fits() -> None:
    wbf = MergeConfig("wbf", iou=0.65)
    gains: list[tuple[Callable[[FuseConfig], bool], float, float]] = [
        (lambda f: f.merge == wbf, 0.01, 1),
        (lambda f: f.merge.method == "soft-nms", 0.05, 100),  # too slow
        (lambda f: f.edge_margin == 4.0, 0.0005, 0),  # too little
        (lambda f: f.inside == "drop_inside", 0.02, 0),
    ]

    def measure(fusion: FuseConfig) -> Row:
        hits = [(ap, ms) for test, ap, ms in gains if test(fusion)]
        return row(0.2 + sum(ap for ap, _ in hits), 10 + sum(ms for _, ms in hits))

    tried = choice.walk(Trial(0, FuseConfig(), measure(FuseConfig())), measure, 20)
    assert len(tried) == 1 + sum(len(step) for step in choice.STEPS)
    best = choice.choose(tried, 20)
    assert best.ap == pytest.approx(0.23)
    assert best.fusion == replace(FuseConfig(), merge=wbf, inside="drop_inside")


class Finder:
    """Finds coloured rectangles that are at least 9 pixels wide on an input of 96 pixels."""

    calls = 0

    def input_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return 96, 96

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        Finder.calls += len(images)
        return [self._one(image) for image in images]

    def _one(self, image: Image) -> Detections:
        boxes, labels = [], []
        scale = 96 / max(image.shape)
        for label, colour in COLOURS.items():
            alike = (np.abs(image.astype(int) - colour) < 50).all(axis=2)
            for ys, xs in ndimage.find_objects(ndimage.label(alike)[0]):
                if min(ys.stop - ys.start, xs.stop - xs.start) * scale >= 9:
                    boxes.append([xs.start, ys.start, xs.stop, ys.stop])
                    labels.append(label)
        count = len(boxes)
        return Detections(np.reshape(boxes, (-1, 4)), np.full(count, 0.9), np.array(labels, int))


@pytest.fixture
def tune(
    dmnet: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Run the verb on the drawn training scenes with `Finder` and near-perfect maps."""
    monkeypatch.setattr(stream, "load_detector", lambda *args, **how: Finder())
    monkeypatch.setattr(Finder, "calls", 0)
    assert dmnet("density", "--density.sigma.fixed", "4", split="train") == 0
    made = tmp_path / "artifacts" / "default" / "train" / "density"
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in made.glob("*.h5"):
        shutil.copy(path, maps)
    (tmp_path / "detector.onnx").write_bytes(b"any")

    def run(*options: str) -> int:
        places = ["--data", str(data), "--out", str(tmp_path / "tune")]
        eyes = ["--detector-weights", str(tmp_path / "detector.onnx"), "--maps", str(maps)]
        return main(["tune", *places, *eyes, *options])

    return run


SMALL = (
    "--thresholds",
    "0.3",
    "--max-sides",
    "240",
    "--min-objects",
    "0",
    "--pack-zooms",
    "1",
    "2",
)
STATED = ("--pass-ms", "75", "--density-ms", "20")


def test_the_preset_loads_and_the_table_says_why(
    tune: Callable[..., int], dmnet: Run, tmp_path: Path
) -> None:
    assert tune(*SMALL, *STATED, "--budget-ms", "500") == 0
    out = tmp_path / "tune"
    found = json.loads((out / "tune.json").read_text())
    rivals = found["rivals"]
    assert rivals["chosen"]["AP"] > rivals["whole image"]["AP"] + 0.1  # crops show small objects
    assert rivals["whole image"]["ms"] == 75
    assert rivals["chosen"]["ms"] <= 500 == found["budget_ms"]
    assert len(found["setups"]) == 6 and (out / "tune.txt").read_text().count("density") >= 3
    text = (out / "tune.yaml").read_text()
    assert "# Chosen by `dmnet tune` on 4 images of train" in text and "grid 512" in text
    settings = yaml.safe_load(text)
    assert settings == found["settings"]
    assert set(settings) == {"crop", "detect", "fuse_eval"}
    assert dmnet("crop", "--config", str(out / "tune.yaml"), split="train") == 0
    header = json.loads((tmp_path / "artifacts/default/train/crop/stage.json").read_text())
    assert settings["crop"] == {
        "slicer": "density",
        "threshold": 0.3,
        "max_side": 240,
        "min_objects": 0,
    }
    assert header["config"]["threshold"] == 0.3 and header["config"]["max_side"] == 240


def test_it_resumes_and_other_prices_detect_nothing_again(
    tune: Callable[..., int], tmp_path: Path
) -> None:
    assert tune(*SMALL, *STATED, "--budget-ms", "500") == 0
    first, calls = (tmp_path / "tune" / "tune.yaml").read_bytes(), Finder.calls
    assert tune(*SMALL, *STATED, "--budget-ms", "500") == 0
    assert (tmp_path / "tune" / "tune.yaml").read_bytes() == first and Finder.calls == calls
    assert tune(*SMALL, *STATED, "--budget-ms", "80") == 0  # the whole image alone
    settings = yaml.safe_load((tmp_path / "tune" / "tune.yaml").read_text())
    assert settings["crop"] == {"slicer": "none"} and Finder.calls == calls


def test_limit_draws_evenly(tune: Callable[..., int], tmp_path: Path) -> None:
    assert tune(*SMALL, *STATED, "--budget-ms", "500", "--limit", "2") == 0
    assert json.loads((tmp_path / "tune" / "tune.json").read_text())["images"] == 2
    names = {path.stem for path in (tmp_path / "tune" / "found" / "0").iterdir()}
    assert names == {"000", "002"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--split", "val"], "choose on train, or add --judged"),
        (["--pass-ms", "75"], "--pass-ms and --density-ms are stated together"),
        (["--share", "0"], "--share: must be a number"),
        ([*SMALL, *STATED, "--budget-ms", "1"], "nothing fits 1 ms per image"),
    ],
)
def test_it_refuses(
    tune: Callable[..., int], capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    capsys.readouterr()
    assert tune(*options) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_it_refuses_true_maps_and_missing_networks(
    tune: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "artifacts" / "default" / "train" / "density"
    assert tune("--maps", str(made)) == 2
    assert "holds ground-truth maps" in capsys.readouterr().err
    assert main(["tune", "--detector-weights", "x.onnx"]) == 2
    assert "add --weights FILE, the density network" in capsys.readouterr().err
    assert main(["tune"]) == 2
    assert "add --detector-weights FILE" in capsys.readouterr().err
