"""Stages density, crop and convert through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from dmnet.core.formats import crops as crop_format
from dmnet.core.formats import density_h5
from dmnet.pipeline.cli import main

from .conftest import Run, tree


@pytest.fixture
def val(tmp_path: Path) -> Path:
    return tmp_path / "artifacts" / "default" / "val"


def text(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_density_maps_sum_to_the_objects(dmnet: Run, val: Path) -> None:
    assert dmnet("density") == 0
    for name in ("100", "101", "102"):
        found = density_h5.read(val / "density" / f"{name}.h5")
        assert found.size == (240, 320) and found.stride == 4
        assert found.count == pytest.approx(9, rel=1e-4)


def test_density_maps_say_why_a_kernel_has_its_width(dmnet: Run, val: Path) -> None:
    assert dmnet("density", "--density.sigma.method", "nearest") == 0
    for path in (val / "density").glob("*.h5"):
        with h5py.File(path) as file:
            assert len(file["points"]) == 9
            np.testing.assert_array_equal(file["sigmas"][()], file["distances"][:, 0])
            assert json.loads(file["density"].attrs["settings"])["distances_over"] == "x y"


def test_reference_preset_is_full_size(dmnet: Run, val: Path) -> None:
    assert dmnet("density", "--config", "reference") == 0
    with h5py.File(val / "density" / "100.h5") as file:
        assert file["density"].shape == (240, 320)
        assert json.loads(file["density"].attrs["settings"])["preset"] == "reference"


def test_crops_file_follows_its_contract(dmnet: Run, val: Path) -> None:
    assert dmnet("density") == 0 and dmnet("crop") == 0
    data = json.loads((val / "crop" / "crops.json").read_text())
    assert [p["id"] for p in data["parents"]] == [1, 2, 3]
    assert [p["file_name"] for p in data["parents"]] == ["100.jpg", "101.jpg", "102.jpg"]
    assert len(data["images"]) >= 3
    for row in data["images"]:
        x1, y1, x2, y2 = row["window"]
        assert (row["width"], row["height"]) == (x2 - x1, y2 - y1)
        parent = data["parents"][row["parent_id"] - 1]["file_name"]
        assert row["file_name"] == f"{y1}_{x1}_{y2}_{x2}_{parent}"
        assert (val / "crop" / "images" / row["file_name"]).exists()


def test_windows_alone_need_no_images(dmnet: Run, val: Path, data: Path, tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.csv"
    rows = [f"val,{name},320,240" for name in ("100", "101", "102")]
    sizes.write_text("\n".join(["split,image,width,height", *rows]) + "\n")
    for path in (data / "VisDrone2019-DET-val" / "images").iterdir():
        path.unlink()
    (data / "VisDrone2019-DET-val" / "images").rmdir()
    assert dmnet("density", "--sizes", str(sizes)) == 0
    assert dmnet("crop", "--sizes", str(sizes), "--crop.write-images", "false") == 0
    assert len(crop_format.read(val / "crop" / "crops.json").crops) >= 3
    assert not (val / "crop" / "images").exists()


def test_convert_writes_every_format(dmnet: Run, val: Path) -> None:
    assert dmnet("density") == 0 and dmnet("crop") == 0 and dmnet("convert") == 0
    truth = json.loads((val / "convert" / "instances.json").read_text())
    assert len(truth["images"]) == 3 and len(truth["annotations"]) == 30
    assert sum(row["ignore"] for row in truth["annotations"]) == 3
    crops = json.loads((val / "crop" / "crops.json").read_text())["images"]
    cut = json.loads((val / "convert" / "crop-instances.json").read_text())
    assert [(c["id"], c["file_name"]) for c in crops] == [
        (c["id"], c["file_name"]) for c in cut["images"]
    ]
    names = {path.parent.name for path in (val / "convert").rglob("*") if path.is_file()}
    assert {"voc", "yolo", "crop-voc", "crop-yolo"} <= names


def test_changed_threshold_redoes_crop_and_not_density(dmnet: Run, val: Path) -> None:
    assert dmnet("density") == 0 and dmnet("crop") == 0
    density = {p.name: p.stat().st_mtime_ns for p in (val / "density").iterdir()}
    before = tree(val / "crop")
    assert dmnet("crop", "--crop.threshold", "0.9") == 0
    assert tree(val / "crop") != before
    assert {p.name: p.stat().st_mtime_ns for p in (val / "density").iterdir()} == density
    assert dmnet("crop") == 0
    assert tree(val / "crop") == before


def test_crops_of_most_of_the_picture_are_said(
    dmnet: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dmnet("density", "--density.sigma.fixed", "4") == 0
    quiet = ["--crop.write-images", "false"]
    assert dmnet("crop", *quiet, "--crop.padding", "300") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "the crops cover 1.000 of the pixels" in said and "raise --crop.threshold" in said
    assert dmnet("crop", *quiet, "--crop.min-side", "0", "--crop.threshold", "0.9") == 0
    assert "the crops cover" not in capsys.readouterr().err


def test_same_command_again_does_nothing(
    dmnet: Run, val: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dmnet("density") == 0 and dmnet("crop") == 0
    text(capsys)
    assert dmnet("density") == 0 and dmnet("crop") == 0
    said = text(capsys)
    assert said.count("0 done, 3 kept") == 2


def test_one_and_two_workers_give_the_same_bytes(dmnet: Run, val: Path, tmp_path: Path) -> None:
    for name, workers in (("one", "1"), ("two", "2")):
        for verb in ("density", "crop", "convert"):
            assert dmnet(verb, "--run", name, "--workers", workers) == 0
    for stage in ("density", "crop", "convert"):
        one, two = (tree(tmp_path / "artifacts" / run / "val" / stage) for run in ("one", "two"))
        assert one == two and one


@pytest.mark.parametrize(
    ("verb", "wanted", "command"),
    [
        ("crop", "'density' does not exist yet", "make density MODE=val"),
        ("predict-density", "'train-density' does not exist yet", "make train-density MODE=train"),
        ("convert", "'crop' does not exist yet", "make crop MODE=val"),
        ("detect", "'crop' does not exist yet", "make crop MODE=val"),
        ("fuse-eval", "'crop' does not exist yet", "make crop MODE=val"),
        ("train-density", "'density' does not exist yet", "make density MODE=train"),
        ("train-detector", "'convert' does not exist yet", "make convert MODE=train"),
    ],
)
def test_missing_artifact_is_one_paragraph_with_the_command(
    dmnet: Run, capsys: pytest.CaptureFixture[str], verb: str, wanted: str, command: str
) -> None:
    assert dmnet(verb, split="train" if verb.startswith("train") else "val") == 2
    said = text(capsys).strip()
    assert "\n" not in said and wanted in said and command in said


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5"])
def test_foreign_maps_are_used_and_never_written(
    dmnet: Run, val: Path, tmp_path: Path, suffix: str
) -> None:
    maps = tmp_path / "my maps"
    maps.mkdir()
    for name in ("100", "101", "102"):
        values = np.zeros((60, 80), np.float32)
        values[10:30, 20:50] = 0.02
        path = maps / f"{name}.{suffix}"
        if suffix == "npy":
            np.save(path, values)
        elif suffix == "npz":
            np.savez(path, density=values)
        else:
            with h5py.File(path, "w") as file:
                file["density"] = values
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in maps.iterdir()}
    assert dmnet("crop", "--density", str(maps)) == 0
    assert len(crop_format.read(val / "crop" / "crops.json").crops) == 3
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in maps.iterdir()} == before


def test_writing_into_a_foreign_folder_is_refused(
    dmnet: Run, val: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (val / "density").mkdir(parents=True)
    (val / "density" / "mine.npy").write_bytes(b"x")
    assert dmnet("density") == 2
    assert "did not make" in text(capsys)
    assert [p.name for p in (val / "density").iterdir()] == ["mine.npy"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "100.h5"),
        (lambda path: path.unlink(), "no density map for the image 100"),
    ],
)
def test_bad_map_is_set_aside_and_the_others_go_on(
    dmnet: Run, val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    damage: object, reason: str,
) -> None:  # fmt: skip
    assert dmnet("density") == 0
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in (val / "density").glob("*.h5"):
        shutil.copy(path, maps)
    damage(maps / "100.h5")  # type: ignore[operator]
    assert dmnet("crop", "--density", str(maps)) == 1
    assert reason in text(capsys)
    assert len(crop_format.read(val / "crop" / "crops.json").parents) == 2
    assert dmnet("crop", "--density", str(maps), "--max-bad", "1") == 0


def test_map_for_an_unknown_image_is_named(
    dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("100", "101", "102", "999"):
        np.save(maps / f"{name}.npy", np.ones((60, 80), np.float32))
    assert dmnet("crop", "--density", str(maps)) == 1
    assert "999.npy: a map for no image" in text(capsys)


def test_help_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    verbs = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    assert {"density", "crop", "fuse-eval", "status", "data", "demo-data"} <= set(verbs)
    for verb in verbs:
        try:
            assert main([verb, "--help"]) == 0
        except SystemExit as stop:
            assert stop.code == 0
        assert "--" in capsys.readouterr().out


def test_help_lists_what_the_stage_heeds(capsys: pytest.CaptureFixture[str]) -> None:
    def listed(verb: str) -> set[str]:
        assert main([verb, "--help"]) == 0
        return {word for word in capsys.readouterr().out.split() if word.startswith("--")}

    assert {"--density", "--sizes", "--workers"} <= listed("crop")
    assert not {"--detector", "--weights", "--device"} & listed("crop")
    assert {"--detector-weights", "--device"} <= listed("detect")
    assert {"--density", "--detector", "--weights", "--sizes"} <= listed("all")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--crop.treshold", "1"], "crop.treshold: no such setting; did you mean 'threshold'?"),
        (["--config", "referense"], "did you mean 'reference'?"),
        (["--train-density.epohcs", "1"], "did you mean 'epochs'?"),
    ],
)
def test_unknown_settings_are_named(
    dmnet: Run, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert dmnet("crop", *options) == 2
    assert said in text(capsys)


def test_a_folder_named_like_a_preset_is_not_taken_for_it(
    dmnet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reference").mkdir()
    monkeypatch.chdir(tmp_path)
    assert dmnet("density", "--config", "reference") == 0


def test_status_says_what_is_stale_and_why(
    dmnet: Run, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dmnet("density") == 0 and dmnet("crop") == 0
    capsys.readouterr()
    assert dmnet("status", "--crop.threshold", "0.5") == 0
    lines = {tuple(line.split()[:2]): line for line in capsys.readouterr().out.splitlines()}
    assert "fresh" in lines["val", "density"]
    assert "threshold 0.08 -> 0.5" in lines["val", "crop"]
    assert "absent" in lines["train", "density"]
    assert "make" in lines["val", "fuse-eval"]
