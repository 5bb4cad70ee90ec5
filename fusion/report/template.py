"""Filling the packaged page templates: Jinja with escaping, style and script inlined."""

from __future__ import annotations

import base64
from functools import cache
from importlib.resources import files
from typing import Any

POLICY = (
    "default-src 'none'; img-src 'self' data: blob: file:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)
"""Content security policy of every page: it loads nothing but pictures beside it."""


@cache
def asset(name: str) -> str:
    """Text of a packaged file, such as ``page.css``."""
    return (files("dmnet.fusion.report") / name).read_text(encoding="utf-8")


def fill(name: str, **values: Any) -> str:
    """Render a template of this package; a value that it does not get is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dmnet.fusion.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template(name).render(**values)
    return text


def embedded(data: bytes, kind: str) -> str:
    """A ``data:`` URL, so that the page needs no other file."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
