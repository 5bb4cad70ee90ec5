"""Settings as a user gives them: YAML files that include others, and ``--section.name value``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dmnet.core import limits
from dmnet.core.config import build, merged, unknown
from dmnet.core.errors import ConfigError, InputError
from dmnet.core.plain_yaml import parse_yaml, scalar
from dmnet.core.ranges import shown
from dmnet.core.reading import read_text

C = TypeVar("C")


def from_pairs(cls: type[C], section: str, pairs: Iterable[str]) -> C:
    """Settings of a section from texts ``key=value``.

    Raises:
        ConfigError: see `parse_overrides` and `build`.
    """
    given = parse_overrides([f"--{section}.{pair}" for pair in pairs])
    return build(cls, given.get(section, {}), section)


def parse_overrides(arguments: list[str]) -> dict[str, Any]:
    """Turn ``["--crop.threshold", "0.1"]`` into ``{"crop": {"threshold": 0.1}}``.

    ``--a.b=1`` is the same as ``--a.b 1``; several values in a row become a list.

    Raises:
        ConfigError: something that is not ``--section.name value``.
    """
    tree: dict[str, Any] = {}
    index = 0
    while index < len(arguments):
        head = arguments[index]
        if not head.startswith("--") or "." not in head:
            raise ConfigError(
                f"{head}: not an option here; settings are written --section.name value, "
                "see --help for the list"
            )
        key, equals, inline = head[2:].partition("=")
        index += 1
        given = [inline] if equals else []
        while not equals and index < len(arguments) and not _is_option(arguments[index]):
            given.append(arguments[index])
            index += 1
        if not given:
            raise ConfigError(f"--{key}: needs a value, for example --{key} true")
        value = scalar(given[0]) if len(given) == 1 else [scalar(text) for text in given]
        _plant(tree, key.replace("-", "_").split("."), value)
    return tree


def _is_option(text: str) -> bool:
    return text.startswith("--") and len(text) > 2


def _plant(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for depth, part in enumerate(path[:-1], start=1):
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            name = ".".join(path[:depth])
            raise ConfigError(f"--{name}: given as a value and, as --{'.'.join(path)}, as a group")
    tree[path[-1]] = value


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a preset.

    Raises:
        InputError: the file is missing, not YAML (see `parse_yaml`), or not a mapping.
    """
    text = read_text(path, limits.YAML_BYTES)
    try:
        loaded = parse_yaml(text)
    except ValueError as error:
        raise InputError(path, f"not a YAML file of settings: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise InputError(
            path, "a preset is a mapping of sections, such as 'crop: {threshold: 0.1}'"
        )
    return _underscored(loaded)


def read_preset(path: Path) -> dict[str, Any]:
    """Read a preset and the presets it includes: ``include: [name, ...]`` names files beside it.

    Later ones win over earlier ones, and what the file itself says over all of them. Each file is
    read once, however many others include it.

    Raises:
        InputError: see `read_yaml`; or an included file is not there, or includes itself.
    """
    return _preset(path, (), {})


def _preset(
    path: Path, within: tuple[Path, ...], known: dict[Path, dict[str, Any]]
) -> dict[str, Any]:
    """One preset; ``within`` includes it, ``known`` are those that were read already."""
    if path in within:
        raise InputError(path, "includes itself")
    if path not in known:
        known[path] = _included(path, (*within, path), known)
    return known[path]


def _included(
    path: Path, within: tuple[Path, ...], known: dict[Path, dict[str, Any]]
) -> dict[str, Any]:
    """A preset over what it includes."""
    own = read_yaml(path)
    names = own.pop("include", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(path, f"include lists names of presets beside it, got {shown(names)}")
    if len(within) > limits.YAML_DEPTH:
        raise InputError(path, f"included through more than {limits.YAML_DEPTH} files")
    settings: dict[str, Any] = {}
    beside = {file.stem: file for file in path.parent.glob("*.yaml")}
    for name in names:
        if name not in beside:
            raise InputError(
                path, unknown(f"include {name}", name, beside).replace("setting", "preset")
            )
        settings = merged(settings, _preset(beside[name], within, known))
    return merged(settings, own)


def _underscored(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(key).replace("-", "_"): _underscored(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }
