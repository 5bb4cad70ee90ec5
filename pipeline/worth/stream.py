"""Measuring setups on a split, image by image, into an artifact that keeps every detection."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dmnet.core.artifact import Artifact, Item, Result
from dmnet.core.classes import Classes
from dmnet.core.dataset import Dataset
from dmnet.core.errors import InputError
from dmnet.core.files import file_digest
from dmnet.core.formats import density_h5, parts
from dmnet.core.images import read_image
from dmnet.core.listing import Entry
from dmnet.core.presets import read_yaml
from dmnet.core.products import Product
from dmnet.core.records import Annotations, DensityMap, Detections, Image, Size
from dmnet.density.load import load_density
from dmnet.detectors.load import Detector, load_detector
from dmnet.fusion.evaluation.evaluate import score
from dmnet.fusion.fuse import FuseConfig
from dmnet.pipeline.outcome import number
from dmnet.pipeline.stages.density import label_inputs
from dmnet.pipeline.worth import measure as worth
from dmnet.pipeline.worth.measure import Setup

SCORES = ("AP", "AP50", "AP_small", "AR500")


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Options that say what looks at the images."""
    add = parser.add_argument
    add("--detector", metavar="NAME", help="with a detector: its kind, such as onnx")
    add("--detector-weights", type=Path, metavar="FILE", help="with a detector: its file")
    add("--detector-settings", type=Path, metavar="YAML", help="settings of the detector")
    add("--weights", type=Path, metavar="FILE", help="density network, with a detector")
    add("--long-side", type=number(0, 1 << 20), metavar="N",
        help="longer side of the density network's input, pixels; 0: as the image is")  # fmt: skip
    add("--device", default="auto", help="cpu, cuda, or auto")
    add("--clock", choices=sorted(worth.CLOCKS), default="wall",
        help="milliseconds that pass, or of processor time over all threads")  # fmt: skip


@dataclass(frozen=True)
class Gear:
    """What looks at the images: a detector, a density network or a folder of maps, a clock."""

    detector: str | None
    detector_weights: Path
    detector_settings: Path | None = None
    weights: Path | None = None
    long_side: int | None = None
    maps: Path | None = None
    device: str = "auto"
    clock: str = "wall"

    @classmethod
    def of(cls, args: argparse.Namespace) -> Gear:
        """From the options of `add_arguments` and ``--maps``."""
        return cls(**{name: getattr(args, name) for name in cls.__dataclass_fields__})

    @property
    def seconds(self) -> Callable[[], float]:
        """The clock."""
        return worth.CLOCKS[self.clock]

    @property
    def facts(self) -> dict[str, Any]:
        """What counts as input of every item."""
        facts: dict[str, Any] = {"clock": self.clock, "kind": self.detector}
        facts["detector"] = file_digest(self.detector_weights)
        if self.detector_settings:
            facts["settings"] = read_yaml(self.detector_settings)
        if self.weights:
            facts |= {"network": file_digest(self.weights), "long_side": self.long_side}
        return facts

    def load(self, classes: Classes) -> Detector:
        """The detector, ready.

        Args:
            classes: of the data set.

        Raises:
            DmnetError: no such detector, or its file does not fit.
        """
        given = read_yaml(self.detector_settings) if self.detector_settings else None
        return load_detector(
            self.detector or self.detector_weights,
            self.detector_weights if self.detector else None,
            settings=given,
            device=self.device,
            classes=classes,
        )

    def network(self) -> worth.Predict | None:
        """The density network, if there is one."""
        if self.weights is None:
            return None
        loaded = load_density(self.weights, self.device)
        return partial(loaded.predict, long_side=self.long_side)

    def items(self, entries: Sequence[Entry]) -> list[Item]:
        """One item an image."""
        maps = density_h5.maps_in(self.maps) if self.maps else {}
        items = []
        for entry in entries:
            assert entry.image is not None
            labels, facts = label_inputs(entry)
            files = {"image": entry.image, **labels}
            if entry.image_id in maps:
                files["density"] = maps[entry.image_id]
            items.append(Item(entry.image_id, files, facts or None))
        return items


