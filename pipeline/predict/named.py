"""Models by name (configs/models.yaml), and models from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dmnet.core import config
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.files import file_digest
from dmnet.core.presets import read_yaml
from dmnet.core.training.device import pick_device
from dmnet.density.load import load_density
from dmnet.detectors.load import Detector, load_detector
from dmnet.pipeline.models import TABLE, Entry, entries
from dmnet.pipeline.predict.model import Model
from dmnet.pipeline.predict.settings import PredictConfig

DEFAULT = "visdrone"


@dataclass(frozen=True)
class Files:
    """The files of a model and how it is run."""

    detector: Path
    density: Path | None = None
    detector_settings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Digests of what decides the results, whatever kind of file the pixels come from."""
        settings = config.resolved(self.config)
        return {
            "detector": file_digest(self.detector),
            "density": None if self.density is None else file_digest(self.density),
            "detector_settings": dict(self.detector_settings),
            "settings": {k: v for k, v in settings.items() if k not in ("raster", "video")},
        }

    @cached_property
    def config(self) -> PredictConfig:
        """The settings, checked."""
        return config.build(PredictConfig, self.settings)


def find(
    model: str | Path | None = None,
    density: str | Path | None = None,
    *,
    detector_settings: str | Path | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Files:
    """The files behind a name or a path.

    Args:
        model: a name of the table, or a detector's file; None: the default model.
        density: density network's file; None: the named model's.
        detector_settings: of the detector, as a mapping or YAML file.
        settings: of `PredictConfig`, over those of the named model.
        device: where they shall run; a named model has other files for a CPU.

    Raises:
        MissingInputError: a file is not there.
        ConfigError: neither a name nor a file.
    """
    named = entries().get(str(model or DEFAULT))
    if isinstance(detector_settings, str | Path):
        detector_settings = read_yaml(Path(detector_settings))
    network = None if density is None else Path(density)
    if named is None:
        detector, preset = Path(str(model)), dict[str, Any]()
        if not detector.is_file():
            known = ", ".join(entries())
            raise MissingInputError(
                f"{model}: neither a model's name ({known}) nor a file of a detector."
            )
    else:
        preset = dict(named.settings)
        detector = _suited(named.detector, named, device)
        network = network or (_suited(named.density, named, device) if named.density else None)
    merged = config.merged(preset, settings or {})
    files = Files(detector, network, detector_settings or {}, merged)
    if files.config.crop.needs != "map":
        files = Files(detector, None, detector_settings or {}, merged)
    for path in (files.detector, files.density):
        if path is not None and not path.is_file():
            what = f"the model '{model or DEFAULT}' needs {path}, which is not there"
            raise MissingInputError(
                f"{what}; give files of your own: --model FILE --density-model FILE."
            )
    return files


def _suited(name: str, entry: Entry, device: str) -> Path:
    """The file of a network that suits the device: onnxruntime is twice as fast on a CPU."""
    path = TABLE.parent / name
    if not entry.onnx or not pick_device(device).startswith("cpu"):
        return path
    return path.with_suffix(".onnx")


def open_model(
    files: Files,
    *,
    confidence: float = 0.25,
    classes: Sequence[str] = (),
    device: str = "auto",
) -> Model:
    """Load detector and density network.

    Raises:
        CheckpointError: a file that does not fit.
        ConfigError: settings that do not fit.
    """
    density = None if files.density is None else load_density(files.density, device)
    detector = open_detector(files.detector, files.detector_settings, device)
    return Model(detector, density, files.config, confidence, tuple(classes), classes_of(detector))


def classes_of(detector: Detector) -> Classes:
    """What labels are called: a network or ONNX file says so; others have VisDrone's."""
    known = getattr(detector, "classes", None)
    return known if isinstance(known, Classes) else VISDRONE


def open_detector(path: Path, settings: Mapping[str, Any], device: str) -> Detector:
    """A detector by its file."""
    if path.suffix.lower() == ".json":
        raise ConfigError(f"{path}: detections of known images, not a detector of new ones")
    return load_detector(path, settings=settings or None, device=device)


def load(
    model: str | None = None,
    *,
    detector: str | Path | Detector | None = None,
    density: str | Path | None = None,
    confidence: float = 0.25,
    classes: Sequence[str] = (),
    slicer: str | None = None,
    settings: Mapping[str, Any] | None = None,
    detector_settings: str | Path | Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Model:
    """Load the whole of DMNet: a detector, a density network, and how they work together.

    Args:
        model: a name of configs/models.yaml; None with ``detector`` given.
        detector: file of a detector instead, or any object with ``predict(images)``.
        density: file of a density network instead of the named model's.
        confidence: detections below are not returned, 0 to 1.
        classes: names of the classes to return; empty: all.
        slicer: ``density`` (default), ``grid``, ``uniform`` or ``none``.
        settings: of `dmnet.pipeline.predict.settings.PredictConfig`, as a nested mapping.
        detector_settings: of the detector, as a mapping or YAML file.
        device: torch device, or ``auto``.

    Returns:
        ``model(image)``: an RGB uint8 array, a path, or a list of them.

    Raises:
        DmnetError: a file is missing or does not fit; names it.

    Any object with ``predict(images) -> list[Detections]`` is a detector:

    >>> import numpy as np
    >>> from dmnet.core.records import Detections
    >>> class Square:
    ...     def predict(self, images):
    ...         return [Detections([[8, 8, 24, 24]], [0.9], [4]) for _ in images]
    >>> model = load(detector=Square(), slicer="none")
    >>> model(np.zeros((100, 200, 3), np.uint8))
    Result('array 0', 200x100, 0 windows: 1 car)
    """
    merged = dict(settings or {})
    if slicer is not None:
        merged = config.merged(merged, {"crop": {"slicer": slicer}})
    if detector is not None and not isinstance(detector, str | Path):
        made = config.build(PredictConfig, merged)
        network = None if density is None else load_density(density, device)
        known = classes_of(detector)
        return Model(detector, network, made, confidence, tuple(classes), known)
    source = model if detector is None else detector
    files = find(
        source, density, detector_settings=detector_settings, settings=merged, device=device
    )
    return open_model(files, confidence=confidence, classes=classes, device=device)
