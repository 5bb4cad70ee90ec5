"""Another data set through the pipeline: its own classes, and the same through every format."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.dataset import Dataset, open_dataset
from dmnet.fusion.evaluation.evaluate import evaluate
from dmnet.pipeline.cli import main

NAMES = ["car", "truck", "bus", "minibus", "cyclist"]

PLACES = {
    "instances.json": "",
    "voc": "images",
    "yolo": "",
    "dota": "images",
    "labelme": "",
    "visdrone": "images",
}
"""Where the images belong, from the folder of a format."""


@pytest.fixture(scope="module")
def cars(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of aerial-cars: YOLO, five classes."""
    target = tmp_path_factory.mktemp("cars")
    with tarfile.open(shared / "data" / "aerial-cars.tar") as tar:
        tar.extractall(target, filter="data")
    return next(target.rglob("data.yaml"))


@pytest.fixture(scope="module")
def runs(cars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of density, crop and convert."""
    root = tmp_path_factory.mktemp("runs")
    options = ["--data", str(cars), "--artifacts", str(root), "--workers", "1"]
    every = "[yolo,dota,labelme,visdrone]"
    assert main(["density", *options, "--density.sigma.method", "classwise"]) == 0
    assert main(["crop", *options, "--crop.write-images", "false"]) == 0
    assert main(["convert", *options, "--convert.formats", every]) == 0
    return root / "default" / "val"


def as_data(runs: Path, cars: Path, kind: str, target: Path) -> Path:
    """What convert wrote in a format, with the images where they belong."""
    made = runs / "convert" / kind
    root = target / "set"
    if made.is_dir():
        shutil.copytree(made, root)
    else:
        root.mkdir()
        shutil.copy(made, root)
    (root / PLACES[kind]).mkdir(exist_ok=True)
    for entry in open_dataset(cars, "val").with_image:
        assert entry.image is not None
        shutil.copy(entry.image, root / PLACES[kind] / entry.file_name)
    return root / kind if made.is_file() else root


def tables(data: Dataset) -> dict[str, tuple[np.ndarray, list[int]]]:
    found = {}
    for entry in data.with_annotation:
        ann, _ = data.annotations(entry)
        found[ann.image_id] = (ann.boxes, ann.labels.tolist())
    return found


@pytest.mark.parametrize("kind", PLACES)
def test_boxes_come_back_from_every_format(
    runs: Path, cars: Path, kind: str, tmp_path: Path
) -> None:
    given = open_dataset(cars, "val")
    back = open_dataset(as_data(runs, cars, kind, tmp_path), "val")
    assert list(back.classes.names) == NAMES
    assert len(back) == len(given) == 8
    before, after = tables(given), tables(back)
    assert before.keys() == after.keys()
    for name, (boxes, labels) in before.items():
        np.testing.assert_array_equal(after[name][0], boxes)
        assert after[name][1] == labels


def shaken(truth: Path) -> list[dict[str, object]]:
    """Detections: the annotated boxes, moved a little and scored at random."""
    rng = np.random.default_rng(0)
    rows = []
    for row in json.loads(truth.read_text())["annotations"]:
        box = np.array(row["bbox"]) + rng.normal(0, 2.5, 4)
        rows.append(
            {
                "image_id": row["image_id"],
                "category_id": row["category_id"],
                "bbox": np.maximum(np.round(box, 2), 1).tolist(),
                "score": round(float(rng.random()), 3),
            }
        )
    return rows


def test_the_same_scores_through_every_format(runs: Path, cars: Path, tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    rows = shaken(runs / "convert" / "instances.json")
    (found / "results_images.json").write_text(json.dumps(rows))
    scores = {}
    for kind in ("", *PLACES):
        place = tmp_path / (kind or "given")
        place.mkdir()
        (tmp_path / f"{kind} read").mkdir()
        data = as_data(runs, cars, kind, place) if kind else cars
        options = ["--data", str(data), "--artifacts", str(place / "made"), "--workers", "1"]
        options += ["--crops", str(runs / "crop" / "crops.json"), "--detections", str(found)]
        options += ["--fuse-eval.bootstrap", "0", "--fuse-eval.pictures", "0"]
        assert main(["fuse-eval", *options]) == 0
        made = place / "made" / "default" / "val" / "fuse-eval"
        scores[kind] = json.loads((made / "scores.json").read_text())["protocols"]
        page = (made / "report.html").read_text()
        assert "minibus" in page and "pedestrian" not in page
    for protocol, results in scores[""].items():
        fused = results["fused"]
        assert list(fused["classes"]) == NAMES
        assert 0 < fused["AP"] < (100 if protocol == "visdrone" else 1)
    assert all(each == scores[""] for each in scores.values())
    direct = {
        kind: evaluate(
            as_data(runs, cars, kind, tmp_path / f"{kind} read") if kind else cars,
            tmp_path / "given" / "made" / "default" / "val" / "fuse-eval" / "results.json",
            "coco@500",
        ).summary
        for kind in ("", *PLACES)
    }
    for each in direct.values():
        assert each == pytest.approx(direct[""], nan_ok=True)
    assert direct[""]["AP"] == pytest.approx(scores[""]["coco@500"]["fused"]["AP"])


def test_class_sigmas_are_measured(runs: Path) -> None:
    sigma = json.loads((runs / "density" / "stage.json").read_text())["config"]["sigma"]
    assert len(sigma["class_sigmas"]) == len(NAMES)
    assert min(sigma["class_sigmas"]) > 30
