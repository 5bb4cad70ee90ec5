"""``faults``: discs, files and books that fail while a stage runs or between two runs.

Each try takes one fault and one stage of a run that was sound. It survives if the stage then ends
with exit code 0, 1 or 2 and sentences (never a traceback), and if, once the fault is gone, the same
command (with ``--force`` where a sentence said so) leaves the bytes of an undisturbed run.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dmnet.core import ledger
from dmnet.core.journal import HEADER, JOURNAL
from dmnet.core.verify import Fault, judged, measured, read_books
from dmnet.pipeline.tools.verify import kernel_faults
from tests.campaigns.disc import cut_power, watch_flushes
from tests.campaigns.kill import OTHERWISE, stop_at
from tests.campaigns.world import World, ended, place, preload, started

STAGES = ("density", "crop", "convert", "fuse-eval")


class CannotTry(Exception):
    """This machine does not allow the fault to be made (no root, no tmpfs)."""


def spoken(code: int, said: str, codes: tuple[int, ...] = (0, 1, 2)) -> str:
    """Empty if a verb ended with one of these codes and without a traceback."""
    if code not in codes:
        return f"exit code {code}: {said[-300:]}"
    return f"a traceback: {said[-500:]}" if "Traceback" in said else ""


def mended(world: World, stage: str, name: str = "rough") -> str:
    """Run the stage again, with ``--force`` if it asks for it: empty if all is as it should be."""
    code, said = world.run(name, "val", stage)
    if code == 2 and "--force" in said:
        code, said = world.run(name, "val", stage, "--force")
    return spoken(code, said, (0,)) or world.flaw(name, "val", stage)


def begun(world: World, rng: random.Random, stage: str, name: str = "rough") -> None:
    """A copy of the calm run in which the stage is to be made, or made again."""
    world.copy(name)
    if rng.random() < 0.5:
        shutil.rmtree(world.made(name, "val", stage))
    else:
        code, said = world.run(name, "val", stage, *OTHERWISE[stage])
        assert code == 0, said


def full_disc(world: World, rng: random.Random, stage: str) -> str:
    """A disc (tmpfs) that is full after some kilobytes; then there is room."""
    disc = world.root / "disc"
    disc.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disc)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        raise CannotTry("no tmpfs can be mounted")
    try:
        begun(world, rng, stage, "disc")
        free = shutil.disk_usage(disc).free
        with contextlib.suppress(OSError), (disc / "filler").open("wb") as filler:
            filler.write(bytes(free - 4096 * rng.randint(0, 40)))
        code, said = world.run("disc", "val", stage)
        if wrong := spoken(code, said, (0, 2)):
            return wrong
        if code == 2 and not re.search(r"/.*No space left on device", said):
            return f"does not say which file's disc is full: {said[-200:]}"
        (disc / "filler").unlink()
        return mended(world, stage, "disc")
    finally:
        subprocess.run(["umount", str(disc)], check=True)


def obey_permissions() -> None:
    """Called in the process of a verb: permissions count for root, too, from now on."""
    system = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert system.capget(head, sets) == 0
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert system.capset(head, sets) == 0


def read_only(world: World, rng: random.Random, stage: str) -> str:
    """Folders of the run that must not be written to."""
    begun(world, rng, stage)
    folders = [Path(place) for place, _, _ in os.walk(world.root / "rough")]
    for folder in folders:
        folder.chmod(0o555)
    code, said = world.run("rough", "val", stage, first=obey_permissions)
    for folder in folders:
        folder.chmod(0o755)
    if "Permission denied" not in said:
        return f"does not say that it is not allowed: {said[-200:]}"
    return spoken(code, said, (2,)) or mended(world, stage)


def no_permission(world: World, rng: random.Random, stage: str) -> str:
    """A file of the data set that must not be read."""
    begun(world, rng, stage)
    path = rng.choice(_inputs(world))
    path.chmod(0)
    code, said = world.run("rough", "val", stage, "--verify", first=obey_permissions)
    path.chmod(0o644)
    return spoken(code, said) or mended(world, stage)


def _inputs(world: World) -> list[Path]:
    return sorted((world.root / "data" / "VisDrone2019-DET-val").rglob("*.*"))


def at_open(path: Path, times: int, act: Callable[[], object]) -> Callable[[], None]:
    """Called in the process of a verb: ``act`` just before a file is opened for the n-th time."""

    def start() -> None:
        left = times

        def hook(event: str, args: tuple[object, ...]) -> None:
            nonlocal left
            if event == "open" and str(args[0]) == str(path):
                left -= 1
                if left == 0:
                    act()

        sys.addaudithook(hook)

    return start


def vanishes(world: World, rng: random.Random, stage: str) -> str:
    """An input disappears at the moment when it is opened, and comes back later."""
    begun(world, rng, stage)
    path = rng.choice(_inputs(world))
    away = world.root / "away"
    act = at_open(path, rng.randint(1, 3), lambda: path.rename(away))
    code, said = world.run("rough", "val", stage, "--verify", first=act)
    if away.exists():
        away.rename(path)
    return spoken(code, said) or mended(world, stage)


def changes(world: World, rng: random.Random, stage: str) -> str:
    """An input becomes another one at the moment when it is opened, and is put right later."""
    begun(world, rng, stage)
    path = rng.choice(_inputs(world))
    good = path.read_bytes()
    others = [p for p in _inputs(world) if p.suffix == path.suffix and p != path]
    bad = rng.choice(others).read_bytes()
    act = at_open(path, rng.randint(1, 3), lambda: path.write_bytes(bad))
    code, said = world.run("rough", "val", stage, "--verify", first=act)
    path.write_bytes(good)
    return spoken(code, said) or mended(world, stage)


def clock_back(world: World, rng: random.Random, stage: str) -> str:
    """Files of the future, and an input that changes under an older time."""
    world.copy("rough")
    ahead = time.time_ns() + 10**9 * rng.randint(60, 10**7)
    for path in world.made("rough", "val", stage).rglob("*.*"):
        os.utime(path, ns=(ahead, ahead))
    path = world.root / "data" / "VisDrone2019-DET-val" / "annotations" / "101.txt"
    good, state = path.read_bytes(), path.stat()
    path.write_bytes(good.replace(b"1", b"2", 1))
    past = state.st_mtime_ns - 10**9 * rng.randint(1, 10**8)
    os.utime(path, ns=(past, past))
    code, said = world.run("rough", "val", "density")
    wrong = spoken(code, said, (0,))
    if not wrong and "1 done, 2 kept" not in said:
        wrong = f"an input under an older time was not looked at: {said[-200:]}"
    path.write_bytes(good)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    code, said = world.run("rough", "val", "density")
    return wrong or spoken(code, said, (0,)) or mended(world, stage)


def books(world: World, rng: random.Random, stage: str) -> str:
    """Journal, header or both torn, doubled, garbled or gone."""
    begun(world, rng, stage)
    folder = world.made("rough", "val", stage)
    if not folder.exists():
        world.run("rough", "val", stage)
    for name in rng.sample([HEADER, JOURNAL], rng.choice([1, 1, 2])):
        path = folder / name
        data = bytearray(path.read_bytes())
        way = rng.choice(["torn", "doubled", "garbled", "gone"])
        if way == "torn":
            del data[rng.randrange(len(data)) :]
        elif way == "doubled":
            data += bytes(data)
        else:
            for _ in range(rng.choice([1, 5, 50])):
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        if way == "gone" and (name == HEADER or rng.random() < 0.5):
            path.unlink()
    code, said = world.run("rough", "val", stage)
    if wrong := spoken(code, said):
        return wrong
    if code:
        code, said = world.run("rough", "val", stage, "--force")
    if code == 2 and ("remove this folder" in said or "Move them away" in said):
        shutil.rmtree(folder)  # nothing is left that says whose folder it is
    return mended(world, stage)


def flips(world: World, rng: random.Random, stage: str) -> str:
    """One bit of one file, under the same size and time: ``dmnet verify`` names the file."""
    path = rng.choice(_recorded(world))
    good, state = path.read_bytes(), path.stat()
    bit = rng.randrange(8 * len(good))
    changed = bytearray(good)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    found = _looked_at(world.root / "calm" / "default", path)
    path.write_bytes(good)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    if not any(fault.kind == "damaged" and fault.path == path for fault in found):
        return f"bit {bit} of {path.name} is not found: {found}"
    return ""


def _looked_at(run: Path, path: Path) -> list[Fault]:
    """What ``dmnet verify`` finds in the folder of one file."""
    if path.parent == run:
        return list(kernel_faults(run))
    folder = next(place for place in path.parents if place.parent.parent == run)
    told = read_books(folder)
    owned = {each for each in run.rglob("*") if each.is_file()}
    return list(judged(told, measured((claim.path for claim in told.claims), 1), owned))


def _recorded(world: World) -> list[Path]:
    """A file of every kind, so that the small ones have their share."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted((world.root / "calm").rglob("*.*")):
        if path.is_file() and path.name != ".lock":
            kinds.setdefault(
                f"{path.name if path.name in (HEADER, JOURNAL) else path.suffix}", []
            ).append(path)
    flat = [paths[index % len(paths)] for index in range(20) for paths in kinds.values()]
    return flat


