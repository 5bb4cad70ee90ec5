"""A disc that forgets: what a power cut leaves of files that were written and not yet flushed.

The model: contents of a file are safe once it was flushed, names of a folder once the folder was.
Of everything else, each file by itself, the disc may have all, nothing, zeros, or a beginning; a
name that was not flushed may be there or not, and an old file under it may be back.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path


def watch_flushes(root: Path, kept: Path) -> None:
    """Called in the process of a verb: what is flushed from now on is kept, by inode."""
    kept.mkdir()

    def keep(path: Path) -> None:
        if path.is_dir():
            names = {each.name: each.stat().st_ino for each in path.iterdir()}
            (kept / f"folder-{path.stat().st_ino}").write_text(json.dumps(names))
        elif path.is_file():
            shutil.copyfile(path, kept / f"file-{path.stat().st_ino}")

    def everything() -> None:
        for place, _, names in os.walk(root):
            keep(Path(place))
            for name in names:
                keep(Path(place, name))

    everything()
    os.fsync = lambda descriptor: keep(Path(f"/proc/self/fd/{descriptor}").readlink())
    os.sync = everything


def cut_power(root: Path, kept: Path, rng: random.Random) -> None:
    """Leave of a folder what the disc had of it."""
    for place, _, names in os.walk(root):
        folder = Path(place)
        listing = kept / f"folder-{folder.stat().st_ino}"
        flushed = json.loads(listing.read_text()) if listing.exists() else {}
        for name in sorted({*names, *flushed}):
            path = folder / name
            inode = path.stat().st_ino if path.exists() else None
            if path.is_dir():
                continue
            if inode != flushed.get(name) and rng.random() < 0.5:
                inode = _put_back(path, kept / f"file-{flushed.get(name)}", flushed.get(name))
            if inode is not None and path.exists():
                _forget(path, kept / f"file-{inode}", rng)


def _put_back(path: Path, old: Path, inode: int | None) -> int | None:
    """The name as it was flushed last: another file, or none."""
    path.unlink(missing_ok=True)
    if inode is None or not old.exists():
        return None
    shutil.copyfile(old, path)
    return inode


def _forget(path: Path, safe: Path, rng: random.Random) -> None:
    """Contents that were not flushed; size and time may have reached the disc without them."""
    data, state = path.read_bytes(), path.stat()
    known = safe.read_bytes() if safe.exists() else b""
    if data == known:
        return
    start = len(known) if data.startswith(known) else 0  # what is appended to a flushed file
    rest = data[start:]
    lost = rng.choice([rest, b"", bytes(len(rest)), rest[: rng.randrange(len(rest) + 1)]])
    path.write_bytes(data[:start] + lost)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
