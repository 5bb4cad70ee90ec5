"""Detection on whole images and their windows in one pass over the files.

Each image is decoded once, by a thread, while the detector works; windows are views of the decoded
pixels. Pieces of all images wait in groups of equal input shape and are detected a group at a time,
so that a batch holds no padding beyond what each piece has alone: what a piece gives does not
depend on its neighbours. Windows may instead share canvases (`dmnet.detectors.packing`): then it
depends on the other windows that are detected with it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from dmnet.core.boxes import Window
from dmnet.core.errors import InputError
from dmnet.core.images import MAX_PIXELS, read_image
from dmnet.core.memory import is_out_of_memory, release
from dmnet.core.ranges import Pixels, Range, Settings
from dmnet.core.records import Detections, Image, Size
from dmnet.core.threads import map_ahead
from dmnet.detectors.load import Detector, at_side
from dmnet.detectors.packing import PackConfig, PackedDetector, Usage, fitted, input_of

_log = logging.getLogger(__name__)

K = TypeVar("K")

Piece = tuple[Image, bool]
"""Pixels, and whether they show a whole image (and not a window of it)."""

Job = tuple[Path, Sequence[Window | None]]
"""An image file and the windows to look at; None is the whole image."""

Found = list[Detections] | InputError
"""Detections of each window, in pixels of the window, or why the image could not be used."""


@dataclass(frozen=True)
class InferConfig(Settings):
    """How images and crops are put through a detector."""

    batch: Annotated[int, Range(0, 65_536)] = 0
    """crops detected at once, at most; 0: 16 on a GPU, 2 on a CPU (whose caches hold no more)"""
    batch_pixels: Pixels = 24_000_000
    """input pixels detected at once, at most (one image is always possible)"""
    open_images: Annotated[int, Range(1, 1_024)] = 16
    """decoded images in memory, at most"""
    decoders: Annotated[int, Range(1, 1_024)] = 2
    """threads that decode images"""
    max_pixels: Pixels = MAX_PIXELS
    """images with more pixels are refused"""
    whole_side: Annotated[int, Range(0, 16_384)] = 0
    """longer side of the detector's input for whole images, pixels; 0: the same as for crops"""
    pack: PackConfig = field(default_factory=PackConfig)
    """crops that share passes of the detector"""


Group = tuple[bool, Size]
"""Whether its pieces show whole images, and the shape of the detector's input for them."""

PACKED: Group = (False, (0, 0))
"""Windows that wait to be packed."""


@dataclass
class _Open(Generic[K]):
    """An image some of whose pieces still wait."""

    key: K
    found: list[Detections | None]
    error: InputError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or None not in self.found

    def result(self) -> tuple[K, Found]:
        parts = [part for part in self.found if part is not None]
        return self.key, self.error if self.error is not None else parts


@dataclass
class _Piece:
    owner: _Open[Any]
    index: int
    pixels: Image
    whole: bool = False


@dataclass
class _Groups:
    """Pieces that wait, by what they show and input shape."""

    detector: Detector
    config: InferConfig
    usage: Usage
    waiting: dict[Group, list[_Piece]] = field(default_factory=dict)
    packed: PackedDetector | None = None

    def __post_init__(self) -> None:
        """Another input for whole images and packing, if they are asked for.

        Raises:
            ConfigError: the detector's input is fixed, and another one is asked for.
        """
        self.for_whole = at_side(self.detector, self.config.whole_side)
        if self.config.pack.side:
            side = self.config.pack.side
            self.packed = PackedDetector(
                self.detector, self.config.pack, self.room((side, side)), self.usage
            )

    def room(self, shape: Size) -> int:
        """Pieces of a shape that go through at once."""
        device = getattr(self.detector, "device", None)
        usual = 16 if getattr(device, "type", "cpu") == "cuda" else 2
        by_pixels = self.config.batch_pixels // (shape[0] * shape[1])
        return max(1, min(self.config.batch or usual, by_pixels))

    def add(self, piece: _Piece) -> None:
        """Put a piece in its group; a full group is detected."""
        if self.packed is not None and not piece.whole:
            self.waiting.setdefault(PACKED, []).append(piece)
            return
        shape = input_of(self.for_whole if piece.whole else self.detector, piece.pixels)
        group = (piece.whole and bool(self.config.whole_side), shape)
        waiting = self.waiting.setdefault(group, [])
        waiting.append(piece)
        if len(waiting) >= self.room(shape):
            self.detect(group)

    def detect(self, group: Group) -> None:
        """Detect the pieces of one group."""
        self._place(group, self.waiting.pop(group))

    def _place(self, group: Group, pieces: list[_Piece]) -> None:
        """Detect pieces together; where memory does not suffice, each half by itself.

        An image of which not even a single piece can be detected is set aside.
        """
        try:
            found = self._predict(group, [piece.pixels for piece in pieces])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            release()
            if len(pieces) == 1:
                pieces[0].owner.error = _too_large(pieces[0], error)
                return
            half = len(pieces) // 2
            _log.warning("not enough memory for %d pieces at once; trying half", len(pieces))
            self._place(group, pieces[:half])
            self._place(group, pieces[half:])
        else:
            for piece, detections in zip(pieces, found, strict=True):
                piece.owner.found[piece.index] = detections

    def _predict(self, group: Group, images: list[Image]) -> list[Detections]:
        if self.packed is not None and group == PACKED:
            return self.packed.predict(images)
        whole, shape = group
        covered = sum(fitted((i.shape[0], i.shape[1]), shape) for i in images)
        self.usage.add([shape] * len(images), covered)
        return (self.for_whole if whole else self.detector).predict(images)

    def finish(self, owner: _Open[Any]) -> None:
        """Detect every group that holds a piece of this image."""
        for group, pieces in list(self.waiting.items()):
            if any(piece.owner is owner for piece in pieces):
                self.detect(group)


