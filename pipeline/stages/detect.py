"""Stage ``detect``: run the detector on whole images and on crops, in one pass over the images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmnet.core.artifact import Artifact, Item, Product, Result
from dmnet.core.boxes import Window
from dmnet.core.classes import Classes
from dmnet.core.errors import ConfigError, InputError, MissingInputError
from dmnet.core.files import file_digest
from dmnet.core.formats import parts
from dmnet.core.formats.coco_results import results_json
from dmnet.core.formats.crops import CropSet
from dmnet.core.images import read_size
from dmnet.core.plugins import is_outside
from dmnet.core.presets import read_yaml
from dmnet.core.ranges import Share
from dmnet.core.records import Detections
from dmnet.core.spread import spread
from dmnet.core.work import Stream
from dmnet.detectors.infer import InferConfig, detect_items
from dmnet.detectors.names import DETECTORS, FOREIGN
from dmnet.detectors.packing import Usage
from dmnet.detectors.results import ResultsDetector
from dmnet.pipeline.chain import command, require
from dmnet.pipeline.context import Context, Plan, Upstream
from dmnet.pipeline.inputs import PARTS, detected_file, detected_item, load_crops

if TYPE_CHECKING:
    from dmnet.detectors.load import Detector

VERSION = 2  # detections are stored beside their windows
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(InferConfig):
    """How the detector is run (docs/method.md, "Detectors")."""

    score_threshold: Share = 0.01
    """Detections below are dropped."""
    settings: str | None = None
    """YAML file with settings of the detector, for example how an ONNX file is decoded."""
    across_images: bool = False
    """Let batches span images: quicker on a GPU; the last digits then depend on the neighbours."""


@dataclass(frozen=True)
class Source:
    """The detector and where its weights are."""

    name: str | None
    weights: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What counts as input of every item."""
        return {"detector": self.name, "weights": file_digest(self.weights)}


def plan(context: Context) -> Plan:
    """Two items per image: the whole image, and its crops."""
    config = context.config("detect", Config)
    crops = load_crops(context)
    source, trained = find_detector(context)
    windows = crops.crops.windows()
    images = context.dataset.images
    items = []
    for parent in crops.crops.parents:
        path = images.get(parent.image_id, context.dataset.root / "images" / parent.file_name)
        number = {"id": parent.id} if source.name == "results" else {}
        for part, looked in zip(PARTS, (None, windows[parent.image_id]), strict=True):
            known = {"size": parent.size, "windows": looked, **({} if looked else number)}
            items.append(Item(detected_item(part, parent.image_id), {"image": path}, known))
    classes = context.dataset.classes
    facts = {**source.facts, **classes.facts}
    if config.settings is not None:
        facts["settings"] = read_yaml(Path(config.settings))
    return Plan(
        config,
        items,
        network=partial(load, config, source, classes, f"detect {context.split}", len(items)),
        facts=facts,
        totals={"ids": crops.ids},
        finish=partial(sum_up, crops.crops, classes),
        problems=context.dataset.problems,
        notes=crops.notes,
        made_from=(*crops.upstream, *trained),
    )


def find_detector(context: Context) -> tuple[Source, tuple[Upstream, ...]]:
    """The detector given with ``DETECTOR_WEIGHTS=``, or the one of ``train-detector``.

    Raises:
        ConfigError: no detector of that name.
        MissingInputError: there are no weights.
        StaleInputError: those of ``train-detector`` were trained on other inputs.
    """
    name = context.detector
    if name is not None and name not in DETECTORS and not is_outside(name):
        raise ConfigError(f"DETECTOR={name}: there are {', '.join(sorted(DETECTORS))}")
    if context.detector_weights is not None:
        if not context.detector_weights.is_file():
            raise MissingInputError(f"DETECTOR_WEIGHTS={context.detector_weights}: no such file.")
        return Source(name, context.detector_weights), ()
    if name in FOREIGN and name != "mmdet":
        raise MissingInputError(
            f"DETECTOR={name}: give its file too, DETECTOR_WEIGHTS=file (an ONNX file or a COCO "
            "results JSON)."
        )
    trained = require(
        context,
        "train-detector",
        "train",
        instead="or give a detector, this one as it is with "
        f"DETECTOR_WEIGHTS={context.folder('train-detector', 'train') / 'weights.pt'}",
    )
    model = trained.header["config"]["model"]
    if name not in (None, model):
        raise MissingInputError(
            f"DETECTOR={name}: the detector trained here is {model} ({trained.folder}). Leave "
            "DETECTOR away, or train: "
            f"{command(context, 'train-detector', split='train')} DETECTOR={name}"
        )
    named = model if model == "mmdet" or is_outside(model) else None
    return Source(named, trained.folder / "weights.pt"), (trained,)


