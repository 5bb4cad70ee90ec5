"""``dmnet verify``: what is damaged, missing, stale or foreign is named, with what mends it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from dmnet.core.verify import Fault, judged, measured, read_books
from dmnet.pipeline.chain import command
from dmnet.pipeline.cli import main
from dmnet.pipeline.context import Context

from .conftest import Run


@pytest.fixture
def made(dmnet: Run, tmp_path: Path) -> Path:
    """Density maps and crops of three images."""
    assert dmnet("density") == dmnet("crop") == 0
    return tmp_path / "artifacts" / "default" / "val"


def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["verify", "--artifacts", str(tmp_path / "artifacts")])
    return code, capsys.readouterr().out


def mend(said: str) -> list[int]:
    """Run the commands of the lines ``mend``, in their order."""
    lines = [text.removeprefix("mend") for text in said.splitlines() if text.startswith("mend")]
    return [run(shlex.split(line)[1:]) for line in lines]


def run(words: list[str]) -> int:
    verb, *rest = words
    given = dict(word.split("=", 1) for word in rest)
    extra = shlex.split(given.pop("SET", ""))
    names = {"MODE": "--split"}
    options = [x for k, v in given.items() for x in (names.get(k, f"--{k.lower()}"), v)]
    return main([verb, *options, *extra])


def keep_time(path: Path, data: bytes) -> None:
    state = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def faults(folder: Path) -> list[Fault]:
    books = read_books(folder)
    return list(judged(books, measured((claim.path for claim in books.claims), 1)))


def test_a_sound_run_is_fine(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = verify(tmp_path, capsys)
    assert code == 0, said
    assert "fine       val/density" in said and "all as written" in said


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("density/101.h5", "not the bytes that were written for 101"),
        ("crop/crops.json", "not the bytes that were written for all items"),
        ("crop/stage.json", "stage.json"),
        ("density/items.jsonl", "items.jsonl:2: skipped a line"),
    ],
)
def test_a_flipped_bit_is_named_and_mended(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    """Under the same size and time, which ordinary runs trust."""
    path = made / name
    good = path.read_bytes()
    middle = bytearray(good)
    middle[len(good) // 2] ^= 4
    keep_time(path, bytes(middle))
    code, said = verify(tmp_path, capsys)
    assert code == 1
    assert f"damaged    {path}" in said and told in said, said
    assert set(mend(said)) == {0}, capsys.readouterr().err
    code, said = verify(tmp_path, capsys)
    assert code == 0, said


def test_every_flipped_bit_of_a_log_is_found(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made / "crop" / "log.txt"
    good = path.read_bytes()
    assert b" done, " in good
    for place in range(0, len(good), 7):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        keep_time(path, bytes(damaged))
        assert any(fault.path == path for fault in faults(made / "crop"))
    code, said = verify(tmp_path, capsys)
    assert code == 1
    assert "crop/log.txt: not the lines that were written" in said
    assert "log.txt only tells of the runs: remove it" in said
    assert "mend" not in said
    path.unlink()
    assert verify(tmp_path, capsys)[0] == 0


def test_a_log_tells_of_runs_that_did_something(
    made: Path, tmp_path: Path, dmnet: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made / "crop" / "log.txt"
    good = path.read_bytes()
    assert dmnet("crop") == 0
    assert path.read_bytes() == good
    path.write_bytes(good + b"a run that was killed\n")
    assert verify(tmp_path, capsys)[0] == 0
    assert dmnet("crop", "--crop.threshold", "0.5") == 0
    assert path.read_bytes().startswith(good + b"a run that was killed\n")
    assert len(path.read_bytes()) > len(good) + 30
    assert verify(tmp_path, capsys)[0] == 0


def test_what_is_gone_or_was_put_there(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made / "density" / "102.h5").unlink()
    (made / "crop" / "notes.txt").write_text("mine")
    (made / "crop" / ".100.json.77.tmp").write_text("half")
    code, said = verify(tmp_path, capsys)
    assert code == 1
    assert f"missing    {made / 'density' / '102.h5'}" in said
    assert f"foreign    {made / 'crop' / 'notes.txt'}: no item made it" in said
    assert "left by a killed run" in said and "move them elsewhere" in said


def test_a_folder_where_a_file_was_and_another_stages_folder(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made / "density" / "101.h5").unlink()
    (made / "density" / "101.h5").mkdir()
    shutil.rmtree(made / "crop")
    shutil.copytree(made / "density", made / "crop")
    code, said = verify(tmp_path, capsys)
    assert code == 1
    assert "density/101.h5: a folder is in its place; remove that" in said
    assert f"{made / 'crop'}: holds an artifact of density" in said
    assert "move them elsewhere" in said
    (made / "density" / "101.h5").rmdir()
    shutil.rmtree(made / "crop")
    assert mend(said) == [0, 0]
    assert verify(tmp_path, capsys)[0] == 0


def test_what_it_was_made_from_has_changed(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An annotation under the same size and time; then a setting."""
    path = data / "VisDrone2019-DET-val" / "annotations" / "101.txt"
    rows = path.read_text()
    keep_time(path, rows.replace("1", "2", 1).encode())
    code, said = verify(tmp_path, capsys)
    assert code == 1
    assert f"stale      {path}: has changed since 101 was made from it" in said
    assert set(mend(said)) == {0}


