"""Parts of a stage: each is run by itself and has an artifact folder of its own."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dmnet.core.errors import MissingInputError, StaleInputError
from dmnet.core.finished import Record
from dmnet.core.journal import read_header, read_journal
from dmnet.core.products import Item

NAME = re.compile(r"([1-9]\d{0,5})-of-([1-9]\d{0,5})")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``.

    >>> str(Shard.of("3/8"))
    '3-of-8'
    """

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """Read ``3/8``; the type of ``--shard``.

        Raises:
            ArgumentTypeError: not of that form.
        """
        found = NAME.fullmatch(text.replace("/", "-of-"))
        if found is None or int(found[1]) > int(found[2]):
            raise argparse.ArgumentTypeError(f"write it as 1/8 to 8/8, got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """Name of its folder."""
        return f"{self.index}-of-{self.count}"

    def holds(self, item: Item) -> bool:
        """Whether an item is in this part; items that read the same file stay together.

        The name of the item's last input decides, so that the part of an image does not depend on
        which other images there are.
        """
        name = [path.name for path in item.files.values()][-1:] or [item.id]
        number = int.from_bytes(hashlib.blake2b(name[0].encode(), digest_size=8).digest())
        return number % self.count == self.index - 1


def shard_folder(folder: Path, shard: Shard) -> Path:
    """Where a part of a stage is written: ``density.shards/3-of-8`` beside ``density``."""
    return folder.with_name(f"{folder.name}.shards") / str(shard)


def read_shards(folder: Path) -> Mapping[str, tuple[Path, Record]]:
    """What all parts of a stage hold: the part's folder and the record of every item.

    Args:
        folder: of the whole stage; the parts lie beside it.

    Raises:
        MissingInputError: there are no parts, or one is missing or not finished.
        StaleInputError: they are of different divisions.
    """
    place = shard_folder(folder, Shard(1, 1)).parent
    names = [path.name for path in place.iterdir()] if place.is_dir() else []
    counts = {int(found[2]) for name in names if (found := NAME.fullmatch(name))}
    if not counts:
        raise MissingInputError(f"{place}: no parts to merge; run the stage with --shard 1/N.")
    if len(counts) > 1:
        raise StaleInputError(
            f"{place}: parts of different divisions ({', '.join(sorted(names)[:4])}); remove those "
            "that are not wanted."
        )
    found_records: dict[str, tuple[Path, Record]] = {}
    for index in range(1, max(counts) + 1):
        part = shard_folder(folder, Shard(index, max(counts)))
        if not (read_header(part) or {}).get("complete"):
            raise MissingInputError(
                f"{part}: this part is missing or not finished; run the stage with --shard "
                f"{index}/{max(counts)}."
            )
        found_records |= {name: (part, record) for name, record in read_journal(part).items()}
    return found_records
