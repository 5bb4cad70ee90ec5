"""What lies between the roads: crowded blocks and empty ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from dmnet.pipeline.scenes.camera import Points
from dmnet.pipeline.scenes.objects import (
    AWNING,
    BICYCLE,
    BUS,
    CAR,
    MOTOR,
    OTHERS,
    PEDESTRIAN,
    PEOPLE,
    TRICYCLE,
    TRUCK,
    VAN,
)
from dmnet.pipeline.scenes.plan import Plan, Rect, disc, inset, rect_outline

_BAY, _DEPTH, _AISLE = 2.5, 5.2, 6.4


Place = Callable[[float, float], tuple[float, float]]
"""A map of ``(s, t)`` to a rectangle's ``(u, v)``."""


def _flip(plan: Plan, rect: Rect) -> tuple[Place, float, float, bool]:
    """A `Place` with s along either axis at random; the lengths of s and t; whether s is v."""
    u1, _, v1, _ = rect
    along, across = _sides(rect)
    if plan.rng.random() < 0.5:
        return lambda s, t: (u1 + s, v1 + t), along, across, False
    return lambda s, t: (u1 + t, v1 + s), across, along, True


def _pave(plan: Plan, rect: Rect, materials: list[str], low: float, high: float) -> None:
    """Cover a rectangle with one of the materials, its tint between two bounds."""
    material = str(plan.rng.choice(materials))
    plan.paint(material, [rect_outline(rect)], plan.rng.uniform(low, high))


def _sides(rect: Rect) -> tuple[float, float]:
    return rect[1] - rect[0], rect[3] - rect[2]


def parking(plan: Plan, rect: Rect) -> None:
    """Rows of bays, most of them taken; trees on the islands."""
    rng = plan.rng
    _pave(plan, rect, ["asphalt", "worn", "concrete"], -10, 14)
    place, along, across, flipped = _flip(plan, rect)
    turn = np.pi / 2 if flipped else 0.0
    taken = rng.uniform(0.55, 0.95)
    t, lines = 1.0, []
    while t + 2 * _DEPTH < across:
        count = int((along - 6) / _BAY)
        for row in (t, t + _DEPTH):
            for k in range(count + 1):
                s = 3 + k * _BAY
                line = rect_outline((s - 0.06, s + 0.06, row + 0.2, row + _DEPTH))
                lines.append(np.array([place(*corner) for corner in line]))
                if k < count and rng.random() < taken:
                    _park(plan, place(s + _BAY / 2, row + _DEPTH / 2), turn)
        if rng.random() < 0.4:
            for k in range(0, count, 5):
                plan.tree(place(3 + k * _BAY, t + _DEPTH), rng.uniform(1.2, 2.3))
        t += 2 * _DEPTH + _AISLE
    plan.paint("paint", lines)
    for _ in range(int(rng.poisson(6))):
        plan.add(PEDESTRIAN, _inside(rng, rect), rng.uniform(0, 6.3))


def _park(plan: Plan, at: tuple[float, float], turn: float) -> None:
    rng = plan.rng
    label = VAN if rng.random() < 0.12 else CAR
    heading = turn + np.pi / 2 * (1 if rng.random() < 0.8 else -1) + rng.normal(0, 0.03)
    plan.add(label, (at[0] + rng.normal(0, 0.12), at[1] + rng.normal(0, 0.15)), heading)


def square(plan: Plan, rect: Rect) -> None:
    """Slabs, a round bed in the middle, and people in groups."""
    rng = plan.rng
    plan.paint("plaza", [rect_outline(rect)], rng.uniform(-12, 8))
    plan.paint("brick", [_ring(inset(rect, 3.0), k) for k in range(4)])
    middle = _inside(rng, inset(rect, min(_sides(rect)) * 0.3))
    radius = min(_sides(rect)) * rng.uniform(0.08, 0.16)
    plan.paint("kerb", [disc(middle, radius + 0.6)])
    plan.paint(str(rng.choice(["grass", "water", "hedge"])), [disc(middle, radius)])
    for k in range(14):
        angle = k * 2 * np.pi / 14
        u, v = np.array(middle) + (radius + 1.5) * np.array([np.cos(angle), np.sin(angle)])
        if rng.random() < 0.6:
            plan.add(PEOPLE, (u, v), angle + rng.normal(0, 0.2))
    for _ in range(int(rng.integers(4, 9))):
        _group(plan, _inside(rng, inset(rect, 2.0)), rect, int(rng.integers(3, 14)), PEDESTRIAN)
    for _ in range(int(rng.integers(1, 4))):
        _group(plan, _inside(rng, inset(rect, 3.0)), rect, int(rng.integers(3, 8)), PEOPLE)
    _rows_of_two_wheels(plan, rect, 2)
    for k in range(int(_sides(rect)[0] / 9)):
        plan.tree((rect[0] + 4 + 9 * k, rect[2] + 2.0), rng.uniform(1.6, 2.6))


