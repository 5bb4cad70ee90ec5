"""Units of work and what they give, and writing that into an artifact's folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmnet.core.errors import InputError, RemovedArtifactError
from dmnet.core.files import Stamp, stamp, write_atomic
from dmnet.core.finished import Record, escapes
from dmnet.core.journal import HEADER, JOURNAL
from dmnet.core.memory import is_out_of_memory, release
from dmnet.core.reading import bad_name

LOCK, LOG = ".lock", "log.txt"
OWN = {HEADER, JOURNAL, LOCK, LOG}
"""What the store itself keeps in a folder."""


@dataclass(frozen=True, slots=True)
class Item:
    """One unit of work: an id, its input files, and facts that count as input.

    ``files`` are digested; ``facts`` is any JSON-ready value (an upstream digest, an image size).
    """

    id: str
    files: Mapping[str, Path] = field(default_factory=dict)
    facts: Any = None
    made: Mapping[str, Stamp] = field(default_factory=dict)
    """Of files that an earlier stage of this run wrote: what its journal says, so that they need
    not be read to know their digests."""


@dataclass(frozen=True)
class Items(Collection[Item]):
    """Many items, made anew whenever somebody goes through them: together they take no memory."""

    make: Callable[[Sequence[Any]], Iterable[Item]]
    """Items of some of what they are made of, in order."""
    of: Sequence[Any]
    count: int

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def __iter__(self) -> Iterator[Item]:
        """The items in order."""
        return iter(self.make(self.of))

    def parts(self, number: int) -> list[Iterable[Item]]:
        """The items in so many parts, one after the other."""
        cuts = [len(self.of) * n // number for n in range(number + 1)]
        return [self.make(self.of[a:b]) for a, b in itertools.pairwise(cuts)]

    def __contains__(self, item: object) -> bool:
        """Whether an item is one of them."""
        return any(each == item for each in self)


Content = bytes | Callable[[], Iterable[bytes]]
"""What a file holds; something large is made piece by piece while it is written."""


@dataclass(frozen=True)
class Product:
    """What the work on one item gives."""

    files: Mapping[str, Content]
    """Contents by name relative to the folder."""
    value: Any = None
    """A small JSON-ready value, kept in the journal."""
    warnings: tuple[str, ...] = ()
    """Sentences for the log."""
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """Inputs that could not be used although the item is done: name to reason."""


Result = Product | InputError
"""A product, or the reason why the item has to be set aside."""


@dataclass
class Summary:
    """Counts of one run of a stage."""

    done: int = 0
    kept: int = 0
    removed: int = 0
    bad: dict[str, str] = field(default_factory=dict)


def inside(root: Path, name: str) -> Path:
    """``root / name``, refusing names that would leave the folder.

    Raises:
        InputError: the name is absolute, climbs out, is one of the store's own files, or no name
            for a file (control characters, not UTF-8, too long).
    """
    if escapes(name) or name in OWN:
        raise InputError(root, f"the name {name!r} would leave this folder")
    if why := bad_name(name):
        raise InputError(root, f"the name {name!r} {why}; rename the file it comes from")
    return root / name


def removed(root: Path) -> RemovedArtifactError:
    """The error of a folder that was taken away while it was written."""
    return RemovedArtifactError(
        f"{root} was removed, moved or replaced while this run was writing into it. What it holds "
        "is not complete; run the same command again."
    )


def write_product(root: Path, item: Item, product: Product, own: Collection[str] | None) -> Record:
    """Write an item's files and return its record, still without key and inputs.

    Args:
        root: the artifact's folder.
        item: the item.
        product: what the work on it gave.
        own: files that may be replaced; None: any.

    Raises:
        InputError: a name leaves the folder, or a file of that name is there that this item did
            not write. Nothing is written then.
        RemovedArtifactError: the folder is gone.
    """
    if not (root / LOCK).exists():
        raise removed(root)
    for name, data in product.files.items():
        path = inside(root, name)
        if own is not None and name not in own and path.exists() and path.read_bytes() != data:
            raise InputError(
                path,
                f"is in the way of what {item.id} gives and was not made for it; move it away, or "
                "overwrite it with --force",
            )
    stamps: dict[str, Stamp] = {}
    for name, data in product.files.items():
        path = root / name
        chunks = [data] if isinstance(data, bytes) else data()
        stamps[name] = stamp(path, write_atomic(path, chunks))
    return Record(
        item.id,
        "",
        stamps,
        {},
        product.value,
        warnings=list(product.warnings),
        set_aside=dict(product.set_aside),
    )


def work_on(
    root: Path, work: Callable[[Item], Product], item: Item, own: Collection[str] | None
) -> Record | InputError:
    """Do one item and write its files; runs in the worker process."""
    try:
        return write_product(root, item, work(item), own)
    except InputError as error:
        return error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        release()
        return out_of_memory(item, error)


def out_of_memory(item: Item, error: BaseException, way: str = "fewer --workers") -> InputError:
    """Why an item is set aside that there is not enough memory for; ``way`` needs less."""
    path = next(iter(item.files.values()), item.id)
    reason = str(error).partition("\n")[0][:120] or "MemoryError"
    return InputError(path, f"not enough memory for it ({reason}); {way} needs less")
