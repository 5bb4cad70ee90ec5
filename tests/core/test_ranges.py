"""Ranges in annotations: what they hold, how they are said, and that settings heed them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import pytest

from dmnet.core.config import build
from dmnet.core.config_help import describe
from dmnet.core.errors import ConfigError
from dmnet.core.ranges import Positive, Range, Settings, Share, Side, ranges


@dataclass(frozen=True)
class Training(Settings):
    lr: Annotated[float, Range(0, 10, above=True)] = 0.1
    """Rate."""
    ema: Annotated[float, Range(0, 1, below=True)] = 0.9
    epochs: Positive = 3
    window: tuple[Side, Side] = (70, 70)
    share: Share | None = None
    name: str = "a"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs == 13:
            raise ValueError("epochs 13 bring bad luck")


@pytest.mark.parametrize(
    ("limits", "text", "inside", "outside"),
    [
        (Range(0, 1), "0 to 1", [0, 0.5, 1], [-1e-9, 1.1, float("nan"), float("inf")]),
        (Range(0, 1, above=True), "above 0, at most 1", [1e-9, 1], [0, -1, float("nan")]),
        (Range(0, 1, below=True), "0 to below 1", [0, 0.99], [1, float("nan")]),
        (Range(0, 1, above=True, below=True), "above 0, below 1", [0.5], [0, 1]),
        (Range(1, 1_000_000), "1 to 1,000,000", [1, 10**6], [0, 10**30, float("-inf")]),
    ],
)
def test_what_a_range_holds(
    limits: Range, text: str, inside: list[float], outside: list[float]
) -> None:
    assert str(limits) == text
    assert all(value in limits for value in inside)
    assert not any(value in limits for value in outside)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lr": 0}, "t.lr must be above 0, at most 10, got 0.0"),
        ({"lr": "nan"}, "t.lr must be above 0, at most 10, got nan"),
        ({"lr": 10**400}, "t.lr must be above 0, at most 10, got inf"),
        ({"ema": 1}, "t.ema must be 0 to below 1, got 1.0"),
        ({"epochs": 0}, "t.epochs must be 1 to 1,000,000, got 0"),
        ({"epochs": 10**30}, "t.epochs must be 1 to 1,000,000, got 1" + "0" * 30),
        ({"epochs": 10**5000}, "t.epochs must be 1 to 1,000,000, got a number of more than 40 dig"),
        ({"epochs": 13}, "t.epochs 13 bring bad luck"),
        ({"window": [70, 0]}, "t.window must be 1 to 100,000, got 0"),
        ({"share": -1}, "t.share must be 0 to 1, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Training, given, "t")
    assert str(error.value).startswith(said)


def test_direct_construction_heeds_the_ranges() -> None:
    assert Training(share=0.5) == replace(Training(), share=0.5)
    with pytest.raises(ValueError, match=r"^lr must be above 0"):
        Training(lr=-1)
    with pytest.raises(ValueError, match=r"^ema must be 0 to below 1, got 1"):
        replace(Training(), ema=1)


def test_help_shows_the_range() -> None:
    texts = {name: text for name, _, text in describe(Training, "t")}
    assert texts["--t.lr"] == "Rate. (above 0, at most 10)"
    assert texts["--t.window"] == "(1 to 100,000)"
    assert texts["--t.name"] == ""


def test_ranges_of_the_parts_of_an_annotation() -> None:
    assert list(ranges(tuple[Share, Share] | None)) == [Range(0, 1), Range(0, 1)]
