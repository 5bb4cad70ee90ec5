"""Licences and advisories of pinned packages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dependencies() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / "docs/dependencies.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pinned_package_states_a_licence(
    dependencies: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dependencies.main([]) == 0
    said = capsys.readouterr().out
    assert "numpy" in said and "NO LICENCE STATED" not in said


def advisory(**entry: object) -> dict[str, object]:
    affected = {"package": {"name": "Some_Lib", "ecosystem": "PyPI"}, **entry}
    return {"id": "X-1", "summary": "bad", "affected": [affected]}


@pytest.mark.parametrize(
    ("version", "hit"), [("0.9", False), ("1.0", True), ("1.9.1", True), ("2.0", False)]
)
def test_ranges_of_advisories(dependencies: ModuleType, version: str, hit: bool) -> None:
    events = [{"introduced": "1.0"}, {"fixed": "2.0"}]
    found = advisory(ranges=[{"type": "ECOSYSTEM", "events": events}])
    said = list(dependencies.weak(found, {"some-lib": version}))
    assert said == ([f"some-lib {version}: X-1 bad"] if hit else [])


def test_listed_versions_and_withdrawn_advisories(dependencies: ModuleType) -> None:
    found = advisory(versions=["1.0"])
    assert list(dependencies.weak(found, {"some-lib": "1.0"}))
    assert not list(dependencies.weak(found, {"some-lib": "1.1", "other": "1.0"}))
    assert not list(dependencies.weak({**found, "withdrawn": "2026"}, {"some-lib": "1.0"}))


def test_a_weak_pin_fails(
    dependencies: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, version = next(iter(dependencies.pinned().items()))
    found = advisory(package={"name": name, "ecosystem": "PyPI"}, versions=[version])
    (tmp_path / "a.json").write_text(json.dumps(found))
    assert dependencies.main(["--advisories", str(tmp_path)]) == 1
    assert f"{name} {version}: X-1 bad" in capsys.readouterr().out


def test_a_folder_without_advisories_is_no_good_news(
    dependencies: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        assert dependencies.main(["--advisories", str(folder)]) == 1
        assert f"{folder}: holds no advisories" in capsys.readouterr().out
