"""Every shipped preset holds settings that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmnet.core.config import read_yaml
from dmnet.pipeline.context import Context

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_preset_fits_the_settings(path: Path) -> None:
    settings = read_yaml(path)
    assert settings
    Context(settings=settings).check_settings()


def test_readme_names_only_verbs_and_presets_that_exist() -> None:
    readme = (CONFIGS.parent / "README.md").read_text(encoding="utf-8")
    makefile = (CONFIGS.parent / "Makefile").read_text(encoding="utf-8")
    verbs = {line.split()[1] for line in readme.splitlines() if line.startswith("make ")}
    assert verbs
    for verb in verbs:
        assert f"\n{verb}:" in makefile or f"\n{verb} " in makefile, verb
