"""Inputs that more than one stage reads: crop windows, wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dmnet.core.artifact import read_header
from dmnet.core.errors import MissingInputError
from dmnet.core.formats import crops as crop_format
from dmnet.core.formats.crops import CropSet
from dmnet.pipeline.context import Context


@dataclass(frozen=True)
class FoundCrops:
    """Crop windows and what is known about how they were made."""

    crops: CropSet
    path: Path
    source: str
    """``true``, ``predicted``, ``folder``, ``none`` (maps not used) or ``foreign``."""
    label_bound: float
    """Visible share from which on an object is labelled in a crop."""


def load_crops(context: Context, instead: str = "") -> FoundCrops:
    """Crops given with ``CROPS=``, or those of the stage ``crop``.

    Raises:
        MissingInputError: neither is there.
        InputError: the file is unusable.
    """
    if context.crops is None:
        path = context.require("crop", instead=instead) / "crops.json"
    else:
        path = context.crops / "crops.json" if context.crops.is_dir() else context.crops
        if not path.is_file():
            raise MissingInputError(
                f"CROPS={context.crops}: no such file. Give a crops.json, or the folder that holds "
                "one (its form is in the README under 'bring your own')."
            )
    header = read_header(path.parent) or {}
    config = header.get("config", {})
    bound = 1.0 if config.get("preset") == "reference" else config.get("min_visible", 0.5)
    source = header.get("facts", {}).get("density", "foreign")
    return FoundCrops(crop_format.read(path), path, source, bound)
