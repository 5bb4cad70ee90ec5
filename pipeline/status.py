"""What is done, what is stale, and why: one line per stage, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dmnet.core.errors import DmnetError, MissingInputError, StaleInputError
from dmnet.core.journal import read_header
from dmnet.pipeline.chain import AT_HAND, as_made, command, look
from dmnet.pipeline.context import STAGES, Context


def report(context: Context, splits: tuple[str, ...]) -> Iterator[str]:
    """Yield one line for every stage of every split."""
    for split in splits:
        for stage in STAGES:
            trains = stage.startswith("train-")
            if trains != (split == "train") and (trains or stage in ("detect", "fuse-eval")):
                continue
            yield f"{split:>15} {stage:<16} {line(replace(context, split=split), stage)}"


def line(context: Context, stage: str) -> str:
    """State of one stage and the reason for it."""
    folder = context.folder(stage)
    try:
        header = read_header(folder)
        if header is None:
            return f"absent      make it: {command(context, stage)}"
        if header["stage"] != stage:
            return f"error       {folder} is an artifact of '{header['stage']}'"
        found = look(as_made(context, stage, own=AT_HAND), stage)
    except MissingInputError as error:
        return f"blocked     {error}"
    except StaleInputError as error:
        return f"stale       {error}"
    except DmnetError as error:
        return f"error       {error}"
    counts = found.counts
    aside = f", {counts['aside']} set aside (see {folder / 'log.txt'})" if counts["aside"] else ""
    why = found.reasons(sums=True)
    if not why:
        return f"fresh       {counts['fresh']} items{aside}"
    fresh = f"{counts['fresh']} of {len(found.plan.items)} items fresh"
    return f"stale       {fresh}{aside}: {'; '.join(why)}"
