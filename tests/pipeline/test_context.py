"""The command that a message proposes makes what is missing, where it is looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmnet.core.errors import MissingInputError
from dmnet.pipeline.chain import command, require
from dmnet.pipeline.context import Context
from dmnet.pipeline.run import steps


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


TRAIN = [("train", stage) for stage in ("crop", "convert", "train-detector")]
VAL = [("val", stage) for stage in ("crop", "convert", "detect", "fuse-eval")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {},
            [("train", "density"), ("val", "density"), ("train", "train-density"), *TRAIN,
             ("val", "predict-density"), *VAL],
        ),
        ({"settings": {"crop": {"slicer": "grid"}}}, [*TRAIN, *VAL]),
        ({"settings": {"crop": {"slicer": "oracle"}}}, [*TRAIN, *VAL]),
        ({"settings": {"crop": {"slicer": "none"}}, "detector_weights": Path("w.pt")}, VAL),
        (
            {"weights": Path("w.pt")},
            [("train", "density"), *TRAIN, ("val", "predict-density"), *VAL],
        ),
        ({"density": "true"}, [("train", "density"), *TRAIN, ("val", "density"), *VAL]),
        ({"density": "maps"}, [("train", "density"), *TRAIN, *VAL]),
        (
            {"density": "maps", "detections": Path("found")},
            [step for step in VAL if step[1] != "detect"],
        ),
        (
            {"detections": Path("found"), "settings": {"train_density": {"validate_on": None}}},
            [("train", "density"), ("train", "train-density"), ("val", "predict-density"),
             *(step for step in VAL if step[1] != "detect")],
        ),
    ],
)  # fmt: skip
def test_all_plans_what_is_needed(options: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert steps(Context(**options)) == expected
