"""The package stays light: no torch, and nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys


def test_no_torch_and_no_plotting_on_import() -> None:
    code = """
import importlib, pkgutil, sys
import dmnet.fusion as package
for module in pkgutil.iter_modules(package.__path__, "dmnet.fusion."):
    importlib.import_module(module.name)
heavy = {"torch", "torchvision", "matplotlib.pyplot", "jinja2", "pycocotools"}
print(sorted(heavy & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
