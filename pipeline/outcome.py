"""How a verb ends that went on past what it could not use: ``--max-bad`` and the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping


def whole_number(text: str) -> int:
    """An option's value: a whole number from 0 up.

    Raises:
        ArgumentTypeError: anything else.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 up, got {text!r}")
    return int(text)


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