def writers(world: World, rng: random.Random, stage: str) -> str:
    """Two or five processes make the same artifact at once."""
    begun(world, rng, stage)
    command = world.command("rough", "val", stage)
    results = [ended(child) for child in [started(command) for _ in range(rng.choice([2, 5]))]]
    for code, said in results:
        if wrong := spoken(code, said, (0, 2)):
            return wrong
        if code == 2 and "being written by another process" not in said:
            return f"refused for another reason: {said[-300:]}"
    if all(code for code, _ in results):
        return "none of them did it"
    return world.flaw("rough", "val", stage)


def slow_names(world: World, rng: random.Random, stage: str) -> str:
    """Files take their places late, as on a network; meanwhile others look."""
    begun(world, rng, stage)
    replace, chance = Path.replace, random.Random(rng.random())

    def late(self: Path, target: Path) -> Path:
        time.sleep(chance.uniform(0, 0.03))
        found = replace(self, target)
        time.sleep(chance.uniform(0, 0.03))
        return found

    writer = started(world.command("rough", "val", stage), lambda: setattr(Path, "replace", late))
    for _ in range(2):
        code, said = world.run("rough", "val", "status")
        if wrong := spoken(code, said, (0,)):
            ended(writer)
            return f"status: {wrong}"
    code, said = ended(writer)
    return spoken(code, said, (0,)) or world.flaw("rough", "val", stage)


