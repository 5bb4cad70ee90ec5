from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from dmnet.core.threads import ahead
from dmnet.core.training.progress import Progress, clock_text


class Clock:
    """Goes on by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def slow(clock: Clock, count: int) -> Iterator[int]:
    for number in range(count):
        clock.now += 1.0
        yield number


def test_lines_of_a_training_by_hand(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    clock = Clock()
    progress = Progress(8, every=10.0, clock=clock)
    with caplog.at_level(logging.INFO):
        for _ in progress.epoch("epoch 1/2", slow(clock, 4), 4):
            clock.now += 4.0  # a step: one second of waiting, four of work
            progress.step(10, {"loss": 2.0, "loss/box": 0.5})
    shown = "loss 2, loss/box 0.5, 2.0 images/s, waiting 20%"
    assert caplog.messages == [
        f"epoch 1/2, step 2/4: {shown}, 0 min 30 s left",
        f"epoch 1/2, step 4/4: {shown}, 0 min 20 s left",
        f"epoch 1/2: {shown}, 0 min 20 s left",
    ]


def test_time_between_epochs_counts_for_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    progress = Progress(2, clock=clock)
    with caplog.at_level(logging.INFO):
        for epoch in (1, 2):
            for _ in progress.epoch(f"epoch {epoch}", slow(clock, 1), 1):
                progress.step(1, {"loss": 1.0})
            clock.now += 59.0  # an evaluation
    assert [line.split(", ")[-1] for line in caplog.messages] == [
        "0 min 01 s left",
        "0 min 00 s left",
    ]


def test_ahead_keeps_order_and_hands_errors_on() -> None:
    assert list(ahead(range(10), 3)) == list(range(10))
    assert list(ahead([])) == []

    def breaks() -> Iterator[int]:
        yield 1
        raise ValueError("second")

    got = ahead(breaks())
    assert next(got) == 1
    with pytest.raises(ValueError, match="second"):
        next(got)


def test_ahead_works_while_the_caller_does() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    got = ahead(items(), 2)
    assert next(got) == 0
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made == [0, 1, 2]
    got.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_clock_text() -> None:
    assert [clock_text(s) for s in (0, 59.6, 3599, 3600, 90000)] == [
        "0 min 00 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "25 h 00 min",
    ]  # fmt: skip