def market(plan: Plan, rect: Rect) -> None:
    """Stalls on tricycles in rows, motors beside them, a crowd between."""
    rng = plan.rng
    _pave(plan, rect, ["concrete", "worn", "brick"], -12, 6)
    place, along, across, flipped = _flip(plan, rect)
    turn = np.pi / 2 if flipped else 0.0
    start, stop = np.sort(rng.uniform(0.0, 1.0, 2))
    start, stop = min(start, 0.35) * along, max(stop, 0.65) * along
    for t in np.arange(3.5, across - 3, rng.uniform(6.0, 8.5)):
        for s in np.arange(max(start, 3.0), min(stop, along - 3), 3.9):
            if rng.random() < 0.7:
                label = int(rng.choice([TRICYCLE, AWNING]))
                heading = turn + rng.choice([0.0, np.pi]) + rng.normal(0, 0.1)
                plan.add(label, place(s, t + rng.normal(0, 0.3)), heading)
            for _ in range(int(rng.poisson(1.0))):
                label = int(rng.choice([PEDESTRIAN, PEDESTRIAN, PEOPLE]))
                away = rng.choice([-1, 1]) * rng.uniform(1.4, 2.6)
                plan.add(label, place(s + rng.normal(0, 1.2), t + away), rng.uniform(0, 6.3))
    _rows_of_two_wheels(plan, rect, 4)


def depot(plan: Plan, rect: Rect) -> None:
    """Trucks or buses side by side on bare ground."""
    rng = plan.rng
    label = int(rng.choice([TRUCK, BUS]))
    plan.paint("soil" if label == TRUCK else "concrete", [rect_outline(rect)], rng.uniform(-10, 8))
    place, along, across, flipped = _flip(plan, rect)
    turn = 0.0 if flipped else np.pi / 2
    for t in np.arange(8.0, across - 7, 20.0):
        for s in np.arange(3.0, along - 3, rng.uniform(3.6, 4.6)):
            if rng.random() < 0.6:
                plan.add(label, place(s, t + rng.normal(0, 0.4)), turn + rng.normal(0, 0.03))
    if rng.random() < 0.35:
        plan.add(OTHERS, _inside(rng, inset(rect, 5.0)), rng.uniform(0, 6.3))
    for _ in range(int(rng.poisson(5))):
        plan.add(PEDESTRIAN, _inside(rng, rect), rng.uniform(0, 6.3))


def park(plan: Plan, rect: Rect) -> None:
    """Grass, a path, and trees in clumps."""
    rng = plan.rng
    plan.paint("grass", [rect_outline(rect)], rng.uniform(-10, 12))
    t = np.linspace(0, 1, 16)
    u = rect[0] + t * (rect[1] - rect[0])
    v = rect[2] + (0.5 + 0.25 * np.sin(t * 5 + rng.uniform(0, 6))) * (rect[3] - rect[2])
    path = np.concatenate([np.stack([u, v - 1.3], 1), np.stack([u, v + 1.3], 1)[::-1]])
    plan.paint("pavement", [path])
    for i in range(len(u)):
        if rng.random() < 0.03:
            plan.add(PEDESTRIAN, (u[i], v[i]), rng.choice([0, np.pi]) + rng.normal(0, 0.3))
    area = np.prod(_sides(rect))
    for _ in range(int(area / 200) + 1):
        at = _inside(rng, rect)
        for _ in range(int(rng.integers(2, 9))):
            spot = (at[0] + rng.normal(0, 5), at[1] + rng.normal(0, 5))
            if _within(spot, rect, 2.0) and np.abs(np.interp(spot[0], u, v) - spot[1]) > 4:
                plan.tree(spot, rng.uniform(1.6, 4.8))


def houses(plan: Plan, rect: Rect) -> None:
    """Buildings with paved ground, a few cars and trees between them."""
    rng = plan.rng
    _pave(plan, rect, ["concrete", "pavement", "grass"], -14, 6)
    tall = bool(rng.random() < 0.3)
    width, depth = _sides(rect)
    columns = max(1, int(width / rng.uniform(20, 40)))
    rows = max(1, int(depth / rng.uniform(18, 30)))
    for i in range(columns):
        for j in range(rows):
            cell = (
                rect[0] + width * i / columns,
                rect[0] + width * (i + 1) / columns,
                rect[2] + depth * j / rows,
                rect[2] + depth * (j + 1) / rows,
            )
            if min(_sides(cell)) > 13:
                high = rng.uniform(14, 24) if tall else rng.choice([4.5, 6.5, 9.5, 12.5])
                plan.building(inset(cell, rng.uniform(3.5, 5.5)), float(high))
                for s in np.arange(cell[0] + 2, cell[1] - 2, 5.0):
                    if rng.random() < 0.35:
                        plan.tree((s, cell[2] + 1.2), rng.uniform(1.2, 2.6))
                    elif rng.random() < 0.2:
                        plan.add(CAR, (s, cell[2] + 1.4), 0.0 if rng.random() < 0.5 else np.pi)


