"""What an artifact folder is (``stage.json``) and holds (``items.jsonl``)."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

from dmnet.core.errors import InputError
from dmnet.core.files import Stamp

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
        return json.dumps(fields, sort_keys=True, separators=(",", ":")) + "\n"

    def void(self) -> Record:
        """The record of an item that is being made again: only its files' names still count."""
        return replace(self, key="", error="was being made again when the run was stopped")


def escapes(name: str) -> bool:
    """Whether a file name would lead out of the folder that it is relative to."""
    return name in ("", ".") or PurePath(name).is_absolute() or ".." in PurePath(name).parts


def read_journal(folder: Path) -> dict[str, Record]:
    """Finished and set-aside items by id.

    A torn last line is ignored; the latest line of an id wins.
    """
    return scan_journal(folder)[0]


def scan_journal(folder: Path) -> tuple[dict[str, Record], set[str]]:
    """As `read_journal`, and the ids of items that were begun and not finished."""
    path = folder / JOURNAL
    records: dict[str, Record] = {}
    begun: set[str] = set()
    if not path.exists():
        return records, begun
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            fields = json.loads(line)
            if fields.get("begin"):
                begun.add(_text(fields["id"]))
                if fields["id"] in records:
                    records[fields["id"]] = records[fields["id"]].void()
            else:
                record = _record(fields)
                records[record.id] = record
                begun.discard(record.id)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("%s:%d: skipped a line that is no journal entry (%s)", path, number, error)
    return records, begun


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


def read_header(folder: Path) -> dict[str, Any] | None:
    """The header of an own artifact, or None for a foreign or absent folder.

    Raises:
        InputError: ``stage.json`` is there and is not a header.
    """
    path = folder / HEADER
    if not path.exists():
        return None
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            path, f"not a readable header ({error}); remove this folder to make it again"
        ) from error
    if not isinstance(header, dict) or not isinstance(header.get("stage"), str):
        raise InputError(path, "not a header of this pipeline; remove this folder or name another")
    for name in ("config", "facts", "totals", "outputs", "options", "settings"):
        if not isinstance(header.setdefault(name, {}), dict):
            raise InputError(path, f"{name} is not a mapping; remove this folder to make it again")
    return header


def tools() -> dict[str, str]:
    """Versions that could change results."""
    found = {"python": platform.python_version()}
    for name in ("dmnet", "numpy", "scipy", "torch", "torchvision", "opencv-python", "h5py"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
