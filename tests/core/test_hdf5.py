"""HDF5 is read by a process of its own: what crashes it becomes an error of that file."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from dmnet.core import hdf5
from dmnet.core.errors import InputError, LostWorkerError
from dmnet.core.files import file_digest
from tests.campaigns import fuzz

SPOILT = (
    "import os, sys, signal; from multiprocessing.connection import Connection; "
    "line = Connection(int(sys.argv[1])); line.send_bytes(b'ready'); line.recv_bytes(); "
    "os.kill(os.getpid(), {number})"
)
"""A process that ends by a signal at its first question."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    packed = io.BytesIO()
    with h5py.File(packed, "w") as file:
        file["a"] = np.array([[1.5, 2], [3, 4]], ">f4")
        file["b"] = np.zeros((0, 2), np.int64)
        file["a"].attrs["stride"] = 4
        file.attrs.update({"stride": 8, "text": "t", "bytes": b"b", "sides": [1, 2]})
    path = tmp_path / "a.h5"
    path.write_bytes(packed.getvalue())
    return path


@pytest.fixture
def fresh() -> None:
    """The next file gets a new process."""
    hdf5._end()


def test_arrays_and_attributes(path: Path) -> None:
    names = ("stride", "text", "bytes", "sides", "none")
    found = hdf5.read(path, ["a", "b"], attributes=names)
    np.testing.assert_array_equal(found.arrays["a"], [[1.5, 2], [3, 4]])
    assert found.arrays["a"].dtype == ">f4" and found.arrays["a"].flags.writeable
    assert found.arrays["b"].shape == (0, 2)
    assert found.attributes == {"stride": 4, "text": "t", "bytes": "b", "sides": [1, 2]}
    with pytest.raises(InputError, match=r"a\.h5: holds no dataset 'c' \(there: a, b\)"):
        hdf5.read(path, ["a", "c"])


def test_a_file_of_known_bytes_is_read_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = hdf5.read(path, ["a", "b"], attributes=["stride"])
    monkeypatch.setattr(hdf5, "_Reader", None)  # no process can be asked
    monkeypatch.setattr(hdf5, "_readers", {})
    made = file_digest(path)
    found = hdf5.read(path, ["a", "b"], attributes=["stride"], made=made)
    np.testing.assert_array_equal(found.arrays["a"], there.arrays["a"])
    assert found.attributes == there.attributes == {"stride": 4}
    with pytest.raises(InputError, match=r"a\.h5: holds no dataset 'c' \(there: a, b\)"):
        hdf5.read(path, ["c"], made=made)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"a\.h5: not the bytes that were written; make it again"):
        hdf5.read(path, ["a"], made=made)


def test_a_file_that_crashed_the_library(tmp_path: Path, path: Path) -> None:
    """Tries of the campaign that end HDF5 2.0 with signal 11; another version may read them."""
    for name, index in (("map.h5", 6482), ("kernels.h5", 8553)):
        verdict = fuzz.attempt(name, fuzz.contents(name, 7, index), tmp_path)
        assert verdict in ("read", "refused")
    assert hdf5.read(path, ["a"]).arrays["a"].shape == (2, 2)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGSEGV, "crashed .Segmentation fault"),
        (signal.SIGPROF, "needs more than 30 s for it"),
    ],
)
def test_the_end_of_the_process_is_an_error_of_the_file(
    number: int, reason: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as spoilt:
        spoilt.setattr(hdf5, "START", SPOILT.format(number=int(number)))
        with pytest.raises(InputError, match=rf"a\.h5: .* the library that reads it {reason}"):
            hdf5.read(path, ["a"])
    assert hdf5.read(path, ["a"]).arrays["a"].shape == (2, 2)


@pytest.mark.usefixtures("fresh")
def test_a_process_that_was_ended_between_two_files_is_replaced(path: Path) -> None:
    hdf5.read(path, ["a"])
    process = hdf5._readers[os.getpid()].process
    assert process is not None
    process.kill()
    process.wait()
    assert hdf5.read(path, ["a"]).arrays["a"].shape == (2, 2)


@pytest.mark.usefixtures("fresh")
def test_a_process_that_cannot_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "START", "raise SystemExit(3)")
    with pytest.raises(LostWorkerError, match="could not be started: it ended with 3"):
        hdf5.read(path, ["a"])


@pytest.mark.usefixtures("fresh")
def test_a_fork_has_a_process_of_its_own(path: Path) -> None:
    hdf5.read(path, ["a"])
    child = os.fork()
    if child == 0:
        good = hdf5.read(path, ["a"]).arrays["a"].shape == (2, 2)
        os._exit(0 if good and len(hdf5._readers) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert hdf5.read(path, ["a"]).arrays["a"].shape == (2, 2)
