"""The shipped models by name (configs/models.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dmnet.core import config
from dmnet.core.errors import MissingInputError
from dmnet.core.presets import read_yaml

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
TABLE = CONFIGS / "models.yaml"


@dataclass(frozen=True)
class Entry:
    """A row of the table."""

    detector: str
    density: str | None = None
    about: str = ""
    onnx: bool = False
    """the same networks lie beside their files as .onnx, for processors"""
    settings: Mapping[str, Any] = field(default_factory=dict)


def entries() -> dict[str, Entry]:
    """The table of named models."""
    rows = read_yaml(TABLE)
    # names keep their dashes, settings do not
    return {name.replace("_", "-"): config.build(Entry, row, name) for name, row in rows.items()}


def weights_file(value: Path | None, part: Literal["detector", "density"]) -> Path | None:
    """The file that ``value`` means: itself, or that part of the shipped model of this name.

    Raises:
        MissingInputError: the named model has no such file.
    """
    if value is None or value.exists() or str(value) not in (table := entries()):
        return value
    name = getattr(table[str(value)], part)
    if name is None or not (TABLE.parent / name).is_file():
        raise MissingInputError(
            f"the model '{value}' has no {part} network here ({TABLE.parent / (name or '')}); give "
            "a file instead"
        )
    return TABLE.parent / str(name)
