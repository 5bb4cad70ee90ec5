"""What a set of boxes says about the picture: camera, direction of the streets, kinds of ground."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dmnet.core.records import Annotations, Size
from dmnet.pipeline.scenes.camera import Camera, Points

METRES = {1: 0.95, 2: 0.85, 3: 1.35, 4: 2.9, 5: 3.4, 6: 5.0, 7: 2.0, 8: 2.2, 9: 6.0, 10: 1.4}
"""Side of the square that has the area of a usual picture of each class."""

VEHICLES = (4, 5, 6, 7, 8, 9)
CELL = 4.0
"""Metres; side of the cells that ground is made of."""


def guess_camera(annotations: Annotations) -> Camera:
    """The camera over flat ground in whose picture the objects have their usual sizes.

    On flat ground the scale in pixels a metre grows linearly with the row: its slope and its value
    in the middle give pitch and height. Without objects: 50 degrees and 9 pixels a metre.
    """
    size, focal = annotations.size, 0.9 * annotations.size[1]
    known = annotations.objects
    if not len(known):
        return Camera.over(size, 9.0, np.radians(50.0), focal)
    side = np.sqrt(np.prod(known.boxes[:, 2:] - known.boxes[:, :2], axis=1))
    scale = side / np.array([METRES[int(label)] for label in known.labels])
    row = known.boxes[:, 3] - size[0] / 2
    middle = float(np.median(scale))
    spread = float(((row - row.mean()) ** 2).mean())
    slope = float(((row - row.mean()) * (scale - scale.mean())).mean()) / max(spread, 1.0)
    at_middle = max(middle - slope * float(np.median(row)), 0.35 * middle)
    steepest = at_middle / (0.5 * size[0]) * 0.75  # keeps the horizon above the picture
    slope = float(np.clip(slope, 0.0, steepest)) if spread > (0.08 * size[0]) ** 2 else 0.0
    pitch = float(np.clip(np.arctan2(at_middle, focal * slope), np.radians(30), np.radians(82)))
    return Camera.over(size, at_middle, pitch, focal)


def street_direction(ground: Points) -> float:
    """Direction, 0 to pi/2, in which points ``(N, 2)`` line up best in rows and columns."""
    if len(ground) < 4:
        return 0.3
    angles = np.linspace(0, np.pi / 2, 30, endpoint=False)
    sharpness = []
    for angle in angles:
        turned = ground @ np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        counts = [np.bincount(np.floor((t - t.min()) / 2.0).astype(int)) for t in turned.T]
        sharpness.append(sum(float((c.astype(float) ** 2).sum()) for c in counts))
    return float(angles[int(np.argmax(sharpness))])


def cells_of(points: Points, low: Points, shape: Size) -> NDArray[np.bool_]:
    """Which ground cells hold a point, ``shape`` cells from ``low`` on."""
    out = np.zeros(shape, dtype=bool)
    index = np.floor((points - low) / CELL).astype(int)
    fits = ((index >= 0) & (index < shape)).all(axis=1)
    out[tuple(index[fits].T)] = True
    return out


def close_gaps(cells: NDArray[np.bool_], gap: int) -> NDArray[np.bool_]:
    """Fill gaps of at most ``gap`` cells between set cells of the same column or row."""
    out = cells.copy()
    for view, source in ((out, cells), (out.T, cells.T)):
        for line, given in zip(view, source, strict=True):
            at = np.flatnonzero(given)
            for a, b in pairwise(at):
                if b - a <= gap + 1:
                    line[a:b] = True
    return out


def runs(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open stretches of set cells."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
