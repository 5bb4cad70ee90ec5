"""Files: digests, and writing in one step."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmnet.core.errors import InputError
from dmnet.core.stubs import etag, present

Stamp = list[Any]
"""``[size, mtime_ns, digest]`` of a file."""


def digest(value: object) -> str:
    """Digest of a JSON-ready value, independent of the order of keys."""
    return bytes_digest(compact(value).encode())


def digest_of_pairs(pairs: Iterable[tuple[str, str | int]]) -> str:
    """As `digest` of a mapping, whose pairs come in order and are never held together.

    >>> digest_of_pairs([("a", "1"), ("b", 2)]) == digest({"b": 2, "a": "1"})
    True
    """
    total = hashlib.blake2b(b"{", digest_size=12)
    source, comma = iter(pairs), ""
    while some := dict(itertools.islice(source, 4_096)):
        total.update(f"{comma}{compact(some)[1:-1]}".encode())
        comma = ","
    total.update(b"}")
    return total.hexdigest()


def compact(value: object) -> str:
    """JSON in one form, whatever the order of keys."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def bytes_digest(data: bytes) -> str:
    """Digest of a file's contents."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, read in blocks; of an object in a bucket, what the storage says."""
    if known := etag(path):
        return known
    with present(path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=12)).hexdigest()


def stamp(path: Path, known: str | None = None) -> Stamp:
    """Size, mtime and digest of a file; ``known`` spares reading it."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, known or file_digest(path)]


def write_atomic(path: Path, chunks: Iterable[bytes], *, durable: bool = False) -> str:
    """Write through a temporary name in the same folder and return the digest.

    Args:
        path: the file.
        chunks: its contents.
        durable: it is on the disc when this returns, whatever happens to the machine then.

    Raises:
        InputError: the name is too long for the file system.
        OSError: anything else that keeps a file from being written; names the file.
    """
    total = hashlib.blake2b(digest_size=12)
    short = path.name.encode(errors="replace")[:200].decode(errors="ignore")
    temporary = path.with_name(f".{short}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                for chunk in chunks:
                    total.update(chunk)
                    stream.write(chunk)
            if durable:
                flush([temporary])
            temporary.replace(path)
            if durable:
                flush([path.parent])
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(path, "its name is too long here; rename what it is of") from error
        raise named(error, path) from error
    return total.hexdigest()


def in_blocks(pieces: Iterable[str]) -> Iterator[bytes]:
    """Pieces of a text as blocks of some size, to be written."""
    source = iter(pieces)
    while some := "".join(itertools.islice(source, 1_000)):
        yield some.encode()


MANY = 4
"""Files that are flushed one by one, at most; above, one call for all is quicker."""


def flush(paths: Collection[Path]) -> None:
    """Make sure that files and folders are on the disc: a power cut takes nothing of them back."""
    if len(paths) > MANY:
        flush_all()
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_all() -> None:
    """Make sure that all that was written to any disc of this machine is there."""
    os.sync()


def boot_id() -> str:
    """What is another after the machine was restarted; empty where the system does not tell."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def named(error: OSError, path: Path) -> OSError:
    """The same error with the name of the file, which writing to an open file does not tell."""
    if error.filename is not None or error.errno is None:
        return error
    return OSError(error.errno, error.strerror, str(path))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the disc inside name this file."""
    try:
        yield
    except OSError as error:
        raise named(error, path) from error


def remove_temporary(root: Path) -> None:
    """Remove what killed runs left half written in a folder that this process has locked."""
    for folder, _, names in os.walk(root):
        for name in names:
            if name.startswith(".") and TEMPORARY.fullmatch(name):
                Path(folder, name).unlink(missing_ok=True)


TEMPORARY = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)
