"""Predicting many files into one folder that resumes, picture by picture and part by part."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.artifact import Result as Outcome
from dmnet.core.classes import Classes
from dmnet.core.config import resolved
from dmnet.core.errors import InputError
from dmnet.core.files import digest, file_digest
from dmnet.core.formats import density_h5
from dmnet.core.images import read_image
from dmnet.core.threads import map_ahead
from dmnet.core.work import Done, Stream, Take, streamed
from dmnet.detectors.packing import Usage
from dmnet.fusion.report.viewer import ViewerConfig, ViewerImage, viewer_page
from dmnet.pipeline.executors.base import Engine
from dmnet.pipeline.executors.choose import executor_for
from dmnet.pipeline.predict.found import Found, read_found
from dmnet.pipeline.predict.inputs import VIDEOS, Input
from dmnet.pipeline.predict.model import Model, check_classes
from dmnet.pipeline.predict.named import Files, open_model
from dmnet.pipeline.predict.outputs import (
    SUMMARIES,
    Row,
    SaveConfig,
    Totals,
    viewer_density,
    viewer_picture,
    written,
)
from dmnet.pipeline.predict.raster import is_raster
from dmnet.pipeline.predict.result import Result
from dmnet.pipeline.predict.scene import ArrayPixels, Scene
from dmnet.pipeline.predict.segments import VideoParts
from dmnet.pipeline.predict.settings import FLOOR
from dmnet.pipeline.predict.tiles import RasterParts
from dmnet.pipeline.predict.truth import label_file, truth_of
from dmnet.pipeline.predict.video import frame_name

VERSION = 3
EMBEDDED = 3_000_000
"""Bytes of pictures in the viewer; where there are more, it refers to the files beside it."""
STAGE = "predict"
_log = logging.getLogger(__name__)

Parts = RasterParts | VideoParts


@dataclass(frozen=True)
class Job:
    """Everything one run of `dmnet predict` needs."""

    inputs: tuple[Input, ...]
    files: Files
    save: SaveConfig
    out: Path
    engine: Engine = field(default_factory=Engine)
    """Where pictures are done."""
    force: bool = False


def predict(job: Job) -> tuple[dict[str, str], Totals]:
    """Do everything that is not done yet, then sum up all.

    Returns:
        What was set aside with the reasons, and totals of the rest.
    """
    runner = _Runner(job)
    totals = {"model": runner.facts, "save": resolved(job.save), "truth": runner.labels()}
    artifact = Artifact(job.out, STAGE, VERSION, {}, totals=totals, force=job.force)
    with artifact:
        summary = artifact.carry_out(runner.items(), runner.carry, STAGE)
        if artifact.changed:
            runner.sum_up(artifact)
        found = Totals(usage=runner.usage)
        for row in runner.rows(artifact):
            found.add(row.found, runner.classes)
        for name, record in artifact.good.items():
            if name in runner.parts and record.value.get("objects") and runner.follows:
                found.followed[name] = record.value["objects"]
        aside = {k: v for record in artifact.good.values() for k, v in record.set_aside.items()}
    return {**summary.bad, **aside}, found


class _Runner:
    """One run: the model is loaded when it is first needed."""

    def __init__(self, job: Job) -> None:
        self.job = job
        floor = min(FLOOR, job.save.confidence)
        self.facts = job.files.facts() | {"version": VERSION, "floor": floor}
        self.made_from = digest(self.facts)
        self.inputs = {each.id: each for each in job.inputs}
        self.parts = {each.id: parts for each in job.inputs if (parts := self._parts(each))}
        self.owner = {item.id: name for name, each in self.parts.items() for item in each.items()}
        self.device = job.engine.device
        self._model: Model | None = None

    @property
    def model(self) -> Model:
        """The model, which keeps everything from the floor on: outputs choose later."""
        if self._model is None:
            self._model = open_model(
                self.job.files, confidence=self.facts["floor"], device=self.device
            )
            check_classes(self.job.save.only, self._model.classes)
        return self._model

    @property
    def classes(self) -> Classes:
        """What the detector's labels are called."""
        return self.model.classes

    @property
    def follows(self) -> bool:
        """Whether objects of videos are followed."""
        return self.job.files.config.video.follows

    def labels(self) -> dict[str, str]:
        """Digests of the labels beside the pictures, which the viewer shows."""
        if "viewer" not in self.job.save.kinds:
            return {}
        found = {name: label_file(each.path) for name, each in self.inputs.items()}
        return {name: file_digest(each.path) for name, each in found.items() if each}

    @property
    def usage(self) -> Usage:
        """Passes of the detector in this process; none where nothing was left to be done in it."""
        return Usage() if self._model is None else self._model.usage

    def _parts(self, source: Input) -> Parts | None:
        """Rasters and videos are done part by part, pictures at once."""
        config = self.job.files.config
        known: dict[str, Any] = {"model": self.made_from}
        if source.path.suffix.lower() in VIDEOS:
            known["file"] = file_digest(source.path)
            return VideoParts(source, config.video, self.job.save, known)
        if is_raster(source.path):
            known["file"] = file_digest(source.path)
            return RasterParts(source, config.raster, self.job.save, known)
        return None

    def items(self) -> list[Item]:
        """Everything that should exist at the end, in order."""
        facts = {"model": self.made_from, "save": resolved(self.job.save)}
        return [
            item
            for name, source in self.inputs.items()
            for item in (
                self.parts[name].items()
                if name in self.parts
                else [Item(name, {"image": source.path}, facts)]
            )
        ]

    def carry(self, root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
        """See `Carrier`: pictures where the engine says, rasters and videos in this process."""
        near = items
        if self.job.engine.executor != "local":
            near = [item for item in items if item.id in self.owner]
            far = [item for item in items if item.id not in self.owner]
            if near:
                _log.info("rasters and videos are done in this process: %d parts", len(near))
            pictures = tuple(each for each in self.job.inputs if each.id not in self.parts)
            load = partial(opened, replace(self.job, inputs=pictures), root.absolute())
            yield from executor_for(self.job.engine).networks(load, STAGE)(root, far, take)
        yield from streamed(lambda: partial(self.stream, root))(root, near, take)

    def stream(self, root: Path, items: list[Item]) -> Iterator[tuple[Item, Outcome]]:
        """Results in order; steps of neighbouring pictures overlap in time."""
        for name, group in itertools.groupby(items, lambda item: self.owner.get(item.id)):
            listed = list(group)
            if name is None:
                yield from map_ahead(self._render, self._results(root, listed))
            else:
                yield from self._by_parts(self.parts[name], listed, root)

    def _by_parts(
        self, parts: Parts, items: list[Item], root: Path
    ) -> Iterator[tuple[Item, Outcome]]:
        """The parts that are asked for, then what all of them make up."""
        asked = {item.id: item for item in items}
        yield from parts.run(self.model, asked)
        if parts.source.id in asked:
            item = asked[parts.source.id]
            try:
                yield item, parts.whole(self.model.classes, root)
            except InputError as error:
                yield item, error

    def _results(
        self, root: Path, items: list[Item]
    ) -> Iterator[tuple[Item, str, Result | InputError]]:
        """Pictures that only have to be written anew are not detected again."""
        fresh: list[tuple[Item, str]] = []
        for item in items:
            known = self._known(root, item)
            if known is None:
                fresh.append((item, self._digest(item)))
            else:
                yield item, self._digest(item), known
        scenes = (Scene(item.id, partial(_read, item.files["image"])) for item, _ in fresh)
        for (item, mark), (_, result) in zip(fresh, self.model.scenes(scenes), strict=True):
            yield item, mark, result

    def _digest(self, item: Item) -> str:
        try:
            return digest([self.made_from, file_digest(item.files["image"])])
        except OSError:
            return "absent"  # reading the picture says so

    def _known(self, root: Path, item: Item) -> Result | None:
        """What an earlier run found with the same model in the same file."""
        source = self.inputs[item.id]
        try:
            found = read_found(root / _name(source), self._digest(item))
            image = read_image(item.files["image"])
            if found is None:
                return None
            mapped = found.count is not None
            density = density_h5.read(root / _map_name(source)) if mapped else None
        except InputError:
            return None  # detected again, which names the reason
        return Result(
            found.detections, density, found.windows, {}, image, found.size, self.classes, item.id,
            found.count, found.parts,
        )  # fmt: skip

    def _render(self, given: tuple[Item, str, Result | InputError]) -> tuple[Item, Outcome]:
        item, mark, result = given
        if isinstance(result, InputError):
            return item, result
        source, found = self.inputs[item.id], Found.of(result)
        chosen = self.job.save.chosen(found.detections, self.classes)
        files = {}
        if result.density is not None:
            files[_map_name(source)] = density_h5.write(result.density, {})
        files[_name(source)] = found.write(mark)  # last: where it is, the map is the right one
        try:
            files |= written(source, replace(result, detections=chosen), self.job.save)
        except InputError as error:  # a picture that the file to be written cannot hold
            return item, InputError(source.path, error.reason)
        return item, Product(files, {"objects": len(chosen)})

    def rows(self, artifact: Artifact) -> Iterator[Row]:
        """Every finished picture and frame with the detections that are written, in order."""
        number = itertools.count(1)
        for name in artifact.good:
            if name not in self.inputs:
                continue  # a part
            for label, found in self._founds(artifact, name):
                chosen = self.job.save.chosen(found.detections, self.classes)
                yield Row(next(number), label, replace(found, detections=chosen))

    def _founds(self, artifact: Artifact, name: str) -> Iterator[tuple[str, Found]]:
        parts = self.parts.get(name)
        if isinstance(parts, VideoParts):
            for index, each in enumerate(parts.founds(artifact.root)):
                if each is not None:
                    yield frame_name(name, index), each
            return
        found = read_found(artifact.root / _name(self.inputs[name]))
        assert found is not None
        yield name, found

    def sum_up(self, artifact: Artifact) -> None:
        """Write the files about all pictures."""
        for kind in self.job.save.kinds:
            for name, render in SUMMARIES.get(kind, {}).items():
                artifact.output(name, render(self.rows(artifact), self.classes))
        if "viewer" in self.job.save.kinds:
            artifact.output("viewer.html", self._viewer(artifact).encode())

    def _viewer(self, artifact: Artifact) -> str:
        """Every picture and raster as one page, with what the slider may still show."""
        sources = [self.inputs[name] for name in artifact.good if name in self.inputs]
        stills = [each for each in sources if not isinstance(self.parts.get(each.id), VideoParts)]
        room = EMBEDDED // max(1, len(stills))
        config = ViewerConfig(
            max(self.job.save.confidence, self.facts["floor"]), self.facts["floor"]
        )
        images = [self._viewed(artifact.root, source, room) for source in stills]
        return viewer_page("Predictions", images, self.classes, config=config)

    def _viewed(self, root: Path, source: Input, room: int) -> ViewerImage:
        found = read_found(root / _name(source))
        assert found is not None
        only = replace(self.job.save, confidence=self.facts["floor"])
        name, density = viewer_picture(source.stem), root / viewer_density(source.stem)
        small = (root / name).stat().st_size <= room
        layers = {**found.parts, "fused": found.detections}
        return ViewerImage(
            source.id,
            (root / name).read_bytes() if small else quote(name),
            found.size,
            {layer: only.chosen(each, self.classes) for layer, each in layers.items()},
            None if source.id in self.parts else truth_of(source.path, found.size, self.classes),
            found.windows,
            density.read_bytes() if density.exists() else None,
            found.count,
        )


def opened(job: Job, root: Path, device: str) -> Stream:
    """A worker's stream over pictures, its model loaded."""
    runner = _Runner(job)
    runner.device = device
    _ = runner.model
    return partial(runner.stream, root)


def _name(source: Input) -> str:
    return f"found/{source.stem}.json"


def _map_name(source: Input) -> str:
    return f"found/{source.stem}.h5"


def _read(path: Path) -> ArrayPixels:
    return ArrayPixels(read_image(path))
