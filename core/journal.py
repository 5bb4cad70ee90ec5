"""What an artifact folder is (``stage.json``) and holds (``items.jsonl``)."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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

    def line(self) -> str:
        """The journal line."""
        return json.dumps(self.__dict__, sort_keys=True, separators=(",", ":")) + "\n"

    def void(self) -> Record:
        """The record of an item that is being made again: only its files' names still count."""
        return replace(self, key="", error="was being made again when the run was stopped")


def read_journal(folder: Path) -> dict[str, Record]:
    """Finished and set-aside items by id.

    A torn last line is ignored; the latest line of an id wins.
    """
    path = folder / JOURNAL
    records: dict[str, Record] = {}
    if not path.exists():
        return records
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
            if fields.get("begin"):
                if fields["id"] in records:
                    records[fields["id"]] = records[fields["id"]].void()
            else:
                records[fields["id"]] = Record(**fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            _log.warning("%s: skipped a line that is not a journal entry (torn by a crash?)", path)
    return records


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
    except ValueError as error:
        raise InputError(
            path, f"not a readable header ({error}); remove this folder to make it again"
        ) from error
    if not isinstance(header, dict) or "stage" not in header:
        raise InputError(path, "not a header of this pipeline; remove this folder or name another")
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
