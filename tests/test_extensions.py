"""The worked examples of CONTRIBUTING.md: packages of one's own, used by ``module:name``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmnet.core.config import build, resolved
from dmnet.core.dataset import open_dataset
from dmnet.core.errors import CheckpointError, ConfigError, MissingInputError
from dmnet.core.formats import crops, density_h5
from dmnet.core.records import Detections
from dmnet.core.training.weights import read_weights
from dmnet.cropping.slicers import SLICERS, CropConfig, Slicer, slice_image
from dmnet.density.load import load_density
from dmnet.density.networks import build as build_density
from dmnet.density.networks import save_network
from dmnet.density.scale import Scaling
from dmnet.detectors.base import build_model, load_net, save_net
from dmnet.detectors.load import load_detector
from dmnet.fusion.merge import MergeConfig, merge
from dmnet.pipeline.cli import main
from dmnet.pipeline.learning.settings import DetectorTraining

CONTRIBUTING = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", CONTRIBUTING, re.DOTALL))


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as modules that can be imported."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name, text in EXAMPLES.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))


DETECTIONS = Detections(
    [[0, 0, 9, 9], [1, 0, 9, 9], [50, 50, 60, 60]],  # type: ignore[arg-type]
    [0.5, 0.9, 0.7],  # type: ignore[arg-type]
    [1, 1, 2],  # type: ignore[arg-type]
)


def test_a_merge_rule() -> None:
    config = build(MergeConfig, {"method": "my_merge:BEST", "own": {"keep": 2}}, "merge")
    assert merge(DETECTIONS, config).scores.tolist() == [0.9, 0.7]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"method": "nsm"}, "merge.method must be one of nms, .*, or module:name, got 'nsm'"),
        ({"method": "nowhere:BEST"}, r"merge.method: nowhere:BEST: cannot be imported \(No module"),
        ({"method": "my_merge:WORST"}, "merge.method: my_merge:WORST: cannot be imported"),
        ({"method": "my_merge:best"}, "my_merge:best: is no Rule, but function"),
        ({"method": "my_merge:BEST", "own": {"keep": 0}}, "merge.own.keep must be 1 to 1,000,000"),
        ({"method": "my_merge:BEST", "own": {"kep": 2}}, "own.kep: no such setting; did you mean"),
        ({"own": {"keep": 2}}, "merge.own has to be empty here, got keep"),
        ({"own": 3}, "merge.own: holds further settings, got 3"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_sentence(
    given: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        build(MergeConfig, given, "merge")


def test_a_slicer() -> None:
    config = build(CropConfig, {"slicer": "my_slicer:MIDDLE", "share": 0.25}, "crop")
    assert config.needs == "nothing"
    assert slice_image(config, (80, 120)) == [(45, 30, 75, 50)]
    with pytest.raises(ConfigError, match=r"crop.share must be above 0, at most 1, got 2.0"):
        build(CropConfig, {"slicer": "my_slicer:MIDDLE", "share": 2}, "crop")
    with pytest.raises(ConfigError, match=r"crop.slicer must be one of density, .* got 'gird'"):
        build(CropConfig, {"slicer": "gird"}, "crop")
    with pytest.raises(ConfigError, match=r"crop.slicer: nowhere:A: cannot be imported"):
        build(CropConfig, {"slicer": "nowhere:A", "share": 2}, "crop")


def test_windows_that_leave_the_image_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wild = Slicer(lambda config, size, density, annotations: [(0, 0, 9, 99)])
    monkeypatch.setitem(SLICERS, "wild", wild)
    with pytest.raises(ConfigError, match=r"\(0, 0, 9, 99\) out of an image of 80x120"):
        slice_image(CropConfig.of(slicer="wild"), (80, 120))


def test_a_detector(tmp_path: Path) -> None:
    net = build_model("my_net:build", {"channels": 4}, 2)
    path = tmp_path / "weights.pt"
    path.write_bytes(save_net(net))
    found = load_detector("my_net:build", path, device="cpu").predict(
        [np.zeros((8, 9, 3), np.uint8)]
    )
    assert found[0].boxes.tolist() == [[0, 0, 9, 8]]
    with pytest.raises(CheckpointError, match="no file says what code is run: name it"):
        load_net(path)
    with pytest.raises(ConfigError, match="did you mean 'channels'"):
        build_model("my_net:build", {"chanels": 4})
    with pytest.raises(ConfigError, match="nowhere:build: cannot be imported"):
        build_model("nowhere:build")


def test_a_density_network(tmp_path: Path) -> None:
    network = build_density("my_density:Tiny", stride=8, own={"channels": 3})
    path = tmp_path / "weights.pt"
    config = {"own": {"channels": 3}}
    path.write_bytes(save_network(network, "my_density:Tiny", 16, Scaling(), config))
    with pytest.raises(CheckpointError, match="no file says what code is run: name it, --train-d"):
        load_density(path, "cpu")
    loaded = load_density(path, "cpu", network="my_density:Tiny")
    assert loaded.predict(np.zeros((16, 24, 3), np.uint8)).values.shape == (2, 3)
    with pytest.raises(ConfigError, match=r"cannot be made of stride and {'chanels': 3}"):
        build_density("my_density:Tiny", own={"chanels": 3})
    with pytest.raises(ConfigError, match=r"my_net:build: cannot be made of stride and {}"):
        build_density("my_net:build")


def test_settings_of_a_network_without_a_section_go_into_own() -> None:
    assert DetectorTraining(model="my_net:build", own={"channels": 4}).own == {"channels": 4}
    with pytest.raises(ConfigError, match=r"own has to be empty here: .* are yolox\.\*"):
        build(DetectorTraining, {"model": "yolox-s", "own": {"channels": 4}}, "train-detector")


@pytest.fixture
def cars(tmp_path: Path) -> str:
    """A data set in the format of the example."""
    for split, boxes in (("train", "1,2,9,12\n"), ("val", "10,20,30,50\n40,5,60,25\n")):
        folder = tmp_path / "cars" / split
        folder.mkdir(parents=True)
        Image.new("RGB", (120, 80)).save(folder / "a.jpg")
        (folder / "a.csv").write_text(boxes)
    return f"my_format:CSV@{tmp_path / 'cars'}"


def test_a_data_format_is_read(cars: str) -> None:
    dataset = open_dataset(Path(cars), "val")
    annotations, warnings = dataset.annotations(dataset.entries[0])
    assert annotations.boxes.tolist() == [[10, 20, 30, 50], [40, 5, 60, 25]]
    assert (dataset.classes.names, warnings) == (("car",), [])
    with pytest.raises(MissingInputError, match="my_format:CSV finds no data set with a split 'x'"):
        open_dataset(Path(cars), "x")


def test_all_of_them_on_the_command_line(cars: str, tmp_path: Path) -> None:
    common = ["--data", cars, "--split", "val", "--artifacts", str(tmp_path / "out")]
    cut = ["--crop.slicer", "my_slicer:MIDDLE", "--crop.share", "0.5"]
    assert main(["crop", *common, *cut]) == 0
    made = tmp_path / "out" / "default" / "val"
    assert [crop.window for crop in crops.read(made / "crop" / "crops.json").crops] == [
        (30, 20, 90, 60)
    ]
    assert main(["convert", *common, *cut, "--convert.formats", "my_format:CSV"]) == 0
    text = (made / "convert" / "my_format.CSV" / "a.csv").read_text()
    assert text == "10.0,20.0,30.0,50.0\n40.0,5.0,60.0,25.0\n"
    assert main(["status", *common]) == 0


def test_a_density_network_on_the_command_line(cars: str, tmp_path: Path) -> None:
    common = ["--data", cars, "--artifacts", str(tmp_path / "out"), "--device", "cpu"]
    own = ["--train-density.network", "my_density:Tiny", "--train-density.own.channels", "2"]
    quick = ["--train-density.epochs", "1", "--train-density.crop", "32"]
    quick += ["--train-density.batch", "1", "--train-density.validate-on", "null"]
    assert main(["density", *common, "--split", "train"]) == 0
    assert main(["train-density", *common, *own, *quick]) == 0
    assert main(["predict-density", *common, *own, *quick, "--split", "val"]) == 0
    made = tmp_path / "out" / "default"
    state, meta = read_weights(made / "train" / "train-density" / "weights.pt")
    assert (meta["architecture"], meta["settings"]) == ("my_density:Tiny", {"channels": 2})
    assert state["cells.weight"].shape == (2, 3, 4, 4)
    assert density_h5.read(made / "val" / "predict-density" / "a.h5").values.shape == (20, 30)


def test_no_settings_of_its_own_leave_no_trace() -> None:
    assert "own" not in resolved(MergeConfig())
    assert resolved(MergeConfig("my_merge:BEST", own={"keep": 2}))["own"] == {"keep": 2}


def test_what_is_no_density_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="gives no density network, it lacks stride, multiple, r"):
        build_density("torch.nn:Identity")
