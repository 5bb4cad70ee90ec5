"""An ONNX detector's input and what its outputs mean: `OnnxDecoding`, and boxes by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from dmnet.core import limits
from dmnet.core.classes import Classes
from dmnet.core.errors import ConfigError
from dmnet.core.ranges import Factor, Positive, Range, Settings, Share
from dmnet.core.reading import is_whole
from dmnet.core.records import Size
from dmnet.detectors.classmap import DROPPED, by_name, category_table
from dmnet.detectors.nms import class_nms

Floats = NDArray[np.float32]

CANDIDATES = 10_000
"""Boxes of an image that enter the NMS at most."""

InputSide = Annotated[int, Range(1, 16_384)]
"""Pixels of a side of the network's input."""


@dataclass(frozen=True)
class OnnxDecoding(Settings):
    """How an ONNX detector is fed and read."""

    layout: Literal["yolox", "cxcywh", "xyxy", "detections"] = "cxcywh"
    """boxes: yolox (offsets in cells and logarithms of sides, in strides), cxcywh or xyxy (pixels
    of the input), or detections (three outputs after NMS: boxes xyxy, scores, labels from 1)"""
    transposed: bool = False
    """the output is channels x boxes (YOLOv8) instead of boxes x channels"""
    objectness: bool = True
    """a fifth value multiplies the class scores"""
    activation: Literal["none", "sigmoid"] = "none"
    """what is still to be applied to the scores"""
    strides: tuple[Annotated[int, Range(1, 1_024)], ...] = (8, 16, 32)
    """of the levels, pixels; layout yolox only"""
    several_classes: bool = False
    """a box may count for every class above the threshold, not only for its best one"""
    class_map: tuple[str, ...] = ()
    """class index of the detector (from 0) = name of the class, or its number in the data set (from
    1); other classes are dropped"""
    names: tuple[str, ...] = ()
    """instead of class_map: names of all classes in the order of the outputs"""
    channels: Literal["RGB", "BGR"] = "RGB"
    """order of the input's channels"""
    maximum: Factor = 1.0
    """input value of the brightest pixel, before mean and std: 1 or 255"""
    mean: tuple[Annotated[float, Range(-1_000_000, 1_000_000)], ...] = (0.0,)
    """subtracted from the input, one value or one a channel"""
    std: tuple[Factor, ...] = (1.0,)
    """divides the input, one value or one a channel"""
    input_size: tuple[InputSide, InputSide] | None = None
    """fixed width and height of the input, pixels; none: from the sides below"""
    short_side: Annotated[int, Range(0, 16_384)] = 0
    """shorter side of the scaled image is at most this, pixels; 0: no bound"""
    long_side: Annotated[int, Range(32, 16_384)] = 1280
    """longer side of the scaled image is at most this, pixels"""
    max_zoom: Annotated[float, Range(0, 1e9, above=True)] = 1e9
    """small images are enlarged at most this many times"""
    divisor: Annotated[int, Range(1, 4_096)] = 32
    """sides of the input are padded to multiples of this, pixels"""
    border: Annotated[int, Range(0, 4_096)] = 0
    """pixels left free around the image"""
    centred: bool = False
    """the image lies in the middle of its padding, not at the top left"""
    smooth: bool = False
    """smooth the image when it is made smaller"""
    fill: tuple[Annotated[float, Range(0, 255)], ...] = (114.0,)
    """padding, 0..255, one value or one a channel"""
    score_threshold: Share = 0.01
    """detections below are dropped"""
    nms: Share = 0.65
    """IoU of the class-wise NMS"""
    max_detections: Positive = 500
    """detections per image"""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a value a channel that is neither one nor three.
        """
        super().__post_init__()
        for name in ("mean", "std", "fill"):
            if len(getattr(self, name)) not in (1, 3):
                raise ValueError(f"{name} must be one value, or one a channel (three)")


def grid(canvas: Size, strides: Sequence[int]) -> tuple[Floats, Floats]:
    """Cell indices x, y ``[A, 2]`` and strides ``[A, 1]``, level by level, row by row."""
    cells, steps = [], []
    for stride in strides:
        rows, columns = canvas[0] // stride, canvas[1] // stride
        y, x = np.indices((rows, columns), np.float32)
        cells.append(np.stack([x, y], -1).reshape(-1, 2))
        steps.append(np.full((rows * columns, 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(steps)


def to_corners(raw: Floats, canvas: Size, how: OnnxDecoding) -> Floats:
    """Boxes ``[A, 4]`` of any layout as x1 y1 x2 y2 in pixels of the input.

    Raises:
        ValueError: the number of boxes is not that of the cells (layout yolox).
    """
    if how.layout == "xyxy":
        return raw
    centre, side = raw[:, :2], raw[:, 2:]
    if how.layout == "yolox":
        cells, steps = grid(canvas, how.strides)
        if len(cells) != len(raw):
            raise ValueError(
                f"gives {len(raw)} boxes where strides {how.strides} have {len(cells)} cells at "
                f"{canvas[1]}x{canvas[0]}"
            )
        with np.errstate(over="ignore"):
            centre, side = (centre + cells) * steps, np.exp(side) * steps
    return np.concatenate([centre - side / 2, centre + side / 2], 1)


def select(
    boxes: Floats, scores: Floats, how: OnnxDecoding
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Threshold and class-wise NMS: boxes ``[A, 4]``, scores ``[A, C]`` -> boxes, scores, classes.

    By descending score; equal scores keep the order of the boxes.
    """
    if how.several_classes:
        box, label = (scores > how.score_threshold).nonzero()
    else:
        best = scores.argmax(1)
        box = (scores.max(1) > how.score_threshold).nonzero()[0]
        label = best[box]
    score = scores[box, label]
    order = np.argsort(-score, kind="stable")[:CANDIDATES]
    box, label, score = box[order], label[order], score[order]
    keep = class_nms(boxes[box], score, label, how.nms)[: how.max_detections]
    return boxes[box[keep]], score[keep], label[keep]


def class_table(how: OnnxDecoding, classes: Classes) -> NDArray[np.int64]:
    """Label of each class index in a data set, `DROPPED` where there is none.

    Raises:
        ConfigError: entries that are not ``index=class``, none at all, or none of the data set's.
    """
    if how.names and not how.class_map:
        return category_table(how.names, {}, classes, "onnx.class_map")
    pairs = {}
    for entry in how.class_map:
        index, _, name = entry.partition("=")
        label = int(name) if is_whole(name) else by_name(name, classes)
        if not (is_whole(index) and name and label in (DROPPED, *classes.scored)):
            raise ConfigError(
                f"onnx.class_map: '{entry}' is not of the form index=class with a class of the "
                f"data set, by name or by number 1-{len(classes)}, for example 0=1"
            )
        if int(index) > limits.CLASS_INDEX:
            raise ConfigError(f"onnx.class_map: index {index} is above {limits.CLASS_INDEX:,}")
        pairs[int(index)] = label
    if not pairs:
        raise ConfigError(
            "onnx.class_map: the file does not say what its classes are; describe it in a YAML "
            "file of settings (configs/onnx/yolox-nano-coco.yaml is an example)"
        )
    if set(pairs.values()) == {DROPPED}:
        raise ConfigError(
            f"onnx.class_map: none of {', '.join(how.class_map)} is a class of the data set "
            f"({classes}); name the matching ones, for example 0={classes.names[0]}"
        )
    table = np.full(max(pairs) + 1, DROPPED, dtype=np.int64)
    table[list(pairs)] = list(pairs.values())
    return table
