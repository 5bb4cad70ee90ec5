"""The viewer: pictures with their boxes as one page, or as a part of the report.

A pure function from records to text: no disk, no clock, the same input gives the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from dmnet.core.boxes import Boxes, Window, to_xywh
from dmnet.core.classes import Classes
from dmnet.core.overlaps import Ints
from dmnet.core.records import Annotations, Detections, Image, Size
from dmnet.fusion.evaluation.matching import Rows, match
from dmnet.fusion.report.draw import colour_of
from dmnet.fusion.report.template import POLICY, asset, embedded, fill

Records = TypeVar("Records", Annotations, Detections)

FLOOR = 0.05
"""Detections with lower scores do not go into the page; they would be most of its bytes."""


@dataclass(frozen=True)
class ViewerImage:
    """One picture of the viewer.

    ``picture`` holds the bytes of a JPEG, or the address of a file relative to the page; it may be
    smaller than ``size`` ``(height, width)``, in whose pixels all boxes are. ``layers`` are
    detections by name, the last one the main one; ``density`` a PNG laid over the picture
    (`density_png`), ``count`` its sum.
    """

    image_id: str
    picture: bytes | str
    size: Size
    layers: Mapping[str, Detections]
    truth: Annotations | None = None
    windows: Sequence[Window] = ()
    density: bytes | None = None
    count: float | None = None


@dataclass(frozen=True)
class ViewerConfig:
    """How the viewer starts."""

    score: float = 0.25
    """Where the slider starts."""
    floor: float = FLOOR
    """Where the slider ends; detections below are left out of the page."""
    embedded: bool = False
    """Part of a longer page: keys work while it has the focus, the wheel after a click."""


def viewer_page(
    title: str,
    images: Sequence[ViewerImage],
    classes: Classes,
    *,
    subtitle: str = "",
    config: ViewerConfig | None = None,
) -> str:
    """The viewer as a page of its own.

    Args:
        title: heading.
        images: in order; every one has the same layers.
        classes: names and colours; detections and ground truth of other labels are left out.
        subtitle: one line beside the heading.
        config: how it starts.

    Returns:
        HTML that opens from disk and asks for nothing but pictures named by a relative address.
    """
    return fill(
        "viewer.html.j2",
        title=title,
        subtitle=subtitle,
        policy=POLICY,
        colours=asset("page.css"),
        style=asset("viewer.css"),
        viewer=viewer_part(images, classes, config),
    )


def viewer_part(
    images: Sequence[ViewerImage], classes: Classes, config: ViewerConfig | None = None
) -> str:
    """The viewer as a part of a page that holds ``viewer.css``; one per page."""
    config = config or ViewerConfig()
    layers = list(images[0].layers) if images else []
    data = {
        "embedded": config.embedded,
        "score": max(config.score, config.floor),
        "floor": config.floor,
        "layers": layers,
        "classes": [
            {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(label))}
            for label, name in classes.scored.items()
        ],
        "images": [_entry(image, classes, config.floor) for image in images],
    }
    return fill("viewer.part.j2", layers=layers, data=_json(data), script=asset("viewer.js"))


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _entry(image: ViewerImage, classes: Classes, floor: float) -> dict[str, Any]:
    """What the script needs of one picture; boxes as flat lists, labels as positions."""
    position = {label: at for at, label in enumerate(classes.scored)}
    truth = None if image.truth is None else _known(image.truth, position)
    if truth is not None:
        truth = truth[truth.score != 0]
    source = image.picture
    return {
        "id": image.image_id,
        "size": [int(side) for side in image.size],
        "src": source if isinstance(source, str) else embedded(source, "jpeg"),
        "density": None if image.density is None else embedded(image.density, "png"),
        "count": image.count,
        "windows": [[int(side) for side in window] for window in image.windows],
        "boxes": {
            name: _found(_known(found[found.scores >= floor], position), truth, position)
            for name, found in image.layers.items()
        },
        "truth": None if truth is None else _flat(truth.boxes, [_at(truth.labels, position)]),
    }


def _known(records: Records, position: Mapping[int, int]) -> Records:
    return records[np.isin(records.labels, list(position))]


def _at(labels: Ints, position: Mapping[int, int]) -> list[int]:
    return [position[label] for label in labels.tolist()]


def _found(
    found: Detections, truth: Annotations | None, position: Mapping[int, int]
) -> list[float]:
    """x1 y1 x2 y2, score in thousandths, class, matched ground truth (-2: there is none)."""
    matched = np.full(len(found), -2)
    if truth is not None:
        matched = match(
            Rows(found.labels, to_xywh(found.boxes)),
            found.scores,
            Rows(truth.labels, to_xywh(truth.boxes)),
            np.zeros(len(truth), dtype=bool),
            np.array([0.5]),
        )[:, 0]
    score = np.floor(found.scores * 1000 + 1e-6).astype(int).tolist()
    return _flat(found.boxes, [score, _at(found.labels, position), matched.tolist()])


def _flat(boxes: Boxes, columns: Sequence[Sequence[int]]) -> list[float]:
    """Boxes to a tenth of a pixel and further columns, row after row."""
    sides = [_short(side) for side in np.round(boxes, 1).ravel().tolist()]
    rows = zip(range(0, len(sides), 4), *columns, strict=True)
    return [value for start, *rest in rows for value in (*sides[start : start + 4], *rest)]


def _short(value: float) -> float:
    return int(value) if value == int(value) else value


def picture_jpeg(image: Image, longest: int = 1400, most: int = 170_000) -> bytes:
    """A picture for the page: shrunk, and of the best quality that fits a number of bytes.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        longest: longest side in pixels.
        most: bytes; where quality 45 takes more, the picture is shrunk further, down to a half.
    """
    picture = Pil.fromarray(image)
    picture.thumbnail((longest, longest), Pil.Resampling.LANCZOS)
    data = b""
    for quality, scale in ((85, 1.0), (70, 1.0), (57, 1.0), (45, 1.0), (45, 0.75), (45, 0.5)):
        buffer = io.BytesIO()
        size = [max(1, round(side * scale)) for side in picture.size]
        shown = picture if scale == 1 else picture.resize((size[0], size[1]))
        shown.save(buffer, "JPEG", quality=quality)  # optimize costs ten times as long for 5 %
        data = buffer.getvalue()
        if len(data) <= most:
            break
    return data


_HEAT = np.array([(20, 11, 53), (104, 24, 110), (207, 69, 70), (250, 155, 58), (252, 255, 164)])
_LEVELS = 32


def density_png(values: NDArray[np.floating], longest: int = 360) -> bytes:
    """A density map as a see-through overlay: 32 levels, clear where there is nothing.

    Args:
        values: ``(h, w)`` >= 0, any unit.
        longest: longest side in pixels; sums of cells, so peaks keep their weight.
    """
    step = max(1, -(-max(values.shape) // longest))
    rows, cols = (np.arange(0, side, step) for side in values.shape)
    small = np.add.reduceat(np.add.reduceat(values, rows, axis=0), cols, axis=1)
    share = np.sqrt(small / max(float(small.max(initial=0)), 1e-12))
    levels = np.ceil(share * (_LEVELS - 1)).astype(np.uint8)
    at = np.linspace(0, len(_HEAT) - 1, _LEVELS)
    ramp = [np.interp(at, np.arange(len(_HEAT)), channel) for channel in _HEAT.T]
    picture = Pil.fromarray(levels, "L")
    picture = Pil.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette(np.stack(ramp, axis=1).round().astype(np.uint8).tobytes())
    clear = np.interp(np.arange(_LEVELS), [0, 1, _LEVELS - 1], [0, 60, 215]).astype(np.uint8)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=clear.tobytes(), optimize=True)
    return buffer.getvalue()
