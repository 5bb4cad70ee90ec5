"""NumPy files of plain numbers, read header first: nothing is unpacked before its size is known.

``numpy.load`` unpacks a ``.npz`` member before it looks at its shape. Objects, which NumPy pickles,
are never read. Source of the format: ``numpy.lib.format``.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zlib import error as ZlibError

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dmnet.core.errors import InputError
from dmnet.core.reading import DAMAGED, read_bytes, shape_limit

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Ways of packing that `numpy.savez` uses."""


def read(path: Path, name: str) -> NDArray[Any]:
    """Read an array of numbers.

    Args:
        path: ``.npy``, or ``.npz`` with the array ``name`` (or only one array).
        name: of the array in an archive.

    Raises:
        InputError: no such file or array, damaged, encrypted, objects, or larger than
            `limits.MAP_CELLS`.
    """
    data = io.BytesIO(read_bytes(path))
    try:
        if not data.getvalue().startswith(b"PK"):
            return _array(path, data)
        with zipfile.ZipFile(data) as archive:
            member = _member(path, archive, name)
            with archive.open(member) as stream:
                return _array(path, stream)
    except (OSError, zipfile.BadZipFile, ZlibError, TokenError, *DAMAGED) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(path, f"not a readable numpy file of numbers ({reason})") from error


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The archive's entry of an array, checked before it is opened."""
    entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    chosen = next(iter(entries)) if len(entries) == 1 else name
    if chosen not in entries:
        there = ", ".join(list(entries)[:10]) or "nothing"
        raise InputError(path, f"holds no array '{name}' (there: {there})")
    info = entries[chosen]
    if info.flag_bits & 1:
        raise InputError(path, "is encrypted")
    if info.compress_type not in METHODS:
        raise InputError(path, f"is packed in an unusual way (method {info.compress_type})")
    return info


def _array(path: Path, stream: IO[bytes]) -> NDArray[Any]:
    """The array of a stream: header, checks, then exactly the declared bytes."""
    version = npy.read_magic(stream)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    if version not in ((1, 0), (2, 0)):
        raise InputError(path, f"numpy file of version {version}, expected 1.0 or 2.0")
    shape, fortran, dtype = header(stream)
    if dtype.kind not in "fiu":
        raise InputError(path, f"holds {dtype} values, expected real numbers")
    if why := shape_limit(shape, dtype.itemsize):
        raise InputError(path, why)
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = stream.read(wanted)
    if len(data) < wanted:
        raise InputError(path, f"cut short: {len(data):,} of {wanted:,} bytes")
    values: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return values
