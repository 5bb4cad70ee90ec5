"""Tables as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from dmnet.core.formats.rows import is_number

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets compute (OWASP, "CSV Injection")."""


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV; a text that a spreadsheet would compute gets an apostrophe in front.

    >>> csv_text([("=1+2", -1, "-.5")]).strip()
    "'=1+2,-1,-.5"
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([map(_cell, row) for row in rows])
    return text.getvalue()


def _cell(value: object) -> object:
    computed = isinstance(value, str) and value.startswith(_FORMULA) and not is_number(value)
    return f"'{value}" if computed else value
