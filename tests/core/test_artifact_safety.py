"""What a damaged journal, an edited file or a removed folder can do: nothing unseen."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dmnet.core import files, limits
from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.errors import (
    EditedArtifactError,
    ForeignArtifactError,
    InputError,
    LostWorkerError,
    RemovedArtifactError,
)
from dmnet.core.files import file_digest
from dmnet.core.journal import HEADER, JOURNAL, header_text, read_header, read_journal, scan_journal


def write(name: str, item: Item) -> Product:
    """One file an item; ``{}`` in its name is the item."""
    return Product({name.format(item.id): f"made for {item.id}".encode()})


def run(
    root: Path, ids: str, name: str = "{}.out", config: dict[str, int] | None = None, **options: Any
) -> Artifact:
    with Artifact(root, "demo", 1, config or {}, **options) as artifact:
        artifact.process([Item(each) for each in ids], partial(write, name))
    return artifact


def line(path: Path, item_id: str, name: str) -> str:
    """A journal line that claims a file as it is."""
    state = path.stat()
    files = {name: [state.st_size, state.st_mtime_ns, file_digest(path)]}
    return json.dumps({"id": item_id, "key": "k", "files": files, "inputs": {}}) + "\n"


@pytest.mark.parametrize("name", ["../precious", "absolute"])
def test_a_name_outside_the_folder_is_never_followed(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    root, precious = tmp_path / "art", tmp_path / "precious"
    precious.write_text("mine")
    run(root, "ab")
    with (root / JOURNAL).open("a") as journal:
        for item_id in ("ghost", "a"):  # one that is gone, one that will be made again
            journal.write(line(precious, item_id, str(precious) if name == "absolute" else name))
    run(root, "ab", config={"a": 2})
    assert precious.read_text() == "mine"
    assert "would leave the folder" in caplog.text
    assert sorted(read_journal(root)) == ["a", "b"]


def test_an_output_outside_the_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "art", "a")
    header = json.loads((tmp_path / "art" / HEADER).read_text())
    header["outputs"] = {"../precious": [1, 1, "x"]}
    del header["sum"], header["journal"]  # as an older version wrote it
    (tmp_path / "art" / HEADER).write_text(json.dumps(header))
    with pytest.raises(InputError, match="would leave"):
        run(tmp_path / "art", "a")


def test_a_ghost_does_not_take_a_live_items_file_along(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    with (root / JOURNAL).open("a") as journal:
        journal.write(line(root / "a.out", "ghost", "a.out"))
    assert run(root, "ab").summary.removed == 1
    assert (root / "a.out").read_text() == "made for a"


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe{}",
        b"[]",
        b"null",
        b'{"id": 1, "key": "k", "files": {}, "inputs": {}}',
        b'{"id": "x", "key": "k", "files": [], "inputs": {}}',
        b'{"id": "x", "key": "k", "files": {"f": 3}, "inputs": {}}',
        b'{"id": "x", "key": "k", "files": {"f": ["1", 2, "d"]}, "inputs": {}}',
        b'{"id": "x", "key": "k", "files": {}, "inputs": {"f": [1, 2, 3, 4]}}',
        b'{"begin": true, "id": []}',
    ],
)
def test_lines_that_are_no_records_are_skipped(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    with (root / JOURNAL).open("ab") as journal:
        journal.write(text + b"\n")
    again = run(root, "ab")
    assert (again.summary.done, again.summary.kept) == (0, 2)
    assert "items.jsonl:3: skipped a line" in caplog.text


def test_an_edited_file_outlives_its_item(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    (root / "b.out").write_text("mine")
    with pytest.raises(EditedArtifactError, match=r"b\.out"):
        run(root, "a")
    assert (root / "b.out").read_text() == "mine"
    run(root, "a", force=True)
    assert not (root / "b.out").exists()


def test_a_file_put_there_by_hand_is_not_overwritten(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "a")
    (root / "b.out").write_text("mine")
    again = run(root, "abc")
    assert list(again.summary.bad) == ["b"] and "not made for it" in again.summary.bad["b"]
    assert (root / "b.out").read_text() == "mine" and sorted(again.good) == ["a", "c"]
    assert run(root, "abc", force=True).summary.done == 1
    assert (root / "b.out").read_text() == "made for b"


def test_a_file_of_the_same_bytes_is_taken(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "a")
    (root / "b.out").write_text("made for b")
    assert run(root, "ab").summary.done == 1


def test_two_items_never_share_a_file(tmp_path: Path) -> None:
    made = run(tmp_path / "art", "ab", name="same.out")
    assert list(made.summary.bad) == ["b"]
    assert (tmp_path / "art" / "same.out").read_text() == "made for a"


def test_what_a_killed_run_left_half_made_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "art"

    def dies(item: Item) -> Product:
        (root / "a.out").write_text("of other settings")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Artifact(root, "demo", 1, {}) as artifact:
        artifact.process([Item("a")], dies)
    assert run(root, "a").summary.done == 1
    assert (root / "a.out").read_text() == "made for a"


@pytest.mark.parametrize("way", ["removed", "moved", "replaced"])
def test_a_folder_taken_away_during_the_run_is_an_error(tmp_path: Path, way: str) -> None:
    root = tmp_path / "art"

    def takes(item: Item) -> Product:
        if item.id == "b":
            (shutil.rmtree if way == "removed" else lambda p: p.rename(tmp_path / "away"))(root)
        if way == "replaced":
            root.mkdir(exist_ok=True)
        return write("{}.out", item)

    with (
        pytest.raises(RemovedArtifactError, match="run the same command again"),
        Artifact(root, "demo", 1, {}) as artifact,
    ):
        artifact.process([Item(each) for each in "abc"], takes)
    assert run(root, "abc").summary.done == 3


def test_files_of_a_folder_that_took_its_place_are_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "a", "{}.old")

    def replaced(item: Item) -> Product:
        shutil.copytree(root, tmp_path / "copy")
        root.rename(tmp_path / "away")
        (tmp_path / "copy").rename(root)
        return write("{}.new", item)

    with pytest.raises(RemovedArtifactError), Artifact(root, "demo", 1, {"b": 2}) as artifact:
        artifact.process([Item("a")], replaced)
    assert (root / "a.old").exists()


def test_a_folder_taken_away_at_the_end_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(RemovedArtifactError),
        Artifact(tmp_path / "art", "demo", 1, {}) as artifact,
    ):
        artifact.process([Item("a")], partial(write, "{}.out"))
        shutil.rmtree(tmp_path / "art")


def flipped(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every single-bit flip: its byte, and the bytes with it."""
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit // 8, bytes(changed)


