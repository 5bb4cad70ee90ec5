"""What a stage gets to know: where things are, and the settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from dmnet.core import config
from dmnet.core.artifact import Artifact, Item
from dmnet.core.dataset import Dataset, open_dataset
from dmnet.core.errors import ConfigError
from dmnet.core.files import digest, digest_of_pairs
from dmnet.core.finished import Records
from dmnet.core.shards import Shard, shard_folder
from dmnet.core.work import Work
from dmnet.pipeline.executors.base import Engine, Load

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

OPTIONS: dict[str, tuple[str, ...]] = {
    "density": (),
    "train-density": (),
    "predict-density": ("weights",),
    "crop": ("density",),
    "convert": ("crops",),
    "train-detector": ("crops",),
    "detect": ("crops", "detector", "detector_weights"),
    "fuse-eval": ("crops", "detections"),
}
"""Options that say what a stage reads, besides its data; every stage heeds ``sizes``."""
OPTIONS = {stage: (*names, "sizes") for stage, names in OPTIONS.items()}

C = TypeVar("C")
T = TypeVar("T")


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
    executor: str = "local"
    ray_address: str | None = None
    ray_actors: int = 0
    ray_gpus: float = 1.0
    shard: Shard | None = None
    weights: Path | None = None
    density: str = ""
    crops: Path | None = None
    detections: Path | None = None
    detector: str | None = None
    detector_weights: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was looked up already; `replace` hands it on, so each stage of a run starts anew."""

    def folder(self, stage: str, split: str | None = None) -> Path:
        """Artifact folder of a stage: ``artifacts/<run>/<split>/<stage>``."""
        return self.artifacts / self.run / (split or self.split) / stage

    def target(self, stage: str) -> Path:
        """Folder that a run of a stage writes: of the whole stage, or of the part asked for."""
        folder = self.folder(stage)
        return folder if self.shard is None else shard_folder(folder, self.shard)

    @property
    def dataset(self) -> Dataset:
        """Images and annotations of the split."""
        return self.dataset_of(self.split)

    def dataset_of(self, split: str) -> Dataset:
        """Images and annotations of any split of the same data."""
        found: Dataset = self.once(
            ("dataset", self.data, split, self.sizes),
            lambda: open_dataset(self.data, split, sizes=self.sizes),
        )
        return found

    def once(self, name: Any, make: Callable[[], T]) -> T:
        """Look something up, or take what was found before."""
        if name not in self.memo:
            self.memo[name] = make()
        found: T = self.memo[name]
        return found

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

    @property
    def engine(self) -> Engine:
        """Where the work is carried out."""
        return Engine(**{field.name: getattr(self, field.name) for field in fields(Engine)})


@dataclass(frozen=True)
class Upstream:
    """A finished artifact of an earlier stage, which belongs to the inputs at hand."""

    stage: str
    split: str
    folder: Path
    header: Mapping[str, Any]
    records: Records

    @property
    def aside(self) -> frozenset[str]:
        """Items that were set aside; files that they left are out of date."""
        return frozenset(self.records.aside)

    def seal(self) -> dict[str, Any]:
        """What a header says about an artifact it was made from."""
        identity = {name: self.header.get(name) for name in ("stage", "version", "config", "facts")}
        return {
            "stage": self.stage,
            "split": self.split,
            "folder": str(self.folder.absolute()),
            "identity": digest(identity),
            "items": digest_of_pairs(self.records.keys_in_order()),
        }


@dataclass(frozen=True)
class Plan:
    """What a stage is going to do, before it does it: `status` looks, `execute` acts."""

    config: Any
    """The stage's settings; they are part of every item's key."""
    items: Collection[Item]
    """Everything that should exist at the end."""
    work: Work | None = None
    """Work on one item; picklable, run by several processes."""
    network: Load | None = None
    """Instead of ``work``: loads a network on a device, to put the stale items through."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Digests of inputs that concern every item, such as weights."""
    totals: Mapping[str, Any] = field(default_factory=dict)
    """Digests of what concerns only the files that sum up all items."""
    prepare: Callable[[], None] | None = None
    """Makes what all items share; called before the first one."""
    finish: Callable[[Artifact], Sequence[str] | None] | None = None
    """Writes what sums up all items, and may give lines to print; called when anything changed."""
    problems: tuple[str, ...] = ()
    """Files of the data set that cannot be used as they are; they count as set aside."""
    notes: tuple[str, ...] = ()
    """Sentences for the log of a run."""
    made_from: tuple[Upstream, ...] = ()
    """Artifacts of earlier stages that are read."""
    settings: Any = None
    """All settings, where ``config`` holds only those that the items depend on."""
