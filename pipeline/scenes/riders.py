"""People and what they ride as small solids.

x is forward, z is up, the middle of the footprint is the origin; metres.
"""

from __future__ import annotations

import numpy as np

from dmnet.pipeline.scenes.mesh import Builder, Mesh, rectangle
from dmnet.pipeline.scenes.palette import (
    BRIGHT,
    CLOTHES,
    GLASS,
    HAIR,
    PAINT,
    RUBBER,
    SKIN,
    STEEL,
    TROUSERS,
    Rng,
    pick,
    wheels,
)


def _person(b: Builder, rng: Rng, x: float, y: float, z: float, tall: float, layer: int) -> None:
    """Upper body of someone whose hips are at height z."""
    shirt, hair = pick(rng, CLOTHES), pick(rng, HAIR)
    w, chest = 0.24, z + 0.36 * tall
    b.box((x - 0.14, x + 0.14), (y - w, y + w), (z, chest), shirt, shirt, cut=0.07, layer=layer)
    for side in (-w - 0.05, w + 0.05):
        arm = (y + side - 0.06, y + side + 0.06)
        b.box((x - 0.08, x + 0.16), arm, (z + 0.05, chest - 0.05), shirt * 0.85, layer=layer)
    b.box((x - 0.08, x + 0.1), (y - 0.09, y + 0.09), (chest, chest + 0.11), SKIN, layer=layer + 1)
    head = (chest + 0.11, chest + 0.3)
    b.box((x - 0.12, x + 0.12), (y - 0.11, y + 0.11), head, hair, cut=0.05, layer=layer + 2)


def pedestrian(rng: Rng) -> Mesh:
    """Someone who stands or walks."""
    tall = rng.uniform(0.92, 1.06)
    legs, stride = pick(rng, TROUSERS), rng.uniform(0.02, 0.26)
    b = Builder()
    for y, step in ((-0.11, stride), (0.11, -stride)):
        foot = rectangle(step - 0.09, step + 0.12, y - 0.09, y + 0.09)
        hip = rectangle(-0.1, 0.1, y - 0.1, y + 0.1)
        b.prism(foot, (0.0, 0.85 * tall), legs, lid=hip)
    _person(b, rng, 0.0, 0.0, 0.85 * tall, 1.5 * tall, 1)
    return b.build()


def people(rng: Rng) -> Mesh:
    """Someone who sits: on the ground, a bench or a saddle."""
    legs, seat = pick(rng, TROUSERS), rng.uniform(0.35, 0.5)
    b = Builder()
    for y in (-0.14, 0.14):
        b.box((-0.1, 0.5), (y - 0.1, y + 0.1), (seat - 0.12, seat + 0.08), legs)
        b.box((0.38, 0.56), (y - 0.09, y + 0.09), (0.0, seat), legs * 0.9)
    _person(b, rng, -0.08, 0.0, seat, 1.4, 1)
    return b.build()


def rider(rng: Rng) -> Mesh:
    """Someone on a saddle, arms forward, often with a helmet."""
    legs = pick(rng, TROUSERS)
    b = Builder()
    for y in (-0.2, 0.2):
        b.box((-0.2, 0.25), (y - 0.09, y + 0.09), (0.4, 0.85), legs)
    _person(b, rng, -0.15, 0.0, 0.75, 1.5, 1)
    if rng.random() < 0.5:
        b.box((-0.3, 0.0), (-0.15, 0.15), (1.36, 1.62), pick(rng, BRIGHT), cut=0.06, layer=4)
    return b.build()


def bicycle(rng: Rng) -> Mesh:
    """Two thin wheels and a bare frame."""
    paint = pick(rng, np.concatenate([BRIGHT[1:4], PAINT[3:5], BRIGHT[3:4]]))
    b = Builder()
    for x in (-0.55, 0.55):
        bottom = rectangle(x - 0.14, x + 0.14, -0.03, 0.03)
        middle = rectangle(x - 0.33, x + 0.33, -0.03, 0.03)
        b.prism(bottom, (0.0, 0.34), RUBBER + 20, lid=middle)
        b.prism(middle, (0.34, 0.68), RUBBER + 20, lid=bottom, layer=1)
    b.box((-0.3, 0.42), (-0.04, 0.04), (0.5, 0.6), paint, layer=2)
    b.box((-0.28, -0.18), (-0.04, 0.04), (0.4, 0.9), paint, layer=2)
    b.box((0.38, 0.46), (-0.04, 0.04), (0.5, 1.0), paint, layer=2)
    b.box((-0.36, -0.1), (-0.09, 0.09), (0.88, 0.95), RUBBER, layer=3)
    b.box((0.36, 0.44), (-0.28, 0.28), (0.98, 1.04), STEEL, layer=3)
    b.box((0.46, 0.74), (-0.15, 0.15), (0.66, 0.84), STEEL * 0.9, STEEL * 0.5, layer=3)
    return b.build()


