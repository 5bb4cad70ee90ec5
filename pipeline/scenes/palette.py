"""Colours, and the wheels that all vehicles share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmnet.pipeline.scenes.mesh import Builder, Colour

Rng = np.random.Generator

GLASS = np.array([38.0, 46.0, 55.0])
RUBBER = np.array([24.0, 24.0, 26.0])
STEEL = np.array([120.0, 124.0, 128.0])

PAINT = np.array(
    [
        [230, 231, 230],
        [222, 224, 224],
        [182, 186, 190],
        [120, 124, 130],
        [62, 64, 68],
        [30, 31, 34],
        [150, 26, 30],
        [196, 40, 34],
        [34, 62, 130],
        [60, 110, 170],
        [196, 176, 130],
        [70, 84, 66],
        [226, 178, 30],
        [110, 60, 40],
    ],
    dtype=np.float64,
)
PAINT_SHARE = np.array([22, 10, 14, 9, 8, 14, 6, 4, 4, 3, 3, 1, 1, 1]) / 100

BRIGHT = np.array(
    [[196, 36, 40], [34, 84, 186], [30, 140, 74], [236, 196, 40], [228, 120, 30], [150, 50, 140]],
    dtype=np.float64,
)
CLOTHES = np.array(
    [
        [30, 32, 40],
        [50, 56, 78],
        [226, 226, 226],
        [190, 40, 48],
        [232, 200, 60],
        [60, 110, 190],
        [226, 130, 160],
        [60, 130, 80],
        [120, 120, 124],
        [190, 160, 120],
    ],
    dtype=np.float64,
)
TROUSERS = np.array(
    [[28, 30, 38], [46, 60, 96], [70, 66, 62], [120, 108, 90], [24, 24, 24]], dtype=np.float64
)
HAIR = np.array([[26, 22, 20], [44, 32, 24], [70, 52, 36]], dtype=np.float64)
SKIN = np.array([214.0, 168.0, 138.0])


def pick(rng: Rng, table: NDArray[np.float64], share: NDArray[np.float64] | None = None) -> Colour:
    """One colour of a table ``(N, 3)``, a little off; ``share`` ``(N,)`` says how often which."""
    colour = table[rng.choice(len(table), p=share)]
    return np.asarray(np.clip(colour + rng.normal(0, 6, 3) + rng.normal(0, 5), 8, 246))


def wheels(builder: Builder, xs: tuple[float, ...], half: float, radius: float = 0.34) -> None:
    """Add wheels at the places ``xs`` along both sides, ``half`` metres off the middle."""
    for x in xs:
        for y in (-half, half):
            span = (y - 0.06, y + 0.06)
            builder.box((x - radius, x + radius), span, (0.0, 2 * radius), RUBBER, cut=0.0)
