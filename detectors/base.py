"""Detection networks of torch: what one is, how it is made, stored, and used as a detector.

A `DetectionNet` is a network that our one training loop trains and our one checkpoint form stores;
`NetDetector` turns it into a `Detector` (`dmnet.detectors.load`), which is all the pipeline needs.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import CheckpointError, ConfigError, DmnetError, InputError
from dmnet.core.images import MAX_PIXELS
from dmnet.core.plugins import is_outside
from dmnet.core.records import Detections, Image, Size
from dmnet.core.training.device import pick_device
from dmnet.core.training.weights import load_state, read_weights, weights_bytes
from dmnet.detectors.classmap import category_table, translated
from dmnet.detectors.names import NETWORKS, resolve
from dmnet.detectors.settings import fixed

_log = logging.getLogger(__name__)


class Target(TypedDict):
    """Ground truth of one training image, tensors on the device of the image."""

    boxes: Tensor
    """``[n, 4]`` float32, x1 y1 x2 y2 in pixels of the image as given; n may be 0."""

    labels: Tensor
    """``[n]`` int64 category ids, 1..classes (0 never occurs)."""

    ignore: Tensor
    """``[m, 4]`` float32 regions that are neither object nor background; m may be 0."""

    seed: NotRequired[Tensor]
    """int64 number, for losses that draw at random: of this image in this epoch."""


class Found(TypedDict):
    """Detections of one image as tensors."""

    boxes: Tensor
    """``[k, 4]`` float32, x1 y1 x2 y2 in pixels of the image as given, inside the image."""

    scores: Tensor
    """``[k]`` float32, descending."""

    labels: Tensor
    """``[k]`` int64 category ids, 1..classes."""


class DetectionNet(nn.Module, ABC):
    """A detection network: what the training loop and the checkpoints rely on.

    Images are a sequence of ``[3, h, w]`` float tensors, RGB 0..1, of any and of different sizes
    (one ``[B, 3, h, w]`` tensor is such a sequence too). The network itself scales each one to its
    input size, normalises, and pads; boxes go in and come out in pixels of the images as given.

    Attributes:
        architecture: the name in `DETECTORS`, for example ``"fasterrcnn-r50"``.
        classes: number of classes; labels are 1..classes.
        settings: JSON-ready settings; ``build(architecture, settings, classes)`` makes it again.
        named: what the classes are called; None where nobody said, see `class_names`.
    """

    architecture: str
    classes: int
    settings: dict[str, Any]
    named: Classes | None = None

    @abstractmethod
    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses of a batch in training mode.

        Returns:
            Scalar tensors with their weights applied: their sum is what is minimised.
        """

    @abstractmethod
    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        """Detections of a batch in evaluation mode.

        An image's result depends on the other images only through the padding: images of equal
        `input_shape` give what each gives alone (up to float rounding).
        """

    @abstractmethod
    def input_shape(self, size: Size) -> Size:
        """``(h, w)`` that an image of ``size`` has after scaling and padding, when it is alone."""

    resizable = False
    """Whether its input may have another size."""

    def at_side(self, side: int) -> Self:
        """The network, of the same weights, with another longer side of its input, pixels.

        Raises:
            ConfigError: its input is fixed, as here.
        """
        raise ConfigError(fixed(side))

    @property
    def input_scaling(self) -> dict[str, Any]:
        """Description of the network's own normalisation, stored with the weights."""
        return {"order": "RGB", "range": [0, 1]}

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Call before each epoch (0-based); for parts that change with time. Does nothing here."""

    def deploy(self) -> DetectionNet:
        """Return the form for inference, in evaluation mode (re-parameterised where there is one).

        Called once on a network that is not trained any further; may change it in place.
        """
        return self.eval()

    def forward(self, images: Sequence[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """`losses` in training mode, `detect` in evaluation mode."""
        if not self.training:
            return self.detect(images)
        if targets is None:
            raise ValueError("a network in training mode needs targets; call .eval() to detect")
        return self.losses(images, targets)


Builder = Callable[[str, Mapping[str, Any], int], DetectionNet]
"""``build(architecture, settings, classes)``; strict about unknown settings (core.config.build)."""

LOADED = "loaded"
"""The setting ``weights`` of a network whose backbone weights come with its weights file."""


def build_model(
    name: str, settings: Mapping[str, Any] | None = None, classes: Classes | int = VISDRONE
) -> DetectionNet:
    """Make a network with fresh (or backbone) weights.

    Args:
        name: a key of `NETWORKS`, or ``module:builder`` of an outside package.
        settings: settings of that family, absent ones keep their defaults.
        classes: of the data set, or their number.

    Raises:
        ConfigError: no such network or setting.
    """
    number = classes if isinstance(classes, int) else len(classes)
    net: DetectionNet = resolve(name, NETWORKS)(name, settings or {}, number)
    net.named = None if isinstance(classes, int) else classes
    return net


def class_names(net: DetectionNet) -> Classes:
    """What the classes of a network are called.

    VisDrone's ten where nobody said and the number fits, else their numbers.
    """
    if net.named is not None:
        return net.named
    numbers = tuple(str(label) for label in range(1, net.classes + 1))
    return VISDRONE if net.classes == len(VISDRONE) else Classes(numbers)


def full_name(net: DetectionNet) -> str:
    """What messages call a network."""
    return f"{net.architecture} for {net.classes} classes"


def to_tensor(image: Image, device: torch.device) -> Tensor:
    """An RGB uint8 image as float ``[3, h, w]``, 0..1, on ``device``.

    The bytes travel, not the floats.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image)).to(device, non_blocking=True)
    return tensor.permute(2, 0, 1).float().div_(255)


