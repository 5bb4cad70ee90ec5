"""What both training stages share: where a killed training goes on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmnet.core import config
from dmnet.core.artifact import Artifact
from dmnet.core.files import digest


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
