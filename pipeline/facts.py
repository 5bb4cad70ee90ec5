"""Where a report's results come from: command, data, commit, settings, as the run recorded them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dmnet.core.journal import read_header, tools
from dmnet.fusion.report.page import RunFacts
from dmnet.pipeline.context import STAGES, Context

ROOT = Path(__file__).resolve().parent.parent


def run_facts(context: Context, stage: str, settings: Mapping[str, Any]) -> RunFacts:
    """Facts of one run: no time and no folder of this machine, so that reports stay the same.

    Args:
        context: the run.
        stage: the stage that writes the report.
        settings: its resolved settings.
    """
    facts = {
        "command": _command(context, stage),
        "data": f"{context.data.name}, {context.split}",
        "run": context.run,
        "software": ", ".join(f"{name} {found}" for name, found in tools().items()),
    }
    if commit := revision():
        facts["commit"] = commit
    every: dict[str, str] = {}
    for name in STAGES:
        split = "train" if name.startswith("train-") else context.split
        header = read_header(context.folder(name, split)) or {}
        shown = settings if name == stage else header.get("settings") or header.get("config") or {}
        every |= {f"{name}.{key}": text for key, text in flattened(shown)}
    return RunFacts(facts, every)


def _command(context: Context, stage: str) -> str:
    words = [f"make {stage} MODE={shlex.quote(context.split)} RUN={shlex.quote(context.run)}"]
    words.append(f"DATA={shlex.quote(context.data.name)}")
    given = [
        f"--{section.replace('_', '-')}.{key} {shlex.quote(text or 'null')}"
        for section, values in context.settings.items()
        for key, text in flattened(values or {})
    ]
    return " ".join([*words, f"SET={shlex.quote(' '.join(given))}"] if given else words)


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as ``(name.name, text)``, names written with hyphens."""
    for name, value in settings.items():
        path = f"{prefix}{str(name).replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{path}.")
        elif isinstance(value, list | tuple):
            yield path, ",".join(map(_text, value))
        else:
            yield path, _text(value)


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def revision() -> str:
    """Commit of the source with its date, if this is a checkout; marked where files differ."""
    if not (ROOT / ".git").exists():
        return ""
    commit = _git("log", "-1", "--format=%h of %cs")
    return f"{commit}, with local changes" if commit and _git("status", "--porcelain") else commit


def _git(*words: str) -> str:
    try:
        run = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()
