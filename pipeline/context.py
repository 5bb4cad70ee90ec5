"""What a stage gets to know: where things are, and the settings."""

from __future__ import annotations

import importlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from dmnet.core import config
from dmnet.core.artifact import Artifact, Item, Product, Result
from dmnet.core.dataset import Dataset, open_dataset
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.journal import read_header

STAGES = (
    "density",
    "train-density",
    "predict-density",
    "crop",
    "convert",
    "train-detector",
    "detect",
    "fuse-eval",
)
"""Stage names in order: make target = CLI verb = module = settings section = artifact folder."""

C = TypeVar("C")


def stage_module(stage: str) -> ModuleType:
    """The module of a stage."""
    return importlib.import_module(f"dmnet.pipeline.stages.{stage.replace('-', '_')}")


@dataclass(frozen=True)
class Context:
    """One run of the pipeline on one split; see the command line's --help for each field."""

    data: Path = Path("data")
    split: str = "val"
    run: str = "default"
    artifacts: Path = Path("artifacts")
    sizes: Path | None = None
    workers: int = 0
    force: bool = False
    verify: bool = False
    device: str = "auto"
    weights: Path | None = None
    density: str = ""
    crops: Path | None = None
    detections: Path | None = None
    detector: str | None = None
    detector_weights: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, stage: str, split: str | None = None) -> Path:
        """Artifact folder of a stage: ``artifacts/<run>/<split>/<stage>``."""
        return self.artifacts / self.run / (split or self.split) / stage

    @cached_property
    def dataset(self) -> Dataset:
        """Images and annotations of the split."""
        return self.dataset_of(self.split)

    def dataset_of(self, split: str) -> Dataset:
        """Images and annotations of any split of the same data."""
        return open_dataset(self.data, split, sizes=self.sizes)

    def config(self, stage: str, cls: type[C]) -> C:
        """Settings of one stage.

        Raises:
            ConfigError: an unknown setting or a value that does not fit.
        """
        section = stage.replace("-", "_")
        return config.build(cls, self.settings.get(section) or {}, section)

    def check_settings(self) -> None:
        """Reject sections and settings that do not exist, also those of other stages.

        Raises:
            ConfigError: the first one found.
        """
        sections = {stage.replace("-", "_"): stage for stage in STAGES}
        for name in self.settings:
            if name not in sections:
                raise ConfigError(config.unknown(name, name, sections))
            self.config(sections[name], stage_module(sections[name]).Config)

    def require(self, stage: str, split: str | None = None, instead: str = "") -> Path:
        """Folder of an earlier stage's finished artifact.

        Args:
            stage: the stage that must have run.
            split: another split than this run's.
            instead: other ways out, added to the message.

        Raises:
            MissingInputError: it is absent or not finished; says the command that makes it.
        """
        folder = self.folder(stage, split)
        header = read_header(folder)
        if header is not None and header["stage"] == stage and header.get("complete"):
            return folder
        state = "was begun and is not finished" if header else "does not exist yet"
        raise MissingInputError(
            f"The artifact of '{stage}' {state} ({folder}). Make it with: "
            f"{self.command(stage, split)}{instead and f' ({instead})'}"
        )

    def command(self, stage: str, split: str | None = None) -> str:
        """The make command that runs a stage with this run's data."""
        words = [f"make {stage} MODE={split or self.split}", f"DATA={shlex.quote(str(self.data))}"]
        if self.run != "default":
            words.append(f"RUN={shlex.quote(self.run)}")
        if self.artifacts != Path("artifacts"):
            words.append(f"ARTIFACTS={shlex.quote(str(self.artifacts))}")
        if self.sizes is not None:
            words.append(f"SIZES={shlex.quote(str(self.sizes))}")
        return " ".join(words)

    def worker_count(self, items: int) -> int:
        """Processes to use: as asked, or one for every 64 items up to the number of cores."""
        return self.workers or max(1, min(os.cpu_count() or 1, items // 64))


Stream = Callable[[list[Item]], Iterator[tuple[Item, Result]]]
"""Work on many items at once, in order: for networks that take batches across items."""


@dataclass(frozen=True)
class Plan:
    """What a stage is going to do, before it does it: `status` looks, `execute` acts."""

    config: Any
    """The stage's settings; they are part of every item's key."""
    items: list[Item]
    """Everything that should exist at the end."""
    work: Callable[[Item], Product] | None = None
    """Work on one item; picklable, run by several processes."""
    stream: Stream | None = None
    """Instead of ``work``: one pass over the stale items in this process."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Digests of inputs that concern every item, such as weights."""
    totals: Mapping[str, Any] = field(default_factory=dict)
    """Digests of what concerns only the files that sum up all items."""
    prepare: Callable[[], None] | None = None
    """Makes what all items share; called before the first one."""
    finish: Callable[[Artifact], None] | None = None
    """Writes what sums up all items; called when anything changed."""
    problems: tuple[str, ...] = ()
    """Files of the data set that cannot be used as they are; they count as set aside."""
