"""Every flipped bit of an artifact folder is found, and where; what else can be wrong with one."""

from __future__ import annotations

import os
import random
from pathlib import Path

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.journal import HEADER, JOURNAL
from dmnet.core.verify import Fault, judged, measured, read_books


def make(root: Path) -> Path:
    """Nine items of other sizes, a sum, and an input each."""
    rng = random.Random(0)
    (root / "in").mkdir(parents=True)
    for index in range(9):
        (root / "in" / str(index)).write_bytes(rng.randbytes(50))
    items = [Item(str(i), {"text": root / "in" / str(i)}) for i in range(9)]
    sizes = iter([1, 7, 40, 300, 1000, 2000, 4000, 9000, 20000])
    with Artifact(root / "run" / "val" / "demo", "demo", 1, {"a": 1}) as artifact:
        artifact.process(
            items, lambda item: Product({f"{item.id}.out": rng.randbytes(next(sizes))})
        )
        artifact.output("sum.json", b"{}")
    return root / "run" / "val" / "demo"


def look(folder: Path) -> list[Fault]:
    books = read_books(folder)
    found = measured([claim.path for claim in books.claims], 2)
    return list(judged(books, found))


def test_two_hundred_flipped_bits_are_found_each_in_its_file(tmp_path: Path) -> None:
    """Under the same size and time; header and journal as often as each of the others."""
    folder = make(tmp_path)
    assert look(folder) == []
    rng = random.Random(1)
    files = [folder / HEADER, folder / JOURNAL, *sorted(folder.glob("*.out")), folder / "sum.json"]
    found = 0
    for _ in range(200):
        path = rng.choice(files)
        good, state = path.read_bytes(), path.stat()
        bit = rng.randrange(8 * len(good))
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        faults = look(folder)
        found += any(fault.kind == "damaged" and fault.path == path for fault in faults)
        others = {f.path for f in faults} - {path, folder}
        assert path.name in (HEADER, JOURNAL) or not others
        path.write_bytes(good)
    assert found == 200
    assert look(folder) == []


def test_inputs_that_changed_or_are_gone_make_it_stale(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (tmp_path / "in" / "3").write_bytes(b"else")
    (tmp_path / "in" / "5").unlink()
    assert [(fault.kind, fault.path.name) for fault in look(folder)] == [
        ("stale", "3"),
        ("stale", "5"),
    ]


def test_inputs_that_other_books_claim_are_for_those(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (tmp_path / "in" / "3").write_bytes(b"else")
    books = read_books(folder)
    found = measured([claim.path for claim in books.claims], 1)
    assert list(judged(books, found, {tmp_path / "in" / "3"})) == []
    assert [fault.kind for fault in judged(books, found, {tmp_path / "in" / "4"})] == ["stale"]


def test_a_missing_header_or_journal(tmp_path: Path) -> None:
    folder = make(tmp_path)
    journal = (folder / JOURNAL).read_bytes()
    (folder / JOURNAL).unlink()
    assert [(f.kind, f.path.name) for f in look(folder)][:1] == [("missing", JOURNAL)]
    (folder / JOURNAL).write_bytes(journal)
    (folder / HEADER).unlink()
    assert [(f.kind, f.path.name) for f in look(folder)] == [("missing", HEADER)]


def test_a_journal_that_cannot_be_read_is_a_fault_of_that_folder(tmp_path: Path) -> None:
    """As on a broken disc; the sums, which the header names, are looked at nevertheless."""
    folder = make(tmp_path)
    (folder / JOURNAL).unlink()
    (folder / JOURNAL).mkdir()
    (folder / "sum.json").write_bytes(b"[]")
    assert [(fault.kind, fault.path.name) for fault in look(folder)] == [
        ("damaged", JOURNAL),
        ("damaged", "sum.json"),
    ]


def test_a_pipe_in_the_place_of_a_file_never_blocks(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "3.out").unlink()
    os.mkfifo(folder / "3.out")
    assert [(fault.kind, fault.path.name) for fault in look(folder)] == [("missing", "3.out")]
