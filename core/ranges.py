"""Ranges of numbers in settings: written in the annotation, checked whenever settings are made.

``lr: Annotated[float, Range(0, 10, above=True)] = 0.01`` says what is accepted; `Settings` refuses
the rest with a ValueError about the bare field, `dmnet.core.config.build` puts section and path in
front, and ``--help`` shows it. NaN and infinity lie in no range. Frequent ones have a name here.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from dmnet.core.plugins import Choice


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included unless ``above`` or ``below`` is set.

    >>> str(Range(0, 1, above=True)), 0.5 in Range(0, 1), float("nan") in Range(0, 1)
    ('above 0, at most 1', True, False)
    """

    low: float
    high: float
    above: bool = False
    """``low`` itself is not accepted."""
    below: bool = False
    """``high`` itself is not accepted."""

    def __contains__(self, value: float) -> bool:
        """Whether a number lies in the range; NaN never does."""
        return self.low <= value <= self.high and not (
            (self.above and value == self.low) or (self.below and value == self.high)
        )

    def __str__(self) -> str:
        """The range in words."""
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in
                     (self.low, self.high))  # fmt: skip
        if not self.above:
            return f"{low} to below {high}" if self.below else f"{low} to {high}"
        return f"above {low}, {'below' if self.below else 'at most'} {high}"


Share = Annotated[float, Range(0, 1)]
"""A share, an IoU, a probability, a score."""

PositiveShare = Annotated[float, Range(0, 1, above=True)]
"""A share that is not nothing."""

Decay = Annotated[float, Range(0, 1, below=True)]
"""A share that is not all: a decay, a momentum, an overlap of tiles."""

LearningRate = Annotated[float, Range(0, 100, above=True)]
"""A learning rate."""

Factor = Annotated[float, Range(0, 1_000_000, above=True)]
"""What something is multiplied with or divided by."""

NonNegative = Annotated[float, Range(0, 1_000_000)]
"""A bound or weight that 0 switches off."""

Count = Annotated[int, Range(0, 1_000_000)]
"""How many, none included."""

Positive = Annotated[int, Range(1, 1_000_000)]
"""How many, at least one."""

Side = Annotated[int, Range(1, 100_000)]
"""Pixels of a side."""

Margin = Annotated[int, Range(0, 100_000)]
"""Pixels of a side, a border or an overlap that may be absent."""

Pixels = Annotated[int, Range(1, 10_000_000_000)]
"""Pixels of an image or of a batch."""

Processes = Annotated[int, Range(0, 1_024)]
"""Processes or threads; 0: none beside this one, or as many as fit."""

Seed = Annotated[int, Range(0, 2**32 - 1)]
"""First number of random draws."""


class Settings:
    """Base of all settings classes: no instance holds a number outside the range of its field."""

    def __post_init__(self) -> None:
        """Check the ranges; a class with further rules calls this first.

        Raises:
            ValueError: a number outside its range; starts with the field's name.
        """
        check(self)


def check(settings: Any) -> None:
    """Refuse what the annotations of a dataclass do not allow: numbers, choices, tuple lengths.

    Raises:
        ValueError: the first one; starts with the field's name.
    """
    cls: type = type(settings)
    hints = _hints(cls)
    for field in dataclasses.fields(settings):
        _check_one(field.name, hints[field.name], getattr(settings, field.name))


def _check_one(name: str, hint: Any, value: Any) -> None:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for limits in ranges(hint):
            if value not in limits:
                raise ValueError(f"{name} must be {limits}, got {shown(value)}")
    elif origin is Literal and value not in parts:
        raise ValueError(f"{name} must be one of {', '.join(parts)}, got {shown(value)}")
    elif origin is tuple:
        several = len(parts) == 2 and parts[1] is Ellipsis
        if not several and len(value) != len(parts):
            raise ValueError(f"{name} must be {len(parts)} values, got {shown(value)}")
        for part, one in zip(parts[:1] * len(value) if several else parts, value, strict=True):
            _check_one(name, part, one)
    elif origin in (Union, types.UnionType) and value is not None:
        _check_one(name, parts[0], value)


def shown(value: object) -> str:
    """A value in a message, cut where it is long."""
    # an int of thousands of digits cannot be written at all (sys.set_int_max_str_digits)
    if isinstance(value, int) and abs(value) > 10**40:
        return "a number of more than 40 digits"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def ranges(hint: Any) -> Iterator[Range | Choice]:
    """The range of every number in an annotation such as ``tuple[Side, Side] | None``."""
    known = (Range, Choice)
    yield from (meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, known))
    for part in get_args(hint):
        yield from ranges(part)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)
