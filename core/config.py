"""Settings: frozen dataclasses filled from YAML and from ``--section.name value``, strictly.

YAML files and the command line go through the same function, `build`: an unknown key is an error
that names the nearest setting, and a value must fit the annotated type. ``-`` and ``_`` are the
same in keys.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
import textwrap
import types
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from dmnet.core import limits
from dmnet.core.errors import ConfigError, InputError
from dmnet.core.plugins import Choice, is_outside, load
from dmnet.core.ranges import ranges, shown
from dmnet.core.reading import DAMAGED, read_text

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Make ``cls`` from a mapping; absent keys keep their defaults.

    Args:
        cls: a frozen dataclass.
        values: nested mapping of plain YAML values.
        where: dotted prefix for messages, such as ``"crop"``.

    Raises:
        ConfigError: not a mapping, an unknown key, a value that does not fit its type, or one that
            the class refuses (a number outside its range, say).
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: holds further settings, got {shown(values)}")
    hints = get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    brought, own = _brought(cls, values, where)
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name in brought:
            continue
        if name not in known:
            nearby = {**known, **dict.fromkeys(brought)}
            raise ConfigError(unknown(f"{where}.{key}".strip("."), name, nearby))
        fitted = _fit(hints[name], value, f"{where}.{name}".strip("."))
        if fitted != known[name].default:  # 3.0 where the default is 3 is no other setting
            found[name] = fitted
    if own:
        found["own"] = {**own, **found.get("own", {})}
    try:
        return cls(**found)
    except ValueError as error:  # its text starts with the bare field
        raise ConfigError(f"{where}.{error}".lstrip(".")) from error


def entry_settings(cls: type) -> dict[str, dict[str, type[Any]]]:
    """Settings classes that the entries of tables bring, by the field that names the entry.

    Only for a class with a field ``own``, which holds what is brought.
    """
    if "own" not in {field.name for field in dataclasses.fields(cls)}:
        return {}
    return {
        name: {k: each for k, v in choice.table.items() if (each := getattr(v, "Config", None))}
        for name, hint in get_type_hints(cls, include_extras=True).items()
        for choice in ranges(hint)
        if isinstance(choice, Choice)
    }


def _brought(cls: type, values: Mapping[str, Any], where: str) -> tuple[set[str], dict[str, Any]]:
    """Names of settings that entries of a table bring, and the values of the chosen entry.

    Those of other entries are checked too, although they do nothing.

    Raises:
        ConfigError: a value that does not fit, or an outside entry that cannot be imported.
    """
    given = {str(key).replace("-", "_"): value for key, value in values.items()}
    names: set[str] = set()
    own: dict[str, Any] = {}
    for chooser, classes in entry_settings(cls).items():
        chosen = given.get(chooser, getattr(cls, chooser))
        if isinstance(chosen, str) and is_outside(chosen):
            classes = {**classes, **_outside(chosen, f"{where}.{chooser}".strip("."))}
        for entry, each in classes.items():
            fields = {field.name for field in dataclasses.fields(each)}
            mine = {name: given[name] for name in given if name in fields}
            build(each, mine, where)
            names |= fields
            own |= mine if entry == chosen else {}
    return names, own


def _outside(name: str, where: str) -> dict[str, type[Any]]:
    """The settings class of an outside entry by its name, where it has one."""
    try:
        found = getattr(load(name), "Config", None)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return {} if found is None else {name: found}


def own_settings(cls: type[Any] | None, config: Any, where: str = "own") -> Any:
    """The settings that an entry of a table gets (`dmnet.core.plugins`).

    That is ``config``, or, where the entry has a settings class, that one filled from
    ``config.own``; ``where`` is what messages call it.

    Raises:
        ValueError: the entry has no settings class, or not these settings.
    """
    if cls is None:
        if config.own:
            raise ValueError(f"own has to be empty here, got {', '.join(config.own)}")
        return config
    try:
        return build(cls, config.own, where)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def unknown(full: str, name: str, known: Mapping[str, object]) -> str:
    """Text for a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(sorted(known))}"
    return f"{full}: no such setting; {hint}"


