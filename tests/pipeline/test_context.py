"""The command that a message proposes makes what is missing, where it is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmnet.core.errors import MissingInputError
from dmnet.pipeline.chain import command, require
from dmnet.pipeline.context import Context


def test_the_proposed_command_has_this_runs_places() -> None:
    assert command(Context(), "density") == "make density MODE=val DATA=data"
    other = Context(
        Path("my data"), "train", "a run", Path("elsewhere"), sizes=Path("image sizes.csv")
    )
    assert command(other, "crop", split="val") == (
        "make crop MODE=val DATA='my data' RUN='a run' ARTIFACTS=elsewhere SIZES='image sizes.csv'"
    )


def test_a_missing_artifact_names_its_command(tmp_path: Path) -> None:
    context = Context(tmp_path, artifacts=tmp_path / "made")
    said = f"does not exist yet .*make density MODE=val DATA={tmp_path} ARTIFACTS="
    with pytest.raises(MissingInputError, match=said):
        require(context, "density")
