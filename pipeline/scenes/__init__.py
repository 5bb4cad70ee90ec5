"""Aerial scenes that the demo makes itself."""

from dmnet.pipeline.scenes.dataset import make_item, scene_seed, write_item
from dmnet.pipeline.scenes.layout import render_layout
from dmnet.pipeline.scenes.scene import SceneConfig, make_scene

__all__ = [
    "SceneConfig",
    "make_item",
    "make_scene",
    "render_layout",
    "scene_seed",
    "write_item",
]
