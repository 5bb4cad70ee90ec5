"""What a long training says meanwhile: images a second, waiting share, time left, losses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_log = logging.getLogger(__name__)
_END: Any = object()


def clock_text(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds.

    >>> clock_text(3700), clock_text(65)
    ('1 h 01 min', '1 min 05 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


class Progress:
    """Measures the steps of a training and reports them.

    On a terminal there is a bar for each epoch. Where the output goes to a file or a pipe, a line
    is logged every ``every`` seconds. One more is logged at the end of each epoch.
    """

    def __init__(
        self, steps: int, every: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            steps: steps from here to the end of the whole training.
            every: seconds between two lines within an epoch.
            clock: gives the time in seconds.
        """
        self.left, self.every, self.clock = steps, every, clock
        self.done, self.began = 0, clock()

    def epoch(self, label: str, batches: Iterable[T], steps: int) -> Iterator[T]:
        """The batches of one epoch; say `step` after each."""
        self.label, self.steps, self.at = label, steps, 0
        self.images, self.waited, self.sums = 0, 0.0, dict[str, float]()
        self.started = self.spoken = self.clock()
        with tqdm(total=steps, desc=label, disable=None, leave=False) as self.bar:
            source = iter(batches)
            while True:
                asked = self.clock()
                batch = next(source, _END)
                if batch is _END:
                    break
                self.waited += self.clock() - asked
                yield batch
        _log.info("%s: %s", label, self.text())

    def step(self, images: int, losses: Mapping[str, float]) -> None:
        """Count one step of so many images."""
        self.at, self.done, self.left = self.at + 1, self.done + 1, self.left - 1
        self.images += images
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.bar.update()
        if not self.bar.disable:
            self.bar.set_postfix_str(self.text())
        elif self.clock() - self.spoken >= self.every:
            self.spoken = self.clock()
            _log.info("%s, step %d/%d: %s", self.label, self.at, self.steps, self.text())

    def text(self) -> str:
        """Mean losses and speed of this epoch, and the time that the whole training still needs."""
        now = self.clock()
        took = max(now - self.started, 1e-9)
        left = (now - self.began) / max(1, self.done) * self.left
        losses = ", ".join(f"{name} {v / max(1, self.at):.4g}" for name, v in self.sums.items())
        return (
            f"{losses}, {self.images / took:.1f} images/s, waiting {self.waited / took:.0%}, "
            f"{clock_text(left)} left"
        )
