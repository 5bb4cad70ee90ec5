"""Trainings by several processes (torchrun): the first one keeps the artifact, the others help."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from dmnet.core.errors import ConfigError
from dmnet.core.products import Item
from dmnet.core.work import Carrier, Done, Take, Work, here
from dmnet.pipeline.context import Plan


def processes() -> int:
    """How many processes torchrun started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_helper() -> bool:
    """Whether this process only helps: another one keeps the artifact."""
    return int(os.environ.get("RANK", "0")) > 0


def refuse_together(stage: str) -> None:
    """Refuse a stage that is no training under torchrun.

    Raises:
        ConfigError: several processes were started for it.
    """
    if processes() > 1:
        raise ConfigError(
            f"torchrun: {stage} is no training; use --workers, --device or --executor ray for it"
        )


def led(work: Work, device: str) -> Carrier:
    """Do the one item of a training; the helpers are told whether there is anything to do."""

    def carry(root: Path, items: Collection[Item], take: Take) -> Iterator[Done]:
        agreed(len(items) > 0, device)
        yield from here(work)(root, items, take)

    return carry


def help_with(plan: Plan, device: str) -> None:
    """Take part in a training that the first process leads; what comes of it is kept there."""
    assert plan.work is not None
    if agreed(False, device):
        for item in plan.items:
            plan.work(item)


def agreed(wanted: bool, device: str) -> bool:
    """What the first process wants, in every process."""
    from dmnet.core.training.processes import process_group

    with process_group(device) as group:
        return group.shared(wanted)
