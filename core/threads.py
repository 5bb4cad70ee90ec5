"""Work done ahead by threads or processes, results in order."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_END: Any = object()


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items, made in a thread up to ``depth`` before they are asked for.

    >>> list(ahead([1, 2, 3]))
    [1, 2, 3]
    """
    source = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, source, _END) for _ in range(depth))
        while (item := coming.popleft().result()) is not _END:
            coming.append(thread.submit(next, source, _END))
            yield item


def looked_at(
    items: Iterable[T], paths: Callable[[T], Iterable[Path]], threads: int = 16
) -> Iterator[T]:
    """The same items; threads have asked for the state of their files just before.

    On a file system behind a network the answers come side by side then, and are still known when
    the caller asks. Where the first answer of some hundred items comes at once, nobody asks twice.

    Args:
        items: taken `LOOKED` at a time.
        paths: files of an item.
        threads: how many ask at once.
    """
    source = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(itertools.islice(source, LOOKED)):
            start = time.perf_counter()
            _look(paths(some[0]))
            if time.perf_counter() - start > SLOW:
                list(pool.map(_look, ([p for i in some[n::threads] for p in paths(i)]
                                      for n in range(threads))))  # fmt: skip
            yield from some


SLOW = 5e-4
"""Seconds from which on the state of an item's files is worth being asked for ahead."""

LOOKED = 512
"""Items whose files are looked at together."""


def _look(paths: Iterable[Path]) -> None:
    """Ask for the state of files; whoever needs them notices what is wrong with them."""
    for path in paths:
        with suppress(OSError, ValueError):
            path.stat()


def map_ahead(function: Callable[[T], R], items: Iterable[T], threads: int = 1) -> Iterator[R]:
    """Yield ``function(item)`` for every item, in order, while threads work on the next ones.

    Items are taken lazily: at most ``threads + 1`` of them are under way or wait to be taken, so
    that memory stays bounded. An exception of the function is raised where its result would be.

    Args:
        function: work that may run beside the caller's (decoding, a network, writing).
        items: anything iterable, also endless.
        threads: how many items are worked on at once.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield from submit_ahead(pool, function, items, threads + 1)
    finally:
        pool.shutdown(cancel_futures=True)


def submit_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], depth: int
) -> Iterator[R]:
    """As `map_ahead`, in a given pool of threads or processes.

    Args:
        pool: who does it.
        function: what is done.
        items: taken lazily.
        depth: items under way or waiting to be taken, at most.
    """
    rest = iter(items)
    waiting: deque[Future[R]] = deque()
    try:
        for item in itertools.islice(rest, depth):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.popleft().result()
            for item in itertools.islice(rest, 1):
                waiting.append(pool.submit(function, item))
            yield result
    finally:
        for future in waiting:
            future.cancel()
