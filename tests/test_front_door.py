"""`import dmnet`: what it offers, and what it costs."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

import dmnet


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
def test_examples_run(name: str) -> None:
    """Every public name has an example in its docstring, and it is right."""
    value = getattr(dmnet, name)
    module = sys.modules[value.__module__]
    found = doctest.DocTestFinder(recurse=False).find(value, name, module, vars(module).copy())
    assert sum(len(each.examples) for each in found) > 0, f"{name} has no example"
    for each in found:
        assert doctest.DocTestRunner(verbose=False).run(each).failed == 0
