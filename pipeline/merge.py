"""``dmnet merge STAGE``: the parts made with ``--shard`` as one artifact, as if made in one run.

A pure function of the parts: their files are copied, nothing is computed but the files that sum up
all items. The parts stay; they can be removed afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.files import bytes_digest
from dmnet.core.finished import Record
from dmnet.core.products import Item, Product
from dmnet.core.shards import read_shards
from dmnet.core.work import Carrier, Done, Take, here
from dmnet.pipeline.context import Context
from dmnet.pipeline.run import Say, execute

Parts = Mapping[str, tuple[Path, Record]]


def merge(context: Context, stage: str, say: Say) -> dict[str, str]:
    """Make one artifact of the parts of a stage.

    Args:
        context: of the stage.
        stage: its name.
        say: gets the results that the stage shows, line by line.

    Returns:
        The items that were set aside in a part: id -> reason.

    Raises:
        MissingInputError: a part is missing or not finished, or an item is in none.
        StaleInputError: a part was made from other inputs than those at hand.
    """
    parts = read_shards(context.folder(stage))
    return execute(replace(context, shard=None), stage, say, copied(parts))


def copied(parts: Parts) -> Carrier:
    """Takes every item from the part that holds it."""

    def carry(root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
        lost = [item.id for item in items if item.id not in parts]
        if lost:
            raise MissingInputError(
                f"{len(lost)} items are in no part (such as {lost[0]}): they came after the parts "
                "were made. Run the stage with --shard again, every part."
            )
        for item, result in here(partial(recall, parts))(root, items, take):
            if isinstance(result, Record):
                result = replace(result, key=parts[item.id][1].key)
            yield item, result

    return carry


def recall(parts: Parts, item: Item) -> Product:
    """What a part holds of an item.

    Raises:
        InputError: the reason why it was set aside there, or a file that cannot be read or is
            damaged.
    """
    folder, record = parts[item.id]
    if record.error is not None:
        place, _, reason = record.error.partition(": ")
        raise InputError(place, reason)
    files: dict[str, bytes] = {}
    for name, known in record.files.items():
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise InputError(folder / name, f"cannot be read ({error.strerror})") from error
        if bytes_digest(files[name]) != known[2]:
            raise InputError(
                folder / name,
                "not the bytes that were written; make this part again with --force --verify",
            )
    return Product(files, record.value, tuple(record.warnings), record.set_aside)