def test_lines_of_the_journal_are_lost(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = made / "density" / "items.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[1:]))
    code, said = verify(tmp_path, capsys)
    assert code == 1 and "lines were lost or added" in said
    assert set(mend(said)) == {0}
    assert verify(tmp_path, capsys)[0] == 0


def test_kernels_and_runs_that_are_not_there(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernels = made.parent / "kernels.h5"
    kernels.write_bytes(kernels.read_bytes()[:-1] + b"?")
    code, said = verify(tmp_path, capsys)
    assert code == 1 and f"damaged    {kernels}" in said
    assert main(["verify", "nothing", "--artifacts", str(tmp_path / "artifacts")]) == 2
    assert "no run 'nothing'" in capsys.readouterr().err


def test_a_run_that_was_stopped(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = json.loads((made / "crop" / "stage.json").read_text())
    assert header["complete"] is True
    del header["journal"], header["sum"]
    (made / "crop" / "stage.json").write_text(json.dumps(header | {"complete": False}))
    code, said = verify(tmp_path, capsys)
    assert code == 1 and "unfinished" in said
    assert set(mend(said)) == {0}
    assert verify(tmp_path, capsys)[0] == 0


def test_a_folder_above_the_run_gives_the_commands_of_the_run(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("density/101.h5", "../kernels.h5"):
        good = (made / name).read_bytes()
        keep_time(made / name, good[:-1] + b"?")
    capsys.readouterr()
    assert main(["verify", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"damaged    {made / 'density' / '101.h5'}" in said
    assert f"damaged    {made.parent / 'kernels.h5'}" in said
    (made.parent / "kernels.h5").unlink()
    assert set(mend(said)) == {0}, capsys.readouterr().err
    assert main(["verify", str(tmp_path)]) == 0


def test_data_below_the_folder_that_is_looked_through_counts(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data / "VisDrone2019-DET-val" / "annotations" / "101.txt"
    keep_time(path, path.read_text().replace("1", "2", 1).encode())
    assert path.is_relative_to(tmp_path)
    assert main(["verify", str(tmp_path)]) == 1
    assert f"stale      {path}: has changed" in capsys.readouterr().out


def test_a_run_that_was_moved_with_its_data_is_fine(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "else where"
    moved.mkdir()
    (tmp_path / "artifacts").rename(moved / "artifacts")
    data.rename(moved / "data")
    words = ["verify", "--artifacts", str(moved / "artifacts")]
    assert main([*words, "--data", str(moved / "data")]) == 0, capsys.readouterr().out
    assert main(words) == 1  # the data set that it names is gone
    assert "is gone since" in capsys.readouterr().out
    path = moved / "data" / "VisDrone2019-DET-val" / "annotations" / "101.txt"
    keep_time(path, path.read_text().replace("1", "2", 1).encode())
    assert main([*words, "--data", str(moved / "data")]) == 1
    assert "1 changed (such as 101" in capsys.readouterr().out


def test_make_hands_on_what_a_command_says(made: Path, tmp_path: Path) -> None:
    """Names with spaces, quotes, dollars and backticks: nothing is expanded or executed."""
    strange = 'a  $HOME `id` "b" $(shell id) it\'s'
    context = Context(data=Path(strange), split="v l", run=strange)
    words = shlex.split(command(context, "crop", f"--crop.threshold {shlex.quote(strange)}"))
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(
        [*words, "--no-print-directory", "-n", "-o", "ready", "READY=ready", "PY=python"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shlex.split(said) == [
        *("python", "-m", "dmnet", "crop", "--data", strange, "--split", "v l", "--run", strange),
        *("--artifacts", "artifacts", "--crop.threshold", strange),
    ]


def test_what_only_the_header_knew_is_asked_for(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command without the settings would make another artifact."""
    (made / "crop" / "stage.json").unlink()
    code, said = verify(tmp_path, capsys)
    assert code == 1 and "the header is gone" in said
    assert "only stage.json held its options and settings: add those it was made with" in said
    assert set(mend(said)) == {0}  # all were the usual ones
    assert verify(tmp_path, capsys)[0] == 0


def test_a_stage_that_others_were_made_from_is_gone(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stage.json", "items.jsonl"):
        (made / "density" / name).unlink()
    code, said = verify(tmp_path, capsys)
    assert code == 1
    assert f"missing    {made / 'density'}: gone; crop was made from it" in said
