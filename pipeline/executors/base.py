"""What an executor is, and what a run says about the one that it wants.

A stage says what is done with an item (``Plan.work``) or how a network is loaded
(``Plan.network``); an executor says where. Every executor gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dmnet.core.errors import ConfigError
from dmnet.core.work import Carrier, Stream, Work

EXECUTORS = ("local", "ray")
"""Engines by name (``--executor``)."""

Load = Callable[[str], Stream]
"""Loads a network on a device, once for every worker that runs it; picklable."""


class Executor(Protocol):
    """Where work is carried out."""

    def tasks(self, work: Work, label: str) -> Carrier:
        """Carry out work on single items."""
        ...

    def networks(self, load: Load, label: str) -> Carrier:
        """Put items through a network that is loaded once a worker."""
        ...


@dataclass(frozen=True)
class Engine:
    """Where a run is carried out; see the command line's --help for each field."""

    executor: str = "local"
    workers: int = 0
    device: str = "auto"
    ray_address: str | None = None
    ray_actors: int = 0
    ray_gpus: float = 1.0

    @property
    def devices(self) -> list[str]:
        """The devices named, ``cuda:0,cuda:1`` say.

        Raises:
            ConfigError: an empty name among them.
        """
        names = [name.strip() for name in self.device.split(",")]
        if not all(names):
            raise ConfigError(f"--device {self.device}: name devices as in cuda:0,cuda:1")
        return names
