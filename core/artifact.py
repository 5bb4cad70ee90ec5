"""Artifact folders: what made each file, so that a stage redoes only what changed.

A folder holds ``stage.json`` (what it is) and the journal ``items.jsonl`` (one line a finished
item). A file is written under a temporary name and moved into place, then its line is appended;
after a kill at any moment the journal tells what is done. A folder without ``stage.json`` is
foreign: read, never written.

Freshness of an item: its key, a digest of (stage, version, settings, digests of its inputs), is the
one in the journal, and its files are as they were written. Files of equal size and mtime are
trusted unless ``verify`` is set; otherwise digests decide.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tqdm import tqdm

from dmnet.core.errors import (
    EditedArtifactError,
    ForeignArtifactError,
    InputError,
    LockedArtifactError,
    StaleInputError,
)
from dmnet.core.files import (
    Stamp,
    boot_id,
    digest,
    file_digest,
    flush,
    named,
    remove_temporary,
    stamp,
    write_atomic,
)
from dmnet.core.journal import (
    HEADER,
    JOURNAL,
    Inputs,
    Record,
    begin_line,
    header_text,
    read_header,
    scan_journal,
    tools,
)
from dmnet.core.products import (
    LOCK,
    LOG,
    OWN,
    Item,
    Product,
    Result,
    Summary,
    inside,
    removed,
)
from dmnet.core.work import Carrier, Stream, by_processes, streamed

__all__ = ["LOCK", "LOG", "Artifact", "Item", "Product", "Result", "Summary", "inside"]
_log = logging.getLogger(__name__)

STATES = ("fresh", "aside", "stale", "new", "gone")
"""States of an item; one that is ``gone`` has a record and no longer exists."""

Todo = tuple[Item, str, Inputs, str]
"""Item, key, stamps of its inputs, state."""


def _changed_since(inputs: Inputs) -> str:
    """The first input file that is no longer as it was looked at; empty if all are."""
    for path, size, time, made in inputs.values():
        try:
            state = Path(path).stat()
        except OSError:
            continue  # what needed it has said so
        if made != "absent" and [state.st_size, state.st_mtime_ns] != [size, time]:
            return str(path)
    return ""


class Artifact(AbstractContextManager["Artifact"]):
    """One stage's folder, open for writing by one process at a time.

    Args:
        root: the folder; made if absent.
        stage: stage name, for example ``"density"``.
        version: raised when the stage's code changes what it writes.
        config: resolved settings of the stage (JSON-ready).
        facts: digests of inputs that concern all items (weights, a ground-truth file).
        totals: facts that concern only the files that sum up all items: another value makes those
            again and no item.
        origin: what else the header tells: upstream artifacts, data set, options, all settings. It
            decides nothing here.
        force: overwrite own files that were changed by hand.
        verify: compare digests even where size and mtime are equal.

    Raises:
        ForeignArtifactError: the folder holds files but no header of this stage.
        LockedArtifactError: another process has it open.
        EditedArtifactError: an own file was changed since it was written (unless ``force``).
    """

    def __init__(
        self,
        root: Path,
        stage: str,
        version: int,
        config: Mapping[str, Any],
        *,
        facts: Mapping[str, Any] | None = None,
        totals: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
        force: bool = False,
        verify: bool = False,
    ) -> None:
        """Open or create the folder; nothing is written before the ``with`` block."""
        self.root, self.force, self.verify = root, force, verify
        self.identity = {
            "stage": stage,
            "version": version,
            "config": json.loads(json.dumps(config)),
            "facts": json.loads(json.dumps(facts or {})),
        }
        self.totals = json.loads(json.dumps(totals or {}))
        self.origin = json.loads(json.dumps(origin or {}))
        self.summary = Summary()
        self.changed = True
        self.records: dict[str, Record] = {}
        self.header: dict[str, Any] = {}
        self.missing: list[str] = []
        self.first: dict[str, str] = {}
        self._begun: set[str] = set()
        self._claims: Counter[str] = Counter()
        self._moved = False
        self._cut = False
        self._unflushed: set[str] = set()
        self._outputs: dict[str, Stamp] = {}
        self._journal: IO[str] | None = None
        self._lock: IO[str] | None = None
        self._refuse_foreign()

    def _header(self) -> dict[str, Any] | None:
        """The header; with ``force`` one that is damaged or gone tells nothing, the journal all.

        Raises:
            InputError: it is damaged.
        """
        try:
            header = read_header(self.root)
        except InputError as error:
            if not (self.force and scan_journal(self.root).records):
                raise
            _log.warning("%s", error)
            header = None
        if header is None and self.force and scan_journal(self.root).records:
            return {"stage": self.identity["stage"]}
        return header

    def _refuse_foreign(self) -> None:
        header = self._header()
        stage = self.identity["stage"]
        if header is None:
            present = sorted(p.name for p in self.root.iterdir()) if self.root.is_dir() else []
            strange = [name for name in present if name not in OWN and not name.endswith(".tmp")]
            if strange:
                lost = " If it is one of its artifacts whose header is gone, add --force."
                raise ForeignArtifactError(
                    f"{self.root} holds files that this pipeline did not make (such as "
                    f"{strange[0]!r}); it will not write there. Move them away, name another "
                    "RUN, or give the folder as an input instead (for example DENSITY=folder)."
                    f"{lost if scan_journal(self.root).records else ''}"
                )
        elif header["stage"] != stage:
            raise ForeignArtifactError(
                f"{self.root} is an artifact of the stage '{header['stage']}', not of '{stage}'; "
                "name another RUN or remove the folder."
            )

    def __enter__(self) -> Artifact:
        """Lock the folder and read what is done."""
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

    def _load(self) -> None:
        self.records, self._begun, lost = scan_journal(self.root)
        for text in lost:
            _log.warning("%s:%s", self.root / JOURNAL, text)
        self.header = header = self._header() or {}
        self._cut = not header.get("complete") and header.get("boot", boot_id()) != boot_id()
        self._claims = Counter(name for record in self.records.values() for name in record.files)
        self._moved = any(header.get(key) != value for key, value in self.origin.items())
        self._moved |= bool(lost)
        same = all(header.get(key) == value for key, value in self.identity.items())
        same &= header.get("totals", {}) == self.totals
        self._outputs = dict(header.get("outputs", {}))
        states = {name: self._state(name, known) for name, known in self._outputs.items()}
        self._refuse_edited([name for name, state in states.items() if state == "edited"])
        self.missing = [name for name, state in states.items() if state == "missing"]
        fine = same and header.get("complete", False)
        self.changed = not (fine and all(state == "same" for state in states.values()))

    def _state(self, name: str, known: Stamp) -> str:
        """``same``, ``missing`` or ``edited``.

        Where the machine was restarted in the middle of a run, what the journal tells may never
        have reached the disc: contents decide, and what is not as told counts as missing.
        """
        path = inside(self.root, name)
        try:
            state = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        trusted = not (self.verify or self._cut)
        if [state.st_size, state.st_mtime_ns] == known[:2] and trusted:
            return "same"
        if state.st_size == known[0] and file_digest(path) == known[2]:
            known[1] = state.st_mtime_ns
            return "same"
        return "missing" if self._cut else "edited"

    def _refuse_edited(self, names: Sequence[str]) -> None:
        if not names:
            return
        shown = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
        if self.force:
            _log.warning("%s: making again what was changed by hand: %s", self.root, shown)
            return
        raise EditedArtifactError(
            f"{self.root}: changed since the pipeline wrote it: {shown}. Nothing was overwritten. "
            "To keep your version, copy the folder elsewhere and give it as an input; to make it "
            "again, add --force (make ... SET=--force)."
        )

    def key(self, item: Item) -> tuple[str, Inputs]:
        """Key of an item and the stamps of its input files; unchanged files are not read again.

        A file that cannot be read counts as absent: the work on the item will say so.
        """
        old = self.records.get(item.id)
        inputs: Inputs = {}
        for name, path in item.files.items():
            try:
                state = path.stat()
                seen = [str(path.absolute()), state.st_size, state.st_mtime_ns]
                before = old.inputs.get(name) if old else None
                trusted = before is not None and before[:3] == seen and not self.verify
                inputs[name] = [*seen, before[3] if before and trusted else file_digest(path)]
            except OSError:
                inputs[name] = [str(path.absolute()), 0, 0, "absent"]
        parts = {name: value[3] for name, value in inputs.items()}
        return digest([self.identity, parts, item.facts]), inputs

    def todo(self, items: Iterable[Item]) -> list[Todo]:
        """What is to be done about every item, in order.

        States: ``fresh``; ``aside`` (was set aside, and nothing changed since); ``stale``; ``new``.

        Raises:
            EditedArtifactError: files of known items were changed by hand.
        """
        listed: list[Todo] = []
        edited: dict[str, list[str]] = {}
        for item in items:
            key, inputs = self.key(item)
            state, changed = self._item_state(item.id, key)
            edited |= {item.id: changed} if changed else {}
            listed.append((item, key, inputs, "stale" if changed else state))
        for name in self.records.keys() - {item.id for item, *_ in listed}:
            _, changed = self._item_state(name, "")
            edited |= {name: changed} if changed else {}
        self._refuse_edited(sorted(name for names in edited.values() for name in names))
        return listed

    def _item_state(self, item_id: str, key: str) -> tuple[str, list[str]]:
        """State of an item, and its files that were changed by hand.

        Nothing is known of the files of an item that was being made when a run was killed.
        """
        record = self.records.get(item_id)
        if record is None or not record.key:
            return ("stale" if record else "new"), []
        states = {name: self._state(name, known) for name, known in record.files.items()}
        edited = [name for name, found in states.items() if found == "edited"]
        if record.key != key or any(found != "same" for found in states.values()):
            return "stale", edited
        return ("aside" if record.error else "fresh"), edited

    def process(
        self,
        items: Iterable[Item],
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

    def process_stream(self, items: Iterable[Item], stream: Stream, label: str = "") -> Summary:
        """As `process`, for work that takes many items at once and yields ``(item, result)``.

        Raises:
            EditedArtifactError: see the class.
        """
        return self.carry_out(items, streamed(lambda: stream), label)

    def carry_out(self, items: Iterable[Item], carrier: Carrier, label: str = "") -> Summary:
        """As `process`, with anything that carries out the work.

        Args:
            items: everything that should exist at the end.
            carrier: does what is not fresh and writes its files; this process alone writes the
                journal.
            label: of the progress bar; empty: none.

        Raises:
            EditedArtifactError: see the class.
        """
        todo, keys = self._start(items)
        bar = partial(tqdm, total=len(todo), desc=label, unit="item", mininterval=0.5)
        off = None if label and len(todo) > 1 else True
        for item, result in bar(carrier(self.root, todo, self._take), disable=off):
            self._finish(item, *keys[item.id], result)
        return self.summary

    def _take(self, item: Item) -> frozenset[str] | None:
        """Announce an item that is about to be made; the files that it may replace."""
        own = self._own(item)
        self._announce(item.id)
        return own

    def _own(self, item: Item) -> frozenset[str] | None:
        """Files that this item may replace: its own; any, where a killed run left it half made."""
        if self.force or self._cut or item.id in self._begun:
            return None
        return frozenset(self.records[item.id].files if item.id in self.records else ())

    def _start(self, items: Iterable[Item]) -> tuple[list[Item], dict[str, tuple[str, Inputs]]]:
        """Find what is to be done, and forget what no longer exists."""
        plan = list(self.todo(items))
        keys = {item.id: (key, inputs) for item, key, inputs, state in plan if state != "fresh"}
        gone = set(self.records) - {item.id for item, *_ in plan}
        self.summary.kept += len(plan) - len(keys)
        if keys or gone:
            self._begin()
        for name in sorted(gone):
            self._forget(name)
        return [item for item, *_ in plan if item.id in keys], keys

    def _finish(self, item: Item, key: str, inputs: Inputs, result: Record | InputError) -> None:
        """Append the journal line of one item; files that it no longer has are removed.

        Raises:
            StaleInputError: the item was made elsewhere, from other inputs.
        """
        old = self.records.get(item.id)
        other = _changed_since(inputs)
        if other and isinstance(result, Record):
            why = InputError(other, "changed while it was worked on; run the same command again")
            self.summary.bad[item.id] = str(why)
            self.changed = True
            self._append(replace(result, key="", inputs=inputs, error=str(why)))  # never fresh
            self._unlink(set(old.files if old else ()) - set(result.files))
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
            self._append(replace(result, key=key, inputs=inputs))
            self._unlink(set(old.files if old else ()) - set(result.files))

    def _unlink(self, names: Iterable[str]) -> None:
        """Remove files of the past, except those that a record of today or a sum also names."""
        for name in sorted(names):
            if not self._claims[name] and name not in self._outputs:
                inside(self.root, name).unlink(missing_ok=True)

    def _begin(self) -> None:
        """Say in the header that work is under way, and open the journal."""
        if self._journal is None:
            self._write_header(complete=False)
            path = self.root / JOURNAL
            torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
            self._journal = path.open("a", encoding="utf-8", buffering=1)
            if torn:
                self._note("\n")

    def _announce(self, item_id: str) -> None:
        """Say that an item's files may be replaced from now on: a kill between is no edit."""
        self._begin()
        self._note(begin_line(item_id))

    def _note(self, line: str) -> None:
        """Write to the journal; an error names it."""
        assert self._journal is not None
        try:
            self._journal.write(line)
        except OSError as error:
            raise named(error, self.root / JOURNAL) from error

    def _append(self, record: Record) -> None:
        self._begin()
        self._refuse_removed()
        self._note(record.line())
        self._unflushed |= record.files.keys()
        if record.id in self.records:
            self._claims.subtract(self.records[record.id].files.keys())
        self._claims.update(record.files.keys())
        self.records[record.id] = record

    def _forget(self, item_id: str) -> None:
        self._announce(item_id)
        files = self.records.pop(item_id).files.keys()
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
        self._unflushed.add(name)
        return path

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

    def _write_header(self, *, complete: bool) -> None:
        header = {
            **self.origin,
            **self.identity,
            "totals": self.totals,
            "complete": complete,
            "items": sum(record.error is None for record in self.records.values()),
            "bad": sum(record.error is not None for record in self.records.values()),
            "outputs": dict(sorted(self._outputs.items())),
            "tools": tools(),
            "journal": file_digest(self.root / JOURNAL) if complete else "",
        }
        header |= {} if complete else {"boot": boot_id()}
        write_atomic(self.root / HEADER, [header_text(header).encode()], durable=True)

    def _close(self) -> None:
        """Write the compact journal, bring all that was written to the disc, then say so."""
        lines = (self.records[name].line().encode() for name in sorted(self.records))
        write_atomic(self.root / JOURNAL, lines)
        files = [path for name in self._unflushed if (path := inside(self.root, name)).exists()]
        folders = {path.parent for path in files} | {self.root}
        flush([self.root / JOURNAL, *files, *folders])
        self._write_header(complete=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Compact the journal and mark the artifact complete, unless an exception is on its way."""
        try:
            if self._journal is not None:
                self._journal.close()
            if kind is None:
                self._refuse_removed()
                if self._journal is not None or self.changed or self._moved:
                    self._close()
        finally:
            if self._lock is not None:
                self._lock.close()

    def inspect(self, items: Iterable[Item]) -> dict[str, int]:
        """Count items by state without locking or writing anything; ``first`` names one of each.

        Raises:
            EditedArtifactError: see the class.
        """
        self._load()
        listed = self.todo(items)
        gone = sorted(self.records.keys() - {item.id for item, *_ in listed})
        counts = Counter(state for *_, state in listed)
        counts["gone"] = len(gone)
        self.first = {"gone": gone[0]} if gone else {}
        for item, _, inputs, state in listed:
            if state not in self.first:
                self.first[state] = self._described(item, inputs)
        return {state: counts[state] for state in STATES}

    def _described(self, item: Item, inputs: Inputs) -> str:
        """An item's id and which of its inputs are others than recorded."""
        old = self.records.get(item.id)
        other = [n for n, v in inputs.items() if old and old.inputs.get(n, v)[3] != v[3]]
        return f"{item.id}: {', '.join(other[:3])}" if other else item.id

    @property
    def good(self) -> dict[str, Record]:
        """Finished items in id order."""
        return {i: self.records[i] for i in sorted(self.records) if not self.records[i].error}