def motor(rng: Rng) -> Mesh:
    """Scooter or motorcycle: fat body, coloured fairing, black seat."""
    paint = pick(rng, np.concatenate([BRIGHT[:2], PAINT[[0, 5, 5, 6]], BRIGHT[4:5]]))
    b = Builder()
    for x in (-0.62, 0.66):
        b.box((x - 0.27, x + 0.27), (-0.07, 0.07), (0.0, 0.54), RUBBER, cut=0.0)
    b.box((-0.8, 0.2), (-0.19, 0.19), (0.28, 0.68), paint * 0.9, paint, cut=0.06, layer=1)
    b.box((0.2, 0.48), (-0.2, 0.2), (0.25, 0.36), RUBBER + 30, layer=1)
    lid = rectangle(0.36, 0.56, -0.2, 0.2)
    b.prism(rectangle(0.42, 0.82, -0.24, 0.24), (0.3, 0.98), paint, paint, lid=lid, layer=1)
    b.box((-0.82, 0.1), (-0.16, 0.16), (0.68, 0.8), RUBBER, RUBBER + 14, cut=0.06, layer=2)
    b.box((0.4, 0.48), (-0.36, 0.36), (0.98, 1.05), RUBBER + 12, layer=3)
    b.box((-1.05, -0.72), (-0.18, 0.18), (0.72, 1.0), paint * 0.7, paint * 0.8, layer=3)
    return b.build()


def tricycle(rng: Rng) -> Mesh:
    """Cargo bed on two wheels behind, one wheel and handlebars in front."""
    paint = pick(rng, np.concatenate([BRIGHT[:3], BRIGHT[:2]]))
    goods = pick(rng, np.concatenate([CLOTHES[2:6], [[150, 110, 70], [80, 140, 60]]]))
    b = Builder()
    wheels(b, (-0.75,), 0.55, 0.28)
    b.box((1.0, 1.5), (-0.07, 0.07), (0.0, 0.56), RUBBER)
    b.box((-1.45, 1.15), (-0.2, 0.2), (0.4, 0.55), RUBBER + 30, layer=1)
    b.box((-1.45, 0.15), (-0.58, 0.58), (0.5, 1.0), paint * 0.92, paint, layer=2)
    b.box((-1.36, 0.06), (-0.49, 0.49), (0.97, 1.02), (64, 60, 56), layer=3)
    if rng.random() < 0.7:
        b.box((-1.25, -0.35), (-0.4, 0.4), (1.0, 1.0 + rng.uniform(0.1, 0.5)), goods, layer=4)
    b.box((0.2, 0.6), (-0.26, 0.26), (0.55, 0.82), RUBBER, RUBBER + 16, layer=3)
    b.box((0.95, 1.2), (-0.2, 0.2), (0.5, 1.05), paint, layer=3)
    b.box((0.92, 1.0), (-0.42, 0.42), (1.05, 1.12), RUBBER + 10, layer=4)
    return b.build()


def awning_tricycle(rng: Rng) -> Mesh:
    """Tricycle under a bright canopy with a pale stripe."""
    paint, cloth = pick(rng, BRIGHT), pick(rng, BRIGHT)
    b = Builder()
    wheels(b, (-0.8,), 0.58, 0.28)
    b.box((1.0, 1.5), (-0.07, 0.07), (0.0, 0.56), RUBBER)
    b.box((-1.4, 0.9), (-0.62, 0.62), (0.35, 0.95), paint * 0.9, (70, 66, 62), layer=1)
    b.box((0.9, 1.3), (-0.35, 0.35), (0.4, 1.2), paint, layer=1)
    b.box((-1.35, 0.3), (-0.55, 0.55), (0.95, 1.65), GLASS * 1.2, layer=2)
    for x in (-1.35, 1.0):
        for y in (-0.58, 0.58):
            b.box((x - 0.04, x + 0.04), (y - 0.04, y + 0.04), (0.9, 1.75), STEEL, layer=3)
    lid = rectangle(-1.35, 1.15, -0.4, 0.4)
    b.prism(rectangle(-1.5, 1.3, -0.72, 0.72), (1.7, 1.95), cloth, cloth * 1.05, lid=lid, layer=4)
    pale = np.minimum(cloth * 0.4 + 140, 245)
    b.box((-0.35, 0.15), (-0.4, 0.4), (1.95, 1.98), pale, layer=5)
    return b.build()
