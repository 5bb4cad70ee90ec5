"""`dmnet info` and `dmnet doctor` from the outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmnet.core.errors import MissingInputError
from dmnet.core.images import encode_jpeg, read_image
from dmnet.pipeline.cli import main
from dmnet.pipeline.tools import doctor, info


def test_info(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(data), "--split", "val", "--out", str(tmp_path / "info.png")]) == 0
    told = capsys.readouterr().out
    assert "3 images, 3 annotated; 27 objects, 9.0 per image; 3 ignored rows" in told
    assert "sizes: 320x240 (3)" in told
    assert read_image(tmp_path / "info.png").shape[1] > 1000


def test_info_on_pictures_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my own"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.jpg").write_bytes(encode_jpeg(np.zeros((30, 40, 3), np.uint8)))
    assert main(["info", str(folder), "--out", str(tmp_path / "info.png")]) == 0
    told = capsys.readouterr().out
    assert f"2 images, none annotated: dmnet predict '{folder}' finds objects in them" in told
    assert "sizes: 40x30 (2)" in told and "not drawn" in told
    assert "pedestrian" not in told and "objects by size" not in told
    assert not (tmp_path / "info.png").exists()


def test_info_names_problems(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = data / "VisDrone2019-DET-val" / "annotations" / "100.txt"
    text.write_text("1,2,three,4,1,4,0,0\n")
    assert main(["info", str(data), "--split", "val"]) == 1
    assert f"problem: {text}:1:" in capsys.readouterr().out


def test_sizes_are_those_on_the_input() -> None:
    facts = info.Facts(sides=[3.0, 4.0, 15.9, 300.0])
    counts = dict(facts.histogram())
    assert counts["0 to 4 px"] == 1
    assert counts["4 to 8 px"] == 1
    assert counts["8 to 16 px"] == 1
    assert counts["from 256 px"] == 1


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.0)
    monkeypatch.setattr(doctor, "SIDE", 64)
    monkeypatch.setitem(doctor.EXTRAS, "viz", ("no_such_library",))
    assert main(["doctor", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    for word in (
        "python",
        "torch",
        "cores",
        "cuda",
        "onnxruntime",
        "model visdrone",
        "visdrone-detector.onnx",
    ):
        assert word in told
    assert "missing no_such_library: pip install 'dmnet[viz]'" in told


def test_doctor_without_the_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "TABLE", tmp_path / "models.yaml")
    assert "missing weights/visdrone-detector.pt" in "\n".join(doctor.models())

    def lost(*given: object, **more: object) -> None:
        raise MissingInputError("the model needs a file")

    monkeypatch.setattr("dmnet.pipeline.predict.named.find", lost)
    assert list(doctor.speeds("cpu")) == ["no speed test: the model needs a file"]