def _fit(hint: Any, value: Any, where: str) -> Any:
    """Check ``value`` against a type annotation; ints become floats, lists become tuples."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: holds further settings, got {shown(value)}")
        return build(hint, value, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _fit_union(arguments, value, where)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: holds further settings, got {shown(value)}")
        return {str(key).replace("-", "_"): each for key, each in value.items()}
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: must be one of {_choices(arguments)}, got {shown(value)}")
        return value
    if origin is tuple:
        return _fit_tuple(arguments, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 10**300 else math.inf  # which is in no range
    if hint is float and isinstance(value, str) and _is_number(value):
        return float(value)  # YAML 1.1 reads 1e-6 as text
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: must be {_name(hint)}, got {shown(value)}")


def _fit_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    inner = [argument for argument in arguments if argument is not type(None)]
    for position, argument in enumerate(inner):
        try:
            return _fit(argument, value, where)
        except ConfigError:
            if position == len(inner) - 1:
                raise
    raise ConfigError(f"{where}: got {shown(value)}")


def _fit_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [_scalar(part) for part in value.replace(",", " ").split()]
    elif not isinstance(value, (list, tuple)):
        value = [value]
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ConfigError(
            f"{where}: needs {len(arguments)} values, got {len(value)}: {shown(value)}"
        )
    return tuple(_fit(a, v, where) for a, v in zip(arguments, value, strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name(hint: Any) -> str:
    return {
        "int": "a whole number",
        "float": "a number",
        "str": "text",
        "bool": "true or false",
    }.get(getattr(hint, "__name__", ""), str(hint))


def _choices(values: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in values)


class _Loader(yaml.SafeLoader):
    """Plain values only: no aliases, whose expansion has no bound, no dates, no deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse what a file of settings has no need of."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*) are not read", problem_mark=mark)
        self.depth += 1
        if self.depth > limits.YAML_DEPTH:
            problem = f"nested more than {limits.YAML_DEPTH} levels deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _finite(loader: yaml.SafeLoader, node: Any) -> float:
    """Refuse infinity and NaN, which no setting takes and which never equal themselves."""
    value = float(loader.construct_yaml_float(node))
    if not math.isfinite(value):
        problem = f"{node.value} is not a finite number"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return value


yaml.add_constructor("tag:yaml.org,2002:float", _finite, _Loader)
yaml.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str, _Loader)


def parse_yaml(text: str) -> Any:
    """Read YAML that holds settings: mappings, lists, text, finite numbers; dates are text.

    Raises:
        ValueError: not YAML, or with aliases, tags of objects, deep nesting, infinite numbers.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, *DAMAGED) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _scalar(text: str) -> Any:
    """Read one command-line value as YAML does (``true``, ``0.1``, ``[70, 70]``, ``null``)."""
    try:
        return parse_yaml(text)
    except ValueError:
        return text


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
        value = _scalar(given[0]) if len(given) == 1 else [_scalar(text) for text in given]
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


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay nested mappings; ``over`` wins."""
    out = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(out.get(key), Mapping):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


def resolved(config: Any) -> dict[str, Any]:
    """Plain, JSON-ready form of a settings dataclass, as `build` reads it; no empty ``own``."""
    plain: dict[str, Any] = dataclasses.asdict(config, dict_factory=_without_empty_own)
    _put_beside(config, plain)
    return plain


def _put_beside(config: Any, plain: dict[str, Any]) -> None:
    """Settings that an entry of a table brings stand beside the field that names it."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            _put_beside(value, plain[field.name])
    if any(entry_settings(type(config)).values()):
        plain |= plain.pop("own", {})


def _without_empty_own(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value or name != "own"}


@cache
def field_docs(cls: type) -> dict[str, str]:
    """The string literal under each field of a dataclass and its bases, by field name."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= _own_docs(base)
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        node.target.id: " ".join(after.value.value.split())
        for node, after in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def describe(cls: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield ``(--section.name, default, help)`` for every setting, nested ones included."""
    hints, annotated = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        name = f"{prefix}.{field.name.replace('_', '-')}"
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from describe(hint, name)
            continue
        if field.name == "own":
            yield from _described_entries(cls, prefix)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory() or "none"
        text = field_docs(cls).get(field.name, "")
        if get_origin(hint) is Literal:
            text = f"{text} ({_choices(get_args(hint))})".strip()
        if limits := list(dict.fromkeys(map(str, ranges(annotated[field.name])))):
            text = f"{text} ({', '.join(limits)})".strip()
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        yield f"--{name}", shown.lower() if isinstance(default, bool) else shown, text


def _described_entries(cls: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Settings that the entries of tables bring, each once, with the entries that have it."""
    for chooser, classes in entry_settings(cls).items():
        users: dict[tuple[str, str, str], list[str]] = {}
        for entry, each in classes.items():
            for described in describe(each, prefix):
                users.setdefault(described, []).append(entry)
        for (name, default, text), entries in users.items():
            yield name, default, f"{text} ({chooser} {', '.join(entries)})"
