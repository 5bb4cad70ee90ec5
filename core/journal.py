"""What an artifact folder is (``stage.json``) and holds (``items.jsonl``)."""

from __future__ import annotations

import json
import logging
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from dmnet.core import limits
from dmnet.core.errors import InputError, printable
from dmnet.core.finished import Record, Records, text_of
from dmnet.core.reading import opened, read_bytes
from dmnet.core.seal import damaged, sealed

HEADER, JOURNAL = "stage.json", "items.jsonl"
_log = logging.getLogger(__name__)


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
        found.records.read_from(stream.fileno())
        number = place = 0
        while line := stream.readline(limits.LINE_BYTES):
            number += 1
            try:
                if not _take_usual(found, line, place):
                    _take(found, line.rstrip(b"\r\n"))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                reason = printable(str(error))[:200]
                found.damaged.append(
                    f"{number}: skipped a line that is no journal entry ({reason})"
                )
            place += len(line)
    return found


_USUAL = re.compile(
    rb'\{"error":null,"files":\{[^{}]*\},"id":"([ !#-\[\]-~]+)","inputs":\{[^{}]*\},"key":"\w'
)
"""How the line of a finished item begins that has no character to be escaped."""

_BEGUN = re.compile(rb'\{"begin":true,"id":"([ !#-\[\]-~]+)","sum":"\w+"\}\n')
"""The line of an item that was begun, alike."""


def _take_usual(journal: Journal, line: bytes, place: int) -> bool:
    """Keep the place of a finished item's line, which is parsed when somebody asks for it."""
    finished = _USUAL.match(line)
    known = finished or _BEGUN.fullmatch(line)
    if known is None or line[-2:] != b"}\n" or damaged(line[:-1]):
        return False
    name = intern(known[1].decode())
    if finished:
        journal.records.found(name, place, bad=False, partial=b',"set_aside":{' in line)
        journal.begun.discard(name)
    else:
        _begin(journal, name)
    return True


def _begin(journal: Journal, name: str) -> None:
    """Note that an item was begun: nothing is known of its files until it is finished."""
    journal.begun.add(name)
    if name in journal.records:
        journal.records[name] = journal.records[name].void()


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
        _begin(journal, text_of(fields["id"]))
    else:
        record = Record.of(fields)
        if has_sum:
            journal.records.keep(record, line + b"\n")
        else:
            journal.records[record.id] = record
        journal.begun.discard(record.id)


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
