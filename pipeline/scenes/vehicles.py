"""Vehicles on four wheels or more as small solids.

x is forward, z is up, the middle of the footprint is the origin; metres.
"""

from __future__ import annotations

import numpy as np

from dmnet.pipeline.scenes.mesh import Builder, Mesh, rectangle
from dmnet.pipeline.scenes.palette import (
    BRIGHT,
    GLASS,
    PAINT,
    PAINT_SHARE,
    RUBBER,
    Rng,
    pick,
    wheels,
)


def car(rng: Rng) -> Mesh:
    """Saloon or hatchback: bonnet, glass all round, painted roof."""
    length, width = rng.uniform(4.1, 4.9), rng.uniform(1.75, 1.9)
    high = rng.uniform(1.42, 1.68)
    h, w = length / 2, width / 2
    paint = pick(rng, PAINT, PAINT_SHARE)
    tail = h * rng.uniform(0.62, 0.94)
    b = Builder()
    wheels(b, (-0.58 * h, 0.58 * h), w - 0.04)
    sides = np.broadcast_to(paint, (8, 3)).copy()
    b.prism(rectangle(-h, h, -w, w, 0.26), (0.22, 0.62), sides * 0.9, layer=1)
    lid = rectangle(-h + 0.08, h - 0.14, -w + 0.07, w - 0.07, 0.3)
    b.prism(rectangle(-h, h, -w, w, 0.26), (0.62, 0.9), paint, lid=lid, layer=2)
    foot = rectangle(-tail, 0.44 * h, -w + 0.1, w - 0.1)
    roof = rectangle(-tail + 0.5, 0.1 * h, -w + 0.3, w - 0.3)
    b.prism(foot, (0.9, high), GLASS, paint * 1.04, lid=roof, layer=3)
    for y in (-w + 0.34, w - 0.34):
        b.box((h - 0.12, h + 0.01), (y - 0.2, y + 0.2), (0.6, 0.74), (235, 235, 225), layer=4)
        b.box((-h - 0.01, -h + 0.12), (y - 0.22, y + 0.22), (0.62, 0.8), (170, 24, 22), layer=4)
    return b.build()


def van(rng: Rng) -> Mesh:
    """Boxy body up to the roof, short nose, sloped windscreen, glass along the sides."""
    length, width, high = rng.uniform(4.7, 5.6), rng.uniform(1.9, 2.1), rng.uniform(2.0, 2.45)
    h, w = length / 2, width / 2
    paint = pick(rng, PAINT[[0, 0, 1, 2, 3, 10]])
    b = Builder()
    wheels(b, (-0.6 * h, 0.62 * h), w - 0.03)
    b.box((-h, h), (-w, w), (0.24, 1.08), paint * 0.94, paint, cut=0.15, layer=1)
    belt = rectangle(-h, h - 0.5, -w, w)
    upper = rectangle(-h + 0.05, h - 1.15, -w + 0.08, w - 0.08)
    b.prism(belt, (1.08, high - 0.3), GLASS, lid=upper, layer=2)
    lid = rectangle(-h + 0.12, h - 1.3, -w + 0.14, w - 0.14)
    b.prism(upper, (high - 0.3, high), paint, paint * 1.03, lid=lid, layer=3)
    for x in (-0.45 * h, 0.0):
        b.box((x - 0.1, x + 0.1), (-w + 0.12, w - 0.12), (high, high + 0.05), paint * 0.8, layer=4)
    return b.build()


def truck(rng: Rng) -> Mesh:
    """Bright cab, a gap, and a box, an open load or a tarpaulin."""
    length, width = rng.uniform(6.5, 11.5), rng.uniform(2.3, 2.55)
    h, w = length / 2, width / 2
    cab = pick(rng, np.concatenate([BRIGHT[:2], BRIGHT[:2], PAINT[:1], BRIGHT[4:5]]))
    front = h - 2.0
    b = Builder()
    wheels(b, (-0.78 * h, -0.5 * h, h - 1.0), w - 0.05, 0.5)
    b.box((-h, h), (-w + 0.3, w - 0.3), (0.5, 0.9), (60, 60, 62), layer=1)
    shield = np.broadcast_to(cab, (4, 3)).copy()
    b.box((front, h), (-w, w), (0.6, 1.7), cab * 0.92, layer=2)
    shield[1] = GLASS
    roof = rectangle(front + 0.1, h - 0.35, -w + 0.1, w - 0.1)
    b.prism(rectangle(front, h, -w, w), (1.7, 2.7), shield, cab, lid=roof, layer=2)
    _cargo(b, rng, (-h, front - 0.35), w)
    return b.build()


