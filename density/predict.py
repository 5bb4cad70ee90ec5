"""Density maps predicted by a network, for images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmnet.core.errors import ConfigError
from dmnet.core.records import DensityMap, Image
from dmnet.density.scale import Scaling, map_stride, rescaled, scaled_image

MAX_PIXELS = 1 << 21
"""Pixels a network sees at once (1920x1080 fits)."""

Span = tuple[int, int, int, int]
"""Along one axis, in pixels: start and end of the tile, start and end of the part that is kept."""


class Network(Protocol):
    """What predicts; sides of its input are multiples of ``multiple``, see `names.NETWORKS`."""

    stride: int
    multiple: int
    reach: int

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Objects per cell of images ``(N, 3, H, W)``: ``(N, 1, H / stride, W / stride)``."""
        ...


def predict(
    network: Network,
    image: Image,
    scaling: Scaling | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    overlap: int | None = None,
    batch: int = 1,
) -> DensityMap:
    """Predict the map of one image, in tiles where what enters the network exceeds the budget.

    Args:
        network: a `TorchNetwork` or an `OnnxNetwork`.
        image: ``(h, w, 3)`` uint8 RGB.
        scaling: of the input; None for unscaled RGB 0..255 at the image's own size.
        max_pixels: largest tile. A pixel needs about 350 bytes of memory with MCNN and 35 bytes a
            channel of the first level with U-Net.
        overlap: pixels around the kept part of a tile; None takes the network's ``reach``, with
            which tiles give what the whole image gives, to rounding.
        batch: tiles at a time.

    Returns:
        values ``(ceil(h / stride), ceil(w / stride))``, negative predictions set to 0. The stride
        is the network's, or what `map_stride` chooses for an image that was shrunk.

    Raises:
        ConfigError: the overlap leaves nothing of a tile, or a value outside its range.
    """
    scaling = scaling or Scaling()
    size = (image.shape[0], image.shape[1])
    image = scaled_image(image, scaling.long_side)
    stride, multiple, reach = network.stride, network.multiple, network.reach
    if batch < 1 or (overlap is not None and overlap < 0):
        raise ConfigError(
            f"batch must be at least 1 and overlap at least 0 pixels, got {batch} and {overlap}"
        )
    height, width = image.shape[:2]
    values = np.zeros((-(-height // stride), -(-width // stride)), dtype=np.float32)
    margin = _up(reach if overlap is None else overlap, multiple)
    tiles = list(
        _tiles((_up(height, multiple), _up(width, multiple)), max_pixels, margin, multiple)
    )
    for start in range(0, len(tiles), batch):
        chosen = tiles[start : start + batch]
        inputs = np.stack([_input(image, rows, columns, scaling) for rows, columns in chosen])
        outputs = np.maximum(network.run(inputs), 0)
        for (rows, columns), output in zip(chosen, outputs, strict=True):
            _keep(values, output[0], rows, columns, stride)
    found = DensityMap(values, stride, (height, width))
    return rescaled(found, size, map_stride(size, found.size, stride))


def _up(value: int, multiple: int) -> int:
    return max(multiple, -(-value // multiple) * multiple) if value else 0


def _tiles(
    size: tuple[int, int], max_pixels: int, margin: int, multiple: int
) -> Iterator[tuple[Span, Span]]:
    """Tiles of one shape that cover ``size``, row by row; sides are multiples of ``multiple``."""
    height, width = size
    if height * width <= max_pixels:
        sides = size
    else:
        square = int(max_pixels**0.5)
        tall = min(height, max(square, max_pixels // width))
        tall = tall // multiple * multiple
        wide = min(width, max_pixels // max(tall, 1)) // multiple * multiple
        sides = (tall, wide)
    for side, length in zip(sides, size, strict=True):
        if side < min(length, 2 * margin + multiple):
            raise ConfigError(
                f"max_pixels {max_pixels} is too small for an overlap of {margin} px: tiles need "
                f"at least {(2 * margin + multiple) ** 2} pixels"
            )
    columns = list(_spans(width, sides[1], margin))
    for row in _spans(height, sides[0], margin):
        for column in columns:
            yield row, column


def _spans(length: int, side: int, margin: int) -> Iterator[Span]:
    if side >= length:
        yield 0, length, 0, length
        return
    starts = [*range(0, length - side, side - 2 * margin), length - side]
    for index, start in enumerate(starts):
        first = start + margin if index else 0
        last = starts[index + 1] + margin if index + 1 < len(starts) else length
        yield start, start + side, first, last


def _input(image: Image, rows: Span, columns: Span, scaling: Scaling) -> NDArray[np.float32]:
    """One scaled tile ``(3, h, w)``; what lies beyond the image is 0 after scaling."""
    part = image[rows[0] : rows[1], columns[0] : columns[1]]
    tile = np.zeros((3, rows[1] - rows[0], columns[1] - columns[0]), np.float32)
    tile[:, : part.shape[0], : part.shape[1]] = scaling.apply(part)
    return tile


def _keep(
    values: NDArray[np.float32],
    output: NDArray[np.float32],
    rows: Span,
    columns: Span,
    stride: int,
) -> None:
    top, left = (span[2] // stride for span in (rows, columns))
    down, right = (span[3] // stride for span in (rows, columns))
    down, right = min(down, values.shape[0]), min(right, values.shape[1])
    y, x = top - rows[0] // stride, left - columns[0] // stride
    values[top:down, left:right] = output[y : y + down - top, x : x + right - left]
