"""Files of the cache that stand for objects in a bucket; whoever reads one has it fetched.

A stub has the size and time of its object, no content, and mode 0, so that nobody can take it for
the file. ``.dmnet-remote`` in a folder above says where it comes from. `dmnet.core.remote` makes
such folders; `dmnet.core.reading.opened` and `dmnet.core.files.file_digest` fetch from them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dmnet.core.errors import InputError, MissingExtraError, MissingInputError, optional

MARK = ".dmnet-remote"
"""In the root of a mirrored folder: where it comes from."""

ATTEMPTS, PAUSE = 6, 0.5
"""Tries of a request, and seconds before the second one; each further pause is twice as long."""

TIMEOUT = 60.0
"""Seconds without any byte after which a request is tried again."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


def make_stub(path: Path, size: int, when: int) -> None:
    """A file of that size and time with no content, which nobody may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.truncate(size)
    temporary.chmod(0)
    os.utime(temporary, ns=(when, when))
    temporary.replace(path)


def is_stub(state: os.stat_result) -> bool:
    """Whether a file has still to be fetched."""
    return stat.S_ISREG(state.st_mode) and stat.S_IMODE(state.st_mode) == 0


def present(path: Path) -> Path:
    """The path, its content fetched if it stands for an object in a bucket.

    Raises:
        InputError: the storage does not answer, or gives something else than it listed.
    """
    try:
        if is_stub(path.stat()):
            _fetch(path)
    except FileNotFoundError:
        pass  # whoever opens it says so
    return path


def etag(path: Path) -> str | None:
    """What the storage says of an object's content, without fetching it; None for other files."""
    root = _root_of(path.parent)
    if root is None:
        return None
    size, _, tag = read_mark(root)["objects"][path.relative_to(root).as_posix()]
    return hashlib.blake2b(f"{size} {tag}".encode(), digest_size=12).hexdigest() if tag else None


def _fetch(path: Path) -> None:
    root = _root_of(path.parent)
    if root is None:
        raise InputError(path, f"cannot be read, and no {MARK} above it says where it comes from")
    mark = read_mark(root)
    name = path.relative_to(root).as_posix()
    size, when, _ = mark["objects"][name]
    url = f"{mark['url']}/{name}"
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    store = system(urlsplit(url).scheme)

    def get() -> None:
        store.get_file(url, str(temporary))
        if temporary.stat().st_size != size:  # a connection that was cut
            raise EOFError(f"{temporary.stat().st_size} of {size} bytes")

    try:
        tried(url, get)
        temporary.chmod(0o644)
        os.utime(temporary, ns=(time.time_ns(), when))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _count(root.parent, size, mark["limit"])


_spent = 0


def _count(folder: Path, size: int, limit: int) -> None:
    """Make room whenever this process has fetched a tenth of what the cache may hold."""
    global _spent
    _spent += size
    if _spent * 10 >= limit:
        _spent = 0
        with locked(folder):
            trim(folder, limit)


def trim(folder: Path, limit: int) -> int:
    """Turn the files that were fetched longest ago into stubs, until the rest fits.

    Args:
        folder: the cache.
        limit: bytes.

    Returns:
        Bytes that are kept.
    """
    kept = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            state = path.stat()
            if not name.startswith(".") and not is_stub(state):
                kept.append((state.st_atime_ns, str(path), state))
    total = sum(state.st_size for *_, state in kept)
    for _, name, state in sorted(kept, key=lambda entry: entry[:2]):
        if total <= limit:
            break
        make_stub(Path(name), state.st_size, state.st_mtime_ns)
        total -= state.st_size
    return total


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _root_of(folder: Path) -> Path | None:
    """The mirrored folder that a folder lies in."""
    return next((each for each in (folder, *folder.parents) if (each / MARK).exists()), None)


def read_mark(root: Path) -> dict[str, Any]:
    """What ``.dmnet-remote`` says: address, bytes of the cache, size, time and tag of objects."""
    return _marks(root, (root / MARK).stat().st_mtime_ns)


@cache
def _marks(root: Path, when: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / MARK).read_text())
    return found


@cache
def system(scheme: str) -> Any:
    """The file system of a scheme; its own retries are off, `tried` does them."""
    fsspec = optional("fsspec", "cloud")
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":
        optional("s3fs", "cloud")
        retries = {"max_attempts": 1, "mode": "standard"}
        options["config_kwargs"] = {
            "connect_timeout": 10, "read_timeout": TIMEOUT, "retries": retries,
        }  # fmt: skip
    return fsspec.filesystem(scheme, **options)


def tried(url: str, ask: Callable[[], T]) -> T:
    """The answer of a storage; what may pass is tried again, with growing pauses.

    Raises:
        MissingInputError: there is no such object, or it may not be read.
        InputError: no answer after `ATTEMPTS` tries.
    """
    for attempt in range(ATTEMPTS):
        try:
            return ask()
        except (FileNotFoundError, PermissionError) as error:
            raise MissingInputError(f"{url}: not there, or not for these credentials.") from error
        except _passing() as error:
            reason = type(error).__name__
            if attempt + 1 == ATTEMPTS:
                raise InputError(url, f"no answer after {ATTEMPTS} tries ({reason})") from error
            _log.debug("%s: %s, trying again", url, reason)
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


@cache
def _passing() -> tuple[type[BaseException], ...]:
    """Errors after which another try may succeed."""
    found: list[type[BaseException]] = [OSError, EOFError, TimeoutError]
    for module, name in (("botocore.exceptions", "BotoCoreError"),
                         ("botocore.exceptions", "ClientError"),
                         ("aiohttp", "ClientError")):  # fmt: skip
        try:
            found.append(getattr(optional(module, "cloud"), name))
        except MissingExtraError:
            continue
    return tuple(found)
