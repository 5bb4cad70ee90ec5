"""Carrying out the work on items: here, in one stream, or by processes of this machine.

A carrier gets the items that are to be done and yields ``(item, result)``, in any order. It writes
the items' files; the journal has one writer, who is told before (``take``) and after (what is
yielded). Engines beyond this machine are carriers too (`dmnet.pipeline.executors`).
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Protocol, TypeVar

from dmnet.core.errors import InputError, LostWorkerError
from dmnet.core.finished import Record
from dmnet.core.products import Item, Product, Result, work_on
from dmnet.core.threads import submit_ahead

T = TypeVar("T")

Own = frozenset[str] | None
"""Files that an item may replace; None: any."""

Taken = tuple[Item, Own]
"""An item that is about to be made, and the files that it may replace."""

Take = Callable[[Sequence[Item]], list[Taken]]
"""Announces items that are about to be made."""

Done = tuple[Item, Record | InputError]

Work = Callable[[Item], Product]
"""Work on one item."""

Stream = Callable[[list[Item]], Iterator[tuple[Item, Result]]]
"""Work on many items at once, in order: for networks that take batches across items."""

MOST = 16
"""Items of one parcel for a worker, at most."""


class Carrier(Protocol):
    """Carries out the work on items."""

    def __call__(self, root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
        """Do all items; ``take`` is called before files of items are written."""
        ...


def here(work: Work) -> Carrier:
    """One item after the other, in this process."""

    def carry(root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
        for item in items:
            [(_, own)] = take([item])
            yield item, work_on(root, work, item, own)

    return carry


def streamed(open_stream: Callable[[], Stream]) -> Carrier:
    """One stream over all items, in this process; opened when there is something to do."""

    def carry(root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
        if len(items):
            for item, result in open_stream()(list(items)):
                [(_, own)] = take([item])
                yield item, written(root, item, result, own)

    return carry


def written(root: Path, item: Item, result: Result, own: Own) -> Record | InputError:
    """Write what a stream gave for an item."""
    if isinstance(result, InputError):
        return result
    return work_on(root, lambda _: result, item, own)


def by_processes(work: Work, workers: int) -> Carrier:
    """Several processes of this machine; a single item is done in this one."""

    def carry(root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
        if workers <= 1 or len(items) < 2:
            yield from here(work)(root, items, take)
            return
        with ProcessPoolExecutor(
            workers, get_context("spawn"), hold, (partial(do_parcel, root, work),)
        ) as pool:
            yield from in_parcels(pool, parcels(items, workers), take, 4 * workers)

    return carry


def in_parcels(
    pool: ProcessPoolExecutor,
    listed: Iterable[list[Item]],
    take: Take,
    depth: int,
) -> Iterator[Done]:
    """Give parcels of items to processes that `hold` what is to be done with them.

    Args:
        pool: the processes.
        listed: the parcels; taken when a process is about to need one.
        take: see `Carrier`.
        depth: parcels under way or waiting, at most.

    Raises:
        LostWorkerError: a process was ended from outside.
    """
    try:
        for done in submit_ahead(pool, _do_held, map(take, listed), depth):
            yield from done
    except BrokenProcessPool as error:
        raise LostWorkerError(
            "a worker process was ended from outside, perhaps because memory ran out; what is done "
            "is kept, and the same command goes on from there (fewer --workers need less memory)"
        ) from error


_held: Callable[[list[Taken]], list[Done]]


def hold(do: Callable[[list[Taken]], list[Done]]) -> None:
    """Keep in a worker process what is the same for all parcels: it is sent once."""
    global _held
    _held = do
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone, however that ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do_held(jobs: list[Taken]) -> list[Done]:
    return _held(jobs)


def do_parcel(root: Path, work: Work, jobs: Sequence[Taken]) -> list[Done]:
    """Do a parcel of items; runs in the worker."""
    return [(item, work_on(root, work, item, own)) for item, own in jobs]


def do_stream(root: Path, stream: Stream, jobs: Sequence[Taken]) -> list[Done]:
    """Put a parcel of items through a stream; runs in the worker."""
    own = {item.id: names for item, names in jobs}
    results = stream([item for item, _ in jobs])
    return [(item, written(root, item, result, own[item.id])) for item, result in results]


def parcels(items: Collection[Item], workers: int) -> Iterator[list[Item]]:
    """Parcels of at most `MOST` items, at least four a worker where there are enough items.

    Neighbours with the same input files stay together, so that a file is read once.

    >>> [len(parcel) for parcel in parcels([Item(str(i)) for i in range(20)], 2)]
    [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    listed = itertools.groupby(items, _files)
    groups: Iterator[list[Item]] = (list(group) for _, group in listed)
    first = list(itertools.islice(groups, 4 * workers * MOST))
    size = max(1, len(first) // (4 * workers))
    groups = itertools.chain(first, groups)
    while parcel := list(itertools.islice(groups, size)):
        yield [item for group in parcel for item in group]


def _files(item: Item) -> tuple[Path, ...] | tuple[str]:
    return tuple(item.files.values()) or (item.id,)