def to_detections(found: Found) -> Detections:
    """Tensors as `Detections`, by descending score; equal scores keep their order."""
    scores = found["scores"].detach().double().cpu()
    order = torch.sort(scores, descending=True, stable=True).indices
    return Detections(
        found["boxes"].detach().double().cpu()[order].numpy(),
        scores[order].numpy(),
        found["labels"].detach().cpu()[order].numpy(),
    )


class NetDetector:
    """A trained network as a `Detector`."""

    def __init__(
        self,
        net: DetectionNet,
        device: str = "auto",
        *,
        amp: bool = True,
        max_pixels: int = MAX_PIXELS,
        classes: Classes | None = None,
    ) -> None:
        """Move the network to ``device`` in its form for inference.

        Args:
            net: the network; it is put into its form for inference.
            device: torch device, or ``auto``.
            amp: half precision on a GPU (never on the CPU).
            max_pixels: refuse larger images, before they exhaust the memory.
            classes: of the data set, whose labels the detections get by name; None: the network's.

        Raises:
            ConfigError: none of the network's classes is one of these.
        """
        own = class_names(net)
        self.classes = own if classes is None else classes
        self.table = None
        if classes is not None and not own.same_names(classes.names):
            self.table = category_table(own.names, {}, classes, net.architecture)
            _log.warning("%s", _mapping(own, classes, self.table.tolist()))
        self.device = torch.device(pick_device(device))
        self.net = net.to(self.device).deploy().to(memory_format=torch.channels_last)
        self.resizable = net.resizable
        self.amp = amp and self.device.type == "cuda"
        self.max_pixels = max_pixels

    def input_shape(self, size: Size) -> Size:
        """Images of equal input shape are worth batching, see `DetectionNet.input_shape`."""
        return self.net.input_shape(size)

    def at_side(self, side: int) -> NetDetector:
        """See `dmnet.detectors.load.at_side`; of the same weights."""
        other = copy(self)
        other.net = self.net.at_side(side)
        return other

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", dtype=torch.float16) if self.amp else nullcontext()

    def _detect(self, images: Sequence[Image]) -> list[Found]:
        try:
            with self._precision():
                return self.net.detect([to_tensor(image, self.device) for image in images])
        except torch.OutOfMemoryError as error:
            sizes = ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images[:3])
            raise DmnetError(
                f"out of memory on {self.device} with {len(images)} images at once ({sizes} ...); "
                "lower batch, batch_pixels, or the network's input size"
            ) from error

    @torch.inference_mode()
    def predict(self, images: Sequence[Image]) -> list[Detections]:
        """See `Detector.predict`; images of different `input_shape` go in separate batches.

        Raises:
            InputError: an image of more than ``max_pixels``.
        """
        groups: dict[Size, list[int]] = {}
        for index, image in enumerate(images):
            height, width = image.shape[:2]
            if height * width > self.max_pixels:
                raise InputError(
                    f"image of {width}x{height}",
                    f"has {height * width} pixels, more than max_pixels={self.max_pixels}; "
                    "cut it into crops, or raise max_pixels",
                )
            groups.setdefault(self.input_shape((height, width)), []).append(index)
        found: list[Detections] = [Detections.empty()] * len(images)
        for indices in groups.values():
            parts = self._detect([images[i] for i in indices])
            for index, part in zip(indices, parts, strict=True):
                each = to_detections(part)
                found[index] = each if self.table is None else translated(each, self.table)
        return found


