"""Files of many items in sub-folders, and journals of many items."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dmnet.core import spread as spreading
from dmnet.core.artifact import Artifact, Item, Items, Product
from dmnet.core.errors import InputError
from dmnet.core.finished import Record, Records
from dmnet.core.journal import read_journal, scan_journal
from dmnet.core.seal import sealed
from dmnet.core.spread import gathered, place, spread
from dmnet.core.threads import looked_at
from dmnet.core.work import parcels


def test_a_million_names_lie_in_folders_of_some_thousand() -> None:
    names = [f"{index:07d}.h5" for index in range(100_000)]
    spreads = [spread(name, 1_000_000) for name in names]
    assert len(set(spreads)) == 100_000
    assert [gathered(name) for name in spreads] == names
    folders = [name.partition("/")[0] for name in spreads]
    most = max(folders.count(folder) for folder in set(folders))
    assert len(set(folders)) == 256 and most < 1_000  # ten times that for a million


def test_few_names_stay_as_they_are() -> None:
    assert spread("a/b.h5", 10_000) == "a/b.h5"
    assert spread("a/b.h5", 10_001).endswith("/a/b.h5")
    own = spread("spread-00/b.h5", 3)  # a name of the data set that looks like ours
    assert own != "spread-00/b.h5" and gathered(own) == "spread-00/b.h5"


def test_both_layouts_are_read(tmp_path: Path) -> None:
    assert place(tmp_path, "a.h5") == tmp_path / "a.h5"  # where it would lie
    (tmp_path / "a.h5").touch()
    assert place(tmp_path, "a.h5") == tmp_path / "a.h5"
    other = tmp_path / spread("a.h5", 10**6)
    other.parent.mkdir()
    other.touch()
    assert place(tmp_path, "a.h5") == other


def write(item: Item) -> Product:
    return Product({spread(f"{item.id}.txt", item.facts): b"x"}, {"n": 1})


def test_more_items_move_only_what_is_made_again(tmp_path: Path) -> None:
    def items(count: int) -> list[Item]:
        return [Item(name, facts=count if name == "b" else 0) for name in ("a", "b")]

    for count in (0, 20_000):
        with Artifact(tmp_path / "out", "x", 1, {}) as artifact:
            artifact.process(items(count), write)
    names = sorted(p.relative_to(artifact.root).as_posix() for p in artifact.root.rglob("*.txt"))
    assert names == ["a.txt", spread("b.txt", 20_000)]
    assert Artifact(tmp_path / "out", "x", 1, {}).inspect(items(20_000))["fresh"] == 2


def test_records_are_what_was_put_in() -> None:
    records = Records()
    one = Record("a", "k", {"a.h5": [1, 2, "d"]}, {"image": ["/a", 1, 2, "d"]}, {"n": 1.5})
    bad = Record("b", "k", {}, {}, error="broken", warnings=["w"])
    records["a"], records["b"] = one, bad
    assert (records["a"], records["b"], list(records), records.aside) == (
        one,
        bad,
        ["a", "b"],
        {"b"},
    )
    records["b"] = Record("b", "k", {}, {})
    assert not records.aside
    del records["b"]
    assert "b" not in records and len(records) == 1
    assert records.line("a") == one.line().encode()
    with pytest.raises(KeyError):
        records["b"]


def test_records_are_places_in_the_journal(tmp_path: Path) -> None:
    made = [Item(name, facts=0) for name in ("a", "b")]
    with Artifact(tmp_path, "x", 1, {}) as artifact:
        artifact.process(made, write)
        assert artifact.records["a"].value == {"n": 1}  # not yet brought out
    before = scan_journal(tmp_path).records
    line = before.line("a")
    with Artifact(tmp_path, "x", 1, {}) as artifact:
        artifact.process(made[1:], write)
    assert list(read_journal(tmp_path)) == ["b"]
    assert before.line("a") == line and before["a"].files == {"a.txt": before["a"].files["a.txt"]}


@pytest.mark.parametrize(
    "line",
    [
        '{"error":null,"files":{"../a":[1,2,"d"]},"id":"a","inputs":{},"key":"k","value":1}',
        '{"error":null,"files":{},"id":"a","inputs":{},"key":"k","value":1,"id":"b"}',
        '{"error":null,"files":{},"id":"a","inputs":{},"key":"k","value":}',
        '{"error":null,"files":{},"id":"a","inputs":{},"key":"k","other":1}',
    ],
)
def test_a_sealed_line_that_is_no_entry(tmp_path: Path, line: str) -> None:
    (tmp_path / "items.jsonl").write_text(sealed(line) + "\n")
    with pytest.raises(InputError, match="a: its journal line is no entry"):
        scan_journal(tmp_path).records["a"]


def test_a_head_names_no_file_out_of_the_folder(tmp_path: Path) -> None:
    for name in ("../a", "/a", ".", ""):
        line = sealed(
            Record("a", "k", {name: [1, 2, "d"]}, {}).line().rpartition(',"sum"')[0] + "}"
        )
        (tmp_path / "items.jsonl").write_text(line + "\n")
        with pytest.raises(InputError, match="would leave the folder"):
            scan_journal(tmp_path).records.head("a")


@pytest.mark.parametrize(
    "record",
    [
        Record("a", "k", {}, {}),
        Record("a b.1", "k", {"s/a.h5": [1, 2, "d"], "]{": [0, 0, "e"]}, {"i": ["/x", 3, 4, "f"]}),
        Record("a", "k", {"b.h5": [1, 2, "d"]}, {"i": ["/x", 3, 4, "f"], "j": ["/y", 5, 6, "g"]}),
        Record("a", "k", {"\u00fc": [1, 2, "d"]}, {"i": ['/"', 3, 4, "f"]}, {"n": [1]}),
        Record("a", "k", {"b..h5": [1, 2, "d"]}, {}),
        Record("a", "k", {"b": [1, 2, "d"]}, {"i": ["/x", 3, 4, "absent"]}, error="broken"),
    ],
)
def test_the_head_of_a_line_is_its_records(tmp_path: Path, record: Record) -> None:
    (tmp_path / "items.jsonl").write_text(record.line())
    records = scan_journal(tmp_path).records
    head = records.head(record.id)
    assert head is not None and records.head("other") is None
    for name in ("id", "key", "files", "inputs", "error"):
        assert getattr(head, name) == getattr(record, name) == getattr(records[record.id], name)
    assert list(records.keys_in_order()) == [(record.id, "k")]


def test_items_are_made_when_they_are_asked_for() -> None:
    asked: list[int] = []

    def make(numbers: Iterable[int]) -> Iterator[Item]:
        for index in numbers:
            asked.append(index)
            yield Item(str(index))

    listed = parcels(Items(make, range(1_000), 1_000), 1)
    assert len(next(listed)) == 16 and len(asked) <= 4 * 16 + 1
    assert [item.id for parcel in listed for item in parcel] == [str(n) for n in range(16, 1_000)]


def test_files_are_looked_at_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()

    def slow(self: Path) -> None:
        asked.add(threading.get_ident())
        time.sleep(0.002)
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "stat", slow)
    items = list(range(600))
    assert list(looked_at(items, lambda item: [tmp_path / str(item)], 8)) == items
    assert 1 < len(asked) <= 9  # eight threads, and who asked for the first one


def test_maps_in_sub_folders_are_found_by_their_image(tmp_path: Path) -> None:
    from dmnet.core.formats import density_h5

    for name in ("a.h5", spread("b.h5", spreading.MANY + 1), "c/d.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(density_h5.maps_in(tmp_path)) == ["a", "b", "c/d"]


def test_the_key_of_a_line_is_found_whatever_stands_before_it() -> None:
    names = {'"key":"x"': [1, 2, "a"], "key": [3, 4, "b"]}
    records = Records()
    for name in ('"key":"y"', "key", "z"):
        inputs = {key: ['/"key":"p"', *stamp] for key, stamp in names.items()}
        error = '"key":"e"' if name == "z" else None
        records[name] = Record(name, f"k{len(name)}", dict(names), inputs, error=error)
    records["z"] = records["z"].void()
    found = list(records.keys_in_order())
    assert found == [('"key":"y"', "k9"), ("key", "k3"), ("z", "")]
    assert found == [(name, records[name].key) for name in sorted(records)]
