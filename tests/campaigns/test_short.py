"""The campaigns in their short form: a few seconds each."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.campaigns import fuzz, settings
from tests.campaigns.seeds import SEEDS

LIGHT = [name for name in SEEDS if name not in ("weights.pt", "settings.yaml", "onnx.yaml")]
"""Kinds whose readers need no torch."""


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.filterwarnings("ignore")
def test_fuzz(name: str, tmp_path: Path) -> None:
    for good in SEEDS[name].make():
        assert fuzz.attempt(name, good, tmp_path) == "read"
    verdicts = [fuzz.attempt(name, fuzz.contents(name, 1, i), tmp_path) for i in range(25)]
    assert [verdict for verdict in verdicts if verdict.startswith("fell")] == []


def test_fuzz_notices_what_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> None:
        raise IndexError("out of it")

    monkeypatch.setitem(SEEDS, "a.txt", fuzz.SEEDS["yolo.txt"].__class__("a.txt", list, fails))
    assert "fell: IndexError: out of it" in fuzz.attempt("a.txt", b"", tmp_path)


def test_settings(tmp_path: Path) -> None:
    where = settings.prepare(tmp_path)
    every = settings.cases()
    assert len(every) > 2000
    _, fallen = settings.check(where, random.Random(1).sample(every, 60))
    assert fallen == {}
