"""What is drawn before what."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmnet.pipeline.scenes.buildings import Building
from dmnet.pipeline.scenes.plan import Item, Plan
from dmnet.pipeline.scenes.trees import Tree


def drawing_order(plan: Plan) -> list[tuple[str, int]]:
    """Everything as ``(kind, index)``, so that what hides comes after what is hidden.

    Buildings from far to near; before each one the things behind it: those whose line of sight
    along the ground crosses its footprint. The rest by distance.
    """
    things: list[tuple[str, int, Item | Tree]] = [
        *(("item", i, item) for i, item in enumerate(plan.items)),
        *(("tree", i, tree) for i, tree in enumerate(plan.trees)),
    ]
    places = np.array([thing[2].place for thing in things]).reshape(-1, 3)[:, :2]
    lift = [0.0 if thing[0] == "item" else 0.5 for thing in things]
    far = np.argsort(-(plan.camera.depth(places) - lift), kind="stable")
    left = np.ones(len(things), dtype=bool)
    out: list[tuple[str, int]] = []
    nearest = np.array([plan.camera.depth(b.place[None])[0] for b in plan.buildings])
    for index in np.argsort(-nearest, kind="stable").tolist():
        behind = far[left[far] & _behind(plan.buildings[index], places)[far]]
        out += [things[i][:2] for i in behind.tolist()]
        left[behind] = False
        out.append(("building", index))
    return out + [things[i][:2] for i in far[left[far]].tolist()]


def _behind(building: Building, places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the line from below the camera to each place crosses the footprint (slab test)."""
    sin, cos = np.sin(building.heading), np.cos(building.heading)
    into = np.array([[cos, -sin], [sin, cos]])
    start, stop = -building.place[:2] @ into, (places - building.place[:2]) @ into
    step = stop - start
    with np.errstate(divide="ignore"):
        one = (-np.array(building.half) - start) / step
        two = (np.array(building.half) - start) / step
    enter = np.minimum(one, two).max(axis=1, initial=0.0)
    leave = np.maximum(one, two).min(axis=1, initial=1.0)
    return np.asarray(enter < leave)
