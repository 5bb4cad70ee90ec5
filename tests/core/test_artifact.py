"""The artifact store: what is redone, what is kept, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dmnet.core.artifact import Artifact, Item, Product, Result, inside
from dmnet.core.errors import (
    EditedArtifactError,
    ForeignArtifactError,
    InputError,
    LockedArtifactError,
)
from dmnet.core.files import digest, write_atomic
from dmnet.core.journal import HEADER, JOURNAL, read_header, read_journal


def upper(item: Item) -> Product:
    """The work of most tests: the input in capitals."""
    text = item.files["text"].read_text()
    if "bad" in text:
        raise InputError(item.files["text"], "holds the word bad")
    return Product({f"{item.id}.out": text.upper().encode()}, {"length": len(text)})


def shout(suffix: str, item: Item) -> Product:
    made = upper(item)
    files = {name: data + suffix.encode() for name, data in made.files.items()}
    return Product(files, made.value)


def run(root: Path, items: list[Item], work: Any = upper, **options: Any) -> Artifact:
    workers = options.pop("workers", 1)
    config = options.pop("config", {"a": 1})
    with Artifact(root, "demo", 1, config, **options) as artifact:
        artifact.process(items, work, workers=workers)
        if artifact.changed:
            sizes = {i: r.value["length"] for i, r in artifact.good.items()}
            artifact.output("sum.json", json.dumps(sizes).encode())
    return artifact


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_text(f"text {name}")
    return [Item(name, {"text": folder / name}) for name in ("a", "b", "c")]


def counts(artifact: Artifact) -> tuple[int, int, int, int]:
    s = artifact.summary
    return s.done, s.kept, s.removed, len(s.bad)


def outputs(root: Path) -> dict[str, bytes]:
    names = sorted(p.name for p in root.iterdir() if p.suffix == ".out" or p.name == "sum.json")
    return {name: (root / name).read_bytes() for name in names}


def test_first_run_does_all_and_second_nothing(tmp_path: Path, items: list[Item]) -> None:
    root = tmp_path / "art"
    assert counts(run(root, items)) == (3, 0, 0, 0)
    before = {p.name: p.stat().st_mtime_ns for p in root.iterdir() if p.name != ".lock"}
    again = run(root, items)
    assert counts(again) == (0, 3, 0, 0)
    assert not again.changed
    after = {p.name: p.stat().st_mtime_ns for p in root.iterdir() if p.name != ".lock"}
    assert before == after


def test_empty_set_is_a_complete_artifact(tmp_path: Path) -> None:
    run(tmp_path / "art", [])
    header = read_header(tmp_path / "art")
    assert header is not None and header["complete"] and header["items"] == 0


def test_one_changed_input_redoes_one_item(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    items[1].files["text"].write_text("other b")
    assert counts(run(tmp_path / "art", items)) == (1, 2, 0, 0)
    assert (tmp_path / "art" / "b.out").read_bytes() == b"OTHER B"


def test_touched_input_with_equal_bytes_redoes_nothing(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    os.utime(items[0].files["text"], ns=(1, 1))
    assert counts(run(tmp_path / "art", items)) == (0, 3, 0, 0)


def test_changed_setting_redoes_all(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    assert counts(run(tmp_path / "art", items, config={"a": 2})) == (3, 0, 0, 0)


def test_vanished_item_is_removed_with_its_files(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    assert counts(run(tmp_path / "art", items[:2])) == (0, 2, 1, 0)
    assert sorted(outputs(tmp_path / "art")) == ["a.out", "b.out", "sum.json"]
    assert json.loads((tmp_path / "art" / "sum.json").read_text()) == {"a": 6, "b": 6}


def test_bad_item_is_set_aside_and_the_others_go_on(tmp_path: Path, items: list[Item]) -> None:
    items[0].files["text"].write_text("bad")
    first = run(tmp_path / "art", items)
    assert counts(first) == (2, 0, 0, 1)
    assert "holds the word bad" in first.summary.bad["a"]
    assert counts(run(tmp_path / "art", items)) == (0, 2, 0, 1)  # still said, others kept
    items[0].files["text"].write_text("good")
    assert counts(run(tmp_path / "art", items)) == (1, 2, 0, 0)


def test_vanished_input_is_set_aside(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    items[2].files["text"].unlink()

    def work(item: Item) -> Product:
        if not item.files["text"].exists():
            raise InputError(item.files["text"], "is gone")
        return upper(item)

    assert counts(run(tmp_path / "art", items, work)) == (0, 2, 0, 1)


def test_missing_output_is_made_again(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    (tmp_path / "art" / "c.out").unlink()
    assert counts(run(tmp_path / "art", items)) == (1, 2, 0, 0)


def test_edited_output_is_reported_and_kept(tmp_path: Path, items: list[Item]) -> None:
    root = tmp_path / "art"
    run(root, items)
    (root / "b.out").write_bytes(b"mine!!")
    with pytest.raises(EditedArtifactError, match=r"b\.out.*--force"):
        run(root, items)
    with pytest.raises(EditedArtifactError, match=r"b\.out"):
        run(root, items, config={"a": 2})
    assert (root / "b.out").read_bytes() == b"mine!!"
    assert counts(run(root, items, force=True)) == (1, 2, 0, 0)
    assert (root / "b.out").read_bytes() == b"TEXT B"


def test_edited_summary_is_reported(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    (tmp_path / "art" / "sum.json").write_text("{}")
    with pytest.raises(EditedArtifactError, match=r"sum\.json"):
        run(tmp_path / "art", items)


def test_verify_finds_a_flipped_bit_behind_equal_size_and_time(
    tmp_path: Path, items: list[Item]
) -> None:
    root = tmp_path / "art"
    run(root, items)
    path = root / "a.out"
    state = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert counts(run(root, items)) == (0, 3, 0, 0)  # size and time are trusted
    with pytest.raises(EditedArtifactError, match=r"a\.out"):
        run(root, items, verify=True)


def test_torn_last_line_is_ignored(tmp_path: Path, items: list[Item]) -> None:
    root = tmp_path / "art"
    run(root, items)
    journal = root / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-20])
    assert sorted(read_journal(root)) == ["a", "b"]
    assert counts(run(root, items)) == (1, 2, 0, 0)
    assert sorted(read_journal(root)) == ["a", "b", "c"]


def test_foreign_folder_is_refused_and_untouched(tmp_path: Path, items: list[Item]) -> None:
    root = tmp_path / "maps"
    root.mkdir()
    (root / "a.npy").write_bytes(b"x")
    with pytest.raises(ForeignArtifactError, match=r"a\.npy.*RUN"):
        run(root, items)
    assert [p.name for p in root.iterdir()] == ["a.npy"]


def test_other_stage_is_refused(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    with pytest.raises(ForeignArtifactError, match="stage 'demo', not of 'other'"):
        Artifact(tmp_path / "art", "other", 1, {})


def test_damaged_header_is_named(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "art", items)
    (tmp_path / "art" / HEADER).write_text('{"stage": ')
    with pytest.raises(InputError, match=r"stage\.json: not a readable header"):
        run(tmp_path / "art", items)


def test_second_writer_is_refused(tmp_path: Path, items: list[Item]) -> None:
    with (
        Artifact(tmp_path / "art", "demo", 1, {}),
        pytest.raises(LockedArtifactError, match="another process"),
        Artifact(tmp_path / "art", "demo", 1, {}),
    ):
        pass  # pragma: no cover


def test_same_bytes_with_one_and_with_two_workers(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path / "one", items)
    run(tmp_path / "two", items, workers=2)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")


def slow(folder: Path, item: Item) -> Product:
    (folder / "started").write_text(item.id)
    if item.id == "b" and not (folder / "go").exists():
        time.sleep(60)
    return upper(item)


@pytest.mark.parametrize("config", [{"a": 1}, {"a": 2}])
def test_killed_run_goes_on_where_it_stopped(
    tmp_path: Path, items: list[Item], config: dict[str, int]
) -> None:
    """SIGKILL while item b is at work, on a new folder and on one made with other settings."""
    root, flags = tmp_path / "art", tmp_path / "flags"
    flags.mkdir()
    if config["a"] == 2:
        run(root, items)
    process = multiprocessing.get_context("spawn").Process(
        target=run, args=(root, items, partial(slow, flags)), kwargs={"config": config}
    )
    process.start()
    while not (flags / "started").exists() or (flags / "started").read_text() != "b":
        assert process.is_alive()
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    header = read_header(root)
    assert header is not None and not header["complete"]
    (flags / "go").touch()
    resumed = run(root, items, partial(slow, flags), config=config)
    assert counts(resumed) == (2, 1, 0, 0)
    run(tmp_path / "undisturbed", items, config=config)
    assert outputs(root) == outputs(tmp_path / "undisturbed")


def test_kill_between_file_and_line_is_not_an_edit(tmp_path: Path, items: list[Item]) -> None:
    """The new file is in place, its journal line is not: the item is simply redone."""
    root = tmp_path / "art"
    run(root, items)

    def dies(item: Item) -> Product:
        write_atomic(root / f"{item.id}.out", [b"NEWER"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(root, items, dies, config={"a": 2})
    assert counts(run(root, items, config={"a": 2})) == (3, 0, 0, 0)


def named(name: str, item: Item) -> Product:
    return Product({f"{item.id}-{name}.out": b"x"}, {"length": 1})


def test_files_that_an_item_no_longer_has_are_removed(tmp_path: Path, items: list[Item]) -> None:
    root = tmp_path / "art"
    run(root, items, partial(named, "old"))

    def dies(item: Item) -> Product:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(root, items, dies, config={"a": 2})
    run(root, items, partial(named, "new"), config={"a": 2})
    assert sorted(outputs(root)) == ["a-new.out", "b-new.out", "c-new.out", "sum.json"]


def two(name: str, item: Item) -> Product:
    return Product({f"{item.id}-{name}-{n}.out": b"x" for n in (1, 2)}, {"length": 1})


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_kill_while_such_files_are_removed_leaves_none(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    root = tmp_path / "art"
    run(root, items, partial(two, "old"))
    unlink, left = Path.unlink, at

    def dies(self: Path, missing_ok: bool = False) -> None:
        nonlocal left
        left -= "-old-" in self.name and not self.name.endswith(".tmp")
        if left == 0:
            raise KeyboardInterrupt
        unlink(self, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", dies)
        run(root, items, partial(two, "new"), config={"a": 2})
    run(root, items, partial(two, "new"), config={"a": 2})
    new = [f"{item.id}-new-{n}.out" for item in items for n in (1, 2)]
    assert sorted(outputs(root)) == [*new, "sum.json"]


def test_stream_yields_results_in_any_order(tmp_path: Path, items: list[Item]) -> None:
    def stream(todo: list[Item]) -> Iterator[tuple[Item, Result]]:
        for item in reversed(todo):
            if item.id == "b":
                yield item, InputError(item.id, "no")
            else:
                yield item, upper(item)

    with Artifact(tmp_path / "art", "demo", 1, {}) as artifact:
        artifact.process_stream(items, stream)
    assert sorted(artifact.good) == ["a", "c"] and list(artifact.summary.bad) == ["b"]


def test_inspect_counts_and_writes_nothing(tmp_path: Path, items: list[Item]) -> None:
    root = tmp_path / "art"
    nothing = {"fresh": 0, "aside": 0, "stale": 0, "new": 0, "gone": 0}
    assert Artifact(root, "demo", 1, {}).inspect(items) == nothing | {"new": 3}
    assert not root.exists()
    run(root, items)
    items[0].files["text"].write_text("changed")
    state = Artifact(root, "demo", 1, {"a": 1}).inspect(items)
    assert state == nothing | {"fresh": 2, "stale": 1}
    state = Artifact(root, "demo", 1, {"a": 1}).inspect(items[1:])
    assert state == nothing | {"fresh": 2, "gone": 1}


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", HEADER])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="would leave"):
        inside(tmp_path, name)


def test_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_items_with_unusual_names(tmp_path: Path) -> None:
    names = ["a b", "ä.b.c", "日本", "x" * 150]
    for name in names:
        (tmp_path / name).write_text(name)
    run(tmp_path / "art", [Item(n, {"text": tmp_path / n}) for n in names])
    assert {p.name for p in (tmp_path / "art").glob("*.out")} == {f"{n}.out" for n in names}
