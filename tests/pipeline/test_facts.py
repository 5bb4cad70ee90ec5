"""What a report says about the run that made it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dmnet.pipeline.context import Context
from dmnet.pipeline.facts import flattened, revision, run_facts


def test_settings_are_written_as_the_command_line_takes_them() -> None:
    nested = {"merge": {"top_n": 5, "class_agnostic": False}, "window": [70, 70], "limit": None}
    assert dict(flattened(nested, "fuse-eval.")) == {
        "fuse-eval.merge.top-n": "5",
        "fuse-eval.merge.class-agnostic": "false",
        "fuse-eval.window": "70,70",
        "fuse-eval.limit": "",
    }


def test_nothing_of_this_machine(tmp_path: Path) -> None:
    context = Context(
        data=tmp_path / "mine",
        artifacts=tmp_path,
        run="one",
        settings={"fuse_eval": {"merge": {"iou": 0.5}, "inside": "it's"}},
    )
    found = run_facts(context, "fuse-eval", {"merge": {"iou": 0.5}})
    *words, given = shlex.split(found.facts["command"])
    assert words == ["make", "fuse-eval", "MODE=val", "RUN=one", "DATA=mine"]
    assert shlex.split(given.removeprefix("SET=")) == [
        *("--fuse-eval.merge.iou", "0.5", "--fuse-eval.inside", "it's")
    ]
    assert found.settings == {"fuse-eval.merge.iou": "0.5"}
    assert str(tmp_path) not in str(found)


def test_the_commit_has_its_date() -> None:
    found = revision()  # empty where the source is no checkout
    assert re.fullmatch(r"([0-9a-f]{7,} of \d{4}-\d\d-\d\d(, with local changes)?)?", found)
