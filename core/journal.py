"""What an artifact folder is (``stage.json``) and holds (``items.jsonl``)."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from dmnet.core import limits
from dmnet.core.errors import InputError, printable
from dmnet.core.files import Stamp
from dmnet.core.reading import opened, read_bytes
from dmnet.core.seal import damaged, sealed

HEADER, JOURNAL = "stage.json", "items.jsonl"
_log = logging.getLogger(__name__)

Inputs = dict[str, list[Any]]
"""``[path, size, mtime_ns, digest]`` of each input file of an item, by its role."""


@dataclass(frozen=True)
class Record:
    """A journal line: a finished item, or one that was set aside with the reason in ``error``."""

    id: str
    key: str
    files: dict[str, Stamp]
    inputs: Inputs
    value: Any = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """The journal line; what is empty by default is left out."""
        fields = {k: v for k, v in self.__dict__.items() if v or k not in ("warnings", "set_aside")}
        return sealed(json.dumps(fields, sort_keys=True, separators=(",", ":"))) + "\n"

    def void(self) -> Record:
        """The record of an item that is being made again: only its files' names still count."""
        return replace(self, key="", error="was being made again when the run was stopped")


def escapes(name: str) -> bool:
    """Whether a file name would lead out of the folder that it is relative to."""
    return name in ("", ".") or name.startswith("/") or ".." in name.split("/")


class Records(MutableMapping[str, Record]):
    """Records by id, each kept as its journal line: a third of the memory that objects take.

    A record that is taken out is a new object: whoever changes one puts it back.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._lines: dict[str, bytes] = {}
        self.aside: set[str] = set()
        """Records with an error."""

    def __getitem__(self, name: str) -> Record:
        """The record of an item."""
        fields = json.loads(self._lines[name])
        fields.pop("sum")
        return Record(**fields)

    def __setitem__(self, name: str, record: Record) -> None:
        """Keep a record."""
        assert name == record.id
        self.keep(record, record.line().encode().rstrip())

    def keep(self, record: Record, line: bytes) -> None:
        """Keep a record whose sealed line is known."""
        self._lines[record.id] = line + b"\n"
        (self.aside.discard if record.error is None else self.aside.add)(record.id)

    def __delitem__(self, name: str) -> None:
        """Forget a record."""
        del self._lines[name]
        self.aside.discard(name)

    def __contains__(self, name: object) -> bool:
        """Whether there is a record of an item."""
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        """The ids, in the order in which they came."""
        return iter(self._lines)

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._lines)

    def line(self, name: str) -> bytes:
        """The journal line of an item."""
        return self._lines[name]


class Good(Mapping[str, Record]):
    """Finished items of records in id order."""

    def __init__(self, records: Records) -> None:
        """Look at the records as they are now."""
        self._records = records
        self._names = sorted(records.keys() - records.aside)

    def __getitem__(self, name: str) -> Record:
        """The record of a finished item."""
        if name not in self:
            raise KeyError(name)
        return self._records[name]

    def __contains__(self, name: object) -> bool:
        """Whether an item is finished."""
        return name in self._records and name not in self._records.aside

    def __iter__(self) -> Iterator[str]:
        """The ids in order."""
        return iter(self._names)

    def __len__(self) -> int:
        """How many items are finished."""
        return len(self._names)


class Journal(NamedTuple):
    """What a journal tells."""

    records: Records
    """Finished and set-aside items by id; the latest line of an id wins."""
    begun: set[str]
    """Items that were begun and not finished."""
    damaged: list[str]
    """Lines that are no journal entries, or not what was written: ``number: why``."""


def begin_line(item_id: str) -> str:
    """The journal line that says that an item's files may be replaced from now on."""
    return sealed(json.dumps({"begin": True, "id": item_id}, separators=(",", ":"))) + "\n"


def read_journal(folder: Path) -> Records:
    """Finished and set-aside items by id."""
    found = scan_journal(folder)
    for text in found.damaged:
        _log.warning("%s:%s", folder / JOURNAL, text)
    return found.records


