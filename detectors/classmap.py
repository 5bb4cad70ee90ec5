"""From a detector's class names to the labels of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dmnet.core.classes import Classes, plain
from dmnet.core.errors import ConfigError
from dmnet.core.records import Detections

SYNONYMS = (("person", "pedestrian"), ("motorcycle", "motorbike", "motor"))
"""Names of one meaning in COCO, Pascal VOC and VisDrone; equal names need no entry."""

DROPPED = -1
"""Stands for a class of the detector that the data set does not have."""


def parse_pairs(pairs: Sequence[str], classes: Classes, where: str) -> dict[str, int]:
    """Read ``("person=1", "car=bus")``: label by the detector's class name.

    Raises:
        ConfigError: not of that form, or no such class.
    """
    found: dict[str, int] = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")
        label = int(value) if value.strip().isdigit() else classes.label_of(value)
        if not equals or label not in classes.scored:
            raise ConfigError(
                f"{where}: '{pair}' is not of the form name=class with a class of the data set, "
                f"its name or its number 1-{len(classes)}, for example person=1"
            )
        found[name.strip()] = label
    return found


def by_name(name: str, classes: Classes) -> int:
    """Label of a class name, `DROPPED` if there is none; the data set's own names come first."""
    others = [n for group in SYNONYMS if plain(name) in group for n in group]
    for candidate in (name, *others):
        label = classes.label_of(candidate)
        if label in classes.scored:
            return int(label)
    return DROPPED


def category_table(
    names: Sequence[str], given: Mapping[str, int], classes: Classes, where: str
) -> NDArray[np.int64]:
    """Label of each class index of a detector, `DROPPED` for classes without one.

    Args:
        names: the detector's classes in the order of its outputs.
        given: label by name; empty goes by the names.
        classes: of the data set.
        where: the setting, for messages.

    Raises:
        ConfigError: a given name is not among the detector's, or no class is left.
    """
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise ConfigError(
            f"{where}: the detector has no class '{unknown[0]}'; it has: {', '.join(names)}"
        )
    found = [given.get(name, DROPPED) if given else by_name(name, classes) for name in names]
    ids = np.array(found, dtype=np.int64)
    if not (ids != DROPPED).any():
        raise ConfigError(
            f"{where}: none of the detector's classes ({', '.join(names)}) is a class of the data "
            f"set ({classes}); name the matching ones, for example {names[0]}={classes.names[0]}"
        )
    return ids


def translated(det: Detections, table: NDArray[np.int64]) -> Detections:
    """Detections with the labels of a data set; classes that it does not have are left out.

    Args:
        det: labels from 1 in the detector's own order.
        table: `category_table` of the detector's names.
    """
    labels = table[det.labels - 1]
    keep = labels != DROPPED
    return Detections(det.boxes[keep], det.scores[keep], labels[keep])
