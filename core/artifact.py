"""Artifact folders: what made each file, so that a stage redoes only what changed.

A folder holds ``stage.json`` (what it is) and the journal ``items.jsonl`` (one line a finished
item). A file is written under a temporary name and moved into place, then its line is appended;
after a kill at any moment the journal tells what is done. A folder without ``stage.json`` is
foreign: read, never written.

Which items are fresh, `dmnet.core.ledger` says.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tqdm import tqdm

from dmnet.core.errors import (
    InputError,
    LockedArtifactError,
    StaleInputError,
)
from dmnet.core.files import (
    MANY,
    boot_id,
    file_digest,
    flush,
    flush_all,
    naming,
    remove_temporary,
    stamp,
    write_atomic,
)
from dmnet.core.finished import Inputs, Record
from dmnet.core.journal import HEADER, JOURNAL, begin_line, header_text, tools
from dmnet.core.ledger import Ledger, Todo
from dmnet.core.products import (
    LOCK,
    LOG,
    Item,
    Items,
    Product,
    Result,
    Summary,
    inside,
    removed,
)
from dmnet.core.work import Carrier, Stream, Taken, by_processes, streamed

__all__ = ["LOCK", "LOG", "Artifact", "Item", "Items", "Product", "Result", "Summary", "inside"]
_log = logging.getLogger(__name__)


def _changed_since(item: Item, inputs: Inputs) -> str:
    """The first input file that is no longer as it was looked at; empty if all are."""
    for name, (path, size, time, made) in inputs.items():
        try:
            state = item.files[name].stat()
        except OSError:
            continue  # what needed it has said so
        if made != "absent" and [state.st_size, state.st_mtime_ns] != [size, time]:
            return str(path)
    return ""


@dataclass(frozen=True)
class _Keyed(Todo):
    """As `Todo`; each item is looked at on its way to whoever makes it."""

    look: Callable[[Item], Item]

    def __iter__(self) -> Iterator[Item]:
        """The items that are not fresh, in order."""
        return map(self.look, super().__iter__())


def _torn(path: Path) -> bool:
    """Whether the last line of a journal has no end."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"