def scan_journal(folder: Path) -> Journal:
    """Read a journal; lines that cannot be used are skipped and named.

    Raises:
        InputError: it is larger than `limits.JOURNAL_BYTES`.
    """
    found = Journal(Records(), set(), [])
    path = folder / JOURNAL
    if not path.exists():
        return found
    with opened(path, limits.JOURNAL_BYTES) as stream:
        number = 0
        while line := stream.readline(limits.LINE_BYTES):
            number += 1
            try:
                _take(found, line.rstrip(b"\r\n"))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                reason = printable(str(error))[:200]
                found.damaged.append(
                    f"{number}: skipped a line that is no journal entry ({reason})"
                )
    return found


def _take(journal: Journal, line: bytes) -> None:
    """Add what a line says; lines of before there were check sums have none."""
    if not line:
        return
    fields = json.loads(line)
    has_sum = fields.pop("sum", None) is not None
    if has_sum and damaged(line):
        raise ValueError("its check sum does not fit")
    if fields.get("begin"):
        if fields.keys() != {"begin", "id"}:
            raise ValueError("it has other entries than 'begin' and 'id'")
        journal.begun.add(_text(fields["id"]))
        if fields["id"] in journal.records:
            journal.records[fields["id"]] = journal.records[fields["id"]].void()
    else:
        record = _record(fields)
        if has_sum:
            journal.records.keep(record, line)
        else:
            journal.records[record.id] = record
        journal.begun.discard(record.id)


def _record(fields: dict[str, Any]) -> Record:
    """The record of a line.

    Raises:
        ValueError: a field of another type, or a file name that leads out of the folder.
        TypeError: a field that does not exist.
    """
    record = Record(**fields)
    for text in (record.id, record.key, record.error or ""):
        _text(text)
    for kind in (record.files, record.inputs, record.set_aside):
        if not isinstance(kind, dict):
            raise ValueError(f"{kind!r} is not a mapping")
    for name, (size, time, made) in record.files.items():
        if escapes(name):
            raise ValueError(f"the name {name!r} would leave the folder")
        _numbers(size, time, made)
    for place, size, time, made in record.inputs.values():
        _numbers(size, time, made, place)
    return record


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _numbers(size: Any, time: Any, *texts: Any) -> None:
    if type(size) is not int or type(time) is not int:
        raise ValueError(f"{[size, time]} are not size and time")
    for text in texts:
        _text(text)


def header_text(header: Mapping[str, Any]) -> str:
    """A header as a file."""
    return sealed(json.dumps(header, indent=1)) + "\n"


def read_header(folder: Path) -> dict[str, Any] | None:
    """The header of an own artifact, or None for a foreign or absent folder.

    Raises:
        InputError: ``stage.json`` is there and is not a header, or not as it was written.
    """
    path = folder / HEADER
    if not path.exists():
        return None
    data = read_bytes(path, limits.HEADER_BYTES)
    try:
        header = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not a readable header ({error}); {_MEND}") from error
    if not isinstance(header, dict) or not isinstance(header.get("stage"), str):
        raise InputError(path, "not a header of this pipeline; remove this folder or name another")
    if (header.pop("sum", None) is not None or SINCE in header) and damaged(data.rstrip(b"\n")):
        raise InputError(path, f"changed since the pipeline wrote it (check sum); {_MEND}")
    for name in ("config", "facts", "totals", "outputs", "options", "settings"):
        if not isinstance(header.setdefault(name, {}), dict):
            raise InputError(path, f"{name} is not a mapping; {_MEND}")
    return header


SINCE = "journal"
"""Entry that every header with a check sum has."""
_MEND = "make it again with --force (make ... SET=--force), or remove this folder"


def tools() -> dict[str, str]:
    """Versions that could change results."""
    found = {"python": platform.python_version()}
    for name in ("dmnet", "numpy", "scipy", "torch", "torchvision", "opencv-python", "h5py"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
