"""A raster done block by block.

Each block is an item of the artifact, so that a killed run goes on where it stopped; one more item
puts the blocks together. `segments` does the same for videos.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dmnet.core.artifact import Item, Product
from dmnet.core.artifact import Result as Outcome
from dmnet.core.boxes import Window
from dmnet.core.classes import Classes
from dmnet.core.config import resolved
from dmnet.core.errors import InputError
from dmnet.core.records import Detections
from dmnet.pipeline.predict import geo
from dmnet.pipeline.predict.found import Found, read_found
from dmnet.pipeline.predict.inputs import Input
from dmnet.pipeline.predict.model import Model
from dmnet.pipeline.predict.outputs import SaveConfig, written
from dmnet.pipeline.predict.raster import (
    BlockPixels,
    Raster,
    blocks,
    cores,
    joined,
    open_raster,
)
from dmnet.pipeline.predict.result import PARTS, Result
from dmnet.pipeline.predict.scene import Scene
from dmnet.pipeline.predict.settings import RasterConfig

OVERVIEW = 4096
"""Longest side of the picture of a raster, pixels."""


@dataclass(frozen=True)
class RasterParts:
    """One raster: its blocks, and what becomes of all of them.

    ``facts`` decide what is found (model, digest of the file), ``save`` what is written.
    """

    source: Input
    config: RasterConfig
    save: SaveConfig
    facts: dict[str, Any]

    @cached_property
    def raster(self) -> Raster:
        """The opened raster; raises `InputError` where it cannot be opened."""
        return open_raster(self.source.path, self.config)

    @cached_property
    def windows(self) -> list[Window]:
        """The blocks; none where the raster cannot be opened."""
        try:
            return blocks(self.raster.size, self.config)
        except InputError:
            return []

    def items(self) -> list[Item]:
        """One item a block, and the raster itself."""
        known = {**self.facts, "raster": resolved(self.config)}
        found = [
            Item(self._part(i), {}, {**known, "window": w}) for i, w in enumerate(self.windows)
        ]
        return [*found, Item(self.source.id, {}, {**known, "save": resolved(self.save)})]

    def _part(self, index: int) -> str:
        return f"blocks/{self.source.id}/{index:05d}"

    def _file(self, index: int) -> str:
        return f"found/{self.source.stem}/{index:05d}.json"

    def run(self, model: Model, asked: Mapping[str, Item]) -> Iterator[tuple[Item, Outcome]]:
        """Detect in the blocks that are asked for, by their ids."""
        todo = [i for i in range(len(self.windows)) if self._part(i) in asked]
        scenes = (Scene(self._part(i), partial(self._open, self.windows[i])) for i in todo)
        for index, (scene, result) in zip(todo, model.scenes(scenes), strict=True):
            yield asked[scene.name], self._block(index, result)

    def _open(self, window: Window) -> BlockPixels:
        return BlockPixels(self.raster, window, self.config.reduction)

    def _block(self, index: int, result: Result | InputError) -> Outcome:
        if isinstance(result, InputError):
            return result
        found = replace(Found.of(result), count=self._count(index, result))
        return Product({self._file(index): found.write("")}, {"objects": len(found.detections)})

    def _count(self, index: int, result: Result) -> float | None:
        """Objects that the density network counts in the block's own part."""
        if result.density is None:
            return None
        (x, y, *_), core = self.windows[index], cores(self.windows)[index]
        s = result.density.stride
        x1, y1, x2, y2 = ((v - o) for v, o in zip(core, (x, y, x, y), strict=True))
        values = result.density.values[y1 // s : -(-y2 // s), x1 // s : -(-x2 // s)]
        return round(float(values.sum(dtype=float)), 4)

    def whole(self, classes: Classes, root: Path) -> Product:
        """Detections of the whole raster and every file about it."""
        raster = self.raster
        parts: list[tuple[Window, Found]] = []
        lost = 0
        for index, window in enumerate(self.windows):
            if not (root / self._file(index)).exists():
                lost += 1  # set aside, with its reason
                continue
            found = read_found(root / self._file(index))
            assert found is not None
            parts.append((window, found))
        merged = self._merged(parts)
        image = raster.read((0, 0, raster.size[1], raster.size[0]),
                            max(1, -(-max(raster.size) // OVERVIEW)))[0]  # fmt: skip
        chosen = self.save.chosen(merged.detections, classes)
        result = Result(chosen, None, merged.windows, {}, image, raster.size, classes,
                        self.source.id, merged.count)  # fmt: skip
        files = {f"found/{self.source.stem}.json": merged.write("")}
        files |= written(self.source, result, self.save)
        if "geo" in self.save.kinds and raster.crs:
            files |= geo.files(chosen, raster, classes, self.source.stem)
        value = {"objects": len(chosen), "bands": raster.bands, "stretch": raster.stretch}
        return Product(files, value, warnings=self._notes(lost))

    def _notes(self, lost: int) -> tuple[str, ...]:
        notes = []
        if self.raster.stretch:
            pairs = zip(self.raster.bands, self.raster.stretch, strict=True)
            shown = ", ".join(f"band {band}: {low:g} to {high:g}" for band, (low, high) in pairs)
            notes.append(f"{self.source.id}: values stretched to 0..255, {shown}")
        if lost:
            notes.append(f"{self.source.id}: {lost} of {len(self.windows)} blocks are missing")
        return tuple(notes)

    def _merged(self, parts: list[tuple[Window, Found]]) -> Found:
        found = self._joined([(window, each.detections) for window, each in parts])
        alone = {
            name: self._joined([(window, each.parts[name]) for window, each in parts])
            for name in PARTS
            if all(name in each.parts for _, each in parts)
        }
        windows = tuple(
            (x + a, y + b, x + c, y + d)
            for (x, y, *_), each in parts
            for a, b, c, d in each.windows
        )
        counts = [each.count for _, each in parts if each.count is not None]
        count = round(sum(counts), 4) if counts else None
        return Found(self.raster.size, found, windows, count, alone)

    def _joined(self, parts: list[tuple[Window, Detections]]) -> Detections:
        return joined(parts, self.config.overlap) if parts else Detections.empty()
