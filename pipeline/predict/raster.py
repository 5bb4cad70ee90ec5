"""Rasters: GeoTIFF, COG, JPEG 2000; read by blocks, never whole.

Blocks overlap. The density network and the look at the whole block use the block at a reduced size,
which comes from the file's overviews where it has them; windows are read at full resolution.
Values that are not 8-bit are stretched: the 2nd to the 98th percentile of each band, over the whole
raster, become 0 to 255.
"""

from __future__ import annotations

import os
import struct
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dmnet.core import limits
from dmnet.core.boxes import Boxes, Window, as_boxes
from dmnet.core.errors import InputError, optional
from dmnet.core.images import MAX_PIXELS
from dmnet.core.reading import opened
from dmnet.core.records import Detections, Image, Size
from dmnet.cropping.windows import starts
from dmnet.fusion.merge import MergeConfig, merge
from dmnet.pipeline.predict.settings import RasterConfig

DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}
"""The reader of each file ending; others, which may lead to further files, are never tried."""
CACHE = 128 << 20
"""Bytes that GDAL keeps of decoded tiles."""
SAMPLE = 1024
"""Longest side of the picture that percentiles are taken from."""
PERCENTILES = (2, 98)
LARGE = 50_000_000
"""Plain TIFF files of more pixels are read by blocks too."""


