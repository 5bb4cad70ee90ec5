"""How long a stage takes on a cluster: a seeded simulation, checked against runs on a Ray cluster.

    python -m benchmarks.cluster                                     the table of docs/scale.md
    python -m benchmarks.cluster --measure -n 200 --seconds 0.05     predicted and measured seconds
    python -m benchmarks.cluster --measure -n 274 --data visdrone    the same, of density maps
    python -m benchmarks.cluster -n 400 --seconds .007 --serial .004 what more workers gain

The simulation gives parcels of items to workers as `dmnet.pipeline.executors` does. Seconds of an
item are log-normal, every worker is slower or faster by a factor of its own (stragglers), and
machines fail at random; a parcel whose machine fails is done again by whoever is free, and the
machine comes back after a while. The measured runs do work that sleeps as long as the simulation
says, so that they measure the engine and not the processor, or make density maps.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.work import MOST, Work

PER_PARCEL = 0.004
"""Seconds between two parcels of one worker: asking, sending, journal (assumed; see --measure)."""


@dataclass(frozen=True)
class Cluster:
    """A cluster and its troubles."""

    workers: int
    seconds: float
    """mean time of an item"""
    spread: float = 0.3
    """standard deviation of the logarithm of an item's time"""
    straggling: float = 0.1
    """standard deviation of the logarithm of a worker's own factor"""
    start: float = 20.0
    """until a worker is ready: process, imports, network"""
    mtbf: float = float("inf")
    """mean seconds between two failures of one worker's machine"""
    repair: float = 300.0
    """until a failed machine is back"""
    serial: float = 0.0
    """of an item, in the one process that plans and keeps the journal: before the workers have
    anything to do (what is fresh?) and after (journal, files that sum up all items)"""


@dataclass
class Outcome:
    """What a simulated run took."""

    wall: float
    again: int = 0
    """parcels that were done again"""


