"""The ten VisDrone classes as small solids with their usual sizes and colours.

x is forward, z is up, the middle of the footprint is the origin; metres.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dmnet.pipeline.scenes.mesh import Builder, Colour, Mesh, rectangle

Rng = np.random.Generator
Maker = Callable[[Rng], Mesh]

CAR, VAN, TRUCK, BUS = 4, 5, 6, 9
PEDESTRIAN, PEOPLE, BICYCLE, TRICYCLE, AWNING, MOTOR, OTHERS = 1, 2, 3, 7, 8, 10, 11

GLASS = np.array([38.0, 46.0, 55.0])
RUBBER = np.array([24.0, 24.0, 26.0])
STEEL = np.array([120.0, 124.0, 128.0])

_PAINT = np.array(
    [
        [236, 238, 240],
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
_PAINT_SHARE = np.array([22, 10, 14, 9, 8, 14, 6, 4, 4, 3, 3, 1, 1, 1]) / 100

_BRIGHT = np.array(
    [[196, 36, 40], [34, 84, 186], [30, 140, 74], [236, 196, 40], [228, 120, 30], [150, 50, 140]],
    dtype=np.float64,
)
_CLOTHES = np.array(
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
_TROUSERS = np.array(
    [[28, 30, 38], [46, 60, 96], [70, 66, 62], [120, 108, 90], [24, 24, 24]], dtype=np.float64
)
_HAIR = np.array([[26, 22, 20], [44, 32, 24], [70, 52, 36]], dtype=np.float64)
_SKIN = np.array([214.0, 168.0, 138.0])


def _pick(rng: Rng, table: NDArray[np.float64], share: NDArray[np.float64] | None = None) -> Colour:
    colour = table[rng.choice(len(table), p=share)]
    return np.clip(colour + rng.normal(0, 6, 3) + rng.normal(0, 5), 8, 246)


def _wheels(builder: Builder, xs: tuple[float, ...], half: float, radius: float = 0.34) -> None:
    for x in xs:
        for y in (-half, half):
            span = (y - 0.06, y + 0.06)
            builder.box((x - radius, x + radius), span, (0.0, 2 * radius), RUBBER, cut=0.0)


def car(rng: Rng) -> Mesh:
    """Saloon or hatchback: bonnet, glass all round, painted roof."""
    length, width = rng.uniform(4.1, 4.9), rng.uniform(1.75, 1.9)
    high = rng.uniform(1.42, 1.68)
    h, w = length / 2, width / 2
    paint = _pick(rng, _PAINT, _PAINT_SHARE)
    tail = h * rng.uniform(0.62, 0.94)
    b = Builder()
    _wheels(b, (-0.58 * h, 0.58 * h), w - 0.04)
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
    paint = _pick(rng, _PAINT[[0, 0, 1, 2, 3, 10]])
    b = Builder()
    _wheels(b, (-0.6 * h, 0.62 * h), w - 0.03)
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
    cab = _pick(rng, np.concatenate([_BRIGHT[:2], _BRIGHT[:2], _PAINT[:1], _BRIGHT[4:5]]))
    front = h - 2.0
    b = Builder()
    _wheels(b, (-0.78 * h, -0.5 * h, h - 1.0), w - 0.05, 0.5)
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
        body = _pick(rng, np.array([[228, 230, 230], [200, 204, 206], [70, 110, 160]], float))
        b.box(x, (-w, w), (0.95, 3.4), body * 0.95, body, layer=2)
        for at in np.linspace(x[0] + 0.5, x[1] - 0.5, 5):
            b.box((at - 0.04, at + 0.04), (-w, w), (3.4, 3.43), body * 0.86, layer=3)
        return
    body = _pick(rng, np.array([[130, 50, 44], [44, 74, 120], [90, 92, 96], [150, 120, 60]], float))
    b.box(x, (-w, w), (0.95, 2.3), body, body * 0.9, layer=2)
    inner = (x[0] + 0.18, x[1] - 0.18), (-w + 0.18, w - 0.18)
    if kind == 1:
        load = _pick(rng, np.array([[96, 78, 58], [60, 54, 50], [150, 132, 104]], float))
        heap = rectangle(inner[0][0] + 0.8, inner[0][1] - 0.8, -w * 0.4, w * 0.4)
        b.prism(rectangle(*inner[0], *inner[1]), (2.28, 2.7), load, load, lid=heap, layer=2)
    else:
        b.box(*inner, (2.25, 2.31), (52, 48, 46), (58, 54, 50), layer=2)


def bus(rng: Rng) -> Mesh:
    """Long, one window band around, units on the roof, a coloured stripe."""
    length, width, high = rng.uniform(9.5, 12.2), rng.uniform(2.45, 2.6), rng.uniform(3.0, 3.3)
    h, w = length / 2, width / 2
    table = np.concatenate([_BRIGHT[:5], [[228, 230, 226], [90, 170, 90], [238, 210, 90]]])
    paint, trim = _pick(rng, table), _pick(rng, _BRIGHT)
    top = np.clip(paint * 0.55 + 105, 0, 245)
    b = Builder()
    _wheels(b, (-0.6 * h, 0.55 * h), w - 0.03, 0.48)
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


def _person(b: Builder, rng: Rng, x: float, y: float, z: float, tall: float, layer: int) -> None:
    """Upper body of someone whose hips are at height z."""
    shirt, hair = _pick(rng, _CLOTHES), _pick(rng, _HAIR)
    w, chest = 0.24, z + 0.36 * tall
    b.box((x - 0.14, x + 0.14), (y - w, y + w), (z, chest), shirt, shirt, cut=0.07, layer=layer)
    for side in (-w - 0.05, w + 0.05):
        arm = (y + side - 0.06, y + side + 0.06)
        b.box((x - 0.08, x + 0.16), arm, (z + 0.05, chest - 0.05), shirt * 0.85, layer=layer)
    b.box((x - 0.08, x + 0.1), (y - 0.09, y + 0.09), (chest, chest + 0.11), _SKIN, layer=layer + 1)
    head = (chest + 0.11, chest + 0.3)
    b.box((x - 0.12, x + 0.12), (y - 0.11, y + 0.11), head, hair, cut=0.05, layer=layer + 2)


def pedestrian(rng: Rng) -> Mesh:
    """Someone who stands or walks."""
    tall = rng.uniform(0.92, 1.06)
    legs, stride = _pick(rng, _TROUSERS), rng.uniform(0.02, 0.26)
    b = Builder()
    for y, step in ((-0.11, stride), (0.11, -stride)):
        foot = rectangle(step - 0.09, step + 0.12, y - 0.09, y + 0.09)
        hip = rectangle(-0.1, 0.1, y - 0.1, y + 0.1)
        b.prism(foot, (0.0, 0.85 * tall), legs, lid=hip)
    _person(b, rng, 0.0, 0.0, 0.85 * tall, 1.5 * tall, 1)
    return b.build()


def people(rng: Rng) -> Mesh:
    """Someone who sits: on the ground, a bench or a saddle."""
    legs, seat = _pick(rng, _TROUSERS), rng.uniform(0.35, 0.5)
    b = Builder()
    for y in (-0.14, 0.14):
        b.box((-0.1, 0.5), (y - 0.1, y + 0.1), (seat - 0.12, seat + 0.08), legs)
        b.box((0.38, 0.56), (y - 0.09, y + 0.09), (0.0, seat), legs * 0.9)
    _person(b, rng, -0.08, 0.0, seat, 1.4, 1)
    return b.build()


def rider(rng: Rng) -> Mesh:
    """Someone on a saddle, arms forward, often with a helmet."""
    legs = _pick(rng, _TROUSERS)
    b = Builder()
    for y in (-0.2, 0.2):
        b.box((-0.2, 0.25), (y - 0.09, y + 0.09), (0.4, 0.85), legs)
    _person(b, rng, -0.15, 0.0, 0.75, 1.5, 1)
    if rng.random() < 0.5:
        b.box((-0.3, 0.0), (-0.15, 0.15), (1.36, 1.62), _pick(rng, _BRIGHT), cut=0.06, layer=4)
    return b.build()


def bicycle(rng: Rng) -> Mesh:
    """Two thin wheels and a bare frame."""
    paint = _pick(rng, np.concatenate([_BRIGHT[1:4], _PAINT[3:5], _BRIGHT[3:4]]))
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
    paint = _pick(rng, np.concatenate([_BRIGHT[:2], _PAINT[[0, 5, 5, 6]], _BRIGHT[4:5]]))
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
    paint = _pick(rng, np.concatenate([_BRIGHT[:3], _BRIGHT[:2]]))
    goods = _pick(rng, np.concatenate([_CLOTHES[2:6], [[150, 110, 70], [80, 140, 60]]]))
    b = Builder()
    _wheels(b, (-0.75,), 0.55, 0.28)
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
    paint, cloth = _pick(rng, _BRIGHT), _pick(rng, _BRIGHT)
    b = Builder()
    _wheels(b, (-0.8,), 0.58, 0.28)
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


MAKERS: dict[int, Maker] = {
    PEDESTRIAN: pedestrian,
    PEOPLE: people,
    BICYCLE: bicycle,
    CAR: car,
    VAN: van,
    TRUCK: truck,
    TRICYCLE: tricycle,
    AWNING: awning_tricycle,
    BUS: bus,
    MOTOR: motor,
    OTHERS: digger,
}
"""What draws each VisDrone category: category id to a function of a generator."""
