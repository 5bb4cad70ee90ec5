"""What an artifact's folder holds, and which items are fresh. Reads only; `artifact` writes.

Freshness of an item: its key, a digest of (stage, version, settings, digests of its inputs), is the
one in the journal, and its files are as they were written. Files of equal size and mtime are
trusted unless ``verify`` is set; otherwise digests decide.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmnet.core.errors import (
    EditedArtifactError,
    ForeignArtifactError,
    InputError,
)
from dmnet.core.files import (
    Stamp,
    boot_id,
    digest,
    file_digest,
)
from dmnet.core.journal import (
    JOURNAL,
    Good,
    Inputs,
    Record,
    Records,
    read_header,
    scan_journal,
)
from dmnet.core.products import (
    OWN,
    Item,
    inside,
)
from dmnet.core.threads import looked_at

_log = logging.getLogger(__name__)

STATES = ("fresh", "aside", "stale", "new", "gone")
"""States of an item; one that is ``gone`` has a record and no longer exists."""

Todo = tuple[Item, str, Inputs, str]
"""Item, key, stamps of its inputs, state."""


class Ledger:
    """One stage's folder, looked at without locking or writing.

    Args:
        root: the folder; it need not be there.
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
        """Look whether the folder is this stage's own; nothing is written."""
        self.root, self.force, self.verify = root, force, verify
        self.identity = {
            "stage": stage,
            "version": version,
            "config": json.loads(json.dumps(config)),
            "facts": json.loads(json.dumps(facts or {})),
        }
        self.totals = json.loads(json.dumps(totals or {}))
        self.origin = json.loads(json.dumps(origin or {}))
        self.changed = True
        self.records = Records()
        self.header: dict[str, Any] = {}
        self.missing: list[str] = []
        self.first: dict[str, str] = {}
        self._begun: set[str] = set()
        self._moved = False
        self._cut = False
        self._outputs: dict[str, Stamp] = {}
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

    def _load(self) -> None:
        self.records, self._begun, lost = scan_journal(self.root)
        for text in lost:
            _log.warning("%s:%s", self.root / JOURNAL, text)
        self.header = header = self._header() or {}
        self._cut = not header.get("complete") and header.get("boot", boot_id()) != boot_id()
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

    def key(self, item: Item, old: Record | None) -> tuple[str, Inputs]:
        """Key of an item and the stamps of its input files; unchanged files are not read again.

        ``old`` is what the journal tells of it.

        A file that cannot be read counts as absent: the work on the item will say so.
        """
        inputs: Inputs = {}
        for name, path in item.files.items():
            try:
                state = path.stat()
                seen = [str(path.absolute()), state.st_size, state.st_mtime_ns]
                known = [[seen[0], *item.made[name]]] if name in item.made else []
                known += [old.inputs[name]] if old and name in old.inputs else []
                trusted = (each[3] for each in known if each[:3] == seen and not self.verify)
                inputs[name] = [*seen, next(trusted, None) or file_digest(path)]
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
        pairs = ((item, self.records.get(item.id)) for item in items)
        for item, record in looked_at(pairs, self._paths):
            key, inputs = self.key(item, record)
            state, changed = self._item_state(record, key)
            edited |= {item.id: changed} if changed else {}
            listed.append((item, key, inputs, "stale" if changed else state))
        for name in self.records.keys() - {item.id for item, *_ in listed}:
            _, changed = self._item_state(self.records[name], "")
            edited |= {name: changed} if changed else {}
        self._refuse_edited(sorted(name for names in edited.values() for name in names))
        return listed

    def _item_state(self, record: Record | None, key: str) -> tuple[str, list[str]]:
        """State of an item, and its files that were changed by hand.

        Nothing is known of the files of an item that was being made when a run was killed.
        """
        if record is None or not record.key:
            return ("stale" if record else "new"), []
        times = [known[1] for known in record.files.values()]
        states = {name: self._state(name, known) for name, known in record.files.items()}
        if times != [known[1] for known in record.files.values()]:
            self.records[record.id] = record
        edited = [name for name, found in states.items() if found == "edited"]
        if record.key != key or any(found != "same" for found in states.values()):
            return "stale", edited
        return ("aside" if record.error else "fresh"), edited

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

    def _paths(self, pair: tuple[Item, Record | None]) -> list[Path]:
        """The files that an item's state depends on."""
        item, record = pair
        return [
            *item.files.values(),
            *(self.root / name for name in (record.files if record else ())),
        ]

    @property
    def good(self) -> Good:
        """Finished items in id order."""
        return Good(self.records)
