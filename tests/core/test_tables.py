"""Tables that spreadsheets open."""

from __future__ import annotations

import pytest

from dmnet.core.tables import csv_text


@pytest.mark.parametrize("text", ["=1+2", "+1+2", "-1+2", "@SUM(A1)", "\t=1"])
def test_formulas_are_texts(text: str) -> None:
    assert csv_text([(text, 1)]) == f"'{text},1\n"


def test_numbers_and_other_texts_stay() -> None:
    assert csv_text([(-1, "-0.5", "+1e3", "a=b", "", None)]) == "-1,-0.5,+1e3,a=b,,\n"
