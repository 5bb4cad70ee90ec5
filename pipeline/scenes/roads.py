"""Roads, their markings, and the traffic on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmnet.pipeline.scenes.camera import Points
from dmnet.pipeline.scenes.objects import (
    AWNING,
    BICYCLE,
    BUS,
    CAR,
    MOTOR,
    PEDESTRIAN,
    TRICYCLE,
    TRUCK,
    VAN,
)
from dmnet.pipeline.scenes.plan import Plan, disc

LANE = 3.3
"""Metres."""

_TRAFFIC = {CAR: 0.58, VAN: 0.13, TRUCK: 0.11, BUS: 0.08, TRICYCLE: 0.05, AWNING: 0.05}
_LENGTH = {
    CAR: 4.6,
    VAN: 5.2,
    TRUCK: 9.5,
    BUS: 11.5,
    TRICYCLE: 3.2,
    AWNING: 3.2,
    MOTOR: 2.2,
    BICYCLE: 2,
}


@dataclass(frozen=True)
class Road:
    """A straight road along u (``axis`` 0) or v (1); ``at`` is its middle on the other axis."""

    axis: int
    at: float
    lanes: int

    @property
    def half(self) -> float:
        """Half the width in metres."""
        return self.lanes * LANE / 2 + 0.4 + 0.5 * self.median

    @property
    def median(self) -> float:
        """Width of the strip between the directions."""
        return 1.6 if self.lanes >= 6 else 0.0

    def point(self, along: float, across: float) -> tuple[float, float]:
        """Town coordinates of a point on the road."""
        return (along, self.at + across) if self.axis == 0 else (self.at + across, along)

    def quad(self, s1: float, s2: float, t1: float, t2: float) -> Points:
        """A rectangle on the road, along ``s1..s2`` and across ``t1..t2``."""
        corners = ((s1, t1), (s2, t1), (s2, t2), (s1, t2))
        return np.array([self.point(s, t) for s, t in corners])

    def lane(self, index: int) -> tuple[float, float]:
        """Offset across of a lane, and the heading of its traffic (drive on the right)."""
        side = index - self.lanes / 2 + 0.5
        across = side * LANE + np.sign(side) * self.median / 2
        forward = (across > 0) == (self.axis == 1)
        return across, self.axis * np.pi / 2 + (0.0 if forward else np.pi)


def paint_roads(plan: Plan, roads: list[Road]) -> None:
    """Kerbs and asphalt of all roads, then the marks between their crossings."""
    u1, u2, v1, v2 = plan.extent
    ends = ((u1, u2), (v1, v2))
    surface = str(plan.rng.choice(["asphalt", "asphalt", "worn"]))
    tint = float(plan.rng.uniform(-14, 14))
    for road in roads:
        plan.paint("kerb", [road.quad(*ends[road.axis], -road.half - 0.3, road.half + 0.3)])
    for road in roads:
        plan.paint(surface, [road.quad(*ends[road.axis], -road.half, road.half)], tint)
    for road in roads:
        _wear(plan, road, *ends[road.axis], surface, tint)
    for road in roads:
        for start, stop in _stretches(plan, road, roads):
            _mark(plan, road, start, stop)


def _wear(plan: Plan, road: Road, low: float, high: float, surface: str, tint: float) -> None:
    """Oil along the lanes, mended patches, and manhole covers."""
    rng = plan.rng
    for index in range(road.lanes):
        across, _ = road.lane(index)
        for s in np.arange(low, high, 17.0):
            if rng.random() < 0.8:
                a, b = s + rng.uniform(-6, 0), s + rng.uniform(12, 24)
                t = across + rng.normal(0, 0.15)
                plan.stain(road.quad(a, b, t - 0.45, t + 0.45), int(rng.integers(10, 34)))
    for _ in range(int(rng.poisson((high - low) / 22))):
        s, t = rng.uniform(low, high), rng.uniform(-0.8, 0.8) * road.half
        long, wide = rng.uniform(1.0, 9.0), rng.uniform(0.5, 1.3)
        if abs(t) + wide < road.half:
            patch = road.quad(s, s + long, t - wide, t + wide)
            plan.paint(surface, [patch], tint + rng.choice([-16, -9, 8]))
    for _ in range(int((high - low) / 18)):
        s, (across, _) = rng.uniform(low, high), road.lane(int(rng.integers(road.lanes)))
        plan.paint("asphalt", [disc(road.point(s, across + 0.7), 0.36)], -42)


def _stretches(plan: Plan, road: Road, roads: list[Road]) -> list[tuple[float, float]]:
    """The parts of a road between crossings, ``(start, stop)`` along it."""
    extent = plan.extent
    low, high = (extent[0], extent[1]) if road.axis == 0 else (extent[2], extent[3])
    cuts = sorted((r.at - r.half, r.at + r.half) for r in roads if r.axis != road.axis)
    edges = [low, *(edge for cut in cuts for edge in cut), high]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(a, b) for a, b in pairs if b - a > 12]


def _mark(plan: Plan, road: Road, start: float, stop: float) -> None:
    dashes: list[Points] = []
    for border in range(1, road.lanes):
        if 2 * border == road.lanes:
            continue
        across = (border - road.lanes / 2) * LANE
        across += np.sign(across) * road.median / 2
        starts = np.arange(start + 26, stop - 27, 6.0)
        dashes += [road.quad(s, s + 2.6, across - 0.09, across + 0.09) for s in starts]
        # solid before a crossing
        for near, far in ((start + 7, start + 24), (stop - 24, stop - 7)):
            dashes.append(road.quad(near, far, across - 0.09, across + 0.09))
    edge = road.half - 0.3
    dashes += [road.quad(start + 7, stop - 7, t - 0.08, t + 0.08) for t in (-edge, edge)]
    plan.paint("paint", dashes)
    _middle(plan, road, start + 7, stop - 7)
    stripes = np.arange(-road.half + 0.5, road.half - 0.7, 1.1)
    zebra = [road.quad(s, s + 3.4, t, t + 0.55) for s in (start + 1.4, stop - 4.8) for t in stripes]
    plan.paint("paint", zebra)
    stops = [road.quad(start + 6.2, start + 6.6, *_side(road, first=True))]
    stops.append(road.quad(stop - 6.6, stop - 6.2, *_side(road, first=False)))
    plan.paint("paint", stops)


def _side(road: Road, *, first: bool) -> tuple[float, float]:
    """Across-range of the half whose traffic ends at the first (last) crossing of a stretch."""
    left = first == (road.axis == 1)
    return (-road.half, -road.median / 2) if left else (road.median / 2, road.half)


def _middle(plan: Plan, road: Road, start: float, stop: float) -> None:
    if road.median:
        plan.paint("kerb", [road.quad(start, stop, -0.8, 0.8)])
        plan.paint("hedge", [road.quad(start + 0.3, stop - 0.3, -0.55, 0.55)])
        for s in np.arange(start + 2, stop - 2, 2.2):
            plan.tree(road.point(s, 0.0), plan.rng.uniform(0.6, 0.9))
    elif road.lanes > 2:
        lines = [road.quad(start, stop, t - 0.08, t + 0.08) for t in (-0.18, 0.18)]
        plan.paint("yellow", lines)
    else:
        starts = np.arange(start, stop - 3, 5.0)
        plan.paint("paint", [road.quad(s, s + 2.4, -0.08, 0.08) for s in starts])


BUSY_STRETCHES = 0.5
"""Share of the stretches between two junctions that have traffic."""

LONELY = 0.012
"""Share of a lane's length taken by vehicles on the other stretches."""


