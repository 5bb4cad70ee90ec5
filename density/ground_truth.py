"""Density ground truth: one normalised Gaussian kernel an object, summed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import ConfigError
from dmnet.core.ranges import Range, Settings
from dmnet.core.records import Annotations, DensityMap
from dmnet.density.kernels import Kernel, KernelBank, pooled

Preset = Literal["corrected", "reference"]
Sigma = Annotated[float, Range(0, 10_000)]
"""Width of a Gaussian, pixels."""
Points = NDArray[np.int64]
"""``(N, 2)`` int64, x and y of the pixel that holds an object's centre."""


AUTHORS_SIGMAS = (17, 14, 20, 32, 35, 45, 29, 30, 46, 18)
"""The authors' sigmas of VisDrone's ten classes, pixels."""


@dataclass(frozen=True)
class SigmaConfig(Settings):
    """Width of the Gaussian of each object."""

    method: Literal["fixed", "geometry", "nearest", "classwise"] = "fixed"
    """fixed: one sigma; geometry: from the mean distance to the nearest other objects; nearest: the
    distance to the nearest other object; classwise: one sigma a class."""
    fixed: Sigma = 15.0
    """Sigma in pixels of method fixed, and of an object alone in its image."""
    factor: Annotated[float, Range(0, 1_000)] = 0.1
    """geometry: sigma as a share of the mean distance (the MCNN paper has 0.3)."""
    neighbours: Annotated[int, Range(1, 1_000)] = 3
    """geometry: how many nearest other objects the mean is taken over."""
    min_sigma: Sigma = 0.0
    """Lower bound of every sigma, in pixels."""
    class_sigmas: tuple[Sigma, ...] = AUTHORS_SIGMAS
    """classwise: sigma in pixels of every class. The authors' table is of VisDrone's ten; for other
    classes they are measured on the training split (half the diagonal of the class's mean box)."""
    above: Literal["extend", "error"] = "extend"
    """A sigma above the largest of the kernel bank: extend the bank (in the reference preset: use
    its largest kernel, as the published code does, and say so in the log), or stop with an
    error."""

    def widths(self, classes: Classes) -> NDArray[np.float64]:
        """Sigma of every class in the order of their labels, shape ``(C,)``.

        Raises:
            ConfigError: the sigmas are those of other classes.
        """
        table = self.class_sigmas
        if len(table) != len(classes) or not self.is_measured(classes):
            raise ConfigError(
                f"sigma.class_sigmas: {len(table)} numbers for other classes than these "
                f"{len(classes)} ({classes}); give one sigma in pixels for each"
            )
        return np.asarray(table, dtype=np.float64)

    def is_measured(self, classes: Classes) -> bool:
        """Whether the class sigmas are not the authors' for other classes than VisDrone's."""
        return classes.names == VISDRONE.names or self.class_sigmas != AUTHORS_SIGMAS