def usable(dataset: Dataset, limit: int | None) -> list[Entry]:
    """Entries with image and annotation; at most ``limit``, evenly drawn."""
    entries = [entry for entry in dataset.with_annotation if entry.image is not None]
    count = min(limit or len(entries), len(entries))
    return [entries[index * len(entries) // count] for index in range(count)]


def stream(
    gear: Gear, dataset: Dataset, setups: Sequence[Setup], label: str, items: list[Item]
) -> Iterator[tuple[Item, Result]]:
    """Measure image by image."""
    detector, network = gear.load(dataset.classes), gear.network()
    by_id = {entry.image_id: entry for entry in dataset.with_annotation}
    warm = False
    for item in tqdm(items, desc=label, unit="image", disable=None):
        try:
            image = read_image(item.files["image"])
            truth, _ = dataset.annotations(by_id[item.id])
            predict = _from_map(item, truth) if "density" in item.files else network
            if not warm:  # the first pass allocates
                detector.predict([image])
                warm = True
            looks = worth.measure(image, truth, predict, detector, setups, gear.seconds)
        except InputError as error:
            yield item, error
            continue
        files = {_file(k, item.id): parts.write(look.sources) for k, look in enumerate(looks)}
        value = {
            "prices": [look.price for look in looks],
            "windows": [look.windows for look in looks],
        }
        yield item, Product(files, value)


def _file(setup: int, image_id: str) -> str:
    """Detections of a setup on an image, whole and crops."""
    return f"found/{setup}/{image_id}.json"


def _from_map(item: Item, truth: Annotations) -> worth.Predict:
    def predict(image: Image) -> DensityMap:
        return density_h5.read_foreign(item.files["density"], truth.size)

    return predict


@dataclass
class Table:
    """Scores and prices of measured setups, under any settings of fusion."""

    artifact: Artifact
    dataset: Dataset
    setups: Sequence[Setup]
    clock: Callable[[], float]
    _held: dict[int, dict[str, list[Detections]]] = field(default_factory=dict)

    @cached_property
    def truths(self) -> list[Annotations]:
        """Annotations of the measured images."""
        good = self.artifact.good
        entries = [e for e in self.dataset.with_annotation if e.image_id in good]
        return [self.dataset.annotations(entry)[0] for entry in entries]

    @cached_property
    def sizes(self) -> Mapping[str, Size]:
        """``(height, width)`` of the measured images."""
        return {truth.image_id: truth.size for truth in self.truths}

    def row(self, index: int, fusion: FuseConfig) -> worth.Row:
        """One setup's means per image, and its scores by coco@500."""
        setup = self.setups[index]
        results, fuse_ms = self._fused(index, fusion)
        scores = score(self.truths, results, "coco@500").summary
        prices = [record.value["prices"][index] for record in self.artifact.good.values()]
        figures = worth.figures_of(prices, sum(h * w for h, w in self.sizes.values()))
        figures["fuse_ms"] = fuse_ms
        figures |= {name: float(scores[name]) for name in SCORES}
        setting = setup.setting or str(setup.crop.settings)
        return worth.Row(setup.name, setting, setup.packed, figures, setup.whole_side)

    def _fused(self, index: int, fusion: FuseConfig) -> tuple[dict[str, Detections], float]:
        """Fused detections of a setup by image, and the milliseconds per image that it took."""
        found = self._sources(index)
        results: dict[str, Detections] = {}
        seconds = 0.0
        for name, record in self.artifact.good.items():
            start = self.clock()
            windows = record.value["windows"][index]
            results[name] = worth.fused(windows, found[name], self.sizes[name], fusion)
            seconds += self.clock() - start
        return results, 1000 * seconds / max(1, len(results))

    def _sources(self, index: int) -> dict[str, list[Detections]]:
        """Detections of a setup before fusion, by image; those of one setup stay in memory."""
        if index not in self._held:
            root = self.artifact.root
            self._held = {
                index: {n: parts.read(root / _file(index, n)) for n in self.artifact.good}
            }
        return self._held[index]
