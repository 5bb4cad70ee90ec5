"""Randomness without a state: every generator derives from (seed, epoch).

A training that was killed resumes at an epoch boundary and ends with the same weights, without
stored generator states.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """A CPU generator of its own for one epoch; the global ones stay as they are."""
    return torch.Generator().manual_seed(_mixed(seed, epoch))


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed python, numpy and torch for one epoch."""
    mixed = _mixed(seed, epoch)
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - third-party code (mmdet, torchvision) reads the global state
    torch.manual_seed(mixed)


def item_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Generator for the augmentation of one item; independent of the number of loaders."""
    return np.random.default_rng([seed, epoch, index])


def _mixed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
