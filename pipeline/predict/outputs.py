"""Files about what was found: one picture's own, and those that sum up all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np

from dmnet.core.classes import Classes
from dmnet.core.errors import ConfigError
from dmnet.core.formats import labelme, visdrone, yolo
from dmnet.core.formats.coco import categories
from dmnet.core.formats.coco_results import results_rows
from dmnet.core.images import encode_jpeg
from dmnet.core.ranges import Settings, Share
from dmnet.core.records import Annotations, Detections, Image
from dmnet.core.tables import csv_text
from dmnet.detectors.packing import Usage
from dmnet.fusion.report.viewer import density_png, picture_jpeg
from dmnet.pipeline.predict.found import Found
from dmnet.pipeline.predict.inputs import Input
from dmnet.pipeline.predict.model import wanted
from dmnet.pipeline.predict.result import Result

PICTURE_BYTES = 100_000
"""Of a picture in the viewer."""

LAYERS = ("windows", "density")
"""What a picture can show beside the boxes."""


@dataclass(frozen=True)
class SaveConfig(Settings):
    """What is written about each picture."""

    kinds: tuple[str, ...] = ("pictures", "viewer", "coco", "csv", "geo")
    """Of `KINDS`."""
    layers: tuple[str, ...] = ()
    """Of `LAYERS`."""
    confidence: Share = 0.25
    """Detections below are left out."""
    only: tuple[str, ...] = ()
    """Names of the classes to write; empty: all."""

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ConfigError: a kind or layer that does not exist.
        """
        super().__post_init__()
        for given, known in ((self.kinds, KINDS), (self.layers, LAYERS)):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ConfigError(f"--save: no '{unknown[0]}'; there are {', '.join(known)}")

    def chosen(self, found: Detections, classes: Classes) -> Detections:
        """The detections that are written."""
        return found[wanted(found, self.confidence, self.only, classes)]


def shown(result: Result, save: SaveConfig, tracks: Sequence[int] = ()) -> Image:
    """The picture with its boxes and the layers that were asked for; a frame has no legend."""
    layers = {name: name in save.layers for name in LAYERS}
    return result.plot(**layers, tracks=tracks, legend=not tracks and result.name != "")


def _picture(source: Input, result: Result, save: SaveConfig) -> dict[str, bytes]:
    return {f"pictures/{source.stem}.jpg": encode_jpeg(shown(result, save), 92)}


def _viewer(source: Input, result: Result, save: SaveConfig) -> dict[str, bytes]:
    files = {viewer_picture(source.stem): picture_jpeg(result.image, most=PICTURE_BYTES)}
    if result.density is not None:
        files[viewer_density(source.stem)] = density_png(result.density.values)
    return files


def viewer_picture(stem: str) -> str:
    """File of a picture without boxes, for the viewer."""
    return f"viewer/{stem}.jpg"


def viewer_density(stem: str) -> str:
    """File of a density map as an overlay, for the viewer."""
    return f"viewer/{stem}.density.png"


def _visdrone(source: Input, result: Result, save: SaveConfig) -> dict[str, bytes]:
    return {f"visdrone/{source.stem}.txt": visdrone.write_results(result.detections).encode()}


def _yolo(source: Input, result: Result, save: SaveConfig) -> dict[str, bytes]:
    return {f"yolo/{source.stem}.txt": yolo.write(as_annotations(source, result)).encode()}


def _labelme(source: Input, result: Result, save: SaveConfig) -> dict[str, bytes]:
    name = PurePosixPath(source.id).name
    data = labelme.write(as_annotations(source, result), name)
    return {f"labelme/{source.stem}.json": data.encode()}


def as_annotations(source: Input, result: Result) -> Annotations:
    """What was found, as if somebody had annotated it."""
    found = result.detections
    return Annotations.of(source.id, result.size, found.boxes, found.labels, classes=result.classes)


Writer = Callable[[Input, Result, SaveConfig], dict[str, bytes]]

WRITERS: dict[str, Writer] = {
    "pictures": _picture,
    "viewer": _viewer,
    "visdrone": _visdrone,
    "yolo": _yolo,
    "labelme": _labelme,
}
"""Kinds that are files of one picture; they see the detections that are written, no others."""


def written(source: Input, result: Result, save: SaveConfig) -> dict[str, bytes]:
    """The files of one picture by name."""
    made = (WRITERS[kind](source, result, save) for kind in save.kinds if kind in WRITERS)
    return {name: data for files in made for name, data in files.items()}


