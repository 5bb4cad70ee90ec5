"""The documentation says what there is: files, settings, links."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest

from dmnet.core.config import entry_settings
from dmnet.pipeline.context import STAGES, stage_module

ROOT = Path(__file__).parents[1]
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "configs").rglob("*.md")),
]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_says_what_it_is_in_its_first_line(pages: ModuleType) -> None:
    found = [path for package in pages.PACKAGES for path in pages.modules(package)]
    assert len(found) > 150
    assert [path for path in found if not pages.first_line(path).endswith(".")] == []


def test_the_list_of_files_is_up_to_date(pages: ModuleType) -> None:
    assert pages.ARCHITECTURE.read_text(encoding="utf-8") == pages.architecture(), (
        "run: python docs/pages.py"
    )


def settings(cls: type, prefix: str) -> Iterator[str]:
    for classes in entry_settings(cls).values():
        for each in classes.values():
            yield from settings(each, prefix)
    for field in dataclasses.fields(cls):
        hint, name = get_type_hints(cls)[field.name], f"{prefix}.{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from settings(hint, name)
        else:
            yield name


def test_the_settings_page_holds_every_setting_with_its_help(pages: ModuleType) -> None:
    text = pages.settings_page()
    rows = dict(re.findall(r"^\| `--(\S+)` \| `.*?` \| (.*) \|$", text, re.MULTILINE))
    wanted = {name for stage in STAGES for name in settings(stage_module(stage).Config, stage)}
    assert rows.keys() == wanted
    assert [name for name, told in rows.items() if not told.strip()] == []


def test_the_api_pages_hold_every_module(pages: ModuleType) -> None:
    text = "\n".join(text for _, text in pages.api_pages())
    wanted = {pages.dotted(path) for package in pages.PACKAGES for path in pages.modules(package)}
    assert set(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) == wanted | {"dmnet"}


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path, pages: ModuleType) -> None:
    made = {"settings.md", "benchmarks.md", "contributing.md", "index.md"}
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        if link.startswith("https://") or (path.parent.name == "docs" and name in made):
            continue
        target = path.parent / name if name else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+(?:\w+\.(?:py|yaml|md))?)[:`]", text)
    own = ("core", "density", "cropping", "fusion", "detectors", "pipeline", "configs", "tests")
    for name in named:
        if name.split("/")[0] in own:
            assert (ROOT / name).exists(), name