@dataclass(frozen=True)
class Raster:
    """What is known about a raster without reading it; see `open_raster`."""

    path: Path
    size: Size
    bands: tuple[int, ...]
    stretch: tuple[tuple[float, float], ...]
    """Value that becomes 0 and value that becomes 255, for each band; empty: as they are."""
    crs: str
    """Coordinate reference system as WKT; empty: not georeferenced."""
    transform: tuple[float, ...]
    """a b c d e f: ``x = a * column + b * row + c``, ``y = d * column + e * row + f``."""

    def read(self, window: Window, reduction: int = 1) -> tuple[Image, bool]:
        """RGB pixels of a window at 1/n, sides rounded up, and whether any of them holds data.

        Raises:
            InputError: the file is damaged there.
        """
        x1, y1, x2, y2 = window
        shape = -(-(y2 - y1) // reduction), -(-(x2 - x1) // reduction)
        with _opened(self.path) as (rasterio, source):
            place = rasterio.windows.Window(x1, y1, x2 - x1, y2 - y1)
            how = rasterio.enums.Resampling.average if reduction > 1 else None
            how = how or rasterio.enums.Resampling.nearest
            mask = source.dataset_mask(window=place, out_shape=shape) > 0
            if not mask.any():
                return np.zeros((*shape, 3), np.uint8), False
            values = source.read(
                list(self.bands), window=place, out_shape=(len(self.bands), *shape), resampling=how
            )
        return stretched(values, mask, self.stretch), True

    def to_world(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Columns and rows ``(N, 2)`` in pixels as coordinates ``(N, 2)`` of the raster's CRS."""
        a, b, c, d, e, f = self.transform
        x, y = points[:, 0], points[:, 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def is_raster(path: Path) -> bool:
    """Whether a file is better read by blocks than as a picture: by name, then by its header.

    Georeferenced, large, of more than 8 bits, or of other bands than grey, RGB and RGBA. False
    without the extra ``geo``, and for files that cannot be opened: reading them says why.
    """
    if path.suffix.lower() not in DRIVERS:
        return False
    try:
        optional("rasterio", "geo")
        with _opened(path) as (_, source):
            plain = set(source.dtypes) == {"uint8"} and source.count in (1, 3, 4)
            large = source.width * source.height > min(LARGE, MAX_PIXELS)
            return bool(source.crs) or large or not plain or path.suffix.lower() == ".jp2"
    except (InputError, ImportError):
        return False


def open_raster(path: Path, config: RasterConfig) -> Raster:
    """Read the header and, where values are not 8-bit, the percentiles of a reduced picture.

    Raises:
        InputError: damaged, beyond the limits, or without the bands that were asked for.
        MissingExtraError: the extra ``geo`` is not installed.
    """
    with _opened(path) as (rasterio, source):
        if why := _too_much(source):
            raise InputError(path, why)
        bands = config.bands or _colours(rasterio, source)
        if max(bands) > source.count:
            raise InputError(path, f"has {source.count} bands, bands {bands} were asked for")
        eight = all(source.dtypes[band - 1] == "uint8" for band in bands)
        return Raster(
            path,
            (source.height, source.width),
            bands,
            () if eight else _percentiles(source, bands),
            source.crs.to_wkt() if source.crs else "",
            tuple(source.transform)[:6],
        )


def _too_much(source: Any) -> str:
    """Why a raster is not read at all, by what its header declares; empty where it is."""
    if source.width * source.height > limits.RASTER_PIXELS:
        shown = f"{source.width}x{source.height}"
        return f"declares {shown} pixels, more than the limit of {limits.RASTER_PIXELS:,}; cut it"
    if source.count > limits.RASTER_BANDS:
        return f"declares {source.count} bands, more than the limit of {limits.RASTER_BANDS:,}"
    cells = max(height * width for height, width in source.block_shapes)
    together = source.count if source.profile.get("interleave") == "pixel" else 1
    total = cells * together * max(np.dtype(kind).itemsize for kind in source.dtypes)
    if total > limits.RASTER_BLOCK_BYTES:
        return (
            f"its blocks of {total:,} bytes are more than the limit of "
            f"{limits.RASTER_BLOCK_BYTES:,}; write it in tiles (gdal_translate -co TILED=YES)"
        )
    return ""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The library and an open data set; every way it can fail is an InputError."""
    rasterio = optional("rasterio", "geo")
    gdal = optional("rasterio._err", "geo").CPLE_BaseError  # what GDAL says and rasterio lets pass
    errors = (rasterio.errors.RasterioError, gdal, OSError, ValueError, OverflowError, struct.error)
    try:
        with opened(path, sys.maxsize) as stream:
            if _tag_bytes(stream) > path.stat().st_size:
                raise InputError(path, "its tags say that they hold more than the whole file")
        with (
            warnings.catch_warnings(
                action="ignore", category=rasterio.errors.NotGeoreferencedWarning
            ),
            # files beside it (.msk, .ovr, .aux.xml) may lead to any other, and are not looked at
            rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            rasterio.open(path, driver=DRIVERS[path.suffix.lower()]) as source,
        ):
            if source.tags(ns="OVERVIEWS"):
                raise InputError(path, "names its overviews in another file, which is not read")
            yield rasterio, source
    except InputError:
        raise
    except errors as error:
        raise InputError(path, f"damaged or unreadable raster ({error})") from error


_UNITS = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by its type in a TIFF tag, where they are not 1."""


def _tag_bytes(stream: BinaryIO) -> int:
    """Bytes that the tags of a TIFF declare, which GDAL takes into memory at once; else 0.

    Many tags may name the same bytes. It stops where they exceed the file. Source: TIFF 6.0, and
    BigTIFF.
    """
    head, size = stream.read(16), os.fstat(stream.fileno()).st_size
    if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return 0
    order, big = "<" if head[:2] == b"II" else ">", b"+" in head[2:4]
    pointer, count = (struct.Struct(order + kind) for kind in ("QQ" if big else "LH"))
    entry, total = struct.Struct(order + ("HHQ8x" if big else "HHL4x")), 0
    (place,) = pointer.unpack_from(head, 8 if big else 4)
    while place and total <= size:
        stream.seek(place)
        (tags,) = count.unpack(stream.read(count.size))
        total += tags * entry.size
        if total <= size:
            listed = entry.iter_unpack(stream.read(tags * entry.size))
            total += sum(values * _UNITS.get(kind, 1) for _, kind, values in listed)
            (place,) = pointer.unpack(stream.read(pointer.size))
    return total


def _colours(rasterio: Any, source: Any) -> tuple[int, ...]:
    """The bands that the file calls red, green and blue, else the first three, else the first."""
    kinds = {kind: band for band, kind in reversed(list(enumerate(source.colorinterp, start=1)))}
    named = rasterio.enums.ColorInterp
    wanted = [kinds.get(kind) for kind in (named.red, named.green, named.blue)]
    found = tuple(band for band in wanted if band is not None)
    if len(found) == 3:
        return found
    return (1, 2, 3) if source.count >= 3 else (1,)


def _percentiles(source: Any, bands: Sequence[int]) -> tuple[tuple[float, float], ...]:
    scale = max(1, max(source.width, source.height) // SAMPLE)
    shape = -(-source.height // scale), -(-source.width // scale)
    mask = source.dataset_mask(out_shape=shape) > 0
    found = []
    for band in bands:
        values = source.read(band, out_shape=shape).astype(np.float64)
        values = values[mask & np.isfinite(values)]
        low, high = np.percentile(values, PERCENTILES).tolist() if values.size else (0.0, 1.0)
        found.append((low, high if high > low else low + 1))
    return tuple(found)


def stretched(
    values: NDArray[Any], mask: NDArray[np.bool_], stretch: Sequence[tuple[float, float]]
) -> Image:
    """Bands ``(1 or 3, h, w)`` as RGB uint8 ``(h, w, 3)``; 0 where the mask ``(h, w)`` is not set.

    Args:
        values: pixels of any type.
        mask: where there is data.
        stretch: value that becomes 0 and value that becomes 255, for each band; empty: as it is.
    """
    if stretch:
        low, high = (np.array(side).reshape(-1, 1, 1) for side in zip(*stretch, strict=True))
        share = (np.nan_to_num(values.astype(np.float64)) - low) / (high - low)
        values = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    values = np.where(mask, values, 0).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values, (3, *mask.shape)).transpose(1, 2, 0))


@dataclass
class BlockPixels:
    """One block of a raster."""

    raster: Raster
    window: Window
    reduction: int

    @property
    def size(self) -> Size:
        """``(height, width)`` of the block."""
        x1, y1, x2, y2 = self.window
        return y2 - y1, x2 - x1

    @cached_property
    def _read(self) -> tuple[Image, bool]:
        return self.raster.read(self.window, self.reduction)

    @property
    def whole(self) -> Image:
        """The block at the reduced size."""
        return self._read[0]

    @property
    def blank(self) -> bool:
        """Whether there is no data at all: nothing to look at."""
        return not self._read[1]

    def crop(self, window: Window) -> Image:
        """Pixels of a window of the block, at full resolution."""
        x, y = self.window[:2]
        x1, y1, x2, y2 = window
        return self.raster.read((x + x1, y + y1, x + x2, y + y2))[0]


def blocks(size: Size, config: RasterConfig) -> list[Window]:
    """Overlapping blocks that cover an image, row by row."""
    step = config.block - config.overlap
    height, width = (min(config.block, side) for side in size)
    return [
        (int(x), int(y), int(x) + width, int(y) + height)
        for y in starts(size[0], config.block, step)
        for x in starts(size[1], config.block, step)
    ]


def cores(windows: Sequence[Window]) -> list[Window]:
    """The part of each block that is its own: up to the middle of the overlap with the next one."""
    found = []
    for axis in (0, 1):
        sides = sorted({(w[axis], w[axis + 2]) for w in windows})
        cuts = [(a[1] + b[0]) // 2 for a, b in pairwise(sides)]
        edges = [sides[0][0], *cuts, sides[-1][1]]
        found.append({side: (edges[i], edges[i + 1]) for i, side in enumerate(sides)})
    across, down = found
    return [
        (across[x1, x2][0], down[y1, y2][0], across[x1, x2][1], down[y1, y2][1])
        for x1, y1, x2, y2 in windows
    ]


def joined(
    parts: Sequence[tuple[Window, Detections]], overlap: int, iou: float = 0.5
) -> Detections:
    """Detections of overlapping blocks as those of the whole: each object once.

    A block keeps what has its centre in its core. Within an eighth of the overlap around a seam
    both neighbours keep theirs, and of two that overlap by more than ``iou`` the better one stays.

    Args:
        parts: window and detections (in its pixels) of each block.
        overlap: of two blocks, pixels.
        iou: above which two boxes at a seam are one object.

    Returns:
        Detections in pixels of the raster, by descending score.
    """
    margin = overlap / 8
    own: list[Detections] = []
    seam: list[Detections] = []
    for (window, found), core in zip(parts, cores([w for w, _ in parts]), strict=True):
        boxes = found.boxes + np.array([window[0], window[1]] * 2, dtype=np.float64)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        depth = _depth(centre, core, window)
        placed = Detections(boxes, found.scores, found.labels)
        own.append(placed[depth >= margin])
        seam.append(placed[(depth >= -margin) & (depth < margin)])
    near = merge(Detections.concat(seam), MergeConfig(iou=iou, top_n=0))
    every = Detections.concat([*own, near])
    return every[np.argsort(-every.scores, kind="stable")]


def _depth(centre: NDArray[np.float64], core: Window, window: Window) -> NDArray[np.float64]:
    """How far inside the core points are, ``(N,)``; a border without neighbour does not count."""
    inner = [a != b for a, b in zip(core, window, strict=True)]
    x, y = centre[:, 0], centre[:, 1]
    sides = np.stack([x - core[0], y - core[1], core[2] - x, core[3] - y], axis=1)
    sides[:, ~np.array(inner)] = np.inf
    depth: NDArray[np.float64] = sides.min(axis=1, initial=np.inf)
    return depth


def corners(boxes: Boxes) -> NDArray[np.float64]:
    """Outlines of boxes as closed rings ``(N, 5, 2)``: columns and rows, starting top left."""
    x1, y1, x2, y2 = as_boxes(boxes).T
    ring = [x1, y1, x2, y1, x2, y2, x1, y2, x1, y1]
    return np.stack(ring, axis=1).reshape(-1, 5, 2)
