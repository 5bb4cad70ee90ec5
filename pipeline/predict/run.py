"""Predicting many files into one folder that resumes: one item a picture."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.artifact import Result as Outcome
from dmnet.core.classes import Classes
from dmnet.core.config import resolved
from dmnet.core.errors import InputError
from dmnet.core.files import digest, file_digest
from dmnet.core.images import read_image
from dmnet.core.threads import map_ahead
from dmnet.pipeline.predict.found import Found, read_found
from dmnet.pipeline.predict.inputs import Input
from dmnet.pipeline.predict.model import Model, check_classes
from dmnet.pipeline.predict.named import Files, open_model
from dmnet.pipeline.predict.outputs import SUMMARIES, WRITERS, Row, SaveConfig, Totals
from dmnet.pipeline.predict.result import Result
from dmnet.pipeline.predict.scene import ArrayPixels, Scene
from dmnet.pipeline.predict.settings import FLOOR

VERSION = 1
STAGE = "predict"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Everything one run of `dmnet predict` needs."""

    inputs: tuple[Input, ...]
    files: Files
    save: SaveConfig
    out: Path
    device: str = "auto"
    force: bool = False


def predict(job: Job) -> tuple[dict[str, str], Totals]:
    """Do every picture that is not done yet, then sum up all.

    Returns:
        The pictures that were set aside with their reasons, and totals of the others.
    """
    runner = _Runner(job)
    artifact = Artifact(
        job.out, STAGE, VERSION, resolved(job.save), facts=runner.facts, force=job.force
    )
    with artifact:
        items = [Item(each.id, {"image": each.path}) for each in job.inputs]
        bad = artifact.process_stream(items, partial(runner.stream, artifact)).bad
        if artifact.changed:
            runner.sum_up(artifact)
        totals = Totals()
        for row in runner.rows(artifact):
            totals.add(row.found, runner.classes)
    return bad, totals


class _Runner:
    """One run: the model is loaded when the first picture needs it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.facts = job.files.facts() | {"floor": min(FLOOR, job.save.confidence)}
        self.made_from = digest(self.facts)
        self.inputs = {each.id: each for each in job.inputs}
        self._model: Model | None = None

    @property
    def model(self) -> Model:
        """The model, which keeps everything from the floor on: outputs choose later."""
        if self._model is None:
            self._model = open_model(
                self.job.files, confidence=self.facts["floor"], device=self.job.device
            )
            check_classes(self.job.save.only, self._model.classes)
        return self._model

    @property
    def classes(self) -> Classes:
        """What the detector's labels are called."""
        return self.model.classes

    def stream(self, artifact: Artifact, items: list[Item]) -> Iterator[tuple[Item, Outcome]]:
        """Pictures in order; what only has to be written anew is not detected again."""
        with tqdm(total=len(items), desc="predict", unit="image") as bar:
            for item, outcome in map_ahead(self._render, self._results(artifact, items)):
                bar.update()
                yield item, outcome

    def _results(
        self, artifact: Artifact, items: list[Item]
    ) -> Iterator[tuple[Item, str, Result | InputError]]:
        fresh: list[tuple[Item, str]] = []
        for item in items:
            known = self._known(artifact, item)
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

    def _known(self, artifact: Artifact, item: Item) -> Result | None:
        """What an earlier run found with the same model in the same file."""
        save = self.job.save
        if "density" in (*save.kinds, *save.layers):
            return None  # maps are not kept
        try:
            found = read_found(artifact.root / _name(self.inputs[item.id]), self._digest(item))
            image = read_image(item.files["image"])
        except InputError:
            return None  # detected again, which names the reason
        if found is None:
            return None
        return Result(
            found.detections, None, found.windows, {}, image, found.size, self.classes, item.id,
            found.count,
        )  # fmt: skip

    def _render(self, given: tuple[Item, str, Result | InputError]) -> tuple[Item, Outcome]:
        item, mark, result = given
        if isinstance(result, InputError):
            return item, result
        return item, self._product(self.inputs[item.id], mark, result)

    def _product(self, source: Input, mark: str, result: Result) -> Product:
        save = self.job.save
        found = Found.of(result)
        files = {_name(source): found.write(mark)}
        shown = replace(result, detections=save.chosen(found.detections, self.classes))
        for kind in save.kinds:
            written = WRITERS[kind](source, shown, save) if kind in WRITERS else None
            if written is not None:
                files[written[0]] = written[1]
        return Product(files, {"objects": len(shown.detections)})

    def rows(self, artifact: Artifact) -> Iterator[Row]:
        """Every finished picture with the detections that are written, in the order of ids."""
        for number, name in enumerate(artifact.good, start=1):
            found = read_found(artifact.root / _name(self.inputs[name]))
            assert found is not None
            chosen = self.job.save.chosen(found.detections, self.classes)
            yield Row(number, name, replace(found, detections=chosen))

    def sum_up(self, artifact: Artifact) -> None:
        """Write the files about all pictures."""
        for kind in self.job.save.kinds:
            for name, render in SUMMARIES.get(kind, {}).items():
                artifact.output(name, render(self.rows(artifact), self.classes))


def _name(source: Input) -> str:
    return f"found/{source.stem}.json"


def _read(path: Path) -> ArrayPixels:
    return ArrayPixels(read_image(path))
