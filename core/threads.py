"""Work done ahead by threads or processes, results in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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
