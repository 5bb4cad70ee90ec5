"""Faults of discs, files and the program itself, as a user of the command line meets them."""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as Pil

from dmnet.core.artifact import Artifact
from dmnet.core.errors import CheckpointError, InputError
from dmnet.core.training.weights import read_weights, to_bytes
from dmnet.pipeline import cli
from dmnet.pipeline.cli import main

from .conftest import Run


def one_paragraph(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err.strip().splitlines()[-1]
    assert text.startswith("dmnet: ") and "Traceback" not in text
    return text


def test_a_fault_of_the_program_is_one_paragraph(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(verb: str, rest: list[str]) -> int:
        raise IndexError("list index\x07 out of range\nmore")

    monkeypatch.setattr(cli, "_dispatch", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["density", "--run", "a b"]) == 70
    text = one_paragraph(capsys)
    (kept,) = tmp_path.glob("dmnet-error-*.txt")
    assert "unexpected IndexError: list index\\x07 out of range" in text and str(kept) in text
    assert "What is done is kept" in text
    details = kept.read_text()
    assert details.startswith("dmnet density --run 'a b'") and "Traceback" in details


def test_a_fault_of_the_program_on_a_full_disc(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_dispatch", lambda *_: 1 // 0)
    monkeypatch.setattr(cli.tempfile, "tempdir", str(tmp_path / "absent"))
    assert main(["doctor"]) == 70
    said = one_paragraph(capsys)
    assert "unexpected ZeroDivisionError" in said and "test_faults.py:" in said
    assert "no file could hold the details: No such file or directory" in said


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_lack_of_memory_is_no_fault_of_the_program(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dispatch(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    assert main(["doctor"]) == 2
    assert "not enough memory" in one_paragraph(capsys)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "free some space on that disc and run the same command again"),
        (errno.EROFS, "name another folder (--artifacts, --out)"),
        (errno.EACCES, "allow this user to use it"),
    ],
)
def test_faults_of_the_disc_name_the_file_and_the_way_out(
    dmnet: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    code: int, said: str,
) -> None:  # fmt: skip
    def replace(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", replace)
    assert dmnet("density", "--workers", "1") == 2
    text = one_paragraph(capsys)
    assert said in text and "/artifacts/default/kernels.h5" in text


def test_a_log_on_a_full_disc_is_named(
    dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dmnet("density") == 0
    log = tmp_path / "artifacts" / "default" / "val" / "density" / "log.txt"
    log.unlink()
    log.symlink_to("/dev/full")
    capsys.readouterr()
    assert dmnet("density", "--density.stride", "8") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "Logging error" not in said
    assert f"{log}: No space left on device; free some space on that disc" in said
    log.unlink()
    assert dmnet("density", "--density.stride", "8") == 0
    assert "0 done, 3 kept" in capsys.readouterr().err


def test_a_journal_on_a_full_disc_is_named(
    dmnet: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its end, too, cannot be written when it is closed."""
    with Path("/dev/full").open("ab") as full:

        def begin(self: Artifact) -> None:
            if self._journal is None:
                self._journal = full

        monkeypatch.setattr(Artifact, "_begin", begin)
        assert dmnet("density") == 2
    assert "density/items.jsonl: No space left on device; free some space" in one_paragraph(capsys)


def test_what_killed_runs_left_is_removed_by_the_next(dmnet: Run, tmp_path: Path) -> None:
    assert dmnet("density") == 0
    folder = tmp_path / "artifacts" / "default" / "val" / "density"
    left = folder / ".100.h5.4321.tmp"
    left.write_bytes(b"half")
    assert dmnet("density") == 0
    assert not left.exists() and (folder / "100.h5").exists()


def test_bad_names_never_stop_the_others(
    dmnet: Run, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = data / "VisDrone2019-DET-val" / "images"
    good = (images / "100.jpg").read_bytes()
    (images / "bell\x07.jpg").write_bytes(good)
    (images / ("a" * 251 + ".jpg")).write_bytes(good)
    (images / "loop.jpg").symlink_to("loop.jpg")
    os.close(os.open(bytes(images) + b"/bad\xff.jpg", os.O_CREAT))
    os.mkfifo(images / "pipe.jpg")
    code = dmnet("density", "--max-bad", "9")
    said = capsys.readouterr().err
    assert code == 0 and "3 done" in said and "Traceback" not in said


def test_an_image_that_is_really_a_program_is_set_aside(
    dmnet: Run, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    def started(*args: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    path = data / "VisDrone2019-DET-val" / "images" / "100.jpg"
    Pil.new("RGB", (320, 240)).save(path, "EPS")
    assert dmnet("density", "--max-bad", "1") == 0
    assert "not an image, whatever its name says" in capsys.readouterr().err


def test_crops_that_name_files_elsewhere(
    dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "crops.json"
    parent = {"id": 5, "file_name": "../../../secret.jpg", "width": 320, "height": 240}
    foreign.write_text(json.dumps({"parents": [parent], "images": []}))
    assert dmnet("detect", "--crops", str(foreign), "--detector", "yolov6-n") == 2
    assert "climbs out of its folder" in one_paragraph(capsys)


def test_settings_that_are_not_a_number_never_make_an_artifact(
    dmnet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "a.yaml"
    for text in ("crop: {threshold: .nan}", "crop: {threshold: nan}"):
        preset.write_text(text)
        assert dmnet("crop", "--config", str(preset)) == 2
        one_paragraph(capsys)
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(
    "meta", ["{", "[]", '{"settings": 3}', '{"classes": "abc"}', '{"architecture": ["a"]}', 7]
)
def test_damaged_metadata_of_weights(tmp_path: Path, meta: object) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(to_bytes({"format": "dmnet-checkpoint-1", "state_dict": {}, "meta": meta}))
    with pytest.raises(CheckpointError, match="its metadata is damaged"):
        read_weights(path)


def test_damaged_weights(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "a.pt"
    good = to_bytes({"weight": torch.ones(64, 64)})
    for data in (b"", b"PK", good[:100], good[: len(good) // 2], b"\x80\x02}q\x01" + good[200:]):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"a\.pt"):
            read_weights(path)


def test_class_indices_of_onnx_settings() -> None:
    from dmnet.core.classes import VISDRONE
    from dmnet.core.errors import ConfigError
    from dmnet.detectors.onnx_decoding import OnnxDecoding, class_table

    for entry in ("1000000000000=1", "9" * 5000 + "=1", "²=1", "0=²"):
        with pytest.raises(ConfigError, match=r"class_map"):
            class_table(OnnxDecoding(class_map=(entry,)), VISDRONE)
    with pytest.raises(ValueError, match="strides must be 1 to"):
        OnnxDecoding(strides=(0,))
    for wrong in ({"fill": ()}, {"mean": (0.0,) * 4}, {"std": (1.0,) * 2}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be one value"):
            OnnxDecoding(**wrong)  # type: ignore[arg-type]


def test_kernel_banks_of_strangers(tmp_path: Path) -> None:
    from dmnet.density.kernels import KernelBank

    path = tmp_path / "kernels.h5"
    path.write_bytes(KernelBank.build([0, 1]).to_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable kernel bank"):
        KernelBank.load(path)


def test_links_that_leave_the_data_set_are_followed_only_where_that_is_said(
    dmnet: Run, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = data / "VisDrone2019-DET-val" / "annotations"
    (labels / "100.txt").rename(tmp_path / "elsewhere.txt")
    (labels / "100.txt").symlink_to(tmp_path / "elsewhere.txt")
    (labels / "101.txt").rename(data / "shared.txt")
    (labels / "101.txt").symlink_to(data / "shared.txt")  # inside the data set
    assert dmnet("density") == 1
    said = capsys.readouterr().err
    assert "leads out of the data set (1 in all)" in said and "2 done" in said
    assert dmnet("density", "--follow-links") == 0
    assert "1 done, 2 kept" in capsys.readouterr().err
    assert dmnet("crop", "--follow-links", "--density.stride", "8") == 2
    assert "--follow-links" in one_paragraph(capsys)
    (tmp_path / "moved").mkdir()
    data.rename(tmp_path / "moved" / "data")
    data.symlink_to(tmp_path / "moved" / "data")  # the folder itself may be a link
    assert dmnet("density", "--follow-links") == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_stop_nothing(closed: str) -> None:
    """As some schedulers start programs."""
    words = f'"{sys.executable}" -m dmnet'
    assert subprocess.run(["sh", "-c", f"{words} --help {closed}"]).returncode == 0
    assert subprocess.run(["sh", "-c", f"{words} nothing {closed}"]).returncode == 2


def test_folders_whose_names_are_no_text(data: Path, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are shown escaped; the log is whole."""
    place = tmp_path / os.fsdecode(b"runs\xff")
    words = [sys.executable, "-m", "dmnet"]
    given = ["--data", str(data), "--artifacts", str(place), "--workers", "1"]
    for verb in ("density", "status"):
        run = subprocess.run([*words, verb, *given], capture_output=True, text=True)
        assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    assert "ARTIFACTS='" in run.stdout and "\\udcff" in run.stdout
    assert "\\udcff" in (place / "default/val/density/log.txt").read_text()


def test_an_interrupt_inside_an_executed_text_ends_alike(tmp_path: Path) -> None:
    """As dataclasses execute them, that is within many an import."""
    (tmp_path / "stopped.py").write_text(
        "from dmnet.pipeline import cli\n"
        "cli._dispatch = lambda *_: exec('raise KeyboardInterrupt(15)')\n"
        "raise SystemExit(cli.main(['doctor']))\n"
    )
    run = subprocess.run([sys.executable, "-m", "stopped"], cwd=tmp_path)
    assert run.returncode == 143


def test_no_file_stays_open_until_the_garbage_is_collected(
    dmnet: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Journals of the stages before are open while a stage runs, and closed when it is done."""
    assert dmnet("density") == 0
    gc.collect()
    before = open_journals()
    gc.disable()
    monkeypatch.setattr(gc, "enable", lambda: None)
    try:
        assert dmnet("crop") == dmnet("crop") == dmnet("convert") == 0
        assert open_journals() == before
    finally:
        monkeypatch.undo()
        gc.enable()


def open_journals() -> int:
    files = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return sum("items.jsonl" in file for file in files)
