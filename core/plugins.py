"""Entries of tables by name, and ``module:name`` of outside packages in their place.

A slicer, a merge rule, a network is an entry of one table. What a package of your own holds is used
without touching this one: wherever a setting takes the name of an entry, it takes ``module:name``
too. What has settings of its own brings a settings class, which is filled from ``own``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dmnet.core.errors import ConfigError

T = TypeVar("T")


def is_outside(name: str) -> bool:
    """Whether a text has the form ``module:name``.

    >>> is_outside("my_package.slicers:RINGS"), is_outside("grid")
    (True, False)
    """
    return re.fullmatch(r"[\w.]*\w:\w+", name) is not None


def load(name: str) -> Any:
    """What ``module:name`` names.

    Raises:
        ConfigError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{name}: cannot be imported ({error}); its folder has to be on PYTHONPATH"
        ) from error


def find(name: str, table: Mapping[str, T], kind: type[T]) -> T:
    """An entry of a table, or an outside one.

    Args:
        name: of the entry, or ``module:name``.
        table: entries by name.
        kind: class of the entries; an outside one has to be of it.

    Raises:
        ConfigError: there is none.
    """
    if name in table:
        return table[name]
    if not is_outside(name):
        raise ConfigError(f"must be {Choice(table)}, got '{name}'")
    found = load(name)
    if not isinstance(found, kind):
        raise ConfigError(f"{name}: is no {kind.__name__}, but {type(found).__name__}")
    return found


@dataclass(frozen=True)
class Choice:
    """Texts that a setting accepts: names of a table, and ``module:name``; see `ranges`.

    >>> "grid" in Choice({"grid": 1}), "mine:RINGS" in Choice({"grid": 1}), "gird" in Choice({})
    (True, True, False)
    """

    table: Mapping[str, object]

    def __contains__(self, value: str) -> bool:
        """Whether a text may be the name of an entry; outside ones are imported later."""
        return value in self.table or is_outside(value)

    def __str__(self) -> str:
        """The choices in words."""
        return f"one of {', '.join(self.table)}, or module:name"
