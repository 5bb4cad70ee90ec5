"""What an artifact's folder holds, and which items are fresh. Reads only; `artifact` writes.

Freshness of an item: its key, a digest of (stage, version, settings, digests of its inputs), is the
one in the journal, and its files are as they were written. Files of equal size and mtime are
trusted unless ``verify`` is set; otherwise digests decide.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmnet.core import forks
from dmnet.core.errors import (
    EditedArtifactError,
    ForeignArtifactError,
    InputError,
)
from dmnet.core.files import (
    Stamp,
    boot_id,
    bytes_digest,
    compact,
    file_digest,
)
from dmnet.core.finished import Good, Head, Inputs, Record, Records
from dmnet.core.journal import JOURNAL, read_header, scan_journal
from dmnet.core.memory import uncollected
from dmnet.core.products import (
    OWN,
    Item,
    Items,
    inside,
)
from dmnet.core.threads import looked_at

_log = logging.getLogger(__name__)

STATES = ("fresh", "aside", "stale", "new", "gone")
"""States of an item; one that is ``gone`` has a record and no longer exists."""

FRESH = STATES.index("fresh")


@dataclass(frozen=True)
class Todo(Collection[Item]):
    """What has to be made, of many items; they are made anew whenever somebody goes through."""

    items: Collection[Item]
    states: bytearray
    """Number of each item's state in `STATES`."""
    gone: tuple[str, ...]
    """Records of items that no longer exist."""

    def __len__(self) -> int:
        """How many items are not fresh."""
        return len(self.states) - self.states.count(FRESH)

    def __iter__(self) -> Iterator[Item]:
        """The items that are not fresh, in order."""
        if not len(self):
            return iter(())
        return (item for item, state in zip(self.items, self.states, strict=True) if state != FRESH)

    def __contains__(self, item: object) -> bool:
        """Whether an item is not fresh."""
        return any(each == item for each in self)


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
        self._identity = compact(self.identity)
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
        for name in self._outputs:
            inside(self.root, name)  # those of records were looked at when they were read
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
        path = os.path.join(self.root, name)  # noqa: PTH118 - once an item and file
        try:
            state = os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        trusted = not (self.verify or self._cut)
        if [state.st_size, state.st_mtime_ns] == known[:2] and trusted:
            return "same"
        if state.st_size == known[0] and file_digest(Path(path)) == known[2]:
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

    def key(
        self, item: Item, old: Head | Record | None, *, looked: bool = False
    ) -> tuple[str, Inputs]:
        """Key of an item and the stamps of its input files; unchanged files are not read again.

        A file that cannot be read counts as absent: the work on the item will say so.

        Args:
            item: the item.
            old: what the journal tells of it.
            looked: files that an earlier stage made were looked at when that stage was.
        """
        inputs: Inputs = {}
        for name, path in item.files.items():
            place, made = absolute(path), item.made.get(name)
            known = [[place, *made]] if made else []
            if not (looked and known and not self.verify):
                told = old.inputs if old else {}
                known += [told[name]] if name in told else []
                known = [self._input(path, place, known)]
            inputs[name] = known[0]
        parts = {name: value[3] for name, value in inputs.items()}
        text = f"[{self._identity},{compact([parts, item.facts])[1:]}"  # as `digest` has it
        return bytes_digest(text.encode()), inputs

    def _input(self, path: Path, place: str, known: list[list[Any]]) -> list[Any]:
        """Stamp of an input file; its digest is a known one's, if that is of this size and time."""
        try:
            state = os.stat(place)  # noqa: PTH116 - once an item and file
            seen = [place, state.st_size, state.st_mtime_ns]
            for each in known:
                if each[:3] == seen and not self.verify:
                    return each
            return [*seen, file_digest(path)]
        except OSError:
            return [place, 0, 0, "absent"]

    def todo(self, items: Collection[Item]) -> Todo:
        """What is to be done about every item.

        States: ``fresh``; ``aside`` (was set aside, and nothing changed since); ``stale``; ``new``.
        `first` names one of each.

        Raises:
            EditedArtifactError: files of known items were changed by hand.
        """
        pieces = items.parts(forks.parts(len(items))) if isinstance(items, Items) else [items]
        states = bytearray()
        edited: set[str] = set()
        known = 0
        self.first = {}
        for found in forks.side_by_side(self._look_at, pieces):
            states += found["states"].encode("latin-1")
            edited.update(found["edited"])
            known += found["known"]
            self.first = found["first"] | self.first
            for name, files in found["touched"].items():
                self.records[name] = replace(self.records[name], files=files)
        gone = () if known == len(self.records) else self._gone(items)
        for name in gone:
            if (head := self.records.head(name)) is not None:
                edited.update(self._files_state(head, {})[1])
        self._refuse_edited(sorted(edited))
        return Todo(items, states, gone)

    def _look_at(self, items: Iterable[Item]) -> dict[str, Any]:
        """What `todo` needs to know of some of the items; JSON-ready."""
        states = bytearray()
        edited: list[str] = []
        touched: dict[str, dict[str, Stamp]] = {}
        first: dict[str, str] = {}
        known = 0
        pairs = ((item, self.records.head(item.id)) for item in items)
        with uncollected():
            for item, head in looked_at(pairs, self._paths):
                known += head is not None
                state, changed, inputs = self._item_state(item, head, touched)
                edited += changed
                states.append(STATES.index(state))
                if state not in first:
                    first[state] = self._described(item, head, inputs)
        return {"states": states.decode("latin-1"), "edited": edited, "known": known,
                "first": first, "touched": touched}  # fmt: skip

    def _gone(self, items: Collection[Item]) -> tuple[str, ...]:
        return tuple(sorted(self.records.keys() - {item.id for item in items}))

    def _item_state(
        self, item: Item, head: Head | Record | None, touched: dict[str, dict[str, Stamp]]
    ) -> tuple[str, list[str], Inputs]:
        """State of an item, its files that were changed by hand, stamps of its inputs.

        Nothing is known of the files of an item that was being made when a run was killed.
        """
        if head is None:
            return "new", [], {}
        if not head.key:
            return "stale", [], {}
        key, inputs = self.key(item, head, looked=True)
        whole, edited = self._files_state(head, touched)
        if edited or not whole or head.key != key:
            return "stale", edited, inputs
        return ("aside" if head.error else "fresh"), [], inputs

    def _files_state(
        self, head: Head | Record, touched: dict[str, dict[str, Stamp]]
    ) -> tuple[bool, list[str]]:
        """Whether all files of a record are as they were written, and those changed by hand.

        Where only a time is another one, the stamps of today go into ``touched`` by id.
        """
        if not head.key:
            return False, []
        whole, edited, moved = True, [], False
        files = head.files
        for name, known in files.items():
            time = known[1]
            state = self._state(name, known)
            whole &= state == "same"
            edited += [name] if state == "edited" else []
            moved |= known[1] != time
        if moved:
            touched[head.id] = files
        return whole, edited

    def inspect(self, items: Collection[Item]) -> dict[str, int]:
        """Count items by state without locking or writing anything; ``first`` names one of each.

        Raises:
            EditedArtifactError: see the class.
        """
        self._load()
        found = self.todo(items)
        counts = {state: found.states.count(index) for index, state in enumerate(STATES)}
        if found.gone:
            self.first["gone"] = found.gone[0]
        return counts | {"gone": len(found.gone)}

    @staticmethod
    def _described(item: Item, old: Head | Record | None, inputs: Inputs) -> str:
        """An item's id and which of its inputs are others than recorded."""
        other = [n for n, v in inputs.items() if old and old.inputs.get(n, v)[3] != v[3]]
        return f"{item.id}: {', '.join(other[:3])}" if other else item.id

    def _paths(self, pair: tuple[Item, Head | Record | None]) -> list[Path]:
        """The files that an item's state depends on."""
        item, head = pair
        return [*item.files.values(), *(self.root / name for name in (head.files if head else ()))]

    @property
    def good(self) -> Good:
        """Finished items in id order."""
        return Good(self.records)


def absolute(path: Path) -> str:
    """The absolute path as text."""
    text = str(path)
    return text if text.startswith("/") else f"{os.getcwd()}/{text}"  # noqa: PTH109
