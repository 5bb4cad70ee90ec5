"""Whether an artifact folder is what it says: its files hashed again, its books checked."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmnet.core.errors import InputError
from dmnet.core.files import TEMPORARY, bytes_digest, file_digest
from dmnet.core.finished import Records
from dmnet.core.journal import HEADER, JOURNAL, SINCE, Journal, read_header, scan_journal
from dmnet.core.products import LOG, OWN
from dmnet.core.threads import map_ahead

SCRATCH = ("checkpoint-", "tensorboard")
"""How names begin of what a training keeps beside its weights."""


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written.

    ``kind``: ``damaged``, ``missing``, ``unfinished``, ``foreign`` (nothing recorded made it) or
    ``stale`` (made from a file that has changed since).
    """

    kind: str
    path: Path
    why: str
    line: int | None = None

    def __str__(self) -> str:
        """``kind  path:line: why``."""
        place = f"{self.path}{'' if self.line is None else f':{self.line}'}"
        return f"{self.kind:<11}{place}: {self.why}"


@dataclass(frozen=True)
class Claim:
    """What a folder's books say about a file: its own, or one that an item was made from."""

    path: Path
    size: int
    digest: str
    item: str
    own: bool


@dataclass(frozen=True)
class Books:
    """What a folder says about itself; ``header`` is None where it cannot be read."""

    folder: Path
    header: Mapping[str, Any] | None
    claims: tuple[Claim, ...]
    faults: tuple[Fault, ...]

    @property
    def stage(self) -> str:
        """The stage that the header names; empty where it cannot be read."""
        return str((self.header or {}).get("stage", ""))


def read_books(folder: Path) -> Books:
    """Read header and journal of an artifact folder and check both."""
    faults = []
    try:
        header = read_header(folder)
        if header is None:
            faults.append(Fault("missing", folder / HEADER, "the header is gone"))
    except InputError as error:
        header = None
        faults.append(Fault("damaged", folder / HEADER, error.reason))
    try:
        found = scan_journal(folder)
    except (InputError, OSError) as error:
        found = Journal(Records(), set(), [f"1: cannot be read ({error})"])
    for text in found.damaged:
        number, _, why = text.partition(": ")
        faults.append(Fault("damaged", folder / JOURNAL, why, int(number)))
    faults += _compared(folder, header or {}, bool(found.damaged))
    claims = [
        Claim(folder / name, stamp[0], stamp[2], record.id, own=True)
        for record in found.records.values()
        for name, stamp in record.files.items()
        if record.key
    ]
    for name, stamp in (header or {}).get("outputs", {}).items():
        claims.append(Claim(folder / name, stamp[0], stamp[2], "all items", own=True))
    for record in found.records.values():
        for place, size, _, digest in record.inputs.values():
            claims.append(Claim(Path(place), size, digest, record.id, own=False))
    return Books(folder, header, tuple(claims), tuple(faults))


def _compared(folder: Path, header: Mapping[str, Any], known: bool) -> Iterator[Fault]:
    """Whether header and journal belong together."""
    if header and not header.get("complete"):
        yield Fault("unfinished", folder, "a run was stopped or is under way here")
    elif header.get(SINCE) and not known:
        path = folder / JOURNAL
        if not path.exists():
            yield Fault("missing", path, "the journal is gone")
        elif file_digest(path) != header[SINCE]:
            yield Fault("damaged", path, "lines were lost or added since the stage was finished")
    match header.get("log"):
        case [int(size), str(digest)] if (folder / LOG).is_file():
            if _beginning(folder / LOG, size) != digest:
                yield Fault("damaged", folder / LOG, "not the lines that were written")


def _beginning(path: Path, size: int) -> str:
    """Digest of a file's first bytes, before those of a killed run; empty if it is unreadable."""
    try:
        with path.open("rb") as stream:
            return bytes_digest(stream.read(size))
    except OSError:
        return ""


def measured(paths: Iterable[Path], threads: int) -> dict[Path, tuple[int, str] | None]:
    """Size and digest of many files, read side by side; None: cannot be read."""
    listed = list(dict.fromkeys(paths))
    return dict(zip(listed, map_ahead(_measure, listed, threads), strict=True))


def _measure(path: Path) -> tuple[int, str] | None:
    try:
        return (path.stat().st_size, file_digest(path)) if path.is_file() else None
    except OSError:
        return None


def judged(
    books: Books, found: Mapping[Path, tuple[int, str] | None], owned: Collection[Path] = ()
) -> Iterator[Fault]:
    """Compare claims with what `measured` found.

    Args:
        books: of one folder.
        found: of all files that the books name.
        owned: files that the books of other folders claim: those tell about them.
    """
    yield from books.faults
    for claim in books.claims:
        if claim.own or claim.path not in owned:
            fault = _fault(claim, found[claim.path])
            if fault is not None:
                yield fault
    yield from _foreign(books)


def _fault(claim: Claim, found: tuple[int, str] | None) -> Fault | None:
    """What is wrong with one file."""
    if not claim.own:
        if claim.digest in ("absent", found and found[1]):
            return None
        why = "is gone" if found is None else "has changed"
        return Fault("stale", claim.path, f"{why} since {claim.item} was made from it")
    if found is None:
        why = "a folder is in its place; remove that" if claim.path.is_dir() else "cannot be read"
        return Fault("missing", claim.path, f"{why}; it was made for {claim.item}")
    if found[0] != claim.size:
        why = f"{found[0]:,} bytes, {claim.size:,} were written for {claim.item}"
        return Fault("damaged", claim.path, why)
    if found[1] != claim.digest:
        return Fault("damaged", claim.path, f"not the bytes that were written for {claim.item}")
    return None


def _foreign(books: Books) -> Iterator[Fault]:
    """Files that the books do not name; nothing where lines of the books are lost."""
    if books.header is None or any(fault.path.name == JOURNAL for fault in books.faults):
        return
    known = {claim.path for claim in books.claims if claim.own}
    for place, folders, names in os.walk(books.folder):
        folders[:] = [name for name in folders if not name.startswith(SCRATCH)]
        for name in sorted(names):
            path = Path(place, name)
            own = name in OWN and path.parent == books.folder
            if path in known or own or name.startswith(SCRATCH):
                continue
            left = TEMPORARY.fullmatch(name)
            why = "left by a killed run; the next run removes it" if left else "no item made it"
            yield Fault("foreign", path, why)
