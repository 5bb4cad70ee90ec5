"""Density maps on disk: own HDF5 files, and foreign ``.h5``, ``.npy`` and ``.npz`` maps.

An own file has the dataset ``density`` ``(h, w)`` float32 and the attributes ``stride``, ``count``,
``image_size`` (height, width) and ``settings`` (JSON). A ground-truth map also holds what it was
made from, one row an object: ``points`` ``(N, 2)`` x and y in pixels, ``distances`` ``(N, k)`` to
the nearest other points, ascending, infinite where there are fewer, and ``sigmas`` ``(N,)``, the
width of each kernel before the nearest one of the bank is taken. Every block carries a checksum, so
a flipped bit is an error and not a wrong map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dmnet.core import hdf5, limits
from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.formats import npy
from dmnet.core.listing import files_in
from dmnet.core.records import DensityMap, Size
from dmnet.core.spread import gathered

KEY = "density"
"""Name of the dataset, and of the array in a foreign ``.npz``."""

ATTRIBUTES = ("stride", "image_size")
"""Attributes that are read, of the dataset or of the file."""

SUFFIXES = (".h5", ".hdf5", ".npy", ".npz")
"""File types of maps, in the order in which they are looked for."""

CHUNK_CELLS = 1 << 22
"""Cells of one compressed block: whole maps of ordinary size, strips of very large ones."""


@dataclass(frozen=True)
class Origin:
    """What a ground-truth map was made from, one row an object, in the order of the annotations."""

    points: NDArray[np.int64]
    """``(N, 2)`` x and y of the pixel that holds its centre"""
    distances: NDArray[np.float64]
    """``(N, k)`` to the nearest other points, ascending, infinite where there are fewer"""
    sigmas: NDArray[np.float64]
    """``(N,)`` width of its kernel, pixels"""


def write(
    density: DensityMap,
    attrs: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
    *,
    compression: int = 3,
) -> bytes:
    """Render a map as an HDF5 file; the same map and settings give the same bytes.

    Args:
        density: the map.
        attrs: JSON-serialisable settings that made the map; stored as the attribute ``settings``.
        origin: what a ground-truth map was made from.
        compression: gzip level 0 (none) to 9. Level 3 is the default: levels 1 to 3
            take the same time, level 9 saves another 4 per cent and takes five times as long.
    """
    values = np.ascontiguousarray(density.values, dtype=np.float32)
    settings = json.dumps(dict(attrs or {}), sort_keys=True).encode()
    tables = [(f.name.encode(), getattr(origin, f.name)) for f in fields(Origin) if origin]
    file = h5py.h5f.create(KEY.encode(), fcpl=_timeless(), fapl=_in_memory())
    try:
        dataset = _dataset(file, KEY.encode(), values, _chunks(values.shape), compression)
        _attribute(dataset, b"stride", np.array(density.stride, dtype=np.int64))
        _attribute(dataset, b"count", np.array(density.count, dtype=np.float64))
        _attribute(dataset, b"image_size", np.array(density.size, dtype=np.int64))
        # of fixed length: a variable one adds a heap of 4 KB to every file
        text = h5py.string_dtype("utf-8", max(1, len(settings)))
        _attribute(dataset, b"settings", np.array(settings, dtype=text))
        for name, rows in tables:
            _dataset(file, name, np.ascontiguousarray(rows), rows.shape)
        h5py.h5f.flush(file)
        image: bytes = file.get_file_image()
    finally:
        file.close()
    return image


@cache
def _in_memory() -> h5py.h5p.PropFAID:
    """How a file is made: in memory, in the 1.10 layout, which has checksums in the metadata too.

    The calls below h5py's own classes, here and below, take a third of their time.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fapl_core(1 << 16, False)
    return access


@cache
def _timeless() -> h5py.h5p.PropFCID:
    """The same map gives the same bytes, whenever it is made."""
    layout = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    layout.set_obj_track_times(False)
    return layout


def _attribute(dataset: h5py.h5d.DatasetID, name: bytes, value: NDArray[Any]) -> None:
    space = h5py.h5s.create_simple(value.shape) if value.ndim else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(value.dtype, logical=True)
    h5py.h5a.create(dataset, name, kind, space).write(value)