def field(plan: Plan, rect: Rect) -> None:
    """Crops or a meadow; nothing else."""
    rng = plan.rng
    edges = np.sort(rng.uniform(0.2, 0.8, int(rng.integers(0, 3))))
    shares = [0.0, *edges.tolist(), 1.0]
    for a, b in pairwise(shares):
        width = rect[1] - rect[0]
        strip = (rect[0] + a * width, rect[0] + b * width, rect[2], rect[3])
        _pave(plan, strip, ["crops", "meadow", "soil", "grass"], -10, 10)
    for _ in range(int(rng.integers(0, 4))):
        plan.tree(_inside(rng, rect), rng.uniform(1.5, 3.0))


def water(plan: Plan, rect: Rect) -> None:
    """A pond with a wavy bank in a meadow."""
    rng = plan.rng
    plan.paint("meadow", [rect_outline(rect)])
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    wave = 0.86 + 0.07 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(5 * angle)
    half = np.array(_sides(rect)) / 2
    corner = np.array([np.cos(angle), np.sin(angle)]) ** 1
    shape = (np.sign(corner) * np.abs(corner) ** 0.7 * wave).T * half
    middle = np.array([rect[0], rect[2]]) + half
    plan.paint("hedge", [shape * 1.03 + middle], 26)
    plan.paint("water", [shape * 0.98 + middle], rng.uniform(-8, 14))
    for k in range(0, 40, 2):
        if rng.random() < 0.5:
            spot = shape[k] * 1.05 + middle
            if _within((spot[0], spot[1]), rect, 1.0):
                plan.tree((spot[0], spot[1]), rng.uniform(1.0, 2.8))


def pavement(plan: Plan, outer: Rect, inner: Rect, lively: float) -> None:
    """The strip around a block: trees along the kerb, walkers, and rows of motors and bicycles."""
    rng = plan.rng
    spacing, size, trees = rng.uniform(5, 10), rng.uniform(1.7, 3.3), rng.random() < 0.75
    for axis in (0, 1):
        low, high = outer[2 * axis], outer[2 * axis + 1]
        for side in (0, 1):
            kerb, wall = outer[2 - 2 * axis + side], inner[2 - 2 * axis + side]

            def at(
                s: float, share: float, axis: int = axis, kerb: float = kerb, wall: float = wall
            ) -> tuple[float, float]:
                t = kerb + (wall - kerb) * share
                return (s, t) if axis == 0 else (t, s)

            if trees:
                for s in np.arange(low + 4, high - 3, spacing):
                    plan.tree(at(s, 0.28), size * rng.uniform(0.75, 1.2))
            for s in rng.uniform(low, high, rng.poisson((high - low) * 0.05 * lively)):
                plan.add(
                    PEDESTRIAN,
                    at(s, rng.uniform(0.4, 0.95)),
                    axis * np.pi / 2 + rng.choice([0, np.pi]),
                )
            if rng.random() < 0.5 * lively:
                s = rng.uniform(low, max(low + 1, high - 12))
                label = int(rng.choice([MOTOR, BICYCLE]))
                for k in range(int(rng.integers(5, 14))):
                    turn = (1 - axis) * np.pi / 2 + rng.normal(0, 0.12)
                    kind = label if rng.random() < 0.85 else MOTOR
                    plan.add(kind, at(s + 0.95 * k, 0.5), turn)


def _rows_of_two_wheels(plan: Plan, rect: Rect, rows: int) -> None:
    rng = plan.rng
    for _ in range(rows):
        u, v = _inside(rng, inset(rect, 3.0))
        label, turn = int(rng.choice([MOTOR, BICYCLE])), rng.choice([0.0, np.pi / 2])
        for k in range(int(rng.integers(5, 13))):
            spot = (u + 0.95 * k * np.sin(turn), v + 0.95 * k * np.cos(turn))
            if _within(spot, rect, 1.0):
                plan.add(label, spot, turn + rng.normal(0, 0.1))


def _group(plan: Plan, at: tuple[float, float], rect: Rect, count: int, label: int) -> None:
    rng = plan.rng
    spread = 0.55 * np.sqrt(count)
    for _ in range(count):
        spot = (at[0] + rng.normal(0, spread), at[1] + rng.normal(0, spread))
        if _within(spot, rect, 0.5):
            plan.add(label, spot, rng.uniform(0, 6.3))


def _inside(rng: np.random.Generator, rect: Rect) -> tuple[float, float]:
    u1, u2, v1, v2 = rect
    u = float(rng.uniform(min(u1, u2), max(u1, u2)))
    return u, float(rng.uniform(min(v1, v2), max(v1, v2)))


def _within(at: tuple[float, float], rect: Rect, margin: float) -> bool:
    u1, u2, v1, v2 = inset(rect, margin)
    return bool(u1 < at[0] < u2 and v1 < at[1] < v2)


def _ring(rect: Rect, side: int) -> Points:
    """One side of a band along the border of a rectangle."""
    outer, inner = rect_outline(rect), rect_outline(inset(rect, 0.8))
    k = (side + 1) % 4
    return np.array([outer[side], outer[k], inner[k], inner[side]])


CROWDED = {block.__name__: block for block in (parking, square, market, depot)}
"""Blocks full of objects."""

EMPTY = {block.__name__: block for block in (park, houses, field, water)}
"""Blocks with few objects or none."""
