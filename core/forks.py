"""Looking at many things side by side, in copies of this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")

PROCESSES = 4
"""So many look side by side at most; each copy of this process may take as much memory."""

FEW = 50_000
"""Things that one process looks at as quickly as several."""


def parts(things: int, few: int = FEW) -> int:
    """Into how many parts a look at so many things is worth being cut.

    >>> parts(100)
    1
    """
    return max(1, min(PROCESSES, len(os.sched_getaffinity(0)), things // few))


def side_by_side(function: Callable[[T], Any], given: Sequence[T]) -> list[Any]:
    """``function`` of each of the parts: the last here, each other one by a copy of this process.

    A copy sees all that this process holds; what it changes is its own. Where one ends without a
    result, because of an error or of a lack of memory, its part is done here.

    Args:
        function: what is done; its results are JSON-ready.
        given: the parts; at least one.
    """
    copies = [_copy(function, part) for part in given[:-1]]
    last = function(given[-1])
    return [*(_result(function, part, *copy) for part, copy in zip(given, copies, strict=False)),
            last]  # fmt: skip


def _copy(function: Callable[[T], Any], part: T) -> tuple[int, BinaryIO]:
    reading, writing = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            with open(writing, "w", encoding="ascii") as stream:  # noqa: PTH123 - a descriptor
                stream.write(json.dumps(function(part)))
        finally:
            os._exit(0)
    os.close(writing)
    return copy, open(reading, "rb")  # noqa: PTH123 - a descriptor


def _result(function: Callable[[T], Any], part: T, copy: int, stream: BinaryIO) -> Any:
    with stream:
        said = stream.read()
    os.waitpid(copy, 0)
    return json.loads(said) if said else function(part)
