"""``fuzz``: mutated and regrown files of every kind into their readers.

A try survives if the reader returns or raises a named error (`DmnetError`), within its time and
memory, and starts no program and writes nothing. Readers run in a process of their own, so that a
crash or a hang of a library is seen and does not end the campaign.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmnet.core import hdf5
from dmnet.core.errors import DmnetError
from tests.campaigns.mutate import mutated, regrown
from tests.campaigns.seeds import SEEDS

MEMORY = 3_000_000_000
"""Bytes that a reader may take beside what its libraries take."""

SLOW = 20.0
"""Seconds of work after which a try counts as a hang; six times as long without a word, too."""


PROGRAMS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")
"""Audit events of programs and the network; the one helper that decodes HDF5 is no alarm."""


@dataclass
class Outcome:
    """Counts of one reader, and what fell."""

    read: int = 0
    refused: int = 0
    fell: list[str] = field(default_factory=list)

    @property
    def tries(self) -> int:
        """All of them."""
        return self.read + self.refused + len(self.fell)


def contents(name: str, seed: int, index: int) -> bytes:
    """The file of one try."""
    rng = random.Random(f"{name} {seed} {index}")
    kind = SEEDS[name]
    if kind.grow is not None and rng.random() < 0.5:
        return kind.grow(rng)
    good = rng.choice(_good(name))
    if kind.json and rng.random() < 0.5:
        return regrown(good, rng)
    return mutated(good, rng)


_made: dict[str, list[bytes]] = {}


def _good(name: str) -> list[bytes]:
    if name not in _made:
        _made[name] = SEEDS[name].make()
    return _made[name]


def attempt(name: str, data: bytes, folder: Path) -> str:
    """Read one file: ``read``, ``refused``, or what fell."""
    path = folder / name
    path.write_bytes(data)
    start = time.process_time()
    try:
        SEEDS[name].read(path)
        verdict = "read"
    except DmnetError as error:
        verdict = "refused" if str(error).strip() else "fell: an error without a text"
    except Exception as error:  # noqa: BLE001 - this is what the campaign looks for
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return f"fell: {type(error).__name__}: {error!s:.200} at {where}"
    took = time.process_time() - start
    return verdict if took < SLOW else f"fell: took {took:.0f} s"


def _watch(alarms: list[str], folder: Path) -> None:
    """Note programs that are started and files that are written elsewhere."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in PROGRAMS and hdf5.START not in (args[1] if len(args) > 1 else ()):
            alarms.append(f"{event} {args[:1]}")
        if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
            if not str(args[0]).startswith((str(folder), "/dev/null")):
                alarms.append(f"wrote {args[0]}")

    sys.addaudithook(hook)


def _child(name: str, seed: int, first: int, last: int, folder: Path, log: Path) -> None:
    """Tries ``first`` to ``last``; before each, its number is noted, so that a crash is placed."""
    logging.disable(logging.CRITICAL)
    _good(name)
    for good in _good(name):  # imports what is imported late, too
        assert attempt(name, good, folder) == "read", f"the good {name} is not read"
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    alarms: list[str] = []
    _watch(alarms, folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    assert attempt(name, _good(name)[0], folder) == "read", f"{name} needs more memory than allowed"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # native decoders talk about every frame
    for index in range(first, last):
        os.write(descriptor, f"{index}\n".encode())
        verdict = attempt(name, contents(name, seed, index), folder)
        if alarms:
            verdict = f"fell: {alarms[0]}"
            alarms.clear()
        os.write(descriptor, (json.dumps(verdict) + "\n").encode())


def run_one(name: str, n: int, seed: int) -> Outcome:
    """All tries of one reader; a child that dies or hangs is replaced by one for the rest."""
    outcome, first = Outcome(), 0
    _good(name)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as place:
        log, folder = Path(place, "log"), Path(place, "files")
        folder.mkdir()
        while first < n:
            log.write_bytes(b"")
            child = context.Process(target=_child, args=(name, seed, first, n, folder, log))
            child.start()
            hung = _wait(child, log)
            lines = log.read_text().splitlines()
            verdicts = [json.loads(line) for line in lines[1::2]]
            _count(outcome, first, verdicts)
            first += len(verdicts)
            if first < n:
                why = "hangs" if hung else f"the process died ({child.exitcode})"
                outcome.fell.append(f"{first}: {why}")
                first += 1
    return outcome


def _wait(child: Any, log: Path) -> bool:
    """Wait for a child; one that says nothing for long is ended."""
    size, since = -1, time.monotonic()
    while child.is_alive():
        child.join(0.5)
        if log.stat().st_size != size:
            size, since = log.stat().st_size, time.monotonic()
        elif time.monotonic() - since > 6 * SLOW * (1 if size else 10):  # imports take a while
            child.kill()
            child.join()
            return True
    return False


def _count(outcome: Outcome, first: int, verdicts: Iterable[str]) -> None:
    for index, verdict in enumerate(verdicts, start=first):
        if verdict == "read":
            outcome.read += 1
        elif verdict == "refused":
            outcome.refused += 1
        else:
            outcome.fell.append(f"{index}: {verdict}")


def main() -> int:
    """Run the campaign and print one line a reader; exit 1 if anything fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="tries a reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", default=list(SEEDS))
    args = parser.parse_args()
    fell = 0
    for name in args.names:
        start = time.monotonic()
        outcome = run_one(name, args.n, args.seed)
        fell += len(outcome.fell)
        print(
            f"{name:16} {outcome.tries:6} tries: {outcome.read} read, {outcome.refused} refused, "
            f"{len(outcome.fell)} fell, {time.monotonic() - start:.0f} s",
            flush=True,
        )
        kinds: dict[str, list[str]] = defaultdict(list)
        for number, _, text in (line.partition(": ") for line in outcome.fell):
            kinds[text].append(number)
        for text, numbers in sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:10]:
            print(f"    {len(numbers)} x {text} (such as try {numbers[0]})", flush=True)
    print(f"fuzz: seed {args.seed}, N {args.n} a reader, {fell} fell")
    return 1 if fell else 0


if __name__ == "__main__":
    sys.exit(main())
