"""A Ray cluster: items in parcels as tasks, networks in actors that load them once.

Workers write the files of their items, so the artifact folder has to be on a file system that all
machines see under the same path; what comes back is small. This process keeps the journal. A parcel
whose worker or machine is lost is done again elsewhere: the same files, one line in the journal.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dmnet.core.errors import ConfigError, DmnetError, LostWorkersError, optional
from dmnet.core.products import Item
from dmnet.core.work import (
    Carrier,
    Done,
    Stream,
    Take,
    Taken,
    Work,
    do_parcel,
    do_stream,
    here,
    parcels,
)
from dmnet.pipeline.executors.base import Engine, Load

_log = logging.getLogger(__name__)

LOSSES = 3
"""A parcel that lost its worker more often than this is given up: it may be what kills them."""

AHEAD = 3
"""Parcels under way or waiting for each core."""

CORES = 4
"""Cores of an actor on a CPU, where ``--ray-actors`` does not say how many there are."""

STARTS = 4
"""Attempts to start a cluster of our own: Ray waits 30 seconds, a busy machine needs more."""

SAID = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}
"""What Ray is told where the environment says nothing: usage is sent to nobody, and workers have
the priority of this process (else 15 below it: on a busy machine they hardly get a turn)."""

STORE = 100_000_000
"""Bytes of shared memory of a cluster of our own; results are journal lines, a few kB a parcel."""


@dataclass(frozen=True)
class OnRay:
    """Executor on a Ray cluster; see `Engine` for the fields."""

    ray: Any
    engine: Engine

    @classmethod
    def of(cls, engine: Engine) -> OnRay:
        """The executor for a run.

        Raises:
            ConfigError: several devices are named; Ray hands out GPUs itself.
            MissingExtraError: the extra ``ray`` is not installed.
        """
        if len(engine.devices) > 1:
            raise ConfigError(
                f"--device {engine.device}: Ray hands out GPUs itself; use --ray-actors instead"
            )
        return cls(optional("ray", "ray"), engine)

    def tasks(self, work: Work, label: str) -> Carrier:
        """Carry out work on single items; a single item (a training) is done in this process."""

        def carry(root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
            if len(items) < 2:
                yield from here(work)(root, items, take)
                return
            with connected(self.ray, self.engine):
                do = partial(do_parcel, root.absolute(), work)
                yield from self._tasks(do, label, items, take)

        return carry

    def networks(self, load: Load, label: str) -> Carrier:
        """Put items through a network in actors."""

        def carry(root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
            if len(items):
                with connected(self.ray, self.engine):
                    yield from self._actors(load, label, root.absolute(), items, take)

        return carry

    def _tasks(
        self,
        do: Callable[[list[Taken]], list[Done]],
        label: str,
        items: Collection[Item],
        take: Take,
    ) -> Iterator[Done]:
        ray = self.ray
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        shared = ray.put(do)
        task = ray.remote(_task)
        waiting: dict[Any, list[Item]] = {}
        listed = parcels(items, cores)
        try:
            while True:
                for parcel in itertools.islice(listed, AHEAD * cores - len(waiting)):
                    taken = take(parcel)
                    name = f"{label}: {parcel[0].id}"
                    named = task.options(num_cpus=1, max_retries=LOSSES, name=name)
                    waiting[named.remote(str(Path.cwd()), shared, taken)] = parcel
                if not waiting:
                    return
                ready, _ = ray.wait(list(waiting), num_returns=1)
                parcel = waiting.pop(ready[0])
                try:
                    found = got(ray, ready[0])
                except losses(ray) as error:
                    raise lost_error(parcel, error) from error
                yield from found
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _actors(
        self,
        load: Load,
        label: str,
        root: Path,
        items: Collection[Item],
        take: Take,
    ) -> Iterator[Done]:
        crew = Crew(self.ray, *self._size(len(items)), load, label, root, self.engine.device)
        listed = parcels(items, crew.count)
        try:
            yield from crew.carry(map(take, listed))
        finally:
            crew.dismiss()

    def _size(self, items: int) -> tuple[int, dict[str, float]]:
        """How many actors, and what each of them needs: no more than the smallest machine has.

        A machine that is lost may still be counted; an actor that only it could hold would wait
        for ever.
        """
        has = self.ray.cluster_resources()
        cores, gpus = int(has.get("CPU", 1)), has.get("GPU", 0)
        share = self.engine.ray_gpus if gpus and self.engine.device != "cpu" else 0.0
        usual = int(gpus / share) if share else max(1, cores // CORES)
        count = max(1, min(self.engine.ray_actors or usual, items))
        needed = "GPU" if share else "CPU"
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        sizes = [int(each.get("CPU", 0)) for each in machines if each.get(needed, 0) > 0]
        return count, {"num_cpus": max(1, min([cores // count, *sizes])), "num_gpus": share}


def _task(folder: str, do: Callable[[list[Taken]], list[Done]], parcel: list[Taken]) -> list[Done]:
    """Do one parcel; runs on the cluster, in the folder that relative paths start from."""
    os.chdir(folder)
    return do(parcel)


class _Runner:
    """An actor: a network, loaded once."""

    def __init__(self, folder: str, root: Path, load: Load, device: str) -> None:
        os.chdir(folder)
        self.root, self.load, self.device = root, load, device
        self.stream: Stream | None = None

    def open(self) -> None:
        """Load the network."""
        self.stream = self.load(self.device)

    def do(self, parcel: list[Taken]) -> list[Done]:
        """Put one parcel through the network."""
        assert self.stream is not None
        return do_stream(self.root, self.stream, parcel)


@dataclass
class Crew:
    """Actors at work: each has one parcel, and one that is lost is replaced.

    Ray's own restart would keep the parcels of a lost actor waiting until there is a machine for
    it; here whoever is idle takes them.
    """

    ray: Any
    count: int
    needs: dict[str, float]
    load: Load
    label: str
    root: Path
    device: str
    made: int = 0
    idle: list[Any] = field(default_factory=list)
    starting: dict[Any, Any] = field(default_factory=dict)
    busy: dict[Any, tuple[Any, list[Taken]]] = field(default_factory=dict)

    def carry(self, parcels: Iterator[list[Taken]]) -> Iterator[Done]:
        """Give the parcels to actors; yields what they return."""
        again: deque[list[Taken]] = deque()
        lost: dict[str, int] = {}
        for _ in range(self.count):
            self._start()
        while True:
            while self.idle and (parcel := again.popleft() if again else next(parcels, None)):
                actor = self.idle.pop()
                self.busy[actor.do.remote(parcel)] = (actor, parcel)
            if not self.busy and not (again or self._more(parcels, again)):
                return
            ready, _ = self.ray.wait([*self.busy, *self.starting], num_returns=1)
            if ready[0] in self.starting:
                self._started(ready[0])
                continue
            actor, parcel = self.busy.pop(ready[0])
            try:
                found = got(self.ray, ready[0])
            except losses(self.ray) as error:
                name = parcel[0][0].id
                lost[name] = lost.get(name, 0) + 1
                if lost[name] > LOSSES:
                    raise lost_error([item for item, _ in parcel], error) from error
                again.append(parcel)
                self._replace(actor)
                continue
            self.idle.append(actor)
            yield from found

    def _more(self, parcels: Iterator[list[Taken]], again: deque[list[Taken]]) -> bool:
        """Whether a parcel is left; it is kept for whoever is idle next."""
        parcel = next(parcels, None)
        if parcel is not None:
            again.append(parcel)
        return parcel is not None

    def _start(self) -> None:
        self.made += 1
        options = {**self.needs, "max_restarts": 0, "name": f"{self.label} #{self.made}"}
        remote = self.ray.remote(_Runner).options(**options)
        actor = remote.remote(str(Path.cwd()), self.root, self.load, self.device)
        self.starting[actor.open.remote()] = actor

    def _started(self, reference: Any) -> None:
        """Take in an actor that has loaded its network, or replace it if it was lost."""
        actor = self.starting.pop(reference)
        try:
            got(self.ray, reference)
        except losses(self.ray) as error:
            if self.made > (LOSSES + 1) * self.count:
                raise lost_error([], error) from error
            self._replace(actor)
        else:
            self.idle.append(actor)

    def _replace(self, actor: Any) -> None:
        """Start another actor; the lost one may still hold a GPU."""
        self.ray.kill(actor)
        self._start()

    def dismiss(self) -> None:
        """End all actors."""
        actors = [*self.idle, *self.starting.values(), *(actor for actor, _ in self.busy.values())]
        for actor in actors:
            self.ray.kill(actor)


def got(ray: Any, reference: Any) -> Any:
    """The value of a reference; an error of the work itself is raised as it was there."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def losses(ray: Any) -> tuple[type[Exception], ...]:
    """Ray's errors about a lost worker or machine."""
    names = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError",
             "ObjectLostError")  # fmt: skip
    return tuple(getattr(ray.exceptions, name) for name in names)


