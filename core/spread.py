"""Files of many items, spread over sub-folders: no folder holds more than some thousand of them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

MANY = 10_000
"""Items up to which the files of a stage lie side by side."""

SPREAD = re.compile(r"spread-[0-9a-f]{2}/")


def spread(name: str, count: int) -> str:
    """Name of an item's file where there are ``count`` items; beyond `MANY` in one of 256 folders.

    >>> spread("0001.h5", 300), spread("0001.h5", 1_000_000)
    ('0001.h5', 'spread-a1/0001.h5')
    """
    if count <= MANY and not SPREAD.match(name):
        return name
    return f"spread-{hashlib.blake2b(name.encode(), digest_size=1).hexdigest()}/{name}"


def gathered(name: str) -> str:
    """The name without the sub-folder that `spread` chose.

    >>> gathered("spread-a1/0001.h5"), gathered("0001.h5")
    ('0001.h5', '0001.h5')
    """
    return SPREAD.sub("", name, count=1) if SPREAD.match(name) else name


def place(folder: Path, name: str) -> Path:
    """Where an item's file lies in a folder, spread or not; where it would lie if it is absent."""
    path = folder / spread(name, MANY + 1)
    return path if path.exists() else folder / spread(name, 0)
