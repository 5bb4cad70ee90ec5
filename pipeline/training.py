"""What both training stages share: where they start, and where a killed training goes on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from dmnet.core import config
from dmnet.core.artifact import Artifact
from dmnet.core.errors import MissingInputError
from dmnet.core.files import digest
from dmnet.core.training.settings import TrainConfig
from dmnet.pipeline.models import weights_file

C = TypeVar("C", bound=TrainConfig)


def named_start(config: C, part: Literal["detector", "density"]) -> C:
    """Settings whose ``init`` is a file, where it was the name of a shipped model.

    Raises:
        MissingInputError: the named model has no such network.
    """
    if config.init is None:
        return config
    return replace(config, init=str(weights_file(Path(config.init), part)))


def starting_file(verb: str, init: str | None) -> dict[str, Path]:
    """The file of starting weights, by role; empty without one.

    Raises:
        MissingInputError: there is no such file.
    """
    if init is None:
        return {}
    path = Path(init)
    if not path.is_file():
        raise MissingInputError(
            f"{verb}.init: there is no file {path}, nor a shipped model of this name. Give weights "
            "whose tensors fit, or leave it away to start from random ones."
        )
    return {"initial weights": path}


def checkpoint_name(settings: Any, files: Mapping[str, Path]) -> str:
    """Name of the checkpoint of these settings and input files; others never go on from it."""
    stamps = {name: _state(path) for name, path in sorted(files.items())}
    return f"checkpoint-{digest([config.resolved(settings), stamps])}.pt"


def _state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def remove_checkpoints(artifact: Artifact) -> None:
    """Drop what only a killed training needs, once there are weights."""
    if not artifact.good:
        return
    for path in artifact.root.glob("checkpoint-*"):
        if path.is_dir():  # MMDetection's
            shutil.rmtree(path)
        else:
            path.unlink()