def power_cut(world: World, rng: random.Random, stage: str) -> str:
    """The machine stops at a random moment; what was not flushed is lost, or empty, or zeros."""
    begun(world, rng, stage)
    if rng.random() < 0.3:
        (world.root / "rough" / "default" / "kernels.h5").unlink(missing_ok=True)
    run, kept = world.root / "rough" / "default", world.root / "flushed"
    shutil.rmtree(kept, ignore_errors=True)
    moment = stop_at(rng.randint(1, 160), signal.SIGKILL)

    def first() -> None:
        watch_flushes(run, kept)
        moment()

    code, said = world.run("rough", "val", stage, first=first)
    if code not in (0, -9):
        return f"exit code {code}: {said[-300:]}"
    cut_power(run, kept, rng)
    restarted = lambda: setattr(ledger, "boot_id", lambda: "after the power cut")  # noqa: E731
    code, said = world.run("rough", "val", stage, first=restarted)
    return spoken(code, said, (0,)) or world.flaw("rough", "val", stage)


FAULTS: tuple[Callable[[World, random.Random, str], str], ...] = (
    full_disc, read_only, no_permission, vanishes, changes, clock_back, books, flips, writers,
    slow_names, power_cut,
)  # fmt: skip


def attempt(world: World, name: str, seed: int, index: int) -> str:
    """One try of one fault: empty if it survived."""
    rng = random.Random(f"{name} {seed} {index}")
    fault = next(fault for fault in FAULTS if fault.__name__ == name)
    stage = STAGES[index % len(STAGES)]
    wrong = fault(world, rng, stage)
    return f"{stage}: {wrong}" if wrong else ""


def main() -> int:
    """Run the campaign and print one line a fault; exit 1 if anything fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="tries of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="a fault, at most")
    parser.add_argument("names", nargs="*", default=[fault.__name__ for fault in FAULTS])
    args = parser.parse_args()
    preload(heavy=False)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        world = World.make(Path(folder))
        for name in args.names:
            fell: list[str] = []
            tries, start = 0, time.monotonic()
            try:
                while tries < args.n and time.monotonic() - start < args.seconds:
                    if wrong := attempt(world, name, args.seed, tries):
                        fell.append(f"{tries}: {wrong}")
                    tries += 1
            except CannotTry as error:
                print(f"{name:16} not tried: {error}", flush=True)
            print(f"{name:16} {tries:5} tries, {len(fell)} fell", flush=True)
            for text in fell[:5]:
                print(f"    {text}", flush=True)
            counts.update(tries=tries, fell=len(fell))
    print(f"faults: seed {args.seed}, {counts['tries']} tries, {counts['fell']} fell")
    return 1 if counts["fell"] else 0


if __name__ == "__main__":
    sys.exit(main())
