"""Files: digests, and writing in one step."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Stamp = list[Any]
"""``[size, mtime_ns, digest]`` of a file."""


def digest(value: object) -> str:
    """Digest of a JSON-ready value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=12)).hexdigest()


def stamp(path: Path, known: str | None = None) -> Stamp:
    """Size, mtime and digest of a file; ``known`` spares reading it."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, known or file_digest(path)]


def write_atomic(path: Path, chunks: Iterable[bytes]) -> str:
    """Write through a temporary name in the same folder and return the digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    total = hashlib.blake2b(digest_size=12)
    try:
        with temporary.open("wb") as stream:
            for chunk in chunks:
                total.update(chunk)
                stream.write(chunk)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return total.hexdigest()
