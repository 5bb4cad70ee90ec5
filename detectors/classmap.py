"""From a foreign detector's class names to dataset category ids.

Sources: `dmnet.core.records.CLASSES` (VisDrone); COCO's names by meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dmnet.core.errors import ConfigError
from dmnet.core.records import CLASSES

COCO_NAMES: dict[str, int] = {
    "person": 1,
    "bicycle": 3,
    "car": 4,
    "truck": 6,
    "bus": 9,
    "motorcycle": 10,
    "motorbike": 10,
}
"""COCO's (and VOC's) classes that VisDrone has too, by name."""

DROPPED = -1
"""Stands for a class of the detector that the dataset does not have."""


def parse_pairs(pairs: Sequence[str], where: str) -> dict[str, int]:
    """Read ``("person=1", "car=4")``.

    Raises:
        ConfigError: not of that form, or no such category.
    """
    found: dict[str, int] = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")
        if not equals or not value.strip().isdigit() or int(value) not in CLASSES:
            raise ConfigError(
                f"{where}: '{pair}' is not of the form name=category with a category 1-10, "
                "for example person=1"
            )
        found[name.strip()] = int(value)
    return found


def category_table(names: Sequence[str], given: Mapping[str, int], where: str) -> NDArray[np.int64]:
    """Category id of each class index, `DROPPED` for classes without one.

    Args:
        names: the detector's classes in the order of its outputs.
        given: category by name; empty takes VisDrone's own names, then COCO's.
        where: the setting, for messages.

    Raises:
        ConfigError: a given name is not among the detector's, or no class is left.
    """
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise ConfigError(
            f"{where}: the detector has no class '{unknown[0]}'; it has: {', '.join(names)}"
        )
    table = given or {**COCO_NAMES, **{name: label for label, name in CLASSES.items()}}
    ids = np.array([table.get(name, DROPPED) for name in names], dtype=np.int64)
    if not (ids != DROPPED).any():
        raise ConfigError(
            f"{where}: none of the detector's classes ({', '.join(names)}) is a category of the "
            "dataset; name the matching ones, for example person=1"
        )
    return ids
