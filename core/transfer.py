"""Finished artifacts to a bucket and back, every file verified by its digest."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dmnet.core.errors import (
    EditedArtifactError,
    ForeignArtifactError,
    InputError,
    MissingInputError,
)
from dmnet.core.files import Stamp, file_digest
from dmnet.core.journal import HEADER, JOURNAL, read_header, read_journal
from dmnet.core.products import LOG, inside
from dmnet.core.remote import check_address
from dmnet.core.stubs import system, tried
from dmnet.core.threads import map_ahead

THREADS = 8
"""Files under way at a time."""


def push(folder: Path, url: str) -> int:
    """Copy a finished artifact below an address; what is there already is not sent again.

    The header goes last: where it is, everything is.

    Returns:
        The number of its files.

    Raises:
        MissingInputError: no artifact, or not finished.
        EditedArtifactError: a file is not as it was written.
        InputError: the storage does not answer, or holds something else afterwards.
        ConfigError: the address holds credentials.
    """
    check_address(url)
    stamps = stamps_of(folder)
    store = system(urlsplit(url).scheme)
    send = partial(_send, store, folder, url.rstrip("/"), stamps)
    last = [name for name in (LOG, JOURNAL, HEADER) if (folder / name).exists()]
    for _ in map_ahead(send, stamps, THREADS):
        pass
    for name in last:
        send(name)
    return len(stamps) + len(last)


def pull(url: str, folder: Path) -> int:
    """Copy an artifact from a bucket; an interrupted one goes on.

    Returns:
        The number of its files.

    Raises:
        ForeignArtifactError: the folder is there already.
        MissingInputError: there is no finished artifact at the address.
        InputError: the storage does not answer, or a file is not what the journal says.
        ConfigError: the address holds credentials.
    """
    check_address(url)
    if folder.exists():
        raise ForeignArtifactError(f"{folder} is there already; name another folder.")
    store = system(urlsplit(url).scheme)
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    get = partial(_receive, store, url.rstrip("/"), part)
    for name in (HEADER, JOURNAL):
        get((name, None))
    stamps = stamps_of(part, verify=False)
    for _ in map_ahead(get, stamps.items(), THREADS):
        pass
    part.replace(folder)
    return len(stamps) + 2


def stamps_of(folder: Path, *, verify: bool = True) -> dict[str, Stamp]:
    """Every file of a finished artifact, with its stamp.

    Args:
        folder: of the artifact.
        verify: also that each file is as it was written.

    Raises:
        MissingInputError: no artifact, or not finished.
        EditedArtifactError: a file is not as it was written.
    """
    header = read_header(folder)
    if header is None or not header.get("complete"):
        raise MissingInputError(f"{folder}: holds no finished artifact ({HEADER}).")
    stamps: dict[str, Stamp] = dict(header["outputs"])
    for record in read_journal(folder).values():
        stamps |= {} if record.error else record.files
    for name, known in stamps.items():
        path = inside(folder, name)
        if verify and not (path.is_file() and file_digest(path) == known[2]):
            raise EditedArtifactError(
                f"{path} is missing or not as it was written; run its stage again before."
            )
    return stamps


def _send(store: Any, folder: Path, url: str, stamps: dict[str, Stamp], name: str) -> None:
    path, target = folder / name, f"{url}/{name}"
    data = path.read_bytes()
    if name in stamps and _digest(data) != stamps[name][2]:
        raise EditedArtifactError(f"{path} was changed while it was being sent.")
    wanted = (len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
    if not _same(store, target, wanted):
        tried(target, lambda: store.pipe_file(target, data))
        if not _same(store, target, wanted):
            raise InputError(target, "holds something else than what was sent")


def _same(store: Any, target: str, wanted: tuple[int, str]) -> bool:
    """Whether an object has this size and, where the storage tells it, this MD5."""
    if not tried(target, lambda: store.exists(target)):
        return False
    info = tried(target, lambda: dict(store.info(target)))
    tag = str(info.get("ETag") or "").strip('"')
    return info.get("size") == wanted[0] and (tag == wanted[1] or len(tag) != len(wanted[1]))


def _receive(store: Any, url: str, part: Path, asked: tuple[str, Stamp | None]) -> None:
    name, known = asked
    path = part / name
    if known is not None and path.is_file() and file_digest(path) == known[2]:
        return
    target = f"{url}/{name}"
    data: bytes = tried(target, lambda: store.cat_file(target))
    if known is not None and _digest(data) != known[2]:
        raise InputError(target, "is not what the artifact's journal says; push it again")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if known is not None:
        os.utime(path, ns=(known[1], known[1]))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
