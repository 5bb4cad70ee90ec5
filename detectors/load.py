"""A detector ready to predict, whatever file it comes from; what is not needed is not imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dmnet.core.classes import Classes
from dmnet.core.errors import ConfigError
from dmnet.core.images import MAX_PIXELS
from dmnet.core.plugins import is_outside
from dmnet.core.records import Detections, Image
from dmnet.detectors.names import DETECTORS, FOREIGN, resolve
from dmnet.detectors.settings import fixed


@runtime_checkable
class Detector(Protocol):
    """Anything that finds objects in images."""

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        """Find objects.

        Args:
            images: RGB uint8 ``(h, w, 3)``, of any and of different sizes; may be empty.

        Returns:
            One `Detections` per image, in the same order: boxes x1 y1 x2 y2 in its pixels,
            labels are those of the data set's classes, rows by descending score.
        """
        ...


def at_side(detector: Detector, side: int) -> Detector:
    """The same detector with another longer side of its input.

    Args:
        detector: any; one whose input may change has a method of this name, and says so by an
            attribute ``resizable``.
        side: pixels; 0: as it is.

    Raises:
        ConfigError: its input is fixed.
    """
    if not side:
        return detector
    change: Callable[[int], Detector] | None = getattr(detector, "at_side", None)
    if change is None:
        raise ConfigError(fixed(side))
    return change(side)


def load_detector(
    source: str | Path,
    path: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    amp: bool = True,
    max_pixels: int = MAX_PIXELS,
    classes: Classes | None = None,
) -> Detector:
    """Make a detector ready to predict.

    Args:
        source: a name of `DETECTORS`, or ``module:builder`` of an outside package, with ``path``
            its file, or the weights or ONNX file alone.
        path: weights file, ONNX file, results JSON, or MMDetection checkpoint.
        settings: settings of that detector.
        device: torch device, or ``auto``.
        amp: half precision on a GPU.
        max_pixels: refuse larger images.
        classes: of the data set, whose labels the detections get; None: the detector's own, and
            VisDrone's for one from elsewhere that names none.

    Raises:
        ConfigError: no such detector, or one of other classes.
        CheckpointError: the file does not fit.

    >>> import tempfile
    >>> import numpy as np
    >>> from dmnet.detectors.base import build_model, save_net
    >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
    >>> _ = path.write_bytes(save_net(build_model("yolov6-n", {"input_size": 64})))
    >>> detector = load_detector(path, device="cpu")
    >>> len(detector.predict([np.zeros((60, 80, 3), np.uint8)]))
    1
    """
    name = str(source) if str(source) in DETECTORS or is_outside(str(source)) else None
    if name is None and path is not None:
        resolve(str(source), DETECTORS)
    file = Path(path) if path is not None else (None if name else Path(source))
    if name is None and file is not None and file.suffix.lower() == ".onnx":
        name = "onnx"
    if file is None:
        raise ConfigError(f"detector '{name}': give its weights file too")
    if name in FOREIGN:
        load = resolve(name, FOREIGN)
        given = () if classes is None else (classes,)
        detector: Detector = load(file, settings or {}, device, *given)
        return detector
    from dmnet.core.training.weights import read_weights
    from dmnet.detectors.base import NetDetector, load_net  # torch: two seconds

    found = read_weights(file)[1].get("architecture") if name is None else None
    if found in FOREIGN:
        return load_detector(found, file, settings=settings, device=device, classes=classes)
    net = load_net(file, name, settings)
    return NetDetector(net, device, amp=amp, max_pixels=max_pixels, classes=classes)
