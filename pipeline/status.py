"""What is done, what is stale, and why: one line a stage, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dmnet.core.errors import DmnetError, MissingInputError
from dmnet.core.journal import read_header
from dmnet.pipeline.context import STAGES, Context, stage_module
from dmnet.pipeline.run import open_artifact


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
        if header is None and not folder.exists():
            return f"absent      make it: {context.command(stage)}"
        plan = stage_module(stage).plan(_as_made(context, stage, header))
        artifact = open_artifact(context, stage, plan)
        counts = artifact.inspect(plan.items)
    except MissingInputError as error:
        return f"blocked     {error}"
    except DmnetError as error:
        return f"error       {error}"
    bad = sum(record.error is not None for record in artifact.records.values())
    aside = f", {bad} set aside (see {folder / 'log.txt'})" if bad else ""
    open_items = counts["stale"] + counts["new"] - bad
    if not artifact.changed and not open_items:
        return f"fresh       {counts['fresh']} items{aside}"
    reasons = list(_differences(header or {}, artifact.identity))
    if not (header or {}).get("complete", False):
        reasons.insert(0, "was interrupted")
    if (header or {}).get("totals", {}) != artifact.totals:
        reasons.append("inputs of the summary changed")
    detail = "; ".join(reasons) or "inputs changed"
    return f"stale       {counts['fresh']} of {len(plan.items)} items fresh{aside}: {detail}"


def _as_made(context: Context, stage: str, header: Mapping[str, Any] | None) -> Context:
    """Look at crops with the maps they were made from, unless the user names others."""
    source = header["facts"].get("density") if stage == "crop" and header else None
    if source in ("true", "predicted") and not context.density:
        return replace(context, density=source)
    return context


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Name every setting that differs between two headers: ``threshold 0.08 -> 0.1``."""
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            yield from _differences(before, value, f"{at}{key}.")
        elif before != value:
            yield f"{at.removeprefix('config.')}{key} {before} -> {value}"