def load(
    config: Config, source: Source, classes: Classes, label: str, count: int, device: str
) -> Stream:
    """Load the detector, ready to detect."""
    from dmnet.detectors.load import load_detector

    given = read_yaml(Path(config.settings)) if config.settings else {}
    detector = load_detector(
        source.name or source.weights,
        source.weights if source.name else None,
        settings=given or None,
        device=device,
        classes=classes,
    )
    if isinstance(detector, ResultsDetector):
        return partial(_look_up, detector, config, count)
    return partial(detect, config, detector, label, count)


def detect(
    config: Config, detector: Detector, label: str, count: int, items: list[Item]
) -> Iterator[tuple[Item, Result]]:
    """Detect image by image, ``count`` items in all; those of one image share one decoding."""
    groups: dict[Path, list[Item]] = {}
    for item in items:
        groups.setdefault(item.files["image"], []).append(item)
    infer = config if config.across_images else replace(config, open_images=1)
    jobs = [(path, [w for item in group for w in _windows(item)]) for path, group in groups.items()]
    usage = Usage()
    found_in = detect_items(detector, jobs, infer, usage)
    for (path, found), group in zip(found_in, groups.values(), strict=True):
        assert path == group[0].files["image"]
        start = 0
        for item in group:
            if isinstance(found, InputError):
                yield item, found
                continue
            if (size := read_size(path)) != tuple(item.facts["size"]):
                reason = f"has {size} (h, w) pixels, but labels or crops say {item.facts['size']}"
                yield item, InputError(path, reason)
                continue
            stop = start + len(_windows(item))
            yield item, _product(item, found[start:stop], config.score_threshold, count)
            start = stop
    _log.info(
        "%s: %.2f passes per image, %.3f of their pixels are padding",
        label, usage.passes / max(1, len(groups)), usage.padded_share,
    )  # fmt: skip


def _windows(item: Item) -> list[Window | None]:
    """The windows of an item; None is the whole image."""
    windows = item.facts["windows"]
    return [None] if windows is None else [tuple(window) for window in windows]


def _looked_at(item: Item) -> list[Window]:
    """The windows of an item as they are stored; the whole image is one too."""
    height, width = item.facts["size"]
    return [window or (0, 0, width, height) for window in _windows(item)]


def _product(item: Item, found: list[Detections], threshold: float, count: int) -> Product:
    windows = _looked_at(item)
    kept = [each[each.scores >= threshold] for each in found]
    data = parts.write_windows(zip(windows, kept, strict=True))
    value = {"detections": sum(map(len, kept)), "windows": windows}
    return Product({spread(f"{item.id}.json", count): data}, value)


def _look_up(
    detector: ResultsDetector, config: Config, count: int, items: list[Item]
) -> Iterator[tuple[Item, Result]]:
    """Detections of whole images from a results file, which knows nothing of crops."""
    detector.check({item.facts["id"]: item for item in items if "id" in item.facts})
    for item in items:
        found = [
            detector.for_image(item.facts["id"]) if window is None else Detections.empty()
            for window in _windows(item)
        ]
        yield item, _product(item, found, config.score_threshold, count)


def sum_up(crops: CropSet, classes: Classes, artifact: Artifact) -> None:
    """Write both results as COCO JSON; ids are those of ``crops.json``."""
    by_parent, good = crops.by_parent(), artifact.good

    def read(part: str, image_id: str) -> Mapping[Window, Detections]:
        if detected_item(part, image_id) not in good:
            return {}
        return parts.read_windows(detected_file(artifact.root, part, image_id))

    whole = ((p.id, d) for p in crops.parents for d in read("whole", p.image_id).values())
    artifact.output("results_images.json", results_json(whole, classes))
    cuts = (
        (crop.id, found[crop.window])
        for parent in crops.parents
        for found in [read("crops", parent.image_id)]
        for crop in by_parent[parent.image_id]
        if crop.window in found
    )
    artifact.output("results_crops.json", results_json(cuts, classes))
