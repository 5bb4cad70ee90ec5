"""HDF5 files of anybody, read in a process of its own; those that are known to be ours, here.

The HDF5 library is large and native: one damaged file of some thousands makes it crash, and what
crashes is then a helper process, not the run. It is started with the first file, is kept for the
next ones, and ends with the process that started it. A file at which it ends is tried once more by
a new one, because an earlier file may have spoilt its memory.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmnet.core import limits
from dmnet.core.errors import InputError, LostWorkerError
from dmnet.core.files import bytes_digest
from dmnet.core.hdf5_process import Refused, contents
from dmnet.core.reading import read_bytes

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from dmnet.core.hdf5_process import serve; serve(int(sys.argv[1]))"
)
"""What the process runs: the same modules as here, whatever the environment says."""

GONE = (EOFError, ConnectionError)
"""How the end of the process shows."""


@dataclass(frozen=True)
class Contents:
    """What was asked for and is there."""

    arrays: Mapping[str, NDArray[Any]]
    attributes: Mapping[str, Any]
    """Numbers, lists of numbers, and texts."""


def read(
    path: Path,
    names: Sequence[str],
    *,
    attributes: Sequence[str] = (),
    made: str = "",
) -> Contents:
    """Arrays of real numbers and attributes of an HDF5 file.

    Args:
        path: the file.
        names: datasets of its root.
        attributes: of the file or of the first dataset, where the dataset's count.
        made: digest of the bytes that this pipeline wrote: they are decoded in this process.

    Raises:
        InputError: missing, damaged, without a dataset, with one that is no plain array of numbers
            within `limits.MAP_CELLS`; the library crashes, hangs or wants too much memory; or not
            what ``made`` says.
        LostWorkerError: the process cannot be started at all.
    """
    data = read_bytes(path)
    if made:
        if bytes_digest(data) != made:
            raise InputError(path, "not the bytes that were written; make it again with --force")
        return _here(path, data, names, attributes)
    question = json.dumps([list(names), list(attributes)]).encode()
    reader = _readers.setdefault(os.getpid(), _Reader())
    with reader.lock:
        for _ in range(2):
            try:
                return reader.ask(path, question, data)
            except GONE:
                how = reader.end()
    raise InputError(path, f"damaged HDF5 file: the library that reads it {how}")


def _here(path: Path, data: bytes, names: Sequence[str], attributes: Sequence[str]) -> Contents:
    """What the process would answer, without it."""
    try:
        return Contents(*contents(data, names, attributes))
    except Refused as error:
        raise InputError(path, str(error)) from error


@dataclass
class _Reader:
    """The process of this process."""

    lock: Lock = field(default_factory=Lock)
    process: subprocess.Popen[bytes] | None = None
    line: Connection | None = None

    def ask(self, path: Path, question: bytes, data: bytes) -> Contents:
        """One question and its answer; `GONE` where there is none."""
        line, self.line = self.line or self.start(), None
        line.send_bytes(question)
        line.send_bytes(data)
        told = json.loads(line.recv_bytes())
        arrays = {
            name: np.ndarray(shape, np.dtype(kind), bytearray(line.recv_bytes()))
            for name, kind, shape in told.get("arrays", ())
        }
        self.line = line  # not after an interruption: the next question would get this answer
        if "refused" in told:
            raise InputError(path, told["refused"])
        return Contents(arrays, told["attributes"])

    def start(self) -> Connection:
        """Start it and wait until it has what it needs."""
        line, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-I", "-c", START, str(number), json.dumps(sys.path)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, pass_fds=[number],
            )  # fmt: skip
        try:
            line.recv_bytes()
        except GONE as error:
            raise LostWorkerError(
                f"the process that reads HDF5 files could not be started: it {self.end()}; "
                "`dmnet doctor` says what is missing"
            ) from error
        return line

    def end(self) -> str:
        """Wait for the end of what does not answer any more; how that came, in words."""
        code = 0 if self.process is None else self.process.wait()
        self.process = None
        if code == -signal.SIGPROF:
            return f"needs more than {limits.HDF5_SECONDS} s for it"
        return f"crashed ({signal.strsignal(-code)})" if code < 0 else f"ended with {code}"


_readers: dict[int, _Reader] = {}
"""By process number, since a fork must not talk on its parent's line."""


@atexit.register
def _end() -> None:
    reader = _readers.pop(os.getpid(), None)
    if reader is not None and reader.process is not None:
        reader.process.kill()  # a fork may still hold its line
        reader.end()
