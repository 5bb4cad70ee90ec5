"""`import dmnet`: what it offers, and what it costs."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dmnet
from dmnet.core.images import encode_jpeg
from tests.pipeline.predict.conftest import Counter, Finder, draw


def test_names_are_sorted_and_resolve() -> None:
    assert dmnet.__all__ == sorted(dmnet.__all__)
    assert set(dmnet.__all__) == set(dmnet._HOMES)
    for name in dmnet.__all__:
        assert getattr(dmnet, name).__name__ == name
        assert name in dir(dmnet)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        dmnet.lode  # noqa: B018


def test_importing_dmnet_imports_nothing_heavy() -> None:
    code = "import sys, dmnet; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(output.stdout.split())
    assert "dmnet" in loaded
    assert not loaded & {"torch", "numpy", "cv2", "matplotlib", "dmnet.core.records"}


@pytest.mark.parametrize("name", dmnet.__all__)
def test_every_name_has_an_example(name: str) -> None:
    """They run in test_examples."""
    value = getattr(dmnet, name)
    found = doctest.DocTestFinder(recurse=False).find(value, name)
    assert sum(len(each.examples) for each in found) > 0


def test_the_five_lines_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a detector and a density network that need no weights."""

    def loaded(name: str) -> dmnet.Model:
        assert name == "visdrone"
        return dmnet.Model(Finder(), Counter())

    monkeypatch.setattr(dmnet, "load", loaded)
    monkeypatch.chdir(tmp_path)
    picture = draw((120, 160), [(40, 30, 60, 50, 1)])
    (tmp_path / "image.jpg").write_bytes(encode_jpeg(picture))
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(import dmnet\n.*?)```", text, re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) == 5
    exec(lines, {})
    assert "{'pedestrian': 1}" in capsys.readouterr().out
    assert (tmp_path / "annotated.jpg").exists()
