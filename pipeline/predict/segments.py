"""A video done segment by segment; each one is kept by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from dmnet.core.artifact import Item, Product
from dmnet.core.artifact import Result as Outcome
from dmnet.core.classes import Classes
from dmnet.core.config import resolved
from dmnet.core.errors import InputError
from dmnet.core.products import Content
from dmnet.core.records import Detections, Image
from dmnet.core.threads import ahead
from dmnet.pipeline.predict.found import Found, read_frames, write_frames
from dmnet.pipeline.predict.inputs import Input
from dmnet.pipeline.predict.model import Model
from dmnet.pipeline.predict.outputs import SaveConfig, frames_csv, objects_csv, shown, with_line
from dmnet.pipeline.predict.result import Result
from dmnet.pipeline.predict.scene import ArrayPixels, Scene
from dmnet.pipeline.predict.settings import VideoConfig
from dmnet.pipeline.predict.tracking import Tracker
from dmnet.pipeline.predict.video import Video, frame_name, frames, open_video, write_mp4


@dataclass(frozen=True)
class VideoParts:
    """One video: its segments, and what becomes of all of them; see `tiles.RasterParts`."""

    source: Input
    config: VideoConfig
    save: SaveConfig
    facts: dict[str, Any]

    @cached_property
    def video(self) -> Video:
        """The header; raises `InputError` where the video cannot be opened."""
        return open_video(self.source.path)

    @cached_property
    def segments(self) -> list[range]:
        """Numbers of the frames of each segment; none where the video cannot be opened."""
        try:
            count, step = self.video.frames, self.config.segment
        except InputError:
            return []
        return [range(start, min(start + step, count)) for start in range(0, count, step)]

    def items(self) -> list[Item]:
        """One item a segment, and the video itself."""
        known = {**self.facts, "density_every": self.config.density_every}
        listed = [
            Item(self._part(part), {}, {**known, "frames": [part.start, part.stop]})
            for part in self.segments
        ]
        whole = {**known, "save": resolved(self.save), "video": resolved(self.config)}
        return [*listed, Item(self.source.id, {}, whole)]

    def _part(self, part: range) -> str:
        return f"frames/{self.source.id}/{part.start:06d}"

    def _file(self, part: range) -> str:
        return f"found/{self.source.stem}/{part.start:06d}.json"

    def run(self, model: Model, asked: Mapping[str, Item]) -> Iterator[tuple[Item, Outcome]]:
        """Detect in the segments that are asked for, by their ids."""
        todo = [part for part in self.segments if self._part(part) in asked]
        lost: set[int] = set()
        results = model.scenes(self._scenes(todo, lost))
        for part in todo:
            founds: list[Found | None] = [None] * len(part)
            for index, (_, result) in zip(part, results, strict=False):
                if index not in lost and not isinstance(result, InputError):
                    founds[index - part.start] = replace(Found.of(result), parts={})
            yield asked[self._part(part)], Product({self._file(part): write_frames(founds)})

    def _scenes(self, todo: list[range], lost: set[int]) -> Iterator[Scene]:
        """A scene for every frame; one that cannot be decoded is a scene without data."""
        fresh = True
        for index, frame in ahead(frames(self.video, todo)):
            fresh |= index % self.config.density_every == 0
            if frame is None:
                lost.add(index)
                blank = np.zeros((*self.video.size, 3), np.uint8)
                yield Scene(str(index), partial(ArrayPixels, blank, True))
            else:
                yield Scene(str(index), partial(ArrayPixels, frame), not fresh)
                fresh = False

    def founds(self, root: Path) -> Iterator[Found | None]:
        """What was found in every frame; one segment is held at a time.

        Raises:
            InputError: a segment is missing.
        """
        for part in self.segments:
            yield from read_frames(root / self._file(part))

    def _chosen(self, classes: Classes, root: Path) -> Iterator[Found | None]:
        for each in self.founds(root):
            yield each and replace(each, detections=self.save.chosen(each.detections, classes))

    def whole(self, classes: Classes, root: Path) -> Product:
        """The annotated video and tables of its frames and of its objects."""
        rate, stem = self.video.rate, self.source.stem
        tracker = Tracker(self.config, classes, rate, self.save.confidence)
        tracks: list[list[int]] = []
        lost: list[int] = []
        for index, each in enumerate(self._chosen(classes, root)):
            tracks.append(tracker.follow(Detections() if each is None else each.detections))
            lost += [index] if each is None else []
        files: dict[str, Content] = {}
        if "pictures" in self.save.kinds:
            files[f"pictures/{stem}.mp4"] = lambda: write_mp4(
                self._pictures(tracks, classes, root), rate, self.video.size
            )
        if "csv" in self.save.kinds:
            files[f"frames/{stem}.csv"] = lambda: frames_csv(
                self._chosen(classes, root), tracks, rate, classes
            )
            if self.config.follows:
                files[f"frames/{stem}.objects.csv"] = objects_csv(tracker.table())
        value = {"frames": len(tracks), "objects": tracker.table()}
        return Product(files, value, set_aside=self._set_aside(lost))

    def _pictures(self, tracks: list[list[int]], classes: Classes, root: Path) -> Iterator[Image]:
        """Every frame with its boxes; one that cannot be decoded repeats the one before."""
        last: Image = np.zeros((*self.video.size, 3), np.uint8)
        decoded = ahead(frames(self.video))
        for (index, frame), each in zip(decoded, self._chosen(classes, root), strict=True):
            if frame is not None and each is not None:
                result = Result(each.detections, None, each.windows, {}, frame, each.size, classes)
                last = with_line(shown(result, self.save, tracks[index]), self.config.line)
            yield last

    def _set_aside(self, lost: list[int]) -> dict[str, str]:
        if not lost:
            return {}
        spans = ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in _spans(lost))
        name = frame_name(self.source.id, lost[0])
        return {name: f"{len(lost)} frames cannot be decoded and were skipped: {spans}"}


def _spans(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive numbers as first and last."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last