def _mapping(own: Classes, classes: Classes, table: Sequence[int]) -> str:
    """Which class of a network counts as which one of the data set, in a sentence."""
    pairs = list(zip(own.names, table, strict=True))
    kept = ", ".join(f"{name} -> {classes.scored[i]}" for name, i in pairs if i in classes.scored)
    lost = ", ".join(name for name, label in pairs if label not in classes.scored)
    never = ", ".join(name for label, name in classes.scored.items() if label not in table)
    return (
        f"the detector's classes are not the data set's; mapped by name: {kept}"
        + (f"; dropped: {lost}" if lost else "")
        + (f"; never found: {never}" if never else "")
    )


def save_net(net: DetectionNet, state: Mapping[str, Tensor] | None = None, **more: Any) -> bytes:
    """Bytes of a weights file of ``net`` (or of ``state``, its moving average, say).

    ``more`` goes to the metadata; it is JSON-ready (config, data, metrics).
    """
    meta = {
        "architecture": net.architecture,
        "classes": list(class_names(net).names),
        "input": net.input_scaling,
        "settings": net.settings,
        **more,
    }
    return weights_bytes(state or net.state_dict(), meta)


def load_net(
    path: Path,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    classes: int | None = None,
) -> DetectionNet:
    """Make the network a weights file was made for and load the weights.

    Args:
        path: our weights file, or a plain state_dict (then ``name`` is needed).
        name: architecture expected; None takes the file's.
        settings: override the file's settings (input size, thresholds).
        classes: number of classes expected; None takes the file's.

    Raises:
        CheckpointError: damaged, unsafe, of another architecture, or of another class count.
    """
    state, meta = read_weights(path)
    found = meta.get("architecture")
    if found is None and name is None:
        raise CheckpointError(
            path, "a plain state_dict does not say its architecture; name the detector"
        )
    if found is not None and name not in (None, found):
        raise CheckpointError(
            path, f"holds weights of '{found}', not of '{name}'; name '{found}' as the detector"
        )
    if name is None and is_outside(str(found)):
        raise CheckpointError(
            path,
            f"holds weights of '{found}', which is no network of this package; no file says what "
            f"code is run: name it as the detector, DETECTOR={found}",
        )
    named = Classes.of(meta["classes"]) if "classes" in meta else None
    held = len(named) if named else (classes or len(VISDRONE))
    if classes is not None and held != classes:
        raise CheckpointError(
            path, f"was trained for {held} classes, expected {classes}; train again for these"
        )
    merged = {**meta.get("settings", {}), **(settings or {})}
    if merged.get("weights", LOADED) != LOADED:
        merged["weights"] = "none"  # everything comes from this file
    net = build_model(found or str(name), merged, held)
    load_state(net, state, path, full_name(net))
    net.named = named
    return net
