"""The whole of DMNet as one callable: pixels, density, windows, detections, one merged list."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import Window
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.config import resolved
from dmnet.core.errors import ConfigError, InputError
from dmnet.core.images import read_image
from dmnet.core.records import DensityMap, Detections, Image, Size
from dmnet.core.threads import map_ahead
from dmnet.cropping.slicers import slice_image
from dmnet.density.load import DensityNetwork
from dmnet.detectors.infer import Piece, detect_pieces
from dmnet.detectors.load import Detector
from dmnet.detectors.packing import Usage
from dmnet.fusion.fuse import fuse_image
from dmnet.pipeline.predict.result import PARTS, Result
from dmnet.pipeline.predict.scene import ArrayPixels, Pixels, Scene
from dmnet.pipeline.predict.settings import FLOOR, PredictConfig
from dmnet.pipeline.predict.video import Video, frame_name, frames, open_video

_log = logging.getLogger(__name__)

Source = str | Path | Image
"""An image file, or an RGB uint8 array ``(h, w, 3)``."""


@dataclass
class _Job:
    """One image on its way through the steps."""

    scene: Scene
    pixels: Pixels
    whole: Image
    density: DensityMap | None = None
    windows: list[Window] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass
class _Before:
    """Map and windows of the scene before."""

    size: Size = (0, 0)
    density: DensityMap | None = None
    windows: list[Window] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """A detector and a density network, ready for images, lists of them, folders and videos.

    ``detector`` is anything with ``predict(images) -> list[Detections]``; ``density`` may be
    None where the slicer needs no maps.

    >>> class Square:
    ...     def predict(self, images):
    ...         return [Detections([[8, 8, 24, 24]], [0.9], [4]) for _ in images]
    >>> from dmnet.cropping.slicers import CropConfig
    >>> model = Model(Square(), config=PredictConfig(crop=CropConfig.of("none")))
    >>> [result.counts() for result in model.stream([np.zeros((40, 40, 3), np.uint8)] * 2)]
    [{'car': 1}, {'car': 1}]
    """

    detector: Detector
    density: DensityNetwork | None = None
    config: PredictConfig = field(default_factory=PredictConfig)
    confidence: float = 0.25
    only: tuple[str, ...] = ()
    """Names of the classes to keep; empty: all."""
    classes: Classes = VISDRONE
    """What the detector's labels are called."""
    usage: Usage = field(default_factory=Usage)
    """Passes of the detector and their padding, over all calls."""

    def __post_init__(self) -> None:
        """Check that the parts fit each other.

        Raises:
            ConfigError: the slicer needs a density network and there is none; a class that the
                detector does not know; a confidence beyond 0 to 1.
        """
        if self.config.crop.needs == "map" and self.density is None:
            raise ConfigError(
                f"the slicer '{self.config.crop.slicer}' needs a density network: give one "
                "(--density-model FILE, density=FILE), or choose the slicer grid or none"
            )
        if not 0 <= self.confidence <= 1:
            raise ConfigError(f"the confidence must be 0 to 1, got {self.confidence}")
        check_classes(self.only, self.classes)

    def __call__(self, source: Source | Sequence[Source]) -> Result | list[Result]:
        """Predict one image, or a list of them.

        Raises:
            InputError: an image cannot be used.
        """
        if isinstance(source, str | Path | np.ndarray):
            return next(iter(self._results([source])))
        return list(self._results(source))

    def stream(
        self, source: str | Path | Iterable[Source], *, density_every: int | None = None
    ) -> Iterator[Result]:
        """Predict frame by frame: a video file, or any iterable of images and paths.

        The density network looks at every ``density_every``-th frame of a video (None: as the
        settings say). A frame that cannot be decoded is passed over, with a warning.

        Raises:
            InputError: the video cannot be opened, or an image cannot be used.
        """
        if not isinstance(source, str | Path):
            yield from self._results(source)
            return
        video = open_video(Path(source))
        every = density_every or self.config.video.density_every
        scenes = _frames(video, every)
        for scene, result in self.scenes(scenes):
            if isinstance(result, InputError):
                raise result
            yield replace(result, name=scene.name)

    def _results(self, sources: Iterable[Source]) -> Iterator[Result]:
        for scene, result in self.scenes(_scene(i, each) for i, each in enumerate(sources)):
            if isinstance(result, InputError):
                raise result
            yield replace(result, name=scene.name)

    def scenes(self, scenes: Iterable[Scene]) -> Iterator[tuple[Scene, Result | InputError]]:
        """Predict any number of images, in order; steps of neighbouring images overlap in time.

        Images are opened by threads, the density network works on the next image while the detector
        works on this one.

        Yields:
            Each scene with its result, or with the reason why it could not be used.
        """
        config = self.config.detect
        opened = map_ahead(_open, scenes, config.decoders)
        cut = map_ahead(partial(self._cut, _Before()), opened)
        across = self.config.across_images
        if across is None:
            across = getattr(getattr(self.detector, "device", None), "type", "cpu") == "cuda"
        if not across:
            config = replace(config, open_images=1)
        last = time.perf_counter()
        pieces = map(_pieces, cut)
        for (scene, job), found in detect_pieces(self.detector, pieces, config, self.usage):
            if isinstance(job, InputError) or isinstance(found, InputError):
                yield scene, job if isinstance(job, InputError) else _error(found)
                continue
            job.timings["detect"] = time.perf_counter() - last
            yield scene, self._fuse(job, found)
            last = time.perf_counter()

    def _cut(
        self, before: _Before, opened: tuple[Scene, _Job | InputError]
    ) -> tuple[Scene, _Job | InputError]:
        """Density map, windows and their pixels."""
        scene, job = opened
        if isinstance(job, InputError) or job.pixels.blank:
            return opened
        start = time.perf_counter()
        if scene.alike and before.size == job.pixels.size:
            job.density, job.windows = before.density, before.windows
        elif self.config.crop.needs == "map" and self.density is not None:
            found = self.density.predict(job.whole, **resolved(self.config.predict_density))
            job.density = _enlarged(found, job)
        job.timings["density"] = time.perf_counter() - start
        start = time.perf_counter()
        try:
            if not (scene.alike and before.size == job.pixels.size):
                job.windows = slice_image(self.config.crop, job.pixels.size, job.density)
            before.size, before.density, before.windows = job.pixels.size, job.density, job.windows
            crops = map(job.pixels.crop, job.windows)
            job.pieces = [(job.whole, True), *((pixels, False) for pixels in crops)]
        except InputError as error:
            return scene, error
        job.timings["slice"] = time.perf_counter() - start
        return scene, job

    def _fuse(self, job: _Job, found: list[Detections]) -> Result:
        start = time.perf_counter()
        lowest = min(FLOOR, self.confidence)
        found = [each[each.scores >= lowest] for each in found]
        height, width = job.pixels.size
        scale = [width / job.whole.shape[1], height / job.whole.shape[0]] * 2
        first = found[0] if found else Detections.empty()
        whole = Detections(first.boxes * scale, first.scores, first.labels)
        crops = list(zip(job.windows, found[1:], strict=True))
        fused = self._fused(whole, crops, job)
        parts: dict[str, Detections] = {}
        if self.config.crop.slicer != "none":
            alone = self._fused(whole, [], job), self._fused(Detections.empty(), crops, job)
            parts = dict(zip(PARTS, alone, strict=True))
        job.timings["fuse"] = time.perf_counter() - start
        return Result(
            fused,
            job.density,
            tuple(job.windows),
            job.timings,
            job.whole,
            job.pixels.size,
            self.classes,
            job.scene.name,
            parts=parts,
        )

    def _fused(
        self, whole: Detections, crops: list[tuple[Window, Detections]], job: _Job
    ) -> Detections:
        found = fuse_image(whole, crops, job.pixels.size, self.config.fuse)
        return found[wanted(found, self.confidence, self.only, self.classes)]


