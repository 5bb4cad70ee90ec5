"""This machine: work by processes, networks in this process or one process a device."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue

from dmnet.core.products import Item
from dmnet.core.work import (
    Carrier,
    Done,
    Stream,
    Take,
    Taken,
    Work,
    by_processes,
    do_stream,
    hold,
    in_parcels,
    parcels,
    streamed,
)
from dmnet.pipeline.executors.base import Load


@dataclass(frozen=True)
class Local:
    """Processes of this machine.

    Args:
        workers: processes for work on single items; 0: one for every 64 items up to the cores.
        devices: where networks run; each of several gets a process of its own.
    """

    workers: int
    devices: list[str]

    def tasks(self, work: Work, label: str) -> Carrier:
        """Carry out work on single items, by processes."""

        def carry(root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
            workers = self.workers or max(1, min(os.cpu_count() or 1, len(items) // 64))
            return by_processes(work, workers)(root, items, take)

        return carry

    def networks(self, load: Load, label: str) -> Carrier:
        """Put items through a network on each device."""
        if len(self.devices) == 1:
            return streamed(partial(load, self.devices[0]))
        return partial(by_devices, load, self.devices)


def by_devices(
    load: Load, devices: list[str], root: Path, items: Collection[Item], take: Take
) -> Iterator[Done]:
    """Put items through a network, one process a device; see `Carrier`."""
    count = min(len(devices), len(items))
    if not count:
        return
    spawn = multiprocessing.get_context("spawn")
    free: Queue[str] = spawn.Manager().Queue()
    for name in devices[:count]:
        free.put(name)
    with ProcessPoolExecutor(count, spawn, hold, (_OnDevice(load, root, free),)) as pool:
        yield from in_parcels(pool, parcels(items, count), take, 2 * count)


class _OnDevice:
    """What a process does with parcels; takes a device and loads the network at the first one."""

    def __init__(self, load: Load, root: Path, free: Queue[str]) -> None:
        self.load, self.root, self.free = load, root, free
        self.stream: Stream | None = None

    def __call__(self, parcel: list[Taken]) -> list[Done]:
        """Put a parcel through the network."""
        if self.stream is None:
            self.stream = self.load(self.free.get())
        return do_stream(self.root, self.stream, parcel)
