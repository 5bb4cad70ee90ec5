"""Symbolic links of a data set: where they lead, and whether that is allowed.

A folder of somebody else may hold links to any file of this machine, whose contents would turn up
in messages and results. Links are followed inside the data set; beyond it only where the user says
so. The data set's own folder may be a link.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from dmnet.core.errors import InputError
from dmnet.core.listing import Entry, Listing

ALLOWED: ContextVar[bool] = ContextVar("links", default=False)
"""Whether links may lead out of a data set's folder (``--follow-links``)."""

OPTION = "--follow-links"

ABOUT = ("classes.txt", "data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
"""Files about a whole data set."""


def without_leaving(listing: Listing, data: Path) -> tuple[tuple[Entry, ...], list[str]]:
    """The entries whose files lie in the data set, and one problem that names the others.

    Args:
        listing: as it was found.
        data: the folder or file that the user gave.

    Raises:
        InputError: a file about the whole data set lies elsewhere.
    """
    if ALLOWED.get():
        return listing.entries, []
    home = data if data.is_dir() else data.parent
    roots = tuple({os.path.realpath(listing.root), os.path.realpath(home)})
    for path in (listing.source, *(home / name for name in ABOUT)):
        if path and path != data:
            refuse_leaving(path, *roots)
    real: Callable[[Path], str] = cache(os.path.realpath)
    if listing.folders and all(_inside(real(folder), roots) for folder in listing.folders):
        return listing.entries, []
    led = [entry for entry in listing.entries if _leaves(entry, roots, real)]
    if not led:
        return listing.entries, []
    first = next(path for path in (led[0].image, led[0].annotation) if path is not None)
    known = {id(entry) for entry in led}
    return tuple(entry for entry in listing.entries if id(entry) not in known), [
        f"{first}: leads out of the data set ({len(led)} in all); left out, unless "
        f"{OPTION} says that links may"
    ]


def refuse_leaving(path: Path, *roots: Path | str) -> None:
    """Refuse a file about a data set that a link leads out of these folders.

    Raises:
        InputError: it does, and links may not.
    """
    real = tuple(map(os.path.realpath, roots))
    if not (ALLOWED.get() or _inside(os.path.realpath(path), real)):
        raise InputError(str(path), f"leads out of the data set; {OPTION} says that links may")


def _leaves(entry: Entry, roots: Iterable[str], real: Callable[[Path], str]) -> bool:
    """Whether a file of an entry lies outside all these folders."""
    for path in (entry.image, entry.annotation):
        if path is None:
            continue
        folder = real(path.parent)
        place = os.path.realpath(path) if path.is_symlink() else folder
        if not _inside(place, roots):
            return True
    return False


def _inside(place: str, roots: Iterable[str]) -> bool:
    """Whether a real path is one of these folders, or in one."""
    return any(place == root or place.startswith(root + os.sep) for root in roots)
