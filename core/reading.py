"""Reading files that somebody else made: bounded, from regular files only, with named errors.

Every reader of the formats starts here. A pipe or a device never blocks a run, a size is looked at
before memory is taken, and what Python's own readers raise becomes an `InputError`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from dmnet.core import limits
from dmnet.core.errors import InputError
from dmnet.core.stubs import is_stub, present

DAMAGED = (ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, EOFError,
           RuntimeError, OverflowError, MemoryError, SyntaxError)  # fmt: skip
"""What libraries raise on a damaged file beside OSError (RecursionError is a RuntimeError)."""


_LONG = re.compile(rf"(?<![\d.])\d{{{limits.DIGITS + 1}}}")
"""What may be a whole number of too many digits; only then each number is looked at (slower)."""


@contextmanager
def opened(path: Path, limit: int = limits.FILE_BYTES) -> Iterator[BinaryIO]:
    """Open a regular file of at most ``limit`` bytes.

    Raises:
        InputError: it is missing, a folder, a pipe or a device, cannot be opened, or is larger.
    """
    try:
        stream = open(present(path), "rb", opener=_without_waiting)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(path, f"cannot be read ({reason})") from error
    with stream:
        state = os.fstat(stream.fileno())
        if is_stub(state):  # dropped from the cache in this moment
            raise InputError(path, "the cache is too small; give it more room (--cache-gb)")
        if not stat.S_ISREG(state.st_mode):
            raise InputError(path, "not a regular file (a pipe or a device?)")
        if state.st_size > limit:
            raise InputError(path, f"{state.st_size:,} bytes are more than the limit of {limit:,}")
        yield stream


def _without_waiting(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def read_bytes(path: Path, limit: int = limits.FILE_BYTES) -> bytes:
    """Contents of a regular file.

    Raises:
        InputError: see `opened`, or reading fails.
    """
    with opened(path, limit) as stream:
        try:
            return stream.read(os.fstat(stream.fileno()).st_size)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "not enough memory"
            raise InputError(path, f"cannot be read ({reason})") from error


def read_text(path: Path, limit: int = limits.TEXT_BYTES) -> str:
    """Read a UTF-8 text file; a byte-order mark is skipped, line ends become newlines.

    Raises:
        InputError: the file cannot be read, is too large, or is not text.
    """
    try:
        text = read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, f"not a text file (byte {error.start} is not UTF-8)") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, limit: int = limits.JSON_BYTES) -> Any:
    """Read a JSON file; whole numbers of more than `limits.DIGITS` digits become floats.

    Raises:
        InputError: as `read_text`; not JSON, nested too deeply (names line and column), or of more
            parts than memory should hold.
    """
    text = read_text(path, limit)
    parts, values = text.count("[") + text.count("{"), text.count(",")
    if parts > limits.JSON_PARTS or values > limits.JSON_VALUES:
        reason = f"{parts:,} lists and objects, {values:,} values: more than is read; split it"
        raise InputError(path, reason)
    try:
        return json.loads(text, parse_int=_whole if _LONG.search(text) else None)
    except json.JSONDecodeError as error:
        cut = "; the file is cut short" if error.pos >= len(text.rstrip()) else ""
        reason = f"not valid JSON ({error.msg} at column {error.colno}{cut})"
        raise InputError(path, reason, error.lineno) from error
    except RecursionError as error:
        raise InputError(path, "not valid JSON (nested too deeply)") from error
    except MemoryError as error:
        raise InputError(path, "not enough memory to read this JSON file") from error


def _whole(text: str) -> int | float:
    """A whole number, or what is no whole number to any reader: a float, perhaps infinite."""
    return int(text) if len(text.lstrip("-")) <= limits.DIGITS else float(text)


def is_whole(text: str, least: int = 0) -> bool:
    """Whether a text is a whole number from ``least`` up, of at most `limits.DIGITS` digits.

    >>> is_whole("12"), is_whole("0", least=1), is_whole("9" * 5000), is_whole("1.5")
    (True, False, False, False)
    """
    return text.isascii() and text.isdecimal() and len(text) <= limits.DIGITS and (
        int(text) >= least
    )  # fmt: skip


def refuse_many(path: Path, count: int, what: str = "objects") -> None:
    """Refuse a file with more objects of one image than any picture shows.

    Raises:
        InputError: more than `limits.OBJECTS`.
    """
    if count > limits.OBJECTS:
        raise InputError(path, f"{count:,} {what} of one image, more than {limits.OBJECTS:,}")


def shape_limit(shape: tuple[int, ...], itemsize: int, cells: int = limits.MAP_CELLS) -> str:
    """Why an array of a declared shape is not read; empty where it is.

    >>> shape_limit((60_000, 60_000), 4)
    'declares 60000x60000 values, more than the limit of 150,000,000'
    """
    total = 1
    for side in shape:
        if side < 0:
            return f"declares a side of {side} values"
        total *= side
    sides = "x".join(map(str, shape))
    if total > cells:
        return f"declares {sides} values, more than the limit of {cells:,}"
    return f"declares values of {itemsize} bytes each" if itemsize > 16 else ""


_CONTROL = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,100}(\.[A-Za-z0-9_-]{1,20})?")
"""What most names are, and nothing can be said against."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def bad_name(name: str) -> str:
    r"""Why a file name from a file or a folder is not used; empty where it is fine.

    >>> bad_name("a/b.jpg"), bad_name("../a.jpg"), bad_name("a\x07.jpg")
    ('', "climbs out of its folder with '..'", 'holds control characters')
    """
    if _PLAIN.fullmatch(name):
        return ""
    parts = PurePath(name).parts
    if not parts:
        return "is empty"
    if _CONTROL.search(name):
        return "holds control characters"
    if _SURROGATE.search(name):
        return "is not UTF-8"
    if name.startswith("/"):
        return "is an absolute path"
    if ".." in parts:
        return "climbs out of its folder with '..'"
    if max(len(part.encode()) for part in parts) > limits.NAME_BYTES:
        return f"is longer than {limits.NAME_BYTES} bytes"
    return ""
