"""Inputs in object storage: ``s3://``, ``gs://``, ``https://`` as a folder that fills itself.

A bucket or prefix becomes a folder in the cache, listed once a run: every object is a stub of its
size and time (`dmnet.core.stubs`). What is read is fetched then, and dropped again, oldest first,
when the cache is full. So all readers and all stages work on buckets as they are.

Needs the extra ``cloud``. Credentials come from the environment or the usual files alone: an
address that holds one is refused, and neither the cache nor an artifact records any.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dmnet.core.errors import ConfigError, InputError, MissingInputError
from dmnet.core.files import write_atomic
from dmnet.core.reading import bad_name
from dmnet.core.stubs import MARK, locked, make_stub, present, read_mark, system, tried

SCHEMES = ("s3", "gs", "http", "https")


@dataclass(frozen=True)
class CacheConfig:
    """Where fetched files are kept, and how many bytes of them."""

    folder: Path
    limit: int = 20_000_000_000


def default_cache() -> Path:
    """``$DMNET_CACHE``, or ``dmnet`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DMNET_CACHE") or Path(base) / "dmnet")


def is_remote(place: str) -> bool:
    """Whether a place is an address and no path.

    >>> is_remote("s3://bucket/images"), is_remote("data/images")
    (True, False)
    """
    return place.partition("://")[0] in SCHEMES and "://" in place


def mirrored(url: str, config: CacheConfig) -> Path:
    """The folder of the cache that stands for a prefix, listed anew; nothing is fetched yet.

    Args:
        url: a prefix; or one object, a ``data.yaml`` say: then the whole prefix that it is in.
        config: the cache.

    Returns:
        The folder; or the object's file in it, not yet fetched.

    Raises:
        ConfigError: the address holds credentials.
        MissingInputError: there is nothing at the address.
        InputError: the storage does not answer.
        MissingExtraError: the extra ``cloud`` is not installed.
    """
    check_address(url)
    store, url = system(urlsplit(url).scheme), url.rstrip("/")
    single = bool(tried(url, lambda: store.isfile(url)))
    base, _, name = url.rpartition("/") if single else (url, "", "")
    root = _root(base, config)
    with locked(root):
        _write_stubs(root, base, _listed(store, base), config.limit)
    return root / name


def fetched(url: str, config: CacheConfig) -> Path:
    """One object, for example a file of weights, as a file of the cache.

    Raises:
        ConfigError: the address holds credentials.
        MissingInputError: there is no such object.
        InputError: the storage does not answer, or the file has an unusable name.
        MissingExtraError: the extra ``cloud`` is not installed.
    """
    check_address(url)
    store, (base, _, name) = system(urlsplit(url).scheme), url.rpartition("/")
    if why := bad_name(name):
        raise InputError(url, f"the name {name!r} {why}")
    info = dict(tried(url, lambda: store.info(url)))
    root = _root(f"file {url}", config)
    with locked(root):  # without a tag, so that its content is what counts
        _write_stubs(root, base, {name: info}, config.limit, tags=False)
    return present(root / name)


def _root(base: str, config: CacheConfig) -> Path:
    root = config.folder / hashlib.blake2b(base.encode(), digest_size=8).hexdigest()
    root.mkdir(parents=True, exist_ok=True)
    return root


def check_address(url: str) -> None:
    """Refuse an address that holds a secret: it would be written into artifacts and logs."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        shown = f"{parts.scheme}://{parts.hostname or parts.netloc.rpartition('@')[2]}{parts.path}"
        raise ConfigError(
            f"{shown}: this address holds a user, password or query (left out here). Give the bare "
            "address; credentials belong in the environment or in the usual files of your storage."
        )


def _listed(store: Any, url: str) -> dict[str, dict[str, Any]]:
    """Every object below an address by its relative name.

    Raises:
        MissingInputError: there is none.
    """
    below = tried(url, lambda: dict(store.find(url, detail=True)))
    start = store._strip_protocol(url).rstrip("/") + "/"
    names = {name: name.removeprefix(start) for name in below}
    usable = {names[name]: info for name, info in below.items() if not bad_name(names[name])}
    if not usable:
        raise MissingInputError(f"{url}: no object there.")
    return usable


def _write_stubs(
    root: Path, url: str, found: dict[str, dict[str, Any]], limit: int, *, tags: bool = True
) -> None:
    """Bring a mirrored folder up to date; what changed in the storage has to be fetched anew."""
    known = read_mark(root)["objects"] if (root / MARK).exists() else {}
    objects: dict[str, list[Any]] = {}
    for name, info in found.items():
        tag = str(info.get("ETag") or "").strip('"') if tags else ""
        objects[name] = [int(info.get("size") or 0), _time(info), tag]
        if known.get(name) != objects[name] or not (root / name).exists():
            make_stub(root / name, *objects[name][:2])
    for name in known.keys() - found.keys():
        (root / name).unlink(missing_ok=True)
    text = json.dumps({"url": url, "limit": limit, "objects": objects})
    write_atomic(root / MARK, [text.encode()])


def _time(info: dict[str, Any]) -> int:
    """When an object was written, nanoseconds; 0 where the storage does not say."""
    when = info.get("LastModified") or info.get("updated") or info.get("mtime")
    return int(when.timestamp()) * 10**9 if isinstance(when, datetime) else 0
