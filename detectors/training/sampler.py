"""The order of an epoch: how often each sample is drawn, and batches of similar size.

It derives from (seed, epoch) alone; processes share every batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from dmnet.core.errors import ConfigError
from dmnet.core.records import Size
from dmnet.detectors.base import DetectionNet
from dmnet.detectors.training.data import DataConfig, TrainingImage
from dmnet.detectors.training.loader import Ticket


def repeat_factors(samples: Sequence[TrainingImage], threshold: float) -> NDArray[np.float64]:
    """How often each sample is drawn on average, shape ``(len(samples),)``, at least 1.

    ``max over its classes of sqrt(threshold / share of samples with the class)``.
    Source: Gupta et al., "LVIS" (CVPR 2019), appendix.
    """
    present = [np.unique(s.annotations.labels[~s.annotations.ignore]) for s in samples]
    factors = np.ones(len(samples))
    if threshold <= 0 or not samples:
        return factors
    labels, counts = np.unique(np.concatenate(present), return_counts=True)
    shares = dict(zip(labels.tolist(), (counts / len(samples)).tolist(), strict=True))
    for index, classes in enumerate(present):
        needs = [np.sqrt(threshold / shares[c]) for c in classes.tolist()]
        factors[index] = max([1.0, *needs])
    return factors


def _draw(count: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``wanted`` of ``count`` indices, every one equally often but for the rest."""
    rounds = [rng.permutation(count) for _ in range(-(-wanted // count))]
    return np.concatenate(rounds)[:wanted]


def epoch_order(
    samples: Sequence[TrainingImage],
    factors: NDArray[np.float64],
    crop_share: float | None,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Indices of the samples of one epoch in random order.

    Repeat factors are rounded at random; ``crop_share`` keeps the length and draws crops and whole
    images at that ratio.
    """
    floor = np.floor(factors)
    times = (floor + (rng.random(len(factors)) < factors - floor)).astype(np.int64)
    order = rng.permutation(np.repeat(np.arange(len(samples)), times))
    if crop_share is None:
        return order
    is_crop = np.array([s.window is not None for s in samples], dtype=bool)[order]
    crops, whole = order[is_crop], order[~is_crop]
    wanted = round(crop_share * len(order))
    parts = [
        pool[_draw(len(pool), count, rng)]
        for pool, count in ((crops, wanted), (whole, len(order) - wanted))
        if count and len(pool)
    ]
    return rng.permutation(np.concatenate(parts))


def batch_order(
    order: NDArray[np.int64], shapes: Sequence[Size], batch: int, rng: np.random.Generator
) -> list[list[tuple[int, int]]]:
    """Batches of ``(position, index)`` whose images have similar input shapes.

    Samples are sorted by shape within groups of 32 batches, then the batches are shuffled; the
    last batch is filled up from the start of the order.
    """
    filled = np.resize(order, -(-len(order) // batch) * batch)
    positions = np.arange(len(filled))
    batches: list[list[tuple[int, int]]] = []
    for start in range(0, len(filled), 32 * batch):
        chunk = positions[start : start + 32 * batch].tolist()
        chunk.sort(key=lambda p: shapes[int(filled[p])])
        rows = [(p, int(filled[p])) for p in chunk]
        batches += [rows[i : i + batch] for i in range(0, len(rows), batch)]
    return [batches[i] for i in rng.permutation(len(batches))]


class EpochBatches(Sampler[list[Ticket]]):
    """Batches of tickets of one epoch for one process.

    ``batch`` counts the images of all processes; process ``rank`` of ``world`` gets every
    ``world``-th one.
    """

    def __init__(
        self,
        samples: Sequence[TrainingImage],
        net: DetectionNet,
        config: DataConfig,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Compute repeat factors and shapes once.

        Raises:
            ConfigError: no samples.
        """
        super().__init__()
        if not samples:
            raise ConfigError("the training set holds no image")
        self.samples, self.batch, self.seed = samples, batch, seed
        self.share, self.rank, self.world = config.crop_share, rank, world
        self.factors = repeat_factors(samples, config.repeat_threshold)
        self.shapes = [net.input_shape(s.annotations.size) for s in samples]
        self.epoch = 0
        self._check_share()

    def _check_share(self) -> None:
        if self.share is None:
            return
        crops = sum(s.window is not None for s in self.samples)
        if (self.share > 0 and not crops) or (self.share < 1 and crops == len(self.samples)):
            raise ConfigError(
                f"crop_share {self.share} needs {'whole images' if crops else 'crops'}, "
                "and none were given; give them or leave crop_share away"
            )

    def batches(self) -> list[list[tuple[int, int]]]:
        """All batches of the current epoch, of all processes."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = epoch_order(self.samples, self.factors, self.share, rng)
        return batch_order(order, self.shapes, self.batch, rng)

    def __len__(self) -> int:
        """Number of batches in the current epoch."""
        return len(self.batches())

    def __iter__(self) -> Iterator[list[Ticket]]:
        """This process's share of every batch."""
        for rows in self.batches():
            mine = rows[self.rank :: self.world]
            yield [(self.epoch, position, index) for position, index in mine]
