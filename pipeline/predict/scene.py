"""Where the pixels of one image come from: an array, or a file that is read piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dmnet.core.boxes import Window
from dmnet.core.records import Image, Size


class Pixels(Protocol):
    """The pixels of one opened image."""

    @property
    def size(self) -> Size:
        """``(height, width)`` at full resolution."""
        ...

    @property
    def whole(self) -> Image:
        """The whole image, RGB uint8; a large one at 1/n, both sides rounded up."""
        ...

    @property
    def blank(self) -> bool:
        """Whether it holds no data, so that there is nothing to look for."""
        ...

    def crop(self, window: Window) -> Image:
        """The pixels of a window, at full resolution."""
        ...


@dataclass(frozen=True)
class ArrayPixels:
    """An image in memory."""

    whole: Image
    blank: bool = False

    @property
    def size(self) -> Size:
        """``(height, width)``."""
        return self.whole.shape[0], self.whole.shape[1]

    def crop(self, window: Window) -> Image:
        """A view, not a copy."""
        x1, y1, x2, y2 = window
        return self.whole[y1:y2, x1:x2]


@dataclass(frozen=True)
class Scene:
    """An image that has not been opened yet."""

    name: str
    open: Callable[[], Pixels]
    """Raises `InputError` where the image cannot be read."""
    alike: bool = False
    """Take density map and windows of the scene before, which is of the same size."""