@dataclass(frozen=True)
class Row:
    """One picture in the files that sum up all."""

    image_id: int
    name: str
    found: Found


def coco_json(rows: Iterable[Row], classes: Classes) -> Iterator[bytes]:
    """A COCO data set with scores: images, annotations, categories."""
    images: list[dict[str, Any]] = []
    yield b'{"annotations": ['
    number, separator = 0, ""
    for row in rows:
        height, width = row.found.size
        images.append({"id": row.image_id, "file_name": row.name, "width": width, "height": height})
        for each in results_rows(row.image_id, row.found.detections, classes):
            number += 1
            each |= {"id": number, "area": round(each["bbox"][2] * each["bbox"][3], 3)}
            yield f"{separator}{json.dumps({**each, 'iscrowd': 0})}".encode()
            separator = ",\n"
    rest = json.dumps({"images": images, "categories": categories(classes)})
    yield f"],\n{rest[1:]}\n".encode()


def detections_csv(rows: Iterable[Row], classes: Classes) -> Iterator[bytes]:
    """One row a detection, boxes in pixels of the picture."""
    yield b"image,class,score,x1,y1,x2,y2\n"
    for row in rows:
        boxes = np.round(row.found.detections.boxes, 3).tolist()
        yield _csv(
            [row.name, classes.scored[label], f"{score:.6f}", *box]
            for label, score, box in zip(
                row.found.detections.labels.tolist(),
                row.found.detections.scores.tolist(),
                boxes,
                strict=True,
            )
        )


def counts_csv(rows: Iterable[Row], classes: Classes) -> Iterator[bytes]:
    """Objects of each class in each picture, and what the density network counts there."""
    yield _csv([["image", *classes.names, "all", "density"]])
    for row in rows:
        labels = row.found.detections.labels
        counts = [int((labels == label).sum()) for label in classes.scored]
        total = "" if row.found.count is None else f"{row.found.count:.1f}"
        yield _csv([[row.name, *counts, len(labels), total]])


def frames_csv(
    found: Iterable[Found | None], tracks: Sequence[Sequence[int]], rate: float, classes: Classes
) -> Iterator[bytes]:
    """One row a detection of a video; ``track`` is -1 where an object is not followed."""
    yield b"frame,seconds,track,class,score,x1,y1,x2,y2\n"
    for index, (each, numbers) in enumerate(zip(found, tracks, strict=True)):
        if each is None:
            continue
        listed, place = each.detections, (index, f"{index / rate:.3f}")
        boxes = np.round(listed.boxes, 3).tolist()
        columns = (numbers, listed.labels.tolist(), listed.scores.tolist(), boxes)
        yield _csv(
            (*place, track, classes.scored[label], f"{score:.6f}", *box)
            for track, label, score, box in zip(*columns, strict=True)
        )


def objects_csv(rows: Iterable[tuple[str, int, int, int]]) -> bytes:
    """Objects of a video that were followed, and those that crossed the line; see `Tracker`."""
    return _csv([("class", "objects", "in", "out"), *rows])


def with_line(image: Image, line: Sequence[int]) -> Image:
    """Draw a white line from x1, y1 to x2, y2 into the picture itself; nothing if it is empty."""
    if line:
        cv2.line(image, tuple(line[:2]), tuple(line[2:]), (255, 255, 255), 2)
    return image


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    return csv_text(rows).encode()


Summary = Callable[[Iterable[Row], Classes], Iterator[bytes]]

SUMMARIES: dict[str, dict[str, Summary]] = {
    "coco": {"predictions.json": coco_json},
    "csv": {"predictions.csv": detections_csv, "counts.csv": counts_csv},
}
"""Kinds that sum up all pictures: kind -> file -> renderer."""

KINDS: tuple[str, ...] = (*WRITERS, *SUMMARIES, "geo")
"""What `--save` takes."""


@dataclass
class Totals:
    """What the terminal shows at the end."""

    images: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    density: float = 0.0
    windows: int = 0
    usage: Usage = field(default_factory=Usage)
    """Passes of the detector and their padding."""
    followed: dict[str, list[tuple[str, int, int, int]]] = field(default_factory=dict)
    """`Tracker.table` of each video whose objects were followed."""

    def add(self, found: Found, classes: Classes) -> None:
        """Count one picture."""
        self.images += 1
        self.windows += len(found.windows)
        self.density += found.count or 0.0
        for label, name in classes.scored.items():
            count = int((found.detections.labels == label).sum())
            if count:
                self.objects[name] = self.objects.get(name, 0) + count