def points(annotations: Annotations) -> Points:
    """Centre pixel of every object, ``(int((l+r)/2), int((t+b)/2))``.

    Centres are clipped into the image; ignored regions and others have none. Rows in file order.
    """
    boxes = annotations.objects.boxes
    centres = np.trunc((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.int64)
    height, width = annotations.size
    clipped: Points = np.clip(centres, 0, [max(width - 1, 0), max(height - 1, 0)])
    return clipped


MANY = 1_000
"""Objects above which a tree is quicker than the table of all distances, its import included."""


def over_classes(config: SigmaConfig, preset: Preset) -> bool:
    """Whether neighbours are looked for over (x, y, class index), as the published code does."""
    return preset == "reference" and config.method != "nearest"


def neighbour_distances(
    annotations: Annotations, config: SigmaConfig, *, preset: Preset = "corrected"
) -> NDArray[np.float64]:
    """Distances in pixels from every object to its ``config.neighbours`` nearest others.

    Returns:
        ``(N, neighbours)`` ascending, infinite where there are fewer others.
    """
    place = points(annotations).astype(np.float64)
    if over_classes(config, preset):
        place = np.column_stack([place, annotations.objects.labels - 1])
    if len(place) > MANY:
        from scipy.spatial import KDTree  # takes longer than the tables of most runs

        return np.asarray(KDTree(place).query(place, k=config.neighbours + 1)[0])[:, 1:]
    squares = sum(np.subtract.outer(axis, axis) ** 2 for axis in place.T)
    found = np.full((len(place), max(len(place), config.neighbours + 1)), np.inf)
    found[:, : len(place)] = np.sqrt(squares)
    return np.sort(found, axis=1)[:, 1 : config.neighbours + 1]


def sigmas(
    annotations: Annotations,
    config: SigmaConfig,
    *,
    preset: Preset = "corrected",
    distances: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Sigma of every object in pixels, shape ``(N,)``, before the nearest kernel is looked up.

    With the preset ``reference`` the distances of ``geometry`` are measured over (x, y, class
    index), and with 2 to ``neighbours`` objects they are infinite, as in the published code.

    Args:
        annotations: of one image.
        config: the rule.
        preset: see `density_map`.
        distances: `neighbour_distances`, of a map file for example, under any rule for which
            `over_classes` says the same; None measures them.

    Raises:
        ConfigError: the rule asks for more neighbours than there are distances.
    """
    labels = annotations.objects.labels
    if config.method == "fixed":
        found = np.full(len(labels), config.fixed)
    elif config.method == "classwise":
        found = config.widths(annotations.classes)[labels - 1]
    elif len(labels) == 1:
        found = np.array([config.fixed])
    else:
        if distances is None:
            distances = neighbour_distances(annotations, config, preset=preset)
        geometry = config.method == "geometry"
        found = _mean_distance(distances, config.neighbours if geometry else 1, preset)
        found = found * config.factor if geometry else found
    widths: NDArray[np.float64] = np.maximum(found, config.min_sigma)
    return widths


def _mean_distance(
    distances: NDArray[np.float64], neighbours: int, preset: Preset
) -> NDArray[np.float64]:
    """Mean distance to the nearest other points; infinite distances count only in ``reference``."""
    if distances.shape[1] < neighbours:
        raise ConfigError(
            f"sigma.neighbours: {neighbours} are asked for, but distances to {distances.shape[1]} "
            "are stored; measure them anew"
        )
    if len(distances) == 0:
        return np.zeros(0)
    others = distances[:, :neighbours]
    if preset == "corrected":
        others = others[:, : len(distances) - 1]
    mean: NDArray[np.float64] = others.mean(axis=1)
    return mean


def density_map(
    annotations: Annotations,
    bank: KernelBank,
    sigma: SigmaConfig | None = None,
    *,
    preset: Preset = "corrected",
    stride: int = 1,
    widths: NDArray[np.float64] | None = None,
) -> DensityMap:
    """Sum of one Gaussian an object, in objects per cell.

    Args:
        annotations: of one image; its objects count.
        bank: kernels by sigma.
        sigma: width of the Gaussians; None for the defaults.
        preset: ``corrected`` renormalises kernels that the image border cuts, so the sum is the
            number of objects; ``reference`` does not, and leaves the last row and the last column
            empty, as the published code does. There a sigma above the bank (infinite ones too) is
            the largest of the bank; `above_bank` tells which.
        stride: side of a cell in pixels. The map equals the full-size one sum-pooled.
        widths: what `sigmas` gives for these annotations and settings, if it is at hand.

    Returns:
        values ``(ceil(h / stride), ceil(w / stride))`` float32.

    Raises:
        ConfigError: a finite sigma above the bank, with ``sigma.above`` set to ``error``.

    >>> truth = Annotations.of("a", (80, 120), [[20, 20, 30, 40], [60, 50, 70, 60]], [4, 1])
    >>> found = density_map(truth, KernelBank.build([15.0]), stride=4)
    >>> found.values.shape, round(found.count, 3)
    ((20, 30), 2.0)
    """
    config = sigma or SigmaConfig()
    height, width = annotations.size
    if widths is None:
        widths = sigmas(annotations, config, preset=preset)
    if preset == "reference":
        capped = above_bank(widths, bank)
        if config.above == "error":
            capped &= np.isinf(widths)  # finite ones are looked up, which raises the error
        widths = np.where(capped, bank.largest, widths)
    values = np.zeros((-(-height // stride), -(-width // stride)))
    known: dict[float, float] = {}
    for (x, y), s in zip(points(annotations).tolist(), widths.tolist(), strict=True):
        if s not in known:
            known[s] = bank.nearest(s, config.above)
        top, rows = _cells(bank, known[s], y, height, stride, preset)
        left, columns = _cells(bank, known[s], x, width, stride, preset)
        values[top : top + len(rows), left : left + len(columns)] += rows[:, None] * columns
    return DensityMap(values.astype(np.float32), stride, annotations.size)


def above_bank(widths: NDArray[np.float64], bank: KernelBank) -> NDArray[np.bool_]:
    """Which sigmas ``(N,)`` are larger than every stored kernel's."""
    return np.asarray(widths > bank.largest)


def _cells(
    bank: KernelBank, sigma: float, centre: int, length: int, stride: int, preset: Preset
) -> tuple[int, Kernel]:
    """Cut a profile at the image border and pool it: index of its first cell, mass of each cell."""
    factor = bank.profile(sigma)
    start, end = centre - len(factor) // 2, length - 1 if preset == "reference" else length
    if start >= 0 and start + len(factor) <= end:
        return start // stride, bank.pooled(sigma, start % stride, stride)
    first = max(0, start)
    cut = factor[first - start : max(first, end) - start]
    if preset == "corrected":
        cut = cut / cut.sum()
    return first // stride, pooled(cut, first % stride, stride)


def class_sigmas(items: Iterable[Annotations]) -> tuple[float, ...]:
    """Measure one sigma a class on a training set: half the diagonal of the class's mean box, px.

    On the VisDrone training set this gives the authors' table to within a pixel or two. Classes
    that do not occur get half the diagonal of the mean box of all objects.

    Raises:
        ConfigError: the set holds no object.
    """
    total, count = np.zeros((0, 2)), np.zeros((0, 1))
    for item in items:
        objects = item.objects
        if len(total) == 0:
            total, count = np.zeros((len(item.classes), 2)), np.zeros((len(item.classes), 1))
        np.add.at(total, objects.labels - 1, objects.boxes[:, 2:] - objects.boxes[:, :2])
        np.add.at(count, objects.labels - 1, 1)
    if not count.any():
        raise ConfigError("class sigmas cannot be measured: the training set holds no object")
    mean = np.where(count > 0, total / np.maximum(count, 1), total.sum(axis=0) / count.sum())
    return tuple(round(float(half), 3) for half in np.hypot(mean[:, 0], mean[:, 1]) / 2)
