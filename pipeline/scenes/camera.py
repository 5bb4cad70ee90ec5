"""A pinhole camera over flat ground, and the sun.

World: metres, x to the right, y away from the viewer, z up; the camera hangs at ``(0, 0, height)``
and looks along y, tilted down by ``pitch``. Picture: pixels, half-open, origin at the top left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmnet.core.records import Size

Points = NDArray[np.float64]
"""``(N, 2)`` or ``(N, 3)`` float64."""


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from; ``pitch`` in radians, pi/2 is straight down.

    ``focal`` in pixels, ``height`` in metres above ground.
    """

    size: Size
    focal: float
    height: float
    pitch: float

    @classmethod
    def over(cls, size: Size, scale: float, pitch: float, focal: float) -> Camera:
        """A camera that sees ``scale`` pixels a metre in the middle of the picture."""
        return cls(size, focal, focal * np.sin(pitch) / scale, pitch)

    def depth(self, points: Points) -> NDArray[np.float64]:
        """Distance along the viewing direction, shape ``(N,)``; z is 0 where it is not given."""
        z = points[:, 2] if points.shape[1] == 3 else 0.0
        return np.asarray(
            points[:, 1] * np.cos(self.pitch) + (self.height - z) * np.sin(self.pitch)
        )

    def scale(self, points: Points) -> NDArray[np.float64]:
        """Pixels a metre at each point, shape ``(N,)``."""
        return np.asarray(self.focal / np.maximum(self.depth(points), 1e-6))

    def project(self, points: Points) -> Points:
        """World ``(N, 2)`` (on the ground) or ``(N, 3)`` to pixels ``(N, 2)``."""
        z = points[:, 2] if points.shape[1] == 3 else 0.0
        factor = self.scale(points)
        down = (self.height - z) * np.cos(self.pitch) - points[:, 1] * np.sin(self.pitch)
        height, width = self.size
        return np.stack([points[:, 0] * factor + width / 2, down * factor + height / 2], axis=1)

    @property
    def ground_matrix(self) -> NDArray[np.float64]:
        """Homography from the ground ``(x, y, 1)`` to pixels, ``(3, 3)``."""
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        height, width = self.size
        depth = np.array([0.0, cos, self.height * sin])
        across = np.array([self.focal, 0.0, 0.0]) + depth * width / 2
        down = self.focal * np.array([0.0, -sin, self.height * cos]) + depth * height / 2
        return np.stack([across, down, depth])

    def to_ground(self, pixels: Points) -> Points:
        """Pixels ``(N, 2)`` to the ground ``(N, 2)``; only for pixels below the horizon."""
        homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
        ground = homogeneous @ np.linalg.inv(self.ground_matrix).T
        return np.asarray(ground[:, :2] / ground[:, 2:])

    @property
    def view(self) -> Points:
        """The seen piece of ground, ``(4, 2)``."""
        height, width = self.size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        return self.to_ground(corners)


@dataclass(frozen=True)
class Light:
    """Sun and sky. ``sun`` points towards the sun, unit length; ``ambient + direct`` is about 1."""

    sun: NDArray[np.float64]
    ambient: float
    direct: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Light:
        """Draw the time of day and how cloudy it is."""
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.1)
        flat = np.cos(elevation)
        sun = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
        direct = float(rng.choice([0.32, 0.45, 0.55]))
        return cls(sun, 1.02 - 0.75 * direct, direct)

    @property
    def shift(self) -> NDArray[np.float64]:
        """Where the shadow of a point one metre up falls, ``(2,)`` metres."""
        return np.asarray(-self.sun[:2] / self.sun[2])

    @property
    def shade(self) -> float:
        """Brightness of the ground in shadow, relative to the ground beside it."""
        return 1.0 - min(0.95 * self.direct, 0.52)

    def on(self, normals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Brightness of faces with these unit normals ``(N, 3)``, shape ``(N,)``."""
        sky = self.ambient * (0.8 + 0.2 * normals[:, 2])
        return np.asarray(sky + self.direct * np.clip(normals @ self.sun, 0.0, 1.0))
