"""A town from a seed: a grid of roads, and blocks of alternating kinds between them."""

from __future__ import annotations

import numpy as np

from dmnet.pipeline.scenes.blocks import CROWDED, EMPTY, pavement
from dmnet.pipeline.scenes.plan import Plan, Rect, inset, rect_outline
from dmnet.pipeline.scenes.roads import Road, drive, paint_roads


def build_town(plan: Plan, busy: float, crowded: float) -> None:
    """Fill a plan.

    Args:
        plan: an empty plan.
        busy: share of a lane's length taken by vehicles.
        crowded: share of the blocks that are full of objects.
    """
    roads = _grid(plan)
    paint_roads(plan, roads)
    blocks = sorted(_blocks(plan, roads), key=lambda block: -block[0])
    kinds = _kinds(plan.rng, len(blocks), crowded)
    for (_, rect), kind in zip(blocks, kinds, strict=True):
        outer = inset(rect, 0.3)
        inner = inset(rect, float(plan.rng.uniform(3.2, 5.0)))
        plan.paint("kerb", [rect_outline(inner)])
        (CROWDED | EMPTY)[kind](plan, inset(inner, 0.3))
        pavement(plan, outer, inner, LIVELY.get(kind, QUIET))
    drive(plan, roads, busy)


LIVELY = {"square": 1.0, "market": 1.0, "parking": 0.2, "depot": 0.2, "houses": 0.08}
"""How many walkers and parked two-wheelers the pavement of a block has."""

QUIET = 0.02
"""The same for parks, fields and water: whole parts of a picture are empty."""


def _grid(plan: Plan) -> list[Road]:
    """Roads of both axes, one of them through the middle; sometimes of one axis only."""
    rng, extent = plan.rng, plan.extent
    roads: list[Road] = []
    axes = (0, 1) if rng.random() < 0.85 else (int(rng.integers(2)),)
    for axis in axes:
        low, high = (extent[2], extent[3]) if axis == 0 else (extent[0], extent[1])
        at = rng.uniform(-0.12, 0.12) * (high - low)
        for step in (1, -1):
            here = at if step == 1 else at - _gap(rng)
            while low - 15 < here < high + 15:
                roads.append(Road(axis, float(here), int(rng.choice([2, 2, 4, 4, 6]))))
                here += step * _gap(rng)
    return roads


def _gap(rng: np.random.Generator) -> float:
    return float(rng.uniform(62, 105))


def _blocks(plan: Plan, roads: list[Road]) -> list[tuple[int, Rect]]:
    """The rectangles between the roads that are seen, and how much of each is (in 1/100)."""
    extent = plan.extent
    spans = []
    for axis in (1, 0):  # u is cut by the roads along v
        low, high = (extent[0], extent[1]) if axis == 1 else (extent[2], extent[3])
        cuts = sorted((r.at - r.half, r.at + r.half) for r in roads if r.axis == axis)
        edges = [low - 30, *(edge for cut in cuts for edge in cut), high + 30]
        spans.append([(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 24])
    out = []
    for u1, u2 in spans[0]:
        for v1, v2 in spans[1]:
            u, v = np.meshgrid(np.linspace(u1, u2, 16), np.linspace(v1, v2, 16))
            shown = int(plan.in_view(np.stack([u.ravel(), v.ravel()], axis=1)).sum())
            if shown:
                out.append((shown, (u1, u2, v1, v2)))
    return out


def _kinds(rng: np.random.Generator, count: int, crowded: float) -> list[str]:
    """Kinds of blocks, the best seen first: crowded and empty ones in the wanted share."""
    full, bare = list(CROWDED), list(EMPTY)
    rng.shuffle(full)
    rng.shuffle(bare)
    kinds, debt = [], float(rng.uniform(0.3, 0.9))
    for _ in range(count):
        debt += crowded
        source = full if debt >= 1 else bare
        debt -= debt >= 1
        kinds.append(source[0])
        source.append(source.pop(0))
    return kinds