def _too_large(piece: _Piece, error: BaseException) -> InputError:
    height, width = piece.pixels.shape[:2]
    reason = str(error).partition("\n")[0][:120] or "MemoryError"
    return InputError(
        str(piece.owner.key),
        f"not enough memory to detect {width}x{height} pixels by themselves ({reason}); use a "
        "smaller input or smaller crops, or another --device",
    )


def cut_window(image: Image, window: Window | None, path: Path) -> Image:
    """The pixels of a window: a view, not a copy.

    Raises:
        InputError: the window is empty or leaves the image.
    """
    if window is None:
        return image
    x1, y1, x2, y2 = window
    height, width = image.shape[:2]
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise InputError(
            path,
            f"the window {tuple(window)} does not lie in this image of {width}x{height}; "
            "the crops were made from other images: make them again",
        )
    return image[y1:y2, x1:x2]


def detect_items(
    detector: Detector,
    jobs: Iterable[Job],
    config: InferConfig | None = None,
    usage: Usage | None = None,
) -> Iterator[tuple[Path, Found]]:
    """Detect on windows of many images; results come in the order of the jobs.

    Args:
        detector: any detector; one with ``input_shape`` decides what may share a batch.
        jobs: image files with their windows, None for the whole image; read lazily.
        config: batch and memory bounds.
        usage: counts passes and padding.

    Yields:
        The path, and one `Detections` a window in pixels of that window; or the `InputError` of an
        image that cannot be read.
    """
    config = config or InferConfig()
    cut = map_ahead(partial(_cut, config.max_pixels), jobs, config.decoders)
    return detect_pieces(detector, cut, config, usage)


def _cut(max_pixels: int, job: Job) -> tuple[Path, list[Piece] | InputError]:
    """Decode an image and cut its windows."""
    path, windows = job
    try:
        image = read_image(path, max_pixels)
        return path, [(cut_window(image, window, path), window is None) for window in windows]
    except InputError as error:
        return path, error


def detect_pieces(
    detector: Detector,
    images: Iterable[tuple[K, Sequence[Piece] | InputError]],
    config: InferConfig | None = None,
    usage: Usage | None = None,
) -> Iterator[tuple[K, Found]]:
    """Detect on pieces of many images; results come in the order of the images.

    Args:
        detector: any detector; one with ``input_shape`` decides what may share a batch.
        images: a key and the pieces of each image, or why it has none; read lazily.
        config: batch and memory bounds; with ``open_images`` 1 no batch spans two images, so that
            the last digits of a result do not depend on its neighbours.
        usage: counts passes and padding.

    Yields:
        The key, and one `Detections` a piece in pixels of that piece; or the given error.
    """
    config = config or InferConfig()
    groups = _Groups(detector, config, usage or Usage())
    pending: deque[_Open[K]] = deque()
    for key, pieces in images:
        error = pieces if isinstance(pieces, InputError) else None
        listed = [] if isinstance(pieces, InputError) else pieces
        item = _Open(key, [None] * len(listed), error)
        pending.append(item)
        for index, (pixels, whole) in enumerate(listed):
            groups.add(_Piece(item, index, pixels, whole))
        if len(pending) >= config.open_images:
            groups.finish(pending[0])
        while pending and pending[0].done:
            yield pending.popleft().result()
    while pending:
        groups.finish(pending[0])
        yield pending.popleft().result()
