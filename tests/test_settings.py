"""Settings of all stages, tools and networks: each number has a range, each default fits."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

import dmnet
from dmnet.core.ranges import Range, Settings, Share
from dmnet.pipeline.cli import TOOLS
from dmnet.pipeline.context import STAGES, stage_module
from dmnet.pipeline.options import stage_parser


def _parts(cls: type) -> Iterator[type]:
    """A settings class and the classes of its groups."""
    yield cls
    for hint in get_type_hints(cls).values():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _parts(hint)


def _every() -> list[type]:
    """Settings classes of the stages, and all that are derived from `Settings`."""
    for module in pkgutil.walk_packages(dmnet.__path__, "dmnet."):
        if "configs" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = [part for stage in STAGES for part in _parts(stage_module(stage).Config)]
    todo: list[type] = [Settings]
    while todo:
        derived = todo.pop().__subclasses__()
        todo += derived
        found += [cls for cls in derived if cls.__module__.startswith("dmnet.")]
    return sorted(set(found), key=lambda cls: (cls.__module__, cls.__name__))


def without_range(hint: Any) -> bool:
    """Whether an annotation holds a number that has no range."""
    if any(isinstance(meta, Range) for meta in getattr(hint, "__metadata__", ())):
        return False
    return hint in (int, float) or any(without_range(part) for part in get_args(hint))


def test_numbers_without_a_range_are_found() -> None:
    assert without_range(int) and without_range(float | None) and without_range(tuple[int, ...])
    assert not without_range(Share | None) and not without_range(tuple[Share, Share])
    assert not without_range(str) and not without_range(bool)


@pytest.mark.parametrize("cls", _every(), ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_number_has_a_range(cls: type) -> None:
    assert issubclass(cls, Settings), "settings classes derive from dmnet.core.ranges.Settings"
    hints = get_type_hints(cls, include_extras=True)
    bare = [field.name for field in dataclasses.fields(cls) if without_range(hints[field.name])]
    assert not bare, f"give these numbers a range (core/ranges.py): {bare}"
    cls()  # the defaults lie in their ranges


def test_every_number_of_the_command_line_has_a_range() -> None:
    parsers = {verb: stage_parser(verb) for verb in STAGES}
    for verb, tool in TOOLS.items():
        parsers[verb] = argparse.ArgumentParser()
        importlib.import_module(f"dmnet.pipeline.tools.{tool.module}").add_arguments(parsers[verb])
    bare = [
        (verb, action.dest)
        for verb, parser in parsers.items()
        for action in parser._actions
        if action.type in (int, float)
    ]
    assert not bare, "use dmnet.pipeline.outcome.number(Range(...)) as type"
