"""``settings``: every setting of every stage with values that make no sense, or just fit.

A try survives if it is refused with exit code 2 and one sentence that names section and setting, or
is accepted and lies in the setting's range. NaN and infinity are never accepted. Of the accepted
ones, ``-n`` (chosen by the seed) are run to the end of their stage: exit code 0, or a sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from dmnet.core.config import entry_settings
from dmnet.pipeline.cli import main as dmnet
from dmnet.pipeline.context import STAGES, stage_module
from tests.pipeline.conftest import write_split

VALUES = ("0", "-1", "nan", "inf", "-inf", ".nan", ".inf", "1e12", "1" + "0" * 30, "1" * 5000,
          "1e400", "", " ", "abc", "1 2", "[]", "{}", "true", "2024-13-45", "../x",
          "&a [*a]")  # fmt: skip
"""Given to every setting."""

SENSELESS = ("nan", "inf", "-inf", ".nan", ".inf", "1e400")
"""Never accepted, except as a text."""

CHEAP = ("density", "crop", "convert", "fuse-eval")
"""Stages whose accepted settings are run to the end."""

Case = tuple[str, str, str]
"""Stage, option, value."""


def settings(stage: str) -> Iterator[tuple[str, Any]]:
    """Options of a stage with the type of their values."""
    yield from _settings(stage_module(stage).Config, f"--{stage}")


def _settings(cls: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(cls)
    for chooser, classes in entry_settings(cls).items():
        yield from _settings(classes[getattr(cls, chooser)], prefix) if classes else ()
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name, hint = f"{prefix}.{field.name.replace('_', '-')}", hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _settings(hint, name)
        else:
            yield name, hint


def cases() -> list[Case]:
    """Every setting with every value."""
    return [(s, name, value) for s in STAGES for name, _ in settings(s) for value in VALUES]


def run(argv: Sequence[str]) -> tuple[int, str]:
    """Exit code and what was said; an exception counts as code 70."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = dmnet(argv)
        except SystemExit as end:
            code = int(end.code or 0)
    logging.getLogger().handlers.clear()
    return code, said.getvalue()


def judge(case: Case, code: int, said: str, text: bool) -> str:
    """Empty if the try survived, else what is wrong with it."""
    _, option, value = case
    last = said.strip().splitlines()[-1] if said.strip() else ""
    path = option[2:].replace("-", "_")
    if code == 2:
        if not last.startswith("dmnet: "):
            return "refused without a sentence"
        return "" if path in last.replace("-", "_") else f"does not name the setting: {last[:160]}"
    if code not in (0, 1):
        return f"exit code {code}: {last[:200]}"
    return "accepted" if value in SENSELESS and not text else ""


def check(where: Sequence[str], chosen: Sequence[Case]) -> tuple[list[Case], dict[Case, str]]:
    """Try cases on ``status``, which reads all settings: what was accepted, and what fell."""
    texts = {name for stage in STAGES for name, hint in settings(stage) if "str" in str(hint)}
    accepted, fallen = [], {}
    for case in chosen:
        code, said = run(["status", *where, f"{case[1]}={case[2]}"])
        if wrong := judge(case, code, said, case[1] in texts):
            fallen[case] = wrong
        elif code != 2:
            accepted.append(case)
    return accepted, fallen


def prepare(root: Path) -> list[str]:
    """Tiny data, and the options that name it."""
    write_split(root / "data", "train", range(2))
    write_split(root / "data", "val", range(100, 102))
    return ["--data", str(root / "data"), "--artifacts", str(root / "artifacts")]


def run_stage(where: Sequence[str], case: Case) -> str:
    """Run a stage with an accepted setting; empty if it ends well or with a sentence."""
    code, said = run([case[0], *where, "--force", f"{case[1]}={case[2]}"])
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if code in (0, 1) or (code == 2 and last.startswith("dmnet: ")):
        return ""
    return f"exit code {code} when run: {last[:200]}"


def main() -> int:
    """Run the campaign; exit 1 if anything fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="accepted cases that are run to the end")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = prepare(Path(folder))
        every = cases()
        accepted, fallen = check(where, every)
        for stage in ("density", "crop"):
            run([stage, *where])
        runnable = [case for case in accepted if case[0] in CHEAP]
        random.Random(args.seed).shuffle(runnable)
        for case in runnable[: args.n]:
            if wrong := run_stage(where, case):
                fallen[case] = wrong
    for (_, option, value), wrong in fallen.items():
        print(f"    {option} {value[:40]!r}: {wrong}")
    ran = min(args.n, len(runnable))
    counts = Counter("refused" if case not in set(accepted) else "accepted" for case in every)
    print(
        f"settings: {len(every)} tries ({counts['refused']} refused, {len(accepted)} accepted, of "
        f"which {ran} run to the end), seed {args.seed}, {len(fallen)} fell"
    )
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
