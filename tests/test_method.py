"""docs/method.md: each rule names the file and the symbols that compute it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
TABLE = TEXT.partition("## Where each rule lives")[2]
PLACE = re.compile(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)")
PLACES = [
    (file, name) for file, names in PLACE.findall(TABLE) for name in re.findall(r"\w+", names)
]


def defined(file: str) -> set[str]:
    """Names that a module defines at its top, read without importing it."""
    found: set[str] = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = [node.target] if isinstance(node, ast.AnnAssign) else []
        targets += node.targets if isinstance(node, ast.Assign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_every_row_of_the_table_names_a_place() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 30 and all(PLACE.search(row) for row in rows)


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_the_place_of_a_rule_is_there(file: str, name: str) -> None:
    assert name in defined(file)


def test_every_file_named_in_the_text_is_there() -> None:
    named = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml|md))", TEXT))
    assert len(named) > 30
    assert not {file for file in named if not (ROOT / file).exists()}