def simulate(items: int, cluster: Cluster, seed: int = 0) -> Outcome:
    """Wall seconds of one stage.

    >>> round(simulate(1600, Cluster(4, 0.1, 0.0, 0.0, 0.0)).wall, 2)  # 100 parcels of 1.604 s
    40.1
    >>> round(simulate(1600, Cluster(4, 0.1, 0.0, 0.0, 0.0, serial=0.01)).wall, 2)
    56.1
    """
    rng = np.random.default_rng(seed)
    size = parcel_size(items, cluster.workers)
    work = rng.lognormal(-(cluster.spread**2) / 2, cluster.spread, items) * cluster.seconds
    parcels = [float(part.sum()) for part in np.array_split(work, -(-items // size))]
    factors = rng.lognormal(0, cluster.straggling, cluster.workers)
    fails = rng.exponential(1, cluster.workers) * cluster.mtbf
    free = [(cluster.start, worker) for worker in range(cluster.workers)]
    heapq.heapify(free)
    outcome = Outcome(0.0)
    returned: list[tuple[float, float]] = []  # parcels of failed machines, by time
    while parcels or returned:
        now, worker = heapq.heappop(free)
        if returned and (returned[0][0] <= now or not parcels):
            when, seconds = heapq.heappop(returned)
            now = max(now, when)
        else:
            seconds = parcels.pop()
        done = now + seconds * float(factors[worker]) + PER_PARCEL
        if done <= fails[worker]:
            outcome.wall = max(outcome.wall, done)
            heapq.heappush(free, (done, worker))
            continue
        failed = max(now, float(fails[worker]))
        heapq.heappush(returned, (failed, seconds))
        outcome.again += 1
        back = failed + cluster.repair + cluster.start
        fails[worker] = back + rng.exponential(1) * cluster.mtbf
        heapq.heappush(free, (back, worker))
    outcome.wall += items * cluster.serial
    return outcome


def sleeps(times: list[float], item: Item) -> Product:
    """Work that takes as long as it is told."""
    time.sleep(times[int(item.id)])
    return Product({f"{item.id}.txt": b"done"})


def parcel_size(items: int, workers: int) -> int:
    """Items of a parcel, as `dmnet.core.work.parcels` has them."""
    return max(1, min(MOST, items // (4 * workers)))


def processor_seconds() -> float:
    """What this process and all that descend from it have used (Linux), Ray's own ones too."""
    fields = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    mine = {os.getpid()}
    for pid in sorted(fields):  # parents come first
        if int(fields[pid][1]) in mine:
            mine.add(pid)
    ticks = sum(int(fields[pid][11]) + int(fields[pid][12]) for pid in mine)
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(
    work: Work, items: list[Item], executor: str, workers: int
) -> tuple[int, float, float]:
    """Items after the first parcel of every worker, their seconds and processor seconds.

    So the start of the workers is left out.
    """
    from dmnet.pipeline.executors.base import Engine
    from dmnet.pipeline.executors.choose import executor_for

    first = workers * parcel_size(len(items), workers)
    marks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        carrier = executor_for(Engine(executor, workers)).tasks(work, "measured")
        with Artifact(Path(name) / "out", "measured", 1, {}) as artifact:
            done = carrier(artifact.root, items, lambda _item: frozenset())
            for count, _ in enumerate(done, 1):
                if count in (first, len(items)):
                    marks.append((time.perf_counter(), processor_seconds()))
    (began, used), (ended, used_then) = marks
    return len(items) - first, ended - began, used_then - used


def maps(data: Path, count: int, folder: Path) -> tuple[Work, list[Item]]:
    """Work and items of stage ``density`` on a validation split: full-size maps."""
    from dmnet.pipeline.context import Context, stage_module

    settings = {"density": {"stride": 1}}
    plan = stage_module("density").plan(Context(data, artifacts=folder, settings=settings))
    assert plan.work is not None and plan.prepare is not None
    plan.prepare()
    return plan.work, plan.items[:count]


def main() -> None:
    """Print the table, or predicted and measured seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="run on this machine too")
    parser.add_argument("--data", type=Path, help="measure density maps of these annotations")
    parser.add_argument("-n", type=int, default=400, help="items of a measured run")
    parser.add_argument("--seconds", type=float, default=0.337, help="mean time of an item")
    parser.add_argument(
        "--serial", type=float, help="seconds of an item in one process: a forecast"
    )
    parser.add_argument("--start", type=float, default=1.0, help="until a worker is ready")
    args = parser.parse_args()
    if args.measure:
        logging.disable(logging.INFO)
        with tempfile.TemporaryDirectory() as name:
            asleep = [Item(f"{index:06d}") for index in range(args.n)]
            doing = partial(sleeps, drawn(args.n, args.seconds)), asleep
            compare(*(doing if args.data is None else maps(args.data, args.n, Path(name))))
        return
    if args.serial is not None:
        forecast(args.n, args.seconds, args.serial, args.start)
        return
    print("| pictures | workers | failures a worker and day | wall | done again | of ideal |")
    print("|---:|---:|---:|---:|---:|---:|")
    for items, workers, a_day in ((10**4, 1, 0), (10**4, 8, 0), (10**6, 8, 1), (10**6, 64, 1),
                                  (10**6, 64, 10), (10**8, 64, 1)):  # fmt: skip
        mtbf = 86_400 / a_day if a_day else float("inf")
        cluster = Cluster(workers, args.seconds, mtbf=mtbf)
        scale = max(1, items // 10**6)  # beyond a million the parcels repeat: one part in `scale`
        found = simulate(items // scale, cluster)
        wall = found.wall * scale
        print(
            f"| {items:,} | {workers} | {a_day} | {wall / 3600:.2f} h | {found.again * scale} | "
            f"{items * args.seconds / workers / wall:.3f} |"
        )


def forecast(items: int, seconds: float, serial: float, start: float) -> None:
    """What more workers gain where one process does a part of each item itself."""
    alone = items * (seconds + serial)  # one worker is that process: nothing has to start
    print("| workers | s | quicker |\n|---:|---:|---:|")
    for workers in (1, 2, 4, 8):
        cluster = Cluster(workers, seconds, start=start, serial=serial)
        wall = alone if workers == 1 else simulate(items, cluster).wall
        print(f"| {workers} | {wall:.1f} | {alone / wall:.2f} x |")


def drawn(items: int, seconds: float) -> list[float]:
    """Seconds of items, log-normal."""
    times: list[float] = (np.random.default_rng(0).lognormal(-0.045, 0.3, items) * seconds).tolist()
    return times


def compare(work: Work, items: list[Item]) -> None:
    """Predicted and measured seconds, local and on Ray, with one and with two workers.

    The one local worker is this process, from which the mean time of an item is taken.
    """
    print("| engine | workers | items | s | items/s | predicted s | processor ms an item |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    seconds = 0.0
    for executor in ("local", "ray"):
        for workers in (1, 2):
            left, wall, used = measured(work, items, executor, workers)
            seconds = seconds or wall / left
            predicted = simulate(left, Cluster(workers, seconds, 0.3, 0.0, 0.0)).wall
            print(
                f"| {executor} | {workers} | {left} | {wall:.1f} | {left / wall:.1f} | "
                f"{predicted:.1f} | {used / left * 1000:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
