"""Looking at many items side by side gives what one look gives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmnet.core import forks
from dmnet.core.artifact import Artifact, Item, Items, Product
from dmnet.core.errors import EditedArtifactError


def test_results_come_in_the_order_of_the_parts() -> None:
    assert forks.side_by_side(lambda part: [sum(part)], [[1, 2], [3], [4, 5]]) == [[3], [3], [9]]


def test_what_a_copy_could_not_do_is_done_here() -> None:
    here = os.getpid()

    def fails_elsewhere(part: int) -> int:
        if os.getpid() != here:
            raise MemoryError
        return part

    assert forks.side_by_side(fails_elsewhere, [1, 2, 3]) == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        forks.side_by_side(lambda part: 1 // part, [0, 1])


def artifact(root: Path, inputs: Path) -> tuple[Artifact, Items]:
    def make(numbers: Iterable[int]) -> Iterator[Item]:
        for number in numbers:
            yield Item(f"{number}", {"text": inputs / f"{number}.txt"})

    return Artifact(root, "demo", 1, {}), Items(make, range(9), 9)


def work(item: Item) -> Product:
    return Product({f"{item.id}.out": item.files["text"].read_bytes()}, {"id": item.id})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(f"{number}")
    store, items = artifact(tmp_path / "made", tmp_path)
    with store:
        store.process(items, work)
    return tmp_path


def looked(made: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> tuple[dict[str, int], Any]:
    monkeypatch.setattr(forks, "parts", lambda things: min(3, things // few))
    store, items = artifact(made / "made", made)
    counts = store.inspect(items)
    return counts, (store.first, {name: store.records[name] for name in store.records})


def test_a_look_by_several_processes_finds_the_same(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made / "1.txt").write_text("other")
    (made / "8.txt").unlink()
    (made / "made" / "7.out").unlink()
    for number in (2, 6):  # touched, not changed: the journal is to learn of the new time
        os.utime(made / "made" / f"{number}.out", ns=(1, 1))
    alone = looked(made, monkeypatch, 9)
    assert looked(made, monkeypatch, 3) == alone
    assert alone[0] | {"gone": 0} == {"fresh": 6, "aside": 0, "stale": 3, "new": 0, "gone": 0}
    assert alone[1][0]["stale"] == "1: text"
    assert [alone[1][1][f"{n}"].files[f"{n}.out"][1] for n in (2, 6)] == [1, 1]


def test_what_was_edited_is_found_by_each_process(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (0, 4, 8):
        (made / "made" / f"{number}.out").write_text("by hand")
    with pytest.raises(EditedArtifactError, match=r"0\.out, 4\.out, 8\.out"):
        looked(made, monkeypatch, 3)
