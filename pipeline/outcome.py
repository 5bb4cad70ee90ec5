"""Options of a verb and how it ends: numbers in their ranges, ``--max-bad`` and the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from dmnet.core.errors import ConfigError
from dmnet.core.ranges import Range, shown


class Parser(argparse.ArgumentParser):
    """Options of one verb; what does not fit is a `ConfigError`, one paragraph like all others."""

    def error(self, message: str) -> NoReturn:
        """Say what does not fit and where the options are listed."""
        raise ConfigError(f"{message}; {self.prog} --help lists the options")


def number(low: float, high: float, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """Type of an option: a number from ``low`` to ``high``.

    >>> number(1, 9)("3")
    3
    """
    limits = Range(low, high)

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(low - 1)
        if value not in limits:
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"must be a {name}, {limits}, got {shown(text)}")
        return value

    return read


how_many = number(0, 1_000_000)
"""Type of an option: how many, none included."""

at_least_one = number(1, 1_000_000)
"""Type of an option: how many, at least one."""

processes = number(0, 1_024)
"""Type of ``--workers``."""

seed = number(0, 2**32 - 1)
"""Type of ``--seed``."""


def add_data(add: Callable[..., object], split: str = "val") -> None:
    """Options that name a data set; ``add`` as `argparse.ArgumentParser.add_argument`."""
    add("--data", type=Path, default=Path("data"), metavar="DIR",
        help="data set: a folder, or its data.yaml or COCO JSON")  # fmt: skip
    add("--split", "--mode", default=split, metavar="NAME",
        help="part of the data (VisDrone: test is test-dev)")  # fmt: skip
    add("--sizes", type=Path, metavar="CSV", help="image sizes instead of image files")


def add_max_bad(add: Callable[..., object], what: str = "images") -> None:
    """The option that says how many may be set aside."""
    add("--max-bad", type=how_many, default=0, metavar="N",
        help=f"exit code 0 although up to N {what} were set aside")  # fmt: skip


def exit_code(bad: Mapping[str, str], allowed: int) -> int:
    """0, or 1 after a paragraph on standard error where more than ``allowed`` were set aside.

    Args:
        bad: name to reason of what was set aside.
        allowed: number that is no failure (``--max-bad``).
    """
    if len(bad) <= allowed:
        return 0
    first = "; ".join(f"{name}: {why}" for name, why in list(bad.items())[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    sys.stderr.write(
        f"dmnet: {len(bad)} items were set aside, the rest is done: {first}{more}. "
        "Mend or remove them and run again, or allow them with --max-bad.\n"
    )
    return 1
