"""A tiny run for campaigns: data, settings, the stages in order, verbs in processes of their own.

A verb runs in a fork of this process, so that a try costs what the verb costs and no imports. What
happens to it there (a signal, a fault of the disc) is a function that is called first.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmnet.core.formats import coco_results
from dmnet.core.journal import read_header, scan_journal
from dmnet.core.records import Detections
from dmnet.pipeline import facts
from dmnet.pipeline.cli import main as dmnet
from tests.pipeline.conftest import tree, write_split

SETTINGS = """
density: {stride: 4}
train_density: {epochs: 2, batch: 1, crop: 32, lr: 0.01, warmup_epochs: 0, ema: 0}
crop: {threshold: 0.3, min_side: 60}
train_detector: {model: yolov6-n, epochs: 2, batch: 2, pictures: 0, yolov6: {input_size: 64}}
fuse_eval: {protocols: [coco@500], pictures: 1, bootstrap: 5}
"""

LIGHT = [("train", s) for s in ("density", "crop", "convert")]
LIGHT += [("val", s) for s in ("density", "crop", "convert", "fuse-eval")]
"""Stages that need no network; what `fuse-eval` reads was found elsewhere."""

HEAVY = [("train", "density"), ("train", "crop"), ("train", "convert"), ("val", "density")]
HEAVY += [("train", "train-density"), ("train", "train-detector")]
HEAVY += [("val", s) for s in ("predict-density", "crop", "convert", "detect", "fuse-eval")]
"""Every stage, in order."""

STOPPED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
"""Exit codes of a verb that a signal stopped."""


@dataclass(frozen=True)
class World:
    """A folder with data and a run that nothing disturbed (``calm``)."""

    root: Path
    steps: Sequence[tuple[str, str]]
    images: int = 3

    @classmethod
    def make(cls, root: Path, *, heavy: bool = False, images: int = 3) -> World:
        """Draw the data and run every stage."""
        world = cls(root, HEAVY if heavy else LIGHT, images)
        write_split(root / "data", "train", range(images), (120, 160))
        write_split(root / "data", "val", range(100, 100 + images), (120, 160))
        (root / "small.yaml").write_text(SETTINGS)
        for split, stage in world.steps:
            if stage == "fuse-eval" and not heavy:
                world.find(root / "found")
            code, said = world.run("calm", split, stage)
            assert code == 0, said
        return world

    def find(self, folder: Path) -> None:
        """Detections as another program would give them."""
        crops = self.made("calm", "val", "crop") / "crops.json"
        ids = json.loads(crops.read_text())
        folder.mkdir()
        for name, key in (("images", "parents"), ("crops", "images")):
            rows = [(row["id"], Detections([[2.0, 3, 30, 20]], [0.5], [4])) for row in ids[key]]  # type: ignore[list-item,arg-type]
            (folder / f"results_{name}.json").write_text(coco_results.write_results(rows))

    def made(self, name: str, split: str, stage: str) -> Path:
        """Artifact folder of a stage in one of the runs side by side."""
        return self.root / name / "default" / split / stage

    def command(self, name: str, split: str, stage: str, *options: str) -> list[str]:
        """The command line of a stage."""
        words = [stage, "--data", str(self.root / "data"), "--artifacts", str(self.root / name)]
        words += ["--split", split, "--config", str(self.root / "small.yaml")]
        if stage == "fuse-eval" and self.steps is LIGHT:
            words += ["--detections", str(self.root / "found")]
        words += ["--workers", "1"] if "--workers" not in options else []
        return [*words, *options]

    def run(
        self,
        name: str,
        split: str,
        stage: str,
        *options: str,
        first: Callable[[], object] | None = None,
    ) -> tuple[int, str]:
        """Run a stage in a process of its own: exit code and what it said."""
        return forked(self.command(name, split, stage, *options), first)

    def copy(self, name: str) -> None:
        """A run to spoil, with all that the calm one has."""
        (self.root / name).mkdir(exist_ok=True)
        for each in (self.root / name).iterdir():
            shutil.rmtree(each)
        shutil.copytree(self.root / "calm", self.root / name, dirs_exist_ok=True)

    def flaw(self, name: str, split: str, stage: str) -> str:
        """What is wrong with a stage that should be as the calm run's; empty if nothing is."""
        folder = self.made(name, split, stage)
        found, good = tree(folder), tree(self.made("calm", split, stage))
        if found.keys() != good.keys():
            return f"other files: {sorted(found.keys() ^ good.keys())[:4]}"
        if differ := [file for file in good if found[file] != good[file]]:
            return f"other bytes: {differ[:4]}"
        header = read_header(folder)
        if header is None or not header["complete"]:
            return "is not complete"
        return "; ".join(scan_journal(folder).damaged[:1])


def place() -> Path | None:
    """Where campaigns have their files: in memory, where there is such a place."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


def forked(command: Sequence[str], first: Callable[[], object] | None = None) -> tuple[int, str]:
    """Run a command line in a fork; a signal that ends it counts as its negative number."""
    return ended(started(command, first))


Child = tuple[int, int]
"""Process number, and where what it says comes out."""


def started(command: Sequence[str], first: Callable[[], object] | None = None) -> Child:
    """As `forked`, without waiting for its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(command, first, writing)
    os.close(writing)
    return child, reading


def ended(child: Child) -> tuple[int, str]:
    """Wait for what `started` began."""
    with os.fdopen(child[1], "rb") as stream:
        said = stream.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1]), said


def _child(command: Sequence[str], first: Callable[[], object] | None, writing: int) -> None:
    """Never returns: this process belongs to the verb."""
    code = 70
    try:
        said = io.StringIO()
        sys.stdout = sys.stderr = said
        os.fsync, os.sync = _nothing, _nothing  # only a power cut would show the difference
        facts.revision = lambda: ""  # it may change while a campaign runs
        if first is not None:
            first()
        with contextlib.suppress(SystemExit):
            code = dmnet(command)
        text = said.getvalue().encode()
        os.set_blocking(writing, False)  # the pipe holds the end of it at least
        with contextlib.suppress(OSError):
            os.write(writing, text[-50_000:])
    finally:
        os._exit(code)


def _nothing(*_: object) -> None:
    """In the place of waiting for the disc."""


def preload(*, heavy: bool) -> None:
    """Import once what every fork needs."""
    for stage in ("density", "crop", "convert", "fuse_eval"):
        importlib.import_module(f"dmnet.pipeline.stages.{stage}")
    importlib.import_module("dmnet.fusion.report.page")
    if heavy:
        for name in ("learning.density", "learning.detector", "stages.detect", "predict.model"):
            importlib.import_module(f"dmnet.pipeline.{name}")