def _dataset(
    file: h5py.h5f.FileID,
    name: bytes,
    values: NDArray[Any],
    chunks: tuple[int, ...],
    compression: int = 0,
) -> h5py.h5d.DatasetID:
    """Add an array, with a checksum for every block; one without any value has no blocks."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_obj_track_times(False)
    if values.size or name == KEY.encode():
        layout.set_chunk(chunks)
        if compression:
            layout.set_shuffle()
            layout.set_deflate(compression)
        layout.set_fletcher32()
    space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
    dataset = h5py.h5d.create(file, name, kind, space, layout)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return dataset


def _chunks(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = (max(1, side) for side in shape)
    return max(1, min(height, CHUNK_CELLS // width)), min(width, CHUNK_CELLS)


def read(path: Path, made: str = "") -> DensityMap:
    """Read a map written by `write`.

    Args:
        path: the map.
        made: digest of its bytes in the journal of an artifact of this run, see `hdf5.read`.

    Raises:
        InputError: the file is missing, damaged or cut short, has no stride or image size, or its
            values are not a map (NaN, infinite, negative, wrong shape).
    """
    values, stated = _read_h5(path, made)
    if "stride" not in stated or "image_size" not in stated:
        raise InputError(
            path,
            "lacks the attributes stride and image_size of this project's maps; give the folder "
            "as a foreign artifact, with its images",
        )
    return _checked(path, values, stated["stride"], stated["image_size"])


def maps_in(folder: Path) -> dict[str, Path]:
    """The density maps of a folder by image id; of two suffixes the first in order wins.

    Raises:
        MissingInputError: no such folder, or no map in it.
    """
    listed = files_in(folder, SUFFIXES) if folder.is_dir() else []
    maps: dict[str, Path] = {}
    for path in listed:
        name = gathered(path.relative_to(folder).with_suffix("").as_posix())
        maps.setdefault(name, path)
    if not maps:
        raise MissingInputError(f"{folder}: holds no density map ({', '.join(SUFFIXES)}).")
    return maps


def read_foreign(path: Path, size: Size, stride: int | None = None) -> DensityMap:
    """Read somebody else's map of an image.

    Args:
        path: ``.h5`` with the dataset ``density``, ``.npy``, or ``.npz`` with the array ``density``
            (or only one array).
        size: ``(height, width)`` of the image.
        stride: pixels of a cell's side; None takes the file's attribute, else infers it from shape
            and size. A map whose network dropped the partial last row or column (floor instead of
            ceil of size / stride) gets it back empty.

    Raises:
        InputError: as in `read`; or no stride fits the shape.
    """
    if path.suffix in (".h5", ".hdf5"):
        values, stated = _read_h5(path)
    elif path.suffix in (".npy", ".npz"):
        values, stated = npy.read(path, KEY), {}
    else:
        raise InputError(path, f"not a density map: expected one of {', '.join(SUFFIXES)}")
    if "image_size" in stated and stated["image_size"] != size:
        h, w = stated["image_size"]
        raise InputError(
            path, f"made for a {h}x{w} (h x w) image, but the image is {size[0]}x{size[1]}"
        )
    if values.ndim != 2:
        raise InputError(path, f"a density map is 2-D (h, w), this has shape {values.shape}")
    stride = stride or stated.get("stride") or _infer_stride(path, values.shape, size)
    return _checked(path, _padded(values, stride, size), stride, size, limits.OBJECTS)


def _infer_stride(path: Path, shape: tuple[int, ...], size: Size) -> int:
    """Smallest stride at which both sides fit, rounded up or down."""
    for stride in range(1, max(size) + 1):
        if all(n in (-(-s // stride), s // stride) for n, s in zip(shape, size, strict=True)):
            return stride
    raise InputError(
        path, f"no stride makes a map of shape {shape} from a {size[0]}x{size[1]} (h x w) image"
    )


def _padded(values: NDArray[Any], stride: int, size: Size) -> NDArray[Any]:
    missing = [
        -(-s // stride) - n if n == s // stride else 0
        for n, s in zip(values.shape, size, strict=True)
    ]
    return np.pad(values, [(0, missing[0]), (0, missing[1])]) if any(missing) else values


def _checked(
    path: Path, values: NDArray[Any], stride: int, size: Size, most: float = np.inf
) -> DensityMap:
    """The map of these values, of at most so many objects."""
    if values.dtype.kind not in "fiu":
        raise InputError(path, f"holds {values.dtype} values, expected real numbers")
    low = float(values.min()) if values.size else 0.0  # NaN if there is one
    high = float(values.max()) if values.size else 0.0
    if not np.isfinite([low, high]).all():
        what = "NaN" if np.isnan(low) else "infinite"
        bad = np.argwhere(np.isnan(values) if np.isnan(low) else np.isinf(values))
        row, column = bad[0].tolist()
        raise InputError(path, f"{len(bad)} {what} values, the first at row {row}, column {column}")
    if low < 0:
        below = int((values < 0).sum())
        raise InputError(path, f"{below} negative values (least {low:.3g}); clamp the map at 0")
    if (count := values.sum(dtype=np.float64)) > most:
        raise InputError(path, f"counts {count:.3g} objects, more than {most:,}: scale it")
    if stride < 1:
        raise InputError(path, f"stride must be at least 1, got {stride}")
    try:
        return DensityMap(np.ascontiguousarray(values, dtype=np.float32), stride, size)
    except ValueError as error:
        raise InputError(path, str(error)) from error


def _read_h5(path: Path, made: str = "") -> tuple[NDArray[Any], dict[str, Any]]:
    """Values and attributes of the dataset ``density``; attributes of the file count too."""
    found = hdf5.read(path, [KEY], attributes=ATTRIBUTES, made=made)
    return found.arrays[KEY], _attributes(path, found.attributes)


def _attributes(path: Path, attrs: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        if "stride" in attrs:
            found["stride"] = int(attrs["stride"])
        if "image_size" in attrs:
            height, width = (int(side) for side in attrs["image_size"])
            found["image_size"] = (height, width)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(path, f"unreadable attribute stride or image_size ({error})") from error
    return found