def _cargo(b: Builder, rng: Rng, x: tuple[float, float], w: float) -> None:
    kind = rng.integers(3)
    if kind == 0:
        body = pick(rng, np.array([[228, 230, 230], [200, 204, 206], [70, 110, 160]], float))
        b.box(x, (-w, w), (0.95, 3.4), body * 0.95, body, layer=2)
        for at in np.linspace(x[0] + 0.5, x[1] - 0.5, 5):
            b.box((at - 0.04, at + 0.04), (-w, w), (3.4, 3.43), body * 0.86, layer=3)
        return
    body = pick(rng, np.array([[130, 50, 44], [44, 74, 120], [90, 92, 96], [150, 120, 60]], float))
    b.box(x, (-w, w), (0.95, 2.3), body, body * 0.9, layer=2)
    inner = (x[0] + 0.18, x[1] - 0.18), (-w + 0.18, w - 0.18)
    if kind == 1:
        load = pick(rng, np.array([[96, 78, 58], [60, 54, 50], [150, 132, 104]], float))
        heap = rectangle(inner[0][0] + 0.8, inner[0][1] - 0.8, -w * 0.4, w * 0.4)
        b.prism(rectangle(*inner[0], *inner[1]), (2.28, 2.7), load, load, lid=heap, layer=2)
    else:
        b.box(*inner, (2.25, 2.31), (52, 48, 46), (58, 54, 50), layer=2)


def bus(rng: Rng) -> Mesh:
    """Long, one window band around, units on the roof, a coloured stripe."""
    length, width, high = rng.uniform(9.5, 12.2), rng.uniform(2.45, 2.6), rng.uniform(3.0, 3.3)
    h, w = length / 2, width / 2
    table = np.concatenate([BRIGHT[:5], [[228, 230, 226], [90, 170, 90], [238, 210, 90]]])
    paint, trim = pick(rng, table), pick(rng, BRIGHT)
    top = np.clip(paint * 0.55 + 105, 0, 245)
    b = Builder()
    wheels(b, (-0.6 * h, 0.55 * h), w - 0.03, 0.48)
    b.box((-h, h), (-w, w), (0.3, 0.8), trim, layer=1)
    b.box((-h, h), (-w, w), (0.8, 1.45), paint, layer=2)
    b.box((-h + 0.02, h - 0.02), (-w + 0.02, w - 0.02), (1.45, 2.45), GLASS, layer=3)
    b.prism(
        rectangle(-h, h, -w, w),
        (2.45, high),
        paint,
        top,
        layer=4,
        lid=rectangle(-h + 0.1, h - 0.1, -w + 0.15, w - 0.15),
    )
    for x in (-0.55 * h, 0.35 * h):
        unit = (x - 0.9, x + 0.9), (-w + 0.55, w - 0.55)
        b.box(*unit, (high, high + 0.28), top * 0.8, np.minimum(top * 1.08, 250), layer=5)
    for x in (-0.12 * h, 0.68 * h):
        b.box((x - 0.35, x + 0.35), (-0.4, 0.4), (high, high + 0.08), top * 0.62, layer=5)
    return b.build()


def digger(rng: Rng) -> Mesh:
    """An excavator: none of the ten classes."""
    paint = np.array([226.0, 168.0, 30.0]) + rng.normal(0, 6, 3)
    b = Builder()
    for y in (-1.1, 1.1):
        b.box((-1.9, 1.9), (y - 0.3, y + 0.3), (0.0, 0.8), RUBBER + 20, RUBBER + 40)
    b.box((-2.1, 1.2), (-1.2, 1.2), (0.9, 1.9), paint * 0.9, paint, cut=0.3, layer=1)
    b.box((-0.2, 1.2), (-1.1, 0.0), (1.9, 2.9), GLASS, paint, layer=2)
    b.box((1.0, 4.4), (0.15, 0.6), (2.4, 2.9), paint, layer=2)
    b.box((4.0, 4.6), (0.0, 0.8), (0.1, 2.4), paint * 0.7, layer=3)
    return b.build()
