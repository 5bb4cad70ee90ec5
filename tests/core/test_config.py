"""Strict settings: what is accepted, and what the errors say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from dmnet.core import config
from dmnet.core.config_help import describe
from dmnet.core.errors import ConfigError, InputError
from dmnet.core.presets import parse_overrides, read_yaml


@dataclass(frozen=True)
class Sigma:
    method: Literal["fixed", "geometry"] = "fixed"
    """How."""
    fixed: float = 15.0
    """Pixels."""


@dataclass(frozen=True)
class Base:
    sigma: Sigma = field(default_factory=Sigma)
    window: tuple[int, int] = (70, 70)
    """Height and width."""


@dataclass(frozen=True)
class Crop(Base):
    limit: int | None = None
    """At most."""
    write_images: bool = True
    """Write them."""
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ValueError("limit must not be negative")


def test_empty_mapping_gives_defaults() -> None:
    assert config.build(Crop, {}) == Crop()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"limit": 3}, Crop(limit=3)),
        ({"limit": None}, Crop()),
        ({"write-images": False}, Crop(write_images=False)),
        ({"window": [60, 80]}, Crop(window=(60, 80))),
        ({"window": "60,80"}, Crop(window=(60, 80))),
        ({"window": "60 80"}, Crop(window=(60, 80))),
        ({"names": ["a", "b"]}, Crop(names=("a", "b"))),
        ({"names": "a"}, Crop(names=("a",))),
        ({"sigma": {"fixed": 3}}, Crop(sigma=Sigma(fixed=3.0))),
        ({"sigma": {"fixed": "1e-6"}}, Crop(sigma=Sigma(fixed=1e-6))),
    ],
)
def test_values_that_fit(given: dict[str, Any], expected: Crop) -> None:
    assert config.build(Crop, given, "crop") == expected


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"sgima": {}}, r"crop\.sgima: no such setting; did you mean 'sigma'\?"),
        ({"sigma": {"fxed": 1}}, r"crop\.sigma\.fxed: no such setting; did you mean 'fixed'\?"),
        ({"zzz": 1}, r"crop\.zzz: no such setting; known here: limit"),
        ({"sigma": {"method": "other"}}, r"crop\.sigma\.method: must be one of fixed, geometry"),
        ({"sigma": 3}, r"crop\.sigma: holds further settings, got 3"),
        ({"limit": 1.5}, r"crop\.limit: must be a whole number, got 1\.5"),
        ({"limit": True}, r"crop\.limit: must be a whole number, got True"),
        ({"write_images": 1}, r"crop\.write_images: must be true or false, got 1"),
        ({"window": [1, 2, 3]}, r"crop\.window: needs 2 values, got 3"),
        ({"limit": -1}, r"crop\.limit must not be negative"),
    ],
)
def test_values_that_do_not(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config.build(Crop, given, "crop")


def test_overrides_become_a_tree() -> None:
    arguments = [
        "--crop.threshold",
        "0.1",
        "--crop.write-images=false",
        "--crop.window",
        "60",
        "80",
    ]
    assert parse_overrides(arguments) == {
        "crop": {"threshold": 0.1, "write_images": False, "window": [60, 80]}
    }
    assert parse_overrides([]) == {}
    assert parse_overrides(["--a.b", "-1"]) == {"a": {"b": -1}}


@pytest.mark.parametrize("arguments", [["--thing", "1"], ["stray"], ["--a.b"]])
def test_overrides_that_are_none(arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_overrides(arguments)


def test_later_presets_win() -> None:
    base = {"crop": {"threshold": 0.1, "window": [1, 2]}, "x": 1}
    over = {"crop": {"threshold": 0.2}}
    assert config.merged(base, over) == {"crop": {"threshold": 0.2, "window": [1, 2]}, "x": 1}
    assert base["crop"] == {"threshold": 0.1, "window": [1, 2]}


def test_yaml_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("fuse-eval:\n  edge-margin: 1\n")
    assert read_yaml(path) == {"fuse_eval": {"edge_margin": 1}}
    path.write_text("")
    assert read_yaml(path) == {}
    for text, reason in (("[1, 2", "not a YAML file"), ("- 1", "a mapping of sections")):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            read_yaml(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


def test_a_section_that_is_a_value() -> None:
    with pytest.raises(ConfigError, match="crop: holds further settings, got 3"):
        config.build(Crop, 3, "crop")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"--crop.sigma: given as a value and, as --crop.sigma.f"):
        parse_overrides(["--crop.sigma", "3", "--crop.sigma.fixed", "4"])


def test_help_lists_nested_and_inherited_settings() -> None:
    rows = {name: (default, text) for name, default, text in describe(Crop, "crop")}
    assert rows["--crop.sigma.method"] == ("fixed", "How. (fixed, geometry)")
    assert rows["--crop.window"] == ("70 70", "Height and width.")
    assert rows["--crop.write-images"] == ("true", "Write them.")
    assert rows["--crop.limit"] == ("None", "At most.")


def test_resolved_is_plain() -> None:
    assert config.resolved(Crop())["sigma"] == {"method": "fixed", "fixed": 15.0}
