"""The process that decodes HDF5 files for `dmnet.core.hdf5`.

A question is a JSON text and the bytes of a file; the answer is a JSON text, then the bytes of each
array. It sees no path, opens no file, and is ended by the system where a file takes too long.
"""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dmnet.core import limits
from dmnet.core.reading import DAMAGED, shape_limit


class Refused(Exception):
    """The file is not what was asked for; the text says why."""


def serve(number: int) -> None:
    """Answer questions on a line until its other end is closed."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # those are for the run, which ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or most > limits.HDF5_MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (limits.HDF5_MEMORY, most))
    line = Connection(number)
    line.send_bytes(b"ready")
    while True:
        try:
            question, data = line.recv_bytes(), line.recv_bytes()
        except (EOFError, ConnectionError):
            return
        signal.setitimer(signal.ITIMER_PROF, limits.HDF5_SECONDS)
        names, attributes = json.loads(question)
        answer = answered(data, names, attributes)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for part in answer:
            line.send_bytes(part)


def answered(data: bytes, names: list[str], attributes: list[str]) -> list[bytes | memoryview]:
    """The parts of an answer: JSON, and the bytes of each array."""
    try:
        arrays, own = contents(data, names, attributes)
    except Refused as error:
        return [json.dumps({"refused": str(error)}).encode()]
    shapes = [[n, a.dtype.str, list(a.shape)] for n, a in arrays.items()]
    told: Mapping[str, Any] = {"arrays": shapes, "attributes": own}
    parts = (a.reshape(-1).view(np.uint8).data for a in arrays.values())
    return [json.dumps(told).encode(), *parts]


def contents(
    data: bytes, names: Sequence[str], attributes: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and attributes of a file, as `dmnet.core.hdf5.read` says.

    Raises:
        Refused: the file is damaged, or not what was asked for.
    """
    try:
        with h5py.File(h5py.h5f.open_file_image(data)) as file:
            sets = [plain_dataset(file, name) for name in names]
            arrays = {n: np.ascontiguousarray(d[()]) for n, d in zip(names, sets, strict=True)}
            own = {name: _plain(file.attrs[name]) for name in attributes if name in file.attrs}
            for each in sets[:1]:
                own |= {n: _plain(each.attrs[n]) for n in attributes if n in each.attrs}
    except Refused:
        raise
    except (OSError, *DAMAGED) as error:
        raise Refused(f"damaged or cut-short HDF5 file ({error})") from error
    return arrays, own


def _plain(value: Any) -> Any:
    """An attribute as JSON has it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    found: NDArray[Any] = np.asarray(value)
    return found.tolist() if found.dtype.kind in "fiub" and found.size <= 16 else str(value)[:200]


def plain_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of real numbers that lies in the file itself.

    Raises:
        Refused: no such dataset; a link or values in other files, which are never opened; no
            numbers, or more than `limits.MAP_CELLS`.
    """
    link = file.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise Refused(f"its '{name}' is a link to elsewhere, which is not followed")
    dataset = None if link is None else file[name]
    if not isinstance(dataset, h5py.Dataset):
        there = ", ".join(sorted(file)[:10]) or "nothing"
        raise Refused(f"holds no dataset '{name}' (there: {there})")
    if dataset.external or dataset.is_virtual:
        raise Refused(f"its '{name}' keeps its values in other files, which are not read")
    whole, kind = dataset.shape, dataset.dtype
    if whole is None or kind.kind not in "fiu":
        raise Refused(f"holds {kind} values, expected real numbers")
    for shape in (whole, dataset.chunks or ()):
        if why := shape_limit(shape, kind.itemsize):
            raise Refused(why)
    return dataset
