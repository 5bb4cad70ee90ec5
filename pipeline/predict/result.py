"""What comes out for one image: detections, density, windows, timings; pictures and files of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dmnet.core.boxes import Window, as_boxes
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import ConfigError
from dmnet.core.files import write_atomic
from dmnet.core.formats.coco import categories
from dmnet.core.formats.coco_results import results_rows
from dmnet.core.images import encode_jpeg, encode_png
from dmnet.core.records import DensityMap, Detections, Image, Size
from dmnet.fusion.report.draw import Layer, draw_boxes, draw_layers

WINDOW_COLOUR = (255, 255, 255)
PARTS = ("whole image", "crops")
"""What is merged into one list; each alone is a layer of the viewer."""


@dataclass(frozen=True)
class Result:
    """One image and what was found in it.

    ``detections`` are in pixels of the full image, by descending score; ``density`` is the map the
    windows were cut from (None where the slicer needs none), ``windows`` are ``x1 y1 x2 y2``,
    half-open; ``timings`` are seconds by step; ``image`` is RGB uint8, of ``size`` or a reduction.

    >>> found = Detections([[8, 8, 24, 24]], [0.9], [4])
    >>> image = np.zeros((40, 60, 3), np.uint8)
    >>> result = Result(found, None, (), {}, image, (40, 60), name="a.jpg")
    >>> result, result.plot(legend=False).shape
    (Result('a.jpg', 60x40, 0 windows: 1 car), (40, 60, 3))
    >>> result.to_coco()["annotations"][0]["bbox"]
    [8.0, 8.0, 16.0, 16.0]
    """

    detections: Detections
    density: DensityMap | None
    windows: tuple[Window, ...]
    timings: Mapping[str, float]
    image: Image
    size: Size
    classes: Classes = VISDRONE
    name: str = ""
    count: float | None = None
    """Objects by the density map; kept where the map itself is not."""
    parts: Mapping[str, Detections] = field(default_factory=dict)
    """What each of `PARTS` gave alone, in pixels of the full image; empty without a slicer."""

    def __repr__(self) -> str:
        """One line: what was found where."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        height, width = self.size
        return f"Result({self.name!r}, {width}x{height}, {len(self.windows)} windows: {counts})"

    def counts(self) -> dict[str, int]:
        """Number of detections by class name, only of classes that occur."""
        found = {
            name: int((self.detections.labels == i).sum())
            for i, name in self.classes.scored.items()
        }
        return {name: count for name, count in found.items() if count}

    def plot(
        self,
        *,
        scores: bool = True,
        windows: bool = False,
        density: bool = False,
        legend: bool = True,
        longest: int | None = None,
        tracks: Sequence[int] = (),
    ) -> Image:
        """The picture with its boxes in class colours, RGB uint8.

        Args:
            scores: write the score beside each box.
            windows: draw the windows that were cut out, white.
            density: lay the density map over the picture.
            legend: add a strip with the classes and their numbers.
            longest: shrink the picture to this longest side.
            tracks: number of each detection's object, written instead of the score where >= 0.
        """
        image = self.image
        if density and self.density is not None:
            from dmnet.cropping.pictures import density_overlay  # matplotlib: half a second

            image = density_overlay(image, self.density)
        scale = np.array([image.shape[1] / self.size[1], image.shape[0] / self.size[0]] * 2)
        if windows and self.windows:
            frames = Layer(as_boxes(self.windows) * scale, WINDOW_COLOUR, "windows")
            image = draw_layers(image, [frames], legend=False)
        found = Detections(
            self.detections.boxes * scale, self.detections.scores, self.detections.labels
        )
        values = zip(found.scores.tolist(), tracks or [-1] * len(found), strict=True)
        texts = [str(track) if track >= 0 else f"{score:.2f}" for score, track in values]
        return draw_boxes(
            image,
            found,
            names=self.classes.scored,
            texts=texts if scores else (),
            legend=legend,
            longest=longest,
        )

    def _repr_png_(self) -> bytes:
        """The picture a notebook shows."""
        return encode_png(self.plot(longest=1280))

    def to_coco(self, image_id: int = 1) -> dict[str, Any]:
        """COCO: ``images``, ``annotations`` (with scores) and ``categories`` of this one image."""
        height, width = self.size
        rows = results_rows(image_id, self.detections, self.classes)
        for number, row in enumerate(rows, start=1):
            row |= {"id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        return {
            "images": [{"id": image_id, "file_name": self.name, "width": width, "height": height}],
            "annotations": rows,
            "categories": categories(self.classes),
        }

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, class names in ``data["class_name"]``.

        Raises:
            MissingExtraError: the extra ``viz`` is not installed.
        """
        return self.detections.to_supervision(self.classes)

    def save(self, path: str | Path, **how: Any) -> Path:
        """Write the annotated picture (.jpg, .png) or the detections as COCO (.json).

        Args:
            path: the file; its suffix decides.
            how: of `plot`.

        Raises:
            ConfigError: another suffix.
        """
        path = Path(path)
        match path.suffix.lower():
            case ".jpg" | ".jpeg":
                data = encode_jpeg(self.plot(**how), 92)
            case ".png":
                data = encode_png(self.plot(**how))
            case ".json":
                data = (json.dumps(self.to_coco()) + "\n").encode()
            case suffix:
                raise ConfigError(f"{path}: save() writes .jpg, .png or .json, not '{suffix}'")
        write_atomic(path, [data])
        return path