def lost_error(parcel: list[Item], error: Exception) -> LostWorkersError:
    """The error of a parcel that nobody could finish."""
    what = f"while doing {parcel[0].id} to {parcel[-1].id}" if parcel else "while loading"
    return LostWorkersError(
        f"Workers of the Ray cluster were lost {LOSSES + 1} times {what}: "
        f"{str(error).strip().splitlines()[0]} Give them more memory (fewer workers or actors), or "
        "do these items with --executor local; the same command goes on where this one stopped."
    )


@contextmanager
def connected(ray: Any, engine: Engine) -> Iterator[None]:
    """A connection to the cluster, or a cluster on this machine that ends with the block.

    Raises:
        DmnetError: there is no cluster at the address, or none starts here in time.
    """
    if ray.is_initialized():  # whoever connected before us also disconnects
        yield
        return
    for name, value in SAID.items():
        os.environ.setdefault(name, value)
    own: dict[str, Any] = {"address": engine.ray_address} if engine.ray_address else {
        "address": "local",
        "num_cpus": engine.workers or os.cpu_count(),
        "object_store_memory": STORE,
        "include_dashboard": False,
    }  # fmt: skip
    _start(ray, own, engine)
    try:
        yield
    finally:
        ray.shutdown()


def _start(ray: Any, own: dict[str, Any], engine: Engine) -> None:
    """Connect to the cluster, or start one; on a busy machine more than once.

    Raises:
        DmnetError: as `connected`.
    """
    for left in reversed(range(STARTS)):
        try:
            ray.init(**own, logging_level="WARNING", log_to_driver=False)
            return
        except (ConnectionError, ValueError) as error:
            raise DmnetError(
                f"--ray-address {engine.ray_address}: no Ray cluster there ({error}). Start one "
                "with `ray start --head`, or leave the address away to use this machine."
            ) from error
        except Exception as error:  # Ray raises it plain
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise DmnetError(
                    f"The Ray cluster on this machine was not ready within Ray's 30 seconds, "
                    f"{STARTS} times; the machine is busy. Run the same command again when it is "
                    "idle, or with --executor local."
                ) from error
            _log.info("the Ray cluster was not ready within 30 seconds; started again")
