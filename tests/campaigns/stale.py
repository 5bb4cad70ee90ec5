"""``stale``: every stage after every change upstream, from the last stage to the first.

The changes and what each stage has to do about them are the table of `tests.pipeline.test_chain`. A
change survives if every stage did exactly that: made again what depends on it, refused what does
not belong together, or found nothing to do.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.campaigns.world import place
from tests.pipeline.test_chain import STEPS, TABLE, World, make_base, outcome


def attempt(base: Path, folder: Path, row: int) -> str:
    """One change on a copy of a sound run: empty if it survived."""
    change, expected = TABLE[row]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    world = World(folder)
    change(world)
    found = " ".join(reversed([outcome(world, *reversed(step)) for step in reversed(STEPS)]))
    return "" if found == " ".join(expected.split()) else f"{found}, expected {expected}"


def main() -> int:
    """Run the campaign and print one line a change; exit 1 if anything fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=len(TABLE), help="changes")
    parser.add_argument("--seed", type=int, default=0, help="which, where not all are tried")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="in all, at most")
    args = parser.parse_args()
    rows = random.Random(args.seed).sample(range(len(TABLE)), min(args.n, len(TABLE)))
    fallen = tries = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        make_base(Path(folder, "base"))
        for row in rows:
            if time.monotonic() - start > args.seconds:
                break
            wrong = attempt(Path(folder, "base"), Path(folder, "spoilt"), row)
            name = TABLE[row][0].__name__
            print(f"{name:36} {len(STEPS)} stages, {wrong or 'as it should'}", flush=True)
            tries, fallen = tries + 1, fallen + bool(wrong)
    print(
        f"stale: seed {args.seed}, {tries} changes x {len(STEPS)} stages = "
        f"{tries * len(STEPS)} pairs, {fallen} changes fell"
    )
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
