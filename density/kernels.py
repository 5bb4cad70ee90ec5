"""The kernel bank: normalised Gaussian kernels by sigma, computed once and stored as HDF5.

A Gaussian is separable: ``scipy.ndimage.gaussian_filter`` of a unit impulse is the outer product of
one profile with itself. The bank therefore keeps profiles, ``(2r + 1,)`` with
``r = ceil(4 sigma)``, and forms a two-dimensional kernel when it is asked for. The formula is
scipy's, to the last bit; importing scipy would take longer than the maps of fifty images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from sortedcontainers import SortedDict

from dmnet.core import hdf5
from dmnet.core.errors import ConfigError, InputError
from dmnet.core.files import write_atomic
from dmnet.core.reading import DAMAGED, read_bytes

Kernel = NDArray[np.float64]
"""``(2r + 1, 2r + 1)`` float64 with sum 1, or its profile ``(2r + 1,)``."""

TRUNCATE = 4.0
"""A kernel reaches this many sigmas (scipy's default)."""

DECIMALS = 3
"""Sigmas of a bank are rounded to this many decimals."""


def default_sigmas() -> NDArray[np.float64]:
    """The 801 sigmas of the published bank: 0 to 20 px in steps of 0.025."""
    sigmas: NDArray[np.float64] = np.round(np.linspace(0, 20, 801), DECIMALS)
    return sigmas


def profile(sigma: float) -> Kernel:
    """One-dimensional factor of the kernel of ``sigma``: ``(2 ceil(4 sigma) + 1,)``, sum 1."""
    radius = math.ceil(TRUNCATE * sigma)
    reach = int(TRUNCATE * sigma + 0.5)  # scipy's radius: zero beyond
    offsets = np.arange(-reach, reach + 1)
    bell = np.exp(-0.5 / (sigma * sigma) * offsets**2) if sigma > 0 else np.ones(1)
    factor = np.pad(bell / bell.sum(), radius - reach)
    scaled: Kernel = factor / factor.sum()
    return scaled


def pooled(factor: Kernel, phase: int, stride: int) -> Kernel:
    """Sums of a profile over cells of ``stride`` pixels; it begins ``phase`` pixels into the first.

    >>> pooled(np.array([1.0, 2.0, 3.0, 4.0]), 2, 3).tolist()
    [1.0, 9.0]
    """
    if stride == 1 or len(factor) == 0:
        return factor
    edges = np.arange(-phase, len(factor), stride)
    edges[0] = 0
    sums: Kernel = np.add.reduceat(factor, edges)
    return sums


class KernelBank:
    """Kernels by sigma, found by the nearest one.

    A sigma above the largest of the bank is never capped silently: `nearest` goes on with the
    grid's last step, or raises.
    """

    def __init__(self, profiles: SortedDict) -> None:
        """Take a ``SortedDict`` of sigma to profile; `build` and `load` make one."""
        if not profiles:
            raise ConfigError("a kernel bank needs at least one sigma")
        self._profiles = profiles
        self._extra: dict[float, Kernel] = {}
        self._pooled: dict[tuple[float, int, int], Kernel] = {}
        keys = profiles.keys()
        self.largest: float = keys[-1]
        """Largest sigma of the stored bank, in pixels."""
        self._step = keys[-1] - keys[-2] if len(keys) > 1 else 10.0**-DECIMALS

    @classmethod
    def build(cls, sigmas: Iterable[float] | None = None) -> KernelBank:
        """Compute a bank; by default the 801 published sigmas.

        Raises:
            ConfigError: no sigma, or one that is negative or not finite.
        """
        listed = [
            round(float(s), DECIMALS) for s in (default_sigmas() if sigmas is None else sigmas)
        ]
        bad = [s for s in listed if not (math.isfinite(s) and s >= 0)]
        if bad:
            raise ConfigError(f"sigmas of a kernel bank must be finite and >= 0, got {bad[0]}")
        return cls(SortedDict((s, profile(s)) for s in listed))

    def __len__(self) -> int:
        """Number of stored kernels."""
        return len(self._profiles)

    def __iter__(self) -> Iterator[float]:
        """Stored sigmas, ascending."""
        return iter(self._profiles)

    def __getitem__(self, sigma: float) -> Kernel:
        """The ``(2r + 1, 2r + 1)`` kernel of a sigma that `nearest` returned; its sum is 1."""
        factor = self.profile(sigma)
        outer = np.outer(factor, factor)
        kernel: Kernel = outer / outer.sum()
        return kernel

    def profile(self, sigma: float) -> Kernel:
        """The ``(2r + 1,)`` factor of the kernel of a sigma that `nearest` returned."""
        found: Kernel | None = self._profiles.get(sigma)
        if found is None:
            found = self._extra.get(sigma)
        if found is None:
            found = self._extra[sigma] = profile(sigma)
        return found

    def pooled(self, sigma: float, phase: int, stride: int) -> Kernel:
        """`pooled` of a whole profile; kept, since few sigmas and phases occur again and again."""
        found = self._pooled.get((sigma, phase, stride))
        if found is None:
            found = self._pooled[sigma, phase, stride] = pooled(self.profile(sigma), phase, stride)
        return found

    def nearest(self, sigma: float, above: Literal["extend", "error"] = "extend") -> float:
        """The sigma of the bank nearest to ``sigma``; on a tie the larger one.

        Args:
            sigma: in pixels.
            above: what a sigma above the largest of the bank does: extend the grid with its last
                step, or raise an error.

        Raises:
            ConfigError: ``sigma`` is negative or not finite, or too large with ``above="error"``.
        """
        if not (math.isfinite(sigma) and sigma >= 0):
            raise ConfigError(f"a sigma must be finite and >= 0, got {sigma}")
        if sigma > self.largest:
            return self._beyond(sigma, above)
        keys = self._profiles.keys()
        index = self._profiles.bisect_left(sigma)
        high: float = keys[index]
        if index == 0 or high == sigma:
            return high
        low: float = keys[index - 1]
        return high if high - sigma <= sigma - low else low

    def _beyond(self, sigma: float, above: str) -> float:
        if above == "error":
            raise ConfigError(
                f"sigma {sigma:.3f} px is above the largest of the kernel bank, {self.largest} px; "
                "set sigma.above to 'extend', or lower sigma.fixed, sigma.factor or "
                "sigma.class_sigmas"
            )
        steps = math.floor((sigma - self.largest) / self._step + 0.5)
        return round(self.largest + steps * self._step, DECIMALS)

    def to_bytes(self) -> bytes:
        """The bank as an HDF5 file: datasets ``sigma``, ``length`` and ``profile`` (joined)."""
        factors = list(self._profiles.values())
        with h5py.File("bank", "w", driver="core", backing_store=False) as file:
            file["sigma"] = np.array(list(self._profiles), dtype=np.float64)
            file["length"] = np.array([len(f) for f in factors], dtype=np.int64)
            file.create_dataset(
                "profile", data=np.concatenate(factors), compression="gzip", fletcher32=True
            )
            file.attrs["truncate"] = TRUNCATE
            file.flush()
            image: bytes = file.id.get_file_image()
        return image

    def save(self, path: Path) -> None:
        """Write `to_bytes` to ``path`` in one step, safe from a power cut."""
        write_atomic(path, [self.to_bytes()], durable=True)

    @classmethod
    def load(cls, path: Path) -> KernelBank:
        """Read a bank written by `save`; one whose bytes are those of `build` need not be decoded.

        Raises:
            InputError: the file is missing, damaged, or not a kernel bank.
        """
        names = ("sigma", "length", "profile")
        try:
            built = cls.build()
            if read_bytes(path) == built.to_bytes():
                return built
            found = hdf5.read(path, names).arrays
            sigmas, lengths, joined = (found[name] for name in names)
            radii = np.ceil(TRUNCATE * sigmas).astype(np.int64)
            fits = np.array_equal(lengths, 2 * radii + 1) and lengths.sum() == len(joined)
        except InputError as error:
            reason = f"not a readable kernel bank ({error.reason}); delete it"
            raise InputError(path, reason) from error
        except DAMAGED as error:
            raise InputError(path, f"not a readable kernel bank ({error}); delete it") from error
        if not fits or not np.isfinite(sigmas).all():
            raise InputError(path, "the kernels do not fit their sigmas; delete it")
        factors = np.split(joined, np.cumsum(lengths)[:-1])
        return cls(SortedDict(zip(sigmas.tolist(), factors, strict=True)))