def drive(plan: Plan, roads: list[Road], busy: float) -> None:
    """Put traffic on some stretches of the roads, and people on their crossings.

    ``busy`` is the share of a lane's length taken by vehicles there, about 0.1 to 0.6. The other
    stretches are nearly empty.
    """
    waiting = int(plan.rng.integers(2))  # roads of this axis have a red light
    for road in roads:
        for start, stop in _stretches(plan, road, roads):
            full = plan.rng.random() < BUSY_STRETCHES
            red = full and road.axis == waiting
            for index in range(road.lanes):
                share = busy if full else LONELY
                _fill_lane(plan, road, index, (start + 7, stop - 7), share, red=red)
            for near in (start + 3.1, stop - 3.1) if full else ():
                _cross(plan, road, near)


def _fill_lane(
    plan: Plan, road: Road, index: int, span: tuple[float, float], busy: float, *, red: bool
) -> None:
    rng = plan.rng
    across, heading = road.lane(index)
    outer = index in (0, road.lanes - 1)
    forward = np.cos(heading - road.axis * np.pi / 2) > 0
    gone, queue = 0.0, int(rng.integers(2, 9)) if red else 0
    length = span[1] - span[0]
    gone += 0.0 if queue else rng.uniform(0, 20)
    while True:
        light = outer and rng.random() < 0.35
        label = int(rng.choice([MOTOR, MOTOR, BICYCLE])) if light else _vehicle(rng)
        size = _LENGTH[label]
        if gone + size > length:
            return
        middle = gone + size / 2
        s = span[1] - middle if forward else span[0] + middle
        if light:
            shy = np.sign(across) * rng.uniform(0.4, 1.3)
        else:
            shy = rng.normal(0, 0.18)
        seat = label in (MOTOR, BICYCLE) or (label == TRICYCLE and rng.random() < 0.6)
        plan.add(label, road.point(s, across + shy), heading + rng.normal(0, 0.025), seat=seat)
        queue -= 1
        gap = rng.uniform(1.2, 2.6) if queue > 0 else 2 + rng.exponential(4.6 / busy)
        gone += size + gap


def _vehicle(rng: np.random.Generator) -> int:
    return int(rng.choice(list(_TRAFFIC), p=list(_TRAFFIC.values())))


def _cross(plan: Plan, road: Road, along: float) -> None:
    """People on a zebra crossing."""
    rng = plan.rng
    for _ in range(int(rng.poisson(0.7 * road.half))):
        at = road.point(along + rng.uniform(-1.6, 1.6), rng.uniform(-1.1, 1.1) * road.half)
        heading = (1 - road.axis) * np.pi / 2 + rng.choice([0, np.pi]) + rng.normal(0, 0.2)
        plan.add(PEDESTRIAN, at, heading)
