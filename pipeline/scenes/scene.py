"""Scenes from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from dmnet.core.ranges import Count, Range, Seed, Settings, Share
from dmnet.core.records import Annotations, Image
from dmnet.pipeline.scenes.camera import Camera, Light
from dmnet.pipeline.scenes.lens import develop
from dmnet.pipeline.scenes.plan import Plan
from dmnet.pipeline.scenes.render import paint_plan
from dmnet.pipeline.scenes.town import build_town

SceneSide = Annotated[int, Range(100, 10_000)]
Aspect = Annotated[float, Range(0.1, 10)]
Scale = Annotated[float, Range(1, 100)]
Pitch = Annotated[float, Range(20, 90)]


@dataclass(frozen=True)
class SceneConfig(Settings):
    """How the scenes look; each scene draws its own values from the ranges."""

    seed: Seed = 0
    """First number of all random draws."""
    width: tuple[SceneSide, SceneSide] = (1360, 2000)
    """Smallest and largest width in pixels."""
    aspect: tuple[Aspect, Aspect] = (1.3333, 1.7778)
    """Width over height, one of the two; heights are at most 1500."""
    scale: tuple[Scale, Scale] = (8.5, 15.0)
    """Pixels a metre in the middle of a picture 1360 wide (a car is 4.5 m long)."""
    pitch: tuple[Pitch, Pitch] = (42.0, 80.0)
    """Degrees that the camera looks down; 90 is straight down."""
    busy: tuple[Share, Share] = (0.12, 0.45)
    """Share of a lane's length taken by vehicles."""
    crowded: Share = 0.4
    """Share of the blocks that are full of objects; the others are parks, roofs, fields, water."""
    ignored: Annotated[int, Range(0, 100)] = 2
    """Most ignored regions in a scene."""
    max_objects: Count = 300
    """Most objects in a scene."""


DEFAULT = SceneConfig()
"""The scenes of the demo."""


def make_scene(seed: int, config: SceneConfig = DEFAULT) -> tuple[Image, Annotations]:
    """Draw one aerial scene.

    Args:
        seed: of this scene; together with ``config`` it decides every byte.
        config: ranges of sizes, cameras and crowds.

    Returns:
        The picture ``(H, W, 3)`` RGB and its annotations, whose boxes are whole pixels.
    """
    rng = np.random.default_rng([config.seed, seed])
    camera, light = _camera(rng, config), Light.draw(rng)
    plan = Plan(camera, rng, float(rng.uniform(-np.pi, np.pi)))
    build_town(plan, float(rng.uniform(*config.busy)), config.crowded)
    plan.settle(config.max_objects)
    image, annotations = paint_plan(plan, light, int(rng.integers(config.ignored + 1)))
    return develop(image, rng), replace(annotations, image_id=f"{seed:07d}")


def _camera(rng: np.random.Generator, config: SceneConfig) -> Camera:
    width = int(rng.integers(config.width[0] // 20, config.width[1] // 20 + 1)) * 20
    height = min(1500, round(width / float(rng.choice(config.aspect))))
    low, high = config.scale
    scale = low * (high / low) ** rng.random() * width / 1360
    return Camera.over((height, width), scale, np.radians(rng.uniform(*config.pitch)), 0.9 * width)
