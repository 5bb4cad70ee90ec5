"""ONNX detectors through onnxruntime: our own exports, and foreign ones of the YOLO family.

An own export describes itself. A foreign file needs a small YAML description, `OnnxDecoding`: how
the input is scaled and padded, and what the numbers of the output mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dmnet.core import config
from dmnet.core.boxes import clip
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.onnx import image_input, open_session, run
from dmnet.core.records import Detections, Image, Size
from dmnet.detectors.classmap import DROPPED
from dmnet.detectors.onnx_decoding import Floats, OnnxDecoding, class_table, select, to_corners
from dmnet.detectors.settings import fixed

# --- input ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """Where an image lies on the network's input, all sizes ``(height, width)``."""

    original: Size
    scaled: Size
    canvas: Size
    offset: Size

    def back(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes on the input as boxes of the image, clipped into it."""
        shift = np.array([self.offset[1], self.offset[0]] * 2, dtype=np.float64)
        ratio = [self.scaled[1] / self.original[1], self.scaled[0] / self.original[0]] * 2
        return clip((boxes - shift) / np.array(ratio), self.original)


def place(size: Size, how: OnnxDecoding) -> Placement:
    """Scale and position of an image of ``size`` on the input."""
    height, width = size
    if how.input_size is not None:
        room = (how.input_size[1] - 2 * how.border, how.input_size[0] - 2 * how.border)
        scale = min(room[0] / height, room[1] / width, how.max_zoom)
    else:
        scale = min(how.long_side / max(size), how.max_zoom)
        if how.short_side:
            scale = min(how.short_side / min(size), scale)
    scaled = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = _canvas(scaled, how)
    free = tuple(
        (c - s) // 2 if how.centred else how.border for c, s in zip(canvas, scaled, strict=True)
    )
    return Placement(size, scaled, canvas, (free[0], free[1]))


def _canvas(scaled: Size, how: OnnxDecoding) -> Size:
    if how.input_size is not None:
        return how.input_size[1], how.input_size[0]
    height, width = (-(-(s + 2 * how.border) // how.divisor) * how.divisor for s in scaled)
    return height, width


def network_input(image: Image, where: Placement, how: OnnxDecoding) -> Floats:
    """One image on its canvas, ``[3, H, W]`` float32."""
    canvas = np.empty((3, *where.canvas), np.float32)
    canvas[:] = _per_channel(how.fill)
    (top, left), (height, width) = where.offset, where.scaled
    pixels = _resized(image, where.scaled, how.smooth)
    canvas[:, top : top + height, left : left + width] = pixels.transpose(2, 0, 1)
    canvas *= np.float32(how.maximum / 255)
    canvas = np.ascontiguousarray(canvas[::-1]) if how.channels == "BGR" else canvas
    if any(how.mean) or any(value != 1 for value in how.std):
        canvas = (canvas - _per_channel(how.mean)) / _per_channel(how.std)
    return canvas


def _resized(image: Image, size: Size, smooth: bool) -> NDArray[Any]:
    """Bilinear: smoothed and in whole grey values where that is asked for, else float32.

    As torch's ``interpolate`` to rounding: smoothed bytes differ by one in three of a thousand
    values at most, floats by .01 of 255.
    """
    if size == image.shape[:2]:
        return image
    if smooth and size[0] < image.shape[0]:
        return np.asarray(Pillow.fromarray(image).resize(size[::-1], Pillow.Resampling.BILINEAR))
    floats = image.astype(np.float32, order="C")
    return np.asarray(cv2.resize(floats, size[::-1], interpolation=cv2.INTER_LINEAR))


def _per_channel(values: Sequence[float]) -> Floats:
    return np.array(values, np.float32).reshape(-1, 1, 1)


# --- the detector --------------------------------------------------------------------------------


class OnnxDetector:
    """An ONNX file as a `dmnet.detectors.load.Detector`."""

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any] | None = None,
        device: str = "auto",
        classes: Classes | None = None,
    ) -> None:
        """Open the file.

        Args:
            path: an own export, or a foreign model of the YOLO family.
            settings: of `OnnxDecoding`; for an own export they override what it says itself.
            device: ``auto``, ``cpu`` or ``cuda``.
            classes: of the data set, whose labels the detections have; None: the file's own where
                it names them, else VisDrone's.

        Raises:
            CheckpointError: missing, damaged, no detector, or one that takes no float images.
            ConfigError: a foreign file without a description, or one that does not fit.
        """
        self.path = path
        self.session, meta = open_session(path, device)
        if meta.get("kind", "detector") != "detector":
            raise CheckpointError(path, f"holds a {meta['kind']} network, not a detector")
        merged = config.merged(meta.get("decoding", {}), settings or {})
        self.how = config.build(OnnxDecoding, merged, "onnx")
        own = Classes.of(self.how.names) if self.how.names else VISDRONE
        self.classes = own if classes is None else classes
        self.table = class_table(self.how, self.classes)
        shape = image_input(path, self.session, others=1)
        self._check_size(shape)
        self.resizable = self.how.input_size is None
        self.names = [entry.name for entry in self.session.get_inputs()]
        self.single = shape[0] == 1 or self.how.layout == "detections"

    def _check_size(self, shape: Sequence[Any]) -> None:
        """Refuse a description of another input size than the file's."""
        fixed = tuple(side for side in shape[2:] if isinstance(side, int))
        given = self.how.input_size
        if len(fixed) == 2 and (given is None or fixed != (given[1], given[0])):
            raise ConfigError(
                f"{self.path}: its input is {fixed[1]}x{fixed[0]} pixels; set input_size to "
                f"[{fixed[1]}, {fixed[0]}] in its description"
            )

    def input_shape(self, size: Size) -> Size:
        """Images of equal input shape can go in one batch."""
        return place(size, self.how).canvas

    def at_side(self, side: int) -> OnnxDetector:
        """See `dmnet.detectors.load.at_side`; of the same session.

        Raises:
            ConfigError: the file's input is fixed.
        """
        if not self.resizable:
            raise ConfigError(f"{self.path}: {fixed(side)}")
        other = copy(self)
        other.how = replace(self.how, long_side=side, short_side=0)
        return other

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        """See `dmnet.detectors.load.Detector.predict`.

        Raises:
            CheckpointError: the file cannot be run, or its outputs are not as described.
        """
        places = [place((image.shape[0], image.shape[1]), self.how) for image in images]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, where in enumerate(places):
            key = (index,) if self.single else where.canvas
            groups.setdefault(key, []).append(index)
        found: list[Detections] = [Detections.empty()] * len(images)
        for indices in groups.values():
            batch = np.stack([network_input(images[i], places[i], self.how) for i in indices])
            feed = {self.names[0]: batch}
            if len(self.names) == 2:
                feed[self.names[1]] = np.array(places[indices[0]].scaled, dtype=np.int64)
            outputs = run(self.path, self.session, feed)
            for row, index in enumerate(indices):
                found[index] = self._read(outputs, row, places[index])
        return found

    def _read(self, outputs: list[NDArray[Any]], row: int, where: Placement) -> Detections:
        try:
            if self.how.layout == "detections":
                boxes, scores, labels = outputs
                keep = scores > self.how.score_threshold
                boxes, scores, labels = boxes[keep], scores[keep], labels[keep] - 1
            else:
                raw, values = self._columns(outputs, row)
                boxes = to_corners(raw, where.canvas, self.how)
                boxes, scores, labels = select(boxes, values, self.how)
        except (ValueError, IndexError, TypeError) as error:
            raise CheckpointError(
                self.path, f"its outputs are not as described (layout {self.how.layout}): {error}"
            ) from error
        inside = labels < len(self.table)
        category = np.where(inside, self.table[np.where(inside, labels, 0)], DROPPED)
        known = category != DROPPED
        corners = where.back(boxes[known].astype(np.float64))
        return Detections(corners, scores[known].astype(np.float64), category[known])

    def _columns(self, outputs: list[NDArray[Any]], row: int) -> tuple[Floats, Floats]:
        """Boxes ``[A, 4]`` as the file gives them and class scores ``[A, C]`` of one image."""
        parts = [output[row] for output in outputs]
        one = np.concatenate(parts, -1 if not self.how.transposed else 0)
        one = one.T if self.how.transposed else one
        first = 5 if self.how.objectness else 4
        if one.ndim != 2 or one.shape[1] < first + len(self.table):
            raise ValueError(
                f"shape {tuple(one.shape)} has no room for {len(self.table)} classes after "
                f"{first} values"
            )
        scores = one[:, 4:]
        if self.how.activation == "sigmoid":
            with np.errstate(over="ignore"):
                scores = 1 / (1 + np.exp(-scores))
        return one[:, :4], scores[:, 1:] * scores[:, :1] if self.how.objectness else scores
