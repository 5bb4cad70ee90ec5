"""Finished and set-aside items of an artifact's journal, by id, in little memory."""

from __future__ import annotations

import json
import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from dmnet.core.errors import InputError
from dmnet.core.files import Stamp
from dmnet.core.seal import sealed

Inputs = dict[str, list[Any]]
"""``[path, size, mtime_ns, digest]`` of each input file of an item, by its role."""

BLOCK = 16_384
"""Bytes that are read of a journal at first: a line, and most often those asked for next."""


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

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Record:
        """The record of a journal line.

        Raises:
            ValueError: a field of another type, or a file name that leads out of the folder.
            TypeError: a field that does not exist.
        """
        record = cls(**fields)
        for text in (record.id, record.key, record.error or ""):
            text_of(text)
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

    def line(self) -> str:
        """The journal line; what is empty by default is left out."""
        fields = {k: v for k, v in self.__dict__.items() if v or k not in ("warnings", "set_aside")}
        return sealed(json.dumps(fields, sort_keys=True, separators=(",", ":"))) + "\n"

    def void(self) -> Record:
        """The record of an item that is being made again: only its files' names still count."""
        return replace(self, key="", error="was being made again when the run was stopped")


@dataclass(frozen=True, slots=True)
class Head:
    """What of a usual journal line tells whether its item is fresh; the value is not parsed."""

    id: str
    key: str
    _files: str
    _inputs: str

    @classmethod
    def of(cls, line: bytes) -> Head | None:
        """The head of a line; None if the line is not a usual one."""
        usual = _USUAL.match(line.decode("ascii", "replace"))
        return None if usual is None else cls(usual[2], usual[4], usual[1], usual[3])

    @property
    def files(self) -> dict[str, Stamp]:
        """As `Record.files`."""
        return {n: [int(size), int(t), made] for n, size, t, made in _FILE.findall(self._files)}

    @property
    def inputs(self) -> Inputs:
        """As `Record.inputs`."""
        found = _INPUT.findall(self._inputs)
        return {n: [path, int(size), int(t), made] for n, path, size, t, made in found}

    @property
    def error(self) -> str | None:
        """A usual line is that of a finished item."""
        return None


_TEXT = r"[ !#-\[\]-~]+"
"""Text as it stands in JSON, if no character of it has to be escaped."""
_STAMP = r'([0-9]{1,18}),([0-9]{1,19}),"(\w*)"'
_INSIDE = rf'"((?!/|\."|[^"]*\.\.){_TEXT})":\[{_STAMP}\]'
_ANYWHERE = rf'"({_TEXT})":\["({_TEXT})",{_STAMP}\]'
_FILE, _INPUT = re.compile(_INSIDE), re.compile(_ANYWHERE)


def _several(entry: str) -> str:
    """Pattern of several entries, or of none; one group."""
    one = re.sub(r"\((?!\?)", "(?:", entry)
    return rf"\{{((?:{one}(?:,{one})*)?)\}}"


_USUAL = re.compile(
    rf'\{{"error":null,"files":{_several(_INSIDE)},"id":"({_TEXT})",'
    rf'"inputs":{_several(_ANYWHERE)},"key":"(\w+)"'
)
"""How the line of a finished item begins: names in the folder, and nothing escaped."""


def escapes(name: str) -> bool:
    """Whether a file name would lead out of the folder that it is relative to."""
    return name in ("", ".") or name.startswith("/") or ".." in name.split("/")


def text_of(value: Any) -> str:
    """A text.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _numbers(size: Any, time: Any, *texts: Any) -> None:
    if type(size) is not int or type(time) is not int:
        raise ValueError(f"{[size, time]} are not size and time")
    for text in texts:
        text_of(text)


class Records(MutableMapping[str, Record]):
    """Records by id: each is a place in the open journal, or its line where it is not there.

    A record that is taken out is a new object: whoever changes one puts it back. The journal stays
    readable when another one takes its name.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._lines: dict[str, bytes | int] = {}
        self._journal = -1
        self._block = (0, b"")
        self._flush: Callable[[], None] | None = None
        self.aside: set[str] = set()
        """Records with an error."""
        self.partial: set[str] = set()
        """Records of items for which inputs were set aside."""

    def read_from(self, journal: int, flush: Callable[[], None] | None = None) -> None:
        """Tell where places are.

        Args:
            journal: descriptor of the open journal; it is duplicated.
            flush: brings out what was written and cannot be read yet.
        """
        if self._journal < 0:
            self._journal = os.dup(journal)
            weakref.finalize(self, os.close, self._journal)
        self._flush = flush or self._flush

    def settled(self) -> None:
        """All is written: whoever brought it out is not held any more, and can go."""
        self._flush = None

    def __getitem__(self, name: str) -> Record:
        """The record of an item.

        Raises:
            InputError: the line has the right check sum, and is no journal entry all the same.
        """
        line = self.line(name)
        try:
            fields = json.loads(line)
            fields.pop("sum")
            if fields.get("id") != name:
                raise ValueError("its id occurs twice")
            return Record.of(fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"its journal line is no entry ({error}); make it again with --force"
            raise InputError(name, why) from error

    def head(self, name: str) -> Head | Record | None:
        """What is needed of a record to know whether its item is fresh; None if there is none.

        Raises:
            InputError: see `__getitem__`.
        """
        if name not in self._lines:
            return None
        head = Head.of(self.line(name))
        return head if head is not None and head.id == name else self[name]

    def keys_in_order(self) -> Iterator[tuple[str, str]]:
        """Id and key of every record, in the order of the ids.

        The entries of a line are sorted, and in all before the key, no text follows ``"key":``.
        """
        for name in sorted(self):
            _, _, rest = self.line(name).partition(b'"key":"')
            yield name, rest[: rest.index(b'"')].decode()

    def __setitem__(self, name: str, record: Record) -> None:
        """Keep a record."""
        assert name == record.id
        self.keep(record, record.line().encode())

    def keep(self, record: Record, line: bytes | int) -> None:
        """Keep a record whose sealed line, or its place, is known."""
        self.found(record.id, line, bad=record.error is not None, partial=bool(record.set_aside))

    def found(self, name: str, line: bytes | int, *, bad: bool, partial: bool) -> None:
        """Keep the line of a record, or its place, without a look at it."""
        self._lines[name] = line
        (self.aside.add if bad else self.aside.discard)(name)
        (self.partial.add if partial else self.partial.discard)(name)

    def __delitem__(self, name: str) -> None:
        """Forget a record."""
        del self._lines[name]
        self.aside.discard(name)
        self.partial.discard(name)

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
        found = self._lines[name]
        if isinstance(found, bytes):
            return found
        data = self._read(found)
        if not data and self._flush is not None:
            self._flush()
            data = self._read(found)
        if not data:
            raise InputError(name, "its line of the journal is gone; run the same command again")
        return data

    def _read(self, place: int) -> bytes:
        """The line at a place of the journal; nothing if it has no end yet."""
        at, data = self._block
        if at <= place < at + len(data) and (end := data.find(b"\n", place - at)) >= 0:
            return data[place - at : end + 1]
        size = BLOCK
        data = os.pread(self._journal, size, place)
        while (end := data.find(b"\n")) < 0 and len(data) == size:
            size *= 8
            data = os.pread(self._journal, size, place)
        self._block = (place, data[:BLOCK])
        return data[: end + 1]


class Good(Mapping[str, Record]):
    """Finished items of records in id order."""

    def __init__(self, records: Records) -> None:
        """Look at the records as they are now."""
        self._records = records
        self._names = sorted(name for name in records if name not in records.aside)

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
