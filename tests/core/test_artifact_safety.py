"""What a damaged journal, an edited file or a removed folder can do: nothing unseen."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.errors import EditedArtifactError, InputError, RemovedArtifactError
from dmnet.core.files import file_digest
from dmnet.core.journal import HEADER, JOURNAL, read_journal


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


def test_a_folder_taken_away_at_the_end_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(RemovedArtifactError),
        Artifact(tmp_path / "art", "demo", 1, {}) as artifact,
    ):
        artifact.process([Item("a")], partial(write, "{}.out"))
        shutil.rmtree(tmp_path / "art")