class Artifact(Ledger, AbstractContextManager["Artifact"]):
    """One stage's folder, open for writing by one process at a time; arguments as `Ledger`.

    Raises:
        ForeignArtifactError: the folder holds files but no header of this stage.
        LockedArtifactError: another process has it open.
        EditedArtifactError: an own file was changed since it was written (unless ``force``).
    """

    _journal: IO[bytes] | None = None
    _end = 0
    _lock: IO[str] | None = None

    def __enter__(self) -> Artifact:
        """Lock the folder and read what is done."""
        self.summary = Summary()
        self._unflushed: set[str] = set()
        self._keys: dict[str, bytes] = {}
        self._claims: Counter[str] | None = None
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = (self.root / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise LockedArtifactError(
                f"{self.root} is being written by another process; wait for it, "
                "or name another RUN."
            ) from error
        try:
            self._load()
            remove_temporary(self.root)
        except BaseException:
            self._lock.close()
            raise
        return self

    def process(
        self,
        items: Collection[Item],
        work: Callable[[Item], Product],
        *,
        workers: int = 1,
        label: str = "",
    ) -> Summary:
        """Do every item that is not fresh; drop items that no longer exist.

        ``work`` gets one item and returns a `Product`. It must be picklable when ``workers``
        is above 1. An `InputError` sets the item aside with its reason; the others go on.

        Raises:
            EditedArtifactError: see the class.
        """
        return self.carry_out(items, by_processes(work, workers), label)

    def process_stream(self, items: Collection[Item], stream: Stream, label: str = "") -> Summary:
        """As `process`, for work that takes many items at once and yields ``(item, result)``.

        Raises:
            EditedArtifactError: see the class.
        """
        return self.carry_out(items, streamed(lambda: stream), label)

    def carry_out(self, items: Collection[Item], carrier: Carrier, label: str = "") -> Summary:
        """As `process`, with anything that carries out the work.

        Args:
            items: everything that should exist at the end.
            carrier: does what is not fresh and writes its files; this process alone writes the
                journal.
            label: of the progress bar; empty: none.

        Raises:
            EditedArtifactError: see the class.
        """
        todo = self._start(items)
        bar = partial(tqdm, total=len(todo), desc=label, unit="item", mininterval=0.5)
        off = None if label and len(todo) > 1 else True
        for item, result in bar(carrier(self.root, todo, self._take), disable=off):
            key, inputs = json.loads(self._keys.pop(item.id))
            self._finish(item, key, inputs, result)
        return self.summary

    def _take(self, items: Sequence[Item]) -> list[Taken]:
        """Announce items that are about to be made; with the files that each may replace."""
        self._begin()
        taken = [(item, self._own(item)) for item in items]
        self._note("".join(begin_line(item.id) for item in items))
        self._flush()
        return taken

    def _own(self, item: Item) -> frozenset[str] | None:
        """Files that this item may replace: its own; any, where a killed run left it half made."""
        if self.force or self._cut or item.id in self._begun:
            return None
        return frozenset(self.records[item.id].files if item.id in self.records else ())

    def _start(self, items: Collection[Item]) -> Todo:
        """Find what is to be done; forget what no longer exists."""
        todo = self.todo(items)
        self.summary.kept += len(todo.states) - len(todo)
        if len(todo) or todo.gone:
            self._begin()
        for name in todo.gone:
            self._forget(name)
        return _Keyed(todo.items, todo.states, todo.gone, self._look)

    def _look(self, item: Item) -> Item:
        """Keep an item's key and inputs, as they are before it is made, until it is finished."""
        if item.id not in self._keys:  # as text they take a third of the memory
            found = self.key(item, self.records.head(item.id))
            self._keys[item.id] = json.dumps(found).encode()
        return item

    def _finish(self, item: Item, key: str, inputs: Inputs, result: Record | InputError) -> None:
        """Append the journal line of one item; files that it no longer has are removed.

        Raises:
            StaleInputError: the item was made elsewhere, from other inputs.
        """
        old = self.records.get(item.id)
        other = _changed_since(item, inputs)
        if other and isinstance(result, Record):
            why = InputError(other, "changed while it was worked on; run the same command again")
            self.summary.bad[item.id] = str(why)
            self.changed = True
            record = replace(result, key="", inputs=inputs, error=str(why))  # never fresh
            self._supersede(old, record)
        elif isinstance(result, InputError):
            self.summary.bad[item.id] = str(result)
            _log.error("set aside %s: %s", item.id, result)
            self.changed |= old is None or old.error != str(result)
            files = old.files if old else {}
            self._append(Record(item.id, key, files, inputs, error=str(result)))
        else:
            if result.key not in ("", key):
                raise StaleInputError(
                    f"{item.id}: was made from other inputs or with other settings than those at "
                    "hand; make it again, with the same options here and there."
                )
            for text in result.warnings:
                _log.warning("%s", text)
            self.summary.done += 1
            self.changed = True
            self._supersede(old, replace(result, key=key, inputs=inputs))

    def _supersede(self, old: Record | None, record: Record) -> None:
        """Remove the files that an item no longer has, then append its line.

        In this order a kill between the two leaves the names to the next run, which makes the item
        again.
        """
        if names := set(old.files if old else ()) - set(record.files):
            self._refuse_removed()
            self._unlink(names, held=1)
        self._append(record)

    def _unlink(self, names: Collection[str], held: int = 0) -> None:
        """Remove files of the past, except those that a record of today or a sum also names.

        ``held``: how many records still name them that no longer count.
        """
        if not names:
            return
        if self._claims is None:
            files = (name for record in self.records.values() for name in record.files)
            self._claims = Counter(files)
        for name in sorted(names):
            if self._claims[name] <= held and name not in self._outputs:
                inside(self.root, name).unlink(missing_ok=True)

    def _begin(self) -> None:
        """Say in the header that work is under way, and open the journal."""
        if self._journal is None:
            self._write_header(complete=False)
            path = self.root / JOURNAL
            torn = _torn(path)
            self._journal = path.open("ab")
            self._end = path.stat().st_size
            with path.open("rb") as stream:
                self.records.read_from(stream.fileno(), self._flush)
            if torn:
                self._note("\n")

    def _announce(self, item_id: str) -> None:
        """Say that an item's files may be replaced from now on: a kill between is no edit."""
        self._begin()
        self._note(begin_line(item_id))
        self._flush()

    def _note(self, lines: str) -> int:
        """Write to the journal and return the place; an error names it. `_flush` brings it out."""
        assert self._journal is not None
        place, data = self._end, lines.encode()
        with naming(self.root / JOURNAL):
            self._journal.write(data)
        self._end += len(data)
        return place

    def _flush(self) -> None:
        """Hand what was noted to the system, so that the end of this process loses nothing."""
        assert self._journal is not None
        with naming(self.root / JOURNAL):
            self._journal.flush()

    def _append(self, record: Record) -> None:
        self._begin()
        self._refuse_removed()
        place = self._note(record.line())
        self._flush()
        self._written(record.files)
        if self._claims is not None:
            if record.id in self.records:
                self._claims.subtract(self.records[record.id].files.keys())
            self._claims.update(record.files.keys())
        self.records.keep(record, place)

    def _forget(self, item_id: str) -> None:
        self._announce(item_id)
        files = self.records.pop(item_id).files.keys()
        if self._claims is not None:
            self._claims.subtract(files)
        self._unlink(files)
        self.summary.removed += 1
        self.changed = True

    def output(self, name: str, chunks: bytes | Iterable[bytes]) -> Path:
        """Write a file that sums up all items (``crops.json``, a report); atomic and recorded."""
        self._begin()
        if self._outputs.pop(name, None):
            self._write_header(complete=False)  # a kill between here and the end is no edit
        path = inside(self.root, name)
        known = write_atomic(path, [chunks] if isinstance(chunks, bytes) else chunks)
        self._outputs[name] = stamp(path, known)
        self._written([name])
        return path

    @property
    def touched(self) -> bool:
        """Whether this run changed anything, so that books and log tell of it."""
        return self._journal is not None or self.changed or self._moved

    def _written(self, names: Iterable[str]) -> None:
        """Note files for the flush at the end; of more than `MANY` no name is needed."""
        if len(self._unflushed) <= MANY:
            self._unflushed.update(names)

    def _refuse_removed(self) -> None:
        """Make sure that the folder is still the one that was locked.

        Raises:
            RemovedArtifactError: it was removed, moved or replaced.
        """
        assert self._lock is not None
        try:
            here = (self.root / LOCK).stat().st_ino == os.fstat(self._lock.fileno()).st_ino
        except OSError:
            here = False
        if not here:
            raise removed(self.root)

    def _write_header(
        self, *, complete: bool, journal: str = "", log: Sequence[Any] | None = None
    ) -> None:
        header = {
            **self.origin,
            **self.identity,
            "totals": self.totals,
            "complete": complete,
            "items": len(self.records) - len(self.records.aside),
            "bad": len(self.records.aside),
            "outputs": dict(sorted(self._outputs.items())),
            "tools": tools(),
            "journal": journal,
            "log": log,
        }
        header |= {} if complete else {"boot": boot_id()}
        write_atomic(self.root / HEADER, [header_text(header).encode()], durable=True)

    def _close(self) -> None:
        """Write the compact journal, bring all that was written to the disc, then say so."""
        lines = (self.records.line(name) for name in sorted(self.records))
        known = write_atomic(self.root / JOURNAL, lines)
        log = self.root / LOG
        told = [log.stat().st_size, file_digest(log)] if log.is_file() else None
        self._sync()
        self._write_header(complete=True, journal=known, log=told)

    def _sync(self) -> None:
        """Bring what was written to the disc."""
        if len(self._unflushed) > MANY:
            flush_all()
            return
        files = [path for name in self._unflushed if (path := inside(self.root, name)).exists()]
        books = [path for name in (JOURNAL, LOG) if (path := self.root / name).exists()]
        flush([*books, *files, *{path.parent for path in files} | {self.root}])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Compact the journal and mark the artifact complete, unless an exception is on its way."""
        try:
            if self._journal is not None:
                with naming(self.root / JOURNAL):
                    self._journal.close()
            if kind is None:
                self._refuse_removed()
                if self.touched:
                    self._close()
        finally:
            self.records.settled()
            if self._lock is not None:
                self._lock.close()