def check_classes(only: Sequence[str], classes: Classes) -> None:
    """Refuse names of classes that the detector does not know.

    Raises:
        ConfigError: names the first one.
    """
    unknown = [name for name in only if classes.label_of(name) not in classes.scored]
    if unknown:
        raise ConfigError(f"no class is called {unknown[0]!r}; this detector knows {classes}")


def wanted(
    found: Detections, confidence: float, only: Sequence[str], classes: Classes
) -> NDArray[np.bool_]:
    """Which detections have the score and one of the classes ``only``, ``(N,)``; none: any."""
    keep = found.scores >= confidence
    if only:
        labels = np.array([classes.label_of(name) for name in only], dtype=np.int64)
        keep &= np.isin(found.labels, labels)
    return np.asarray(keep)


def _frames(video: Video, every: int) -> Iterator[Scene]:
    fresh = True
    for index, frame in frames(video):
        fresh |= index % every == 0
        if frame is None:
            _log.warning("%s: frame %d cannot be decoded", video.path, index)
            continue
        yield Scene(frame_name(video.path.name, index), partial(ArrayPixels, frame), not fresh)
        fresh = False


def _scene(index: int, source: Source) -> Scene:
    """An image file or an array as a scene.

    Raises:
        InputError: an array that is no RGB uint8 image.
    """
    if isinstance(source, str | Path):
        return Scene(str(source), partial(_read, Path(source)))
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
        raise InputError(
            f"array {index}",
            f"an image is (height, width, 3) uint8, RGB; got {source.shape} {source.dtype}",
        )
    return Scene(f"array {index}", partial(ArrayPixels, source))


def _read(path: Path) -> Pixels:
    return ArrayPixels(read_image(path))


def _open(scene: Scene) -> tuple[Scene, _Job | InputError]:
    start = time.perf_counter()
    try:
        pixels = scene.open()
        job = _Job(scene, pixels, pixels.whole)
    except InputError as error:
        return scene, error
    job.timings["read"] = time.perf_counter() - start
    return scene, job


def _pieces(
    cut: tuple[Scene, _Job | InputError],
) -> tuple[tuple[Scene, _Job | InputError], Sequence[Piece] | InputError]:
    job = cut[1]
    return cut, job if isinstance(job, InputError) else job.pieces


def _error(found: list[Detections] | InputError) -> InputError:
    assert isinstance(found, InputError)
    return found


def _enlarged(density: DensityMap, job: _Job) -> DensityMap:
    """The map of a reduced picture as the map of the full image: the same cells, larger."""
    if density.size == job.pixels.size:
        return density
    factor = -(-job.pixels.size[0] // density.size[0])
    return DensityMap(density.values, density.stride * factor, job.pixels.size)
