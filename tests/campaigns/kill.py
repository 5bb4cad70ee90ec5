"""``kill``: SIGKILL, SIGTERM and SIGINT at random moments of every stage, then the same command.

A moment is the n-th time that the process asks the system for something (a file opened, moved,
made, removed, listed; a process started): exactly between any two changes of the disc, and the same
at any speed of the machine. Half of the tries start from an artifact of other settings, a third
stop the second run too. A try survives if the stopped run ended as it should, the last one with
exit code 0, and the folder then holds the bytes of a run that nothing disturbed, a complete header,
a sound journal, and no stray file.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.campaigns.world import HEAVY, STOPPED, World, place, preload

EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir",
                    "os.rmdir", "os.truncate", "fcntl.flock", "subprocess.Popen",
                    "tempfile.mkstemp", "os.utime", "shutil.rmtree"})  # fmt: skip
"""What counts as a moment (names of Python's audit events)."""

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OTHERWISE = {"density": ["--density.stride", "8"], "crop": ["--crop.threshold", "0.9"],
             "convert": ["--convert.ignored", "false"], "fuse-eval": ["--fuse-eval.bootstrap", "7"],
             "predict-density": ["--predict-density.overlap", "8"],
             "detect": ["--detect.score-threshold", "0.5"],
             "train-density": ["--train-density.seed", "1"],
             "train-detector": ["--train-detector.seed", "1"]}  # fmt: skip
"""Settings that make another artifact of a stage."""


def count_into(path: Path) -> Callable[[], None]:
    """Called in the process of a verb: its moments are counted, one byte each, in a file."""

    def start() -> None:
        stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        me = os.getpid()

        def hook(event: str, args: tuple[object, ...]) -> None:
            if event in EVENTS and os.getpid() == me:
                os.write(stream, b".")

        sys.addaudithook(hook)

    return start


def stop_at(moment: int, number: signal.Signals) -> Callable[[], None]:
    """Called in the process of a verb: it gets a signal at its n-th moment."""

    def start() -> None:
        left, me = moment, os.getpid()

        def hook(event: str, args: tuple[object, ...]) -> None:
            nonlocal left
            if event in EVENTS and os.getpid() == me:
                left -= 1
                if left == 0:
                    os.kill(me, number)

        sys.addaudithook(hook)

    return start


class Killer:
    """Tries on one world."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.seed = world, seed
        self._moments: dict[tuple[str, str, str], int] = {}

    def moments(self, split: str, stage: str, workers: str) -> int:
        """How many moments an undisturbed run of a stage has."""
        known = (split, stage, workers)
        if known not in self._moments:
            self.world.copy("counted")
            shutil.rmtree(self.world.made("counted", split, stage))
            marks = self.world.root / "moments"
            marks.unlink(missing_ok=True)
            code, said = self.world.run(
                "counted", split, stage, "--workers", workers, first=count_into(marks)
            )
            assert code == 0, said
            self._moments[known] = marks.stat().st_size
        return self._moments[known]

    def attempt(self, split: str, stage: str, index: int, workers: str = "1") -> str:
        """One try: empty if it survived, else what went wrong."""
        rng = random.Random(f"{self.seed} {split} {stage} {workers} {index}")
        self.world.copy("rough")
        folder = self.world.made("rough", split, stage)
        if rng.random() < 0.5 and not stage.startswith("train-"):
            code, said = self.world.run("rough", split, stage, *OTHERWISE[stage])
            if code:
                return f"could not be prepared: {said[-300:]}"
        else:
            shutil.rmtree(folder)
        for _ in range(rng.choice([1, 1, 2])):
            number = rng.choice(SIGNALS)
            at = rng.randint(1, self.moments(split, stage, workers))
            code, said = self.world.run(
                "rough", split, stage, "--workers", workers, first=stop_at(at, number)
            )
            if code not in (STOPPED[number], 0):
                return f"{number.name} at {at}: exit code {code}: {said[-300:]}"
        code, said = self.world.run("rough", split, stage, "--workers", workers)
        if code:
            return f"{number.name} at {at}, then exit code {code}: {said[-300:]}"
        wrong = self.world.flaw("rough", split, stage)
        return f"{number.name} at {at}: {wrong}" if wrong else ""


def main() -> int:
    """Run the campaign and print one line a stage; exit 1 if anything fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="kills of each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="a stage, at most")
    parser.add_argument("--workers", nargs="*", default=["1"])
    parser.add_argument("--heavy", action="store_true", help="the stages with networks too")
    parser.add_argument("stages", nargs="*", help="only these")
    args = parser.parse_args()
    preload(heavy=args.heavy)
    fallen = total = 0
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        world = World.make(Path(folder), heavy=args.heavy)
        killer = Killer(world, args.seed)
        for split, stage in world.steps:
            if args.stages and stage not in args.stages:
                continue
            for workers in args.workers:
                tries, fell, start = 0, [], time.monotonic()
                while tries < args.n and time.monotonic() - start < args.seconds:
                    if wrong := killer.attempt(split, stage, tries, workers):
                        fell.append(f"{tries}: {wrong}")
                    tries += 1
                took = time.monotonic() - start
                name = f"{split} {stage}, {workers} worker(s)"
                print(f"{name:40} {tries:5} kills, {len(fell)} fell, {took:.0f} s", flush=True)
                for text in fell[:5]:
                    print(f"    {text}", flush=True)
                fallen, total = fallen + len(fell), total + tries
    print(f"kill: seed {args.seed}, {total} kills, {fallen} fell")
    return 1 if fallen else 0


if __name__ == "__main__":
    assert {stage for _, stage in HEAVY} == set(OTHERWISE)
    sys.exit(main())