def test_every_flipped_bit_of_a_journal_is_seen_at_its_line(tmp_path: Path) -> None:
    run(tmp_path / "art", "ab")
    journal = tmp_path / "art" / JOURNAL
    good = journal.read_bytes()
    second = good.index(b"\n") + 1
    for at, data in flipped(good):
        journal.write_bytes(data)
        numbers = [int(text.partition(":")[0]) for text in scan_journal(tmp_path / "art").damaged]
        if at < len(good) - 1:  # the last line end is nobody's
            assert numbers[:1] == [1 if at < second else 2], (at, numbers)


def test_every_flipped_bit_of_a_header_is_seen(tmp_path: Path) -> None:
    run(tmp_path / "art", "a")
    path = tmp_path / "art" / HEADER
    good = path.read_bytes()
    for _, data in flipped(good):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"stage\.json"):
            read_header(tmp_path / "art")


def test_a_damaged_header_is_made_again_with_force_and_no_item(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    (root / HEADER).write_bytes(
        (root / HEADER).read_bytes().replace(b'"version": 1', b'"version": 3')
    )
    with pytest.raises(InputError, match=r"changed since .* --force"):
        run(root, "ab")
    again = run(root, "ab", force=True)
    assert (again.summary.done, again.summary.kept) == (0, 2)
    header = read_header(root)
    assert header is not None and header["complete"] and header["version"] == 1


def test_artifacts_of_before_there_were_check_sums_are_read(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    header = json.loads((root / HEADER).read_text())
    del header["sum"], header["journal"]
    (root / HEADER).write_text(json.dumps(header, indent=1) + "\n")
    lines = [json.loads(text) for text in (root / JOURNAL).read_text().splitlines()]
    for fields in lines:
        del fields["sum"]
    (root / JOURNAL).write_text("".join(json.dumps(fields) + "\n" for fields in lines))
    again = run(root, "ab")
    assert (again.summary.done, again.summary.kept, again.changed) == (0, 2, False)


def test_lines_and_files_beyond_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "ab")
    monkeypatch.setattr(limits, "LINE_BYTES", 100)
    assert scan_journal(tmp_path).damaged and not scan_journal(tmp_path).records
    for name in ("HEADER_BYTES", "JOURNAL_BYTES"):
        monkeypatch.setattr(limits, name, 100)
    for read in (read_header, scan_journal):
        with pytest.raises(InputError, match="more than the limit of 100"):
            read(tmp_path)


def after_a_restart(root: Path, name: str, content: bytes) -> None:
    """As a power cut may leave it: a run under way, a file of the same time and other bytes."""
    state = (root / name).stat()
    (root / name).write_bytes(content)
    os.utime(root / name, ns=(state.st_atime_ns, state.st_mtime_ns))
    header = json.loads((root / HEADER).read_text()) | {"complete": False, "boot": "another"}
    del header["sum"]
    (root / HEADER).write_text(header_text(header))


@pytest.mark.parametrize("content", [bytes(10), b"", b"made"])
def test_what_a_power_cut_took_is_made_again(tmp_path: Path, content: bytes) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    after_a_restart(root, "a.out", content)
    again = run(root, "ab")
    assert (again.summary.done, again.summary.kept) == (1, 1)
    assert (root / "a.out").read_text() == "made for a"
    header = read_header(root)
    assert header is not None and header["complete"] and "boot" not in header


def test_what_was_never_told_after_a_power_cut_is_made_again(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    after_a_restart(root, "a.out", b"half")
    (root / JOURNAL).write_bytes(bytes(200))
    assert run(root, "ab").summary.done == 2
    assert (root / "a.out").read_text() == "made for a"


def test_a_finished_artifact_is_on_the_disc_before_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is flushed before the header that says 'complete' takes its place."""
    flushed: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    run(tmp_path / "art", "ab")
    names = [Path(path).name for path in flushed]
    header = f".{HEADER}.{os.getpid()}.tmp"
    assert names[:2] == names[-2:] == [header, "art"]
    assert sorted(names[2:-2]) == ["a.out", "art", "b.out", JOURNAL]


def test_many_files_are_flushed_by_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(os, "sync", lambda: called.append("sync"))
    files.flush([Path("absent")] * 9)
    assert called == ["sync"]


def test_a_folder_removed_while_there_is_nothing_to_do(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    with pytest.raises(RemovedArtifactError), Artifact(root, "demo", 1, {}) as artifact:
        artifact.process([Item(each) for each in "ab"], partial(write, "{}.out"))
        shutil.rmtree(root)


def test_an_input_that_changes_while_it_is_worked_on_is_done_again(tmp_path: Path) -> None:
    """Also where it is then put back: what was made from the other one never counts as fresh."""
    source = tmp_path / "in"
    source.write_text("good")
    item = Item("a", {"text": source})

    def swapped(item: Item) -> Product:
        source.write_text("else")
        return Product({"a.out": source.read_bytes()})

    with Artifact(tmp_path / "art", "demo", 1, {}) as artifact:
        artifact.process([item], swapped)
    assert "changed while it was worked on" in artifact.summary.bad["a"] and not artifact.good
    source.write_text("good")
    with Artifact(tmp_path / "art", "demo", 1, {}) as artifact:
        artifact.process([item], lambda _: Product({"a.out": source.read_bytes()}))
    assert artifact.summary.done == 1 and (tmp_path / "art" / "a.out").read_text() == "good"


def test_a_header_that_is_gone_is_made_again_with_force(tmp_path: Path) -> None:
    root = tmp_path / "art"
    run(root, "ab")
    (root / HEADER).unlink()
    with pytest.raises(ForeignArtifactError, match="did not make"):
        run(root, "ab")
    assert run(root, "ab", force=True).summary.kept == 2


def test_an_item_without_enough_memory_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    def greedy(item: Item) -> Product:
        if item.id == "b":
            raise MemoryError
        return write("{}.out", item)

    with Artifact(tmp_path / "art", "demo", 1, {}) as artifact:
        artifact.process([Item(each) for each in "abc"], greedy)
    assert "not enough memory" in artifact.summary.bad["b"]
    assert sorted(artifact.good) == ["a", "c"]


def die(item: Item) -> Product:
    """As where the system ends a process that takes too much memory."""
    if item.id == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return write("{}.out", item)


def test_a_worker_that_is_ended_from_outside_loses_nothing(tmp_path: Path) -> None:
    items = [Item(each) for each in "abcd"]
    with (
        pytest.raises(LostWorkerError, match="the same command goes on from there"),
        Artifact(tmp_path / "art", "demo", 1, {}) as artifact,
    ):
        artifact.process(items, die, workers=2)
    with Artifact(tmp_path / "art", "demo", 1, {}) as artifact:
        artifact.process(items, partial(write, "{}.out"))
    assert sorted(artifact.good) == ["a", "b", "c", "d"]


def linger(item: Item) -> Product:
    Path(item.facts, f"{item.id}.{os.getpid()}").touch()
    time.sleep(60)
    return Product({})


def lingering(root: Path) -> None:
    with Artifact(root / "art", "demo", 1, {}) as artifact:
        artifact.process([Item(each, facts=str(root)) for each in "ab"], linger, workers=2)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(target=lingering, args=(tmp_path,))
    parent.start()
    until = time.monotonic() + 300
    while len(found := list(tmp_path.glob("[ab].*"))) < 1 and time.monotonic() < until:
        time.sleep(0.05)
    parent.kill()
    workers = [int(path.suffix[1:]) for path in found]
    assert workers
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def alive(process: int) -> bool:
    """Whether a process is there and no zombie."""
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
