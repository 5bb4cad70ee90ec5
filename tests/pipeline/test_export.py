"""``dmnet export``, and what it writes in the place of the network it was made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dmnet.core.formats import density_h5
from dmnet.core.training.weights import read_weights, weights_bytes
from dmnet.density import networks
from dmnet.detectors.base import build_model, save_net
from dmnet.pipeline.cli import main

from .conftest import Run

YOLOX = Path("data") / "weights" / "yolox-nano-coco-416.onnx"
DECODING = Path(__file__).parents[2] / "configs" / "onnx" / "yolox-nano-coco.yaml"
Export = Callable[..., int]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def run(weights: bytes, *options: str) -> int:
        (tmp_path / "weights.pt").write_bytes(weights)
        places = ["--weights", str(tmp_path / "weights.pt"), "--out", str(tmp_path / "x.onnx")]
        return main(["export", *places, *options])

    return run


def mcnn() -> bytes:
    torch.manual_seed(0)
    scaling = networks.Scaling(110.0, 60.0)
    return networks.save_network(networks.build("mcnn"), "mcnn", 0, scaling, {})


def yolo() -> bytes:
    torch.manual_seed(0)
    return save_net(build_model("yolov6-n", {"input_size": 128, "score_threshold": 0.001}))


def faster_rcnn() -> bytes:
    torch.manual_seed(0)
    how = {"min_size": 128, "max_size": 160, "score_threshold": 0.001, "proposals": 100}
    return save_net(build_model("fasterrcnn-mobilenetv3", {"max_detections": 100, **how}))


def test_density_network_predicts_the_same_maps(export: Export, dmnet: Run, tmp_path: Path) -> None:
    assert export(mcnn()) == 0
    folder = tmp_path / "artifacts" / "default" / "val" / "predict-density"
    maps = []
    for file in ("weights.pt", "x.onnx"):
        assert dmnet("predict-density", "--weights", str(tmp_path / file), "--device", "cpu") == 0
        maps.append([density_h5.read(path).values for path in sorted(folder.glob("*.h5"))])
    assert len(maps[0]) == 3 and np.ptp(maps[0][0]) > 0
    for a, b in zip(*maps, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(a).max()))


@pytest.mark.parametrize("network", [yolo, faster_rcnn])
def test_detector_finds_the_same(
    network: Callable[[], bytes], export: Export, dmnet: Run, tmp_path: Path
) -> None:
    assert export(network()) == 0
    assert dmnet("crop", "--crop.slicer", "uniform") == 0
    folder = tmp_path / "artifacts" / "default" / "val" / "detect"
    results = []
    for file, name in (("weights.pt", []), ("x.onnx", ["--detector", "onnx"])):
        weights = ["--detector-weights", str(tmp_path / file), "--device", "cpu"]
        assert dmnet("detect", *weights, *name, "--detect.score-threshold", "0") == 0
        results.append(json.loads((folder / "results_crops.json").read_text()))
    ours, theirs = results
    assert len(ours) > 0 and abs(len(ours) - len(theirs)) <= 0.02 * len(ours)
    scores = [np.sort([row["score"] for row in rows])[::-1][:100] for rows in results]
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_what_cannot_be_exported_is_refused(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, meta = read_weights(_file(tmp_path, yolo()))

    def refused(weights: bytes, text: str, *options: str) -> None:
        assert export(weights, *options) == 2
        assert text in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "x.onnx").exists()

    int8 = {**meta, "settings": {**meta["settings"], "form": "int8"}}
    refused(weights_bytes(state, int8), "in int8 form")
    refused(weights_bytes(state, {**meta, "architecture": "mmdet"}), "'mmdet' cannot be exported")
    refused(weights_bytes(state, {}), "does not say its network; add --network")
    refused(weights_bytes(state, {}), "not weights of fcos-r50", "--network", "fcos-r50")
    refused(yolo(), "holds weights of yolov6-n", "--network", "mcnn")
    refused(yolo(), "must end in .onnx", "--out", str(tmp_path / "x.bin"))


def _file(folder: Path, data: bytes) -> Path:
    path = folder / "some.pt"
    path.write_bytes(data)
    return path


def test_plain_state_dict_with_a_name(export: Export, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(networks.build("mcnn").state_dict(), tmp_path / "plain.pt")
    assert export((tmp_path / "plain.pt").read_bytes(), "--network", "mcnn") == 0
    assert (tmp_path / "x.onnx").stat().st_size > 100_000


@pytest.mark.slow
def test_foreign_yolox_finds_cars(shared: Path, tmp_path: Path) -> None:
    """YOLOX-nano, trained on COCO, on VisDrone pictures: whole images and their quarters."""
    places = ["--data", str(shared / "data" / "visdrone-mini"), "--artifacts", str(tmp_path)]
    crop = ["--crop.slicer", "uniform", "--crop.write-images", "false"]
    assert main(["crop", *places, *crop, "--density", "true"]) == 0
    weights = ["--detector", "onnx", "--detector-weights", str(shared / YOLOX)]
    assert main(["detect", *places, *weights, "--detect.settings", str(DECODING)]) == 0
    assert main(["convert", *places]) == 0
    protocols = ["--fuse-eval.protocols", "coco@500", "--fuse-eval.bootstrap", "5"]
    assert main(["fuse-eval", *places, *protocols]) == 0
    fused = tmp_path / "default" / "val" / "fuse-eval"
    rows = json.loads((fused / "results.json").read_text())
    assert sum(row["category_id"] == 4 and row["score"] > 0.5 for row in rows) > 10
    table = [line.split(",") for line in (fused / "scores.csv").read_text().splitlines()]
    cars = {row[0]: float(row[5]) for row in table if row[3:5] == ["car", "AP50"]}
    assert cars["fused"] > cars["whole image"] > 0.1
