"""Run every benchmark one after the other and write benchmarks/README.md."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from dmnet.core.journal import tools

FOLDER = Path(__file__).resolve().parent
AREAS = (
    "cropping",
    "density",
    "stages",
    "formats",
    "fusion",
    "evaluation",
    "yolov6",
    "detection",
    "training",
)
HEAD = """# Benchmarks

Made by `make bench`. Every figure is a ratio against a named baseline measured in the same run on
the same inputs; the baselines are written from the description of the published software. Above 1:
this project is faster.
"""


def main() -> None:
    """Run what is named on the command line, or all, and write the table of it."""
    areas = sys.argv[1:] or AREAS
    parts = [HEAD, machine()]
    for area in areas:
        print(f"benchmarks/{area}.py", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, str(FOLDER / f"{area}.py")],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        parts.append(f"## {area}\n{docstring(area)}\n\n{done.stdout.strip()}\n")
    text = "\n".join(parts)
    (FOLDER / "README.md").write_text(text)
    print(text)


def machine() -> str:
    """What it ran on."""
    versions = ", ".join(f"{name} {number}" for name, number in tools().items() if name != "dmnet")
    return f"Machine: {platform.machine()}, {os.cpu_count()} cores; {versions}.\n"


def docstring(area: str) -> str:
    """The first paragraph of a benchmark's docstring."""
    text = (FOLDER / f"{area}.py").read_text().split('"""')[1]
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    main()
