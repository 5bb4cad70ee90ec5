"""Settings as text for ``--help``: names, defaults, and the string literal under each field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Literal, get_args, get_origin, get_type_hints

from dmnet.core.config import entry_settings
from dmnet.core.ranges import ranges


def describe(cls: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield ``(--section.name, default, help)`` for every setting, nested ones included."""
    hints, annotated = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        name = f"{prefix}.{field.name.replace('_', '-')}"
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from describe(hint, name)
            continue
        if field.name == "own":
            yield from _described_entries(cls, prefix)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory() or "none"
        text = field_docs(cls).get(field.name, "")
        if get_origin(hint) is Literal:
            text = f"{text} ({', '.join(map(str, get_args(hint)))})".strip()
        if limits := list(dict.fromkeys(map(str, ranges(annotated[field.name])))):
            text = f"{text} ({', '.join(limits)})".strip()
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        yield f"--{name}", shown.lower() if isinstance(default, bool) else shown, text


def _described_entries(cls: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Settings that the entries of tables bring, each once, with the entries that have it."""
    for chooser, classes in entry_settings(cls).items():
        users: dict[tuple[str, str, str], list[str]] = {}
        for entry, each in classes.items():
            for described in describe(each, prefix):
                users.setdefault(described, []).append(entry)
        for (name, default, text), entries in users.items():
            yield name, default, f"{text} ({chooser} {', '.join(entries)})"


@cache
def field_docs(cls: type) -> dict[str, str]:
    """The string literal under each field of a dataclass and its bases, by field name."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= _own_docs(base)
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        node.target.id: " ".join(after.value.value.split())
        for node, after in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }
