"""``dmnet predict-density``: counts beside the maps, and the network in configs/weights."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dmnet.core.formats import density_h5, visdrone
from dmnet.core.images import read_image
from dmnet.core.training.weights import read_weights
from dmnet.density import networks
from dmnet.density.metrics import count_errors
from dmnet.density.predict import predict
from dmnet.density.scale import Scaling

from .conftest import Run

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = CONFIGS / "weights" / "mcnn-hit-uav.pt"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "mcnn.pt"
    scaling = networks.Scaling(128.0, 64.0)
    path.write_bytes(networks.save_network(networks.build("mcnn"), "mcnn", 0, scaling, {}))
    return path


def test_counts_are_written_beside_the_true_ones(
    dmnet: Run, weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("predict-density", "--weights", str(weights), "--device", "cpu")
    (data / "VisDrone2019-DET-val" / "annotations" / "102.txt").unlink()
    assert dmnet(*command) == 0
    folder = tmp_path / "artifacts" / "default" / "val" / "predict-density"
    rows = list(csv.DictReader((folder / "counts.csv").read_text().splitlines()))
    assert [(row["image"], row["true"]) for row in rows] == [
        ("100", "9"),
        ("101", "9"),
        ("102", ""),
    ]
    counts = [float(row["predicted"]) for row in rows]
    maps = [density_h5.read(folder / f"{row['image']}.h5").count for row in rows]
    np.testing.assert_allclose(counts, maps, atol=1e-3)
    mae, rmse = count_errors(counts[:2], [9, 9])
    said = capsys.readouterr().err
    assert f"counts of 2 annotated images: MAE {mae:.4g}, RMSE {rmse:.4g}" in said
    (data / "VisDrone2019-DET-val" / "annotations" / "102.txt").write_text("1,2,30,40,1,4,0,0\n")
    assert dmnet(*command) == 0
    said = capsys.readouterr().err
    assert "0 done, 3 kept" in said and "counts of 3 annotated images" in said


def test_shipped_network_is_small_and_says_where_it_comes_from() -> None:
    assert SHIPPED.stat().st_size < 1 << 20
    _, meta = read_weights(SHIPPED)
    assert meta["architecture"] == "mcnn" and meta["config"]["seed"] == 0
    card = (SHIPPED.parent / "README.md").read_text(encoding="utf-8")
    for stated in (SHIPPED.name, "CC BY 4.0", "HIT-UAV", f"{meta['config']['epochs']} epochs"):
        assert stated in card


def test_shipped_network_beats_the_mean_count(shared: Path, tmp_path: Path) -> None:
    network, meta = networks.load_network(SHIPPED)
    scaling = Scaling.of(meta)
    ready = networks.TorchNetwork(network)
    predicted, true = [], []
    with tarfile.open(shared / "data" / "hit-uav-val.tar") as archive:
        images = sorted(n for n in archive.getnames() if n.endswith(".jpg"))[::10]
        for name in images:
            label = name.replace("/images/", "/annotations/").replace(".jpg", ".txt")
            for member in (name, label):
                source = archive.extractfile(member)
                assert source is not None
                (tmp_path / Path(member).name).write_bytes(source.read())
            image = read_image(tmp_path / Path(name).name)
            truth, _ = visdrone.read_annotations(tmp_path / Path(label).name, "", image.shape[:2])
            predicted.append(predict(ready, image, scaling).count)
            true.append(len(truth.objects))
    assert len(true) == 29
    mae, _ = count_errors(predicted, true)
    mean, _ = count_errors([8.63] * len(true), true)  # objects per image of the training split
    assert mae < mean
