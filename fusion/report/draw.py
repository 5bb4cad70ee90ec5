"""Pictures of boxes: class colours, TP, FP and FN, a legend below. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from dmnet.core.boxes import Boxes
from dmnet.core.records import Annotations, Detections, Image

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

CLASS_COLOURS: dict[int, Colour] = {
    1: (255, 82, 82),
    2: (255, 158, 64),
    3: (255, 221, 51),
    4: (64, 156, 255),
    5: (0, 212, 212),
    6: (150, 110, 255),
    7: (255, 110, 199),
    8: (190, 140, 90),
    9: (70, 205, 90),
    10: (190, 230, 70),
}
"""Colours of the first ten classes; further ones take turns."""

FP: Colour = (255, 72, 72)
FN: Colour = (255, 204, 0)

_BACKGROUND: Colour = (24, 27, 34)
_TEXT: Colour = (235, 238, 245)


@dataclass(frozen=True)
class Layer:
    """Boxes ``(N, 4)`` x1 y1 x2 y2 of one colour; ``texts`` one per box, or none."""

    boxes: Boxes
    colour: Colour
    name: str = ""
    texts: Sequence[str] = ()


def colour_of(label: int) -> Colour:
    """Colour of a class by its label, from 1."""
    return CLASS_COLOURS[1 + (label - 1) % len(CLASS_COLOURS)]


def draw_boxes(
    image: Image,
    items: Detections | Annotations,
    *,
    names: Mapping[int, str] | None = None,
    min_score: float = 0.0,
    scores: bool = False,
    texts: Sequence[str] = (),
    legend: bool = True,
    longest: int | None = None,
) -> Image:
    """Draw detections or annotations in the colours of their classes.

    Args:
        image: ``(h, w, 3)`` uint8 RGB; stays as it is.
        items: boxes in pixels of the image.
        names: class names for the legend, other labels are not drawn; None takes the annotations'
            own, and numbers for detections.
        min_score: detections below are left out.
        scores: write the score beside each detection.
        texts: what to write beside each box instead.
        legend: add a strip with the names of the classes that occur.
        longest: shrink the picture to this longest side.

    Returns:
        A new image; higher than the given one where there is a legend.

    >>> import numpy as np
    >>> grey = np.full((60, 80, 3), 128, np.uint8)
    >>> truth = Annotations.of("a", (60, 80), [[10, 10, 40, 30]], [4])
    >>> shown = draw_boxes(grey, truth, legend=False)
    >>> shown.shape, tuple(shown[10, 20].tolist()) == colour_of(4)
    ((60, 80, 3), True)
    """
    if isinstance(items, Annotations):
        names = names or items.classes.scored
    else:
        items = items[items.scores >= min_score]
        names = names or {label: f"class {label}" for label in np.unique(items.labels).tolist()}
    if not texts:
        shown = items.scores.tolist() if scores and isinstance(items, Detections) else []
        texts = [f"{value:.2f}" for value in shown] or [""] * len(items)
    layers = []
    for label, name in names.items():
        mine = items.labels == label
        beside = [text for text, here in zip(texts, mine.tolist(), strict=True) if here]
        if mine.any():
            layers.append(Layer(items.boxes[mine], colour_of(label), name, beside))
    return draw_layers(image, layers, legend=legend, longest=longest)


def draw_layers(
    image: Image,
    layers: Sequence[Layer],
    *,
    legend: bool = True,
    longest: int | None = None,
    width: int | None = None,
) -> Image:
    """Draw boxes layer by layer, the last on top.

    Args:
        image: ``(h, w, 3)`` uint8 RGB; stays as it is.
        layers: boxes, colours, names.
        legend: add a strip with the names of the layers and their numbers of boxes.
        longest: shrink the picture to this longest side.
        width: of the lines in pixels; a 600th of the picture if None.
    """
    picture = Pil.fromarray(image)
    scale = 1.0
    if longest is not None and max(picture.size) > longest:
        scale = longest / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((size[0], size[1]), Pil.Resampling.LANCZOS)
    else:
        picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    width = width or max(1, round(max(picture.size) / 600))
    letters = max(10, 6 * width)
    for layer in layers:
        for row, box in enumerate((layer.boxes * scale).tolist()):
            x1, y1, x2, y2 = box
            corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
            draw.rectangle(corners, outline=layer.colour, width=width)
            if row < len(layer.texts) and layer.texts[row]:
                _label(draw, (x1, y1), layer.texts[row], layer.colour, letters)
    array: Image = np.array(picture)
    return add_legend(array, layers) if legend and layers else array


def _label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: Colour,
    size: int,
) -> None:
    """A filled tag with dark text above the corner of a box."""
    left, top, right, bottom = _extent(text, size)
    x, y = corner[0], max(0.0, corner[1] - (bottom - top) - 4)
    draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill=_BACKGROUND, font=_font(size))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


@lru_cache(4096)
def _extent(text: str, size: int) -> tuple[float, float, float, float]:
    """Where a text at (0, 0) lies; scores repeat."""
    return ImageDraw.Draw(Pil.new("RGB", (1, 1))).textbbox((0, 0), text, font=_font(size))


def add_legend(image: Image, layers: Sequence[Layer]) -> Image:
    """Add a strip below with a swatch, the name and the number of boxes of each layer."""
    width = image.shape[1]
    font = ImageFont.load_default(size=14)
    entries = [(f"{layer.name} ({len(layer.boxes)})", layer.colour) for layer in layers]
    places: list[tuple[int, int]] = []
    x, y = 10, 6
    for text, _ in entries:
        wide = 34 + int(font.getlength(text))
        if x > 10 and x + wide > width:
            x, y = 10, y + 22
        places.append((x, y))
        x += wide
    strip = Pil.new("RGB", (width, y + 26), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for (text, colour), (left, top) in zip(entries, places, strict=True):
        draw.rounded_rectangle((left, top + 3, left + 12, top + 15), 3, fill=colour)
        draw.text((left + 18, top), text, fill=_TEXT, font=font)
    return np.concatenate([image, np.asarray(strip, dtype=np.uint8)], axis=0)


def patch(
    image: Image, focus: Boxes, layers: Sequence[Layer], *, side: int = 180, margin: float = 1.0
) -> Image:
    """A square cut-out around boxes, enlarged, with layers drawn on it.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        focus: ``(N, 4)`` boxes in the middle of the cut-out, N at least 1.
        layers: boxes in pixels of the image.
        side: pixels of the result.
        margin: free space on each side, as a share of the longer side of the focus.

    Returns:
        ``(side, side, 3)``; dark where it reaches beyond the image.
    """
    low, high = focus[:, :2].min(axis=0), focus[:, 2:].max(axis=0)
    half = max(12.0, float((high - low).max()) * (0.5 + margin))
    x1, y1 = np.floor((low + high) / 2 - half).astype(int).tolist()
    size = int(np.ceil(2 * half))
    canvas = Pil.new("RGB", (size, size), _BACKGROUND)
    height, width = image.shape[:2]
    left, top = max(0, x1), max(0, y1)
    cut = image[top : max(top, min(height, y1 + size)), left : max(left, min(width, x1 + size))]
    if cut.size:
        canvas.paste(Pil.fromarray(cut), (left - x1, top - y1))
    canvas = canvas.resize((side, side), Pil.Resampling.LANCZOS)
    scale = side / size
    shifted = [
        Layer((layer.boxes - [x1, y1, x1, y1]) * scale, layer.colour, layer.name, layer.texts)
        for layer in layers
    ]
    return draw_layers(np.array(canvas), shifted, legend=False, width=2)
