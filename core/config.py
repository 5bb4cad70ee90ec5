"""Settings: frozen dataclasses filled from mappings, strictly.

YAML files and the command line (`dmnet.core.presets`) go through the same function, `build`: an
unknown key is an error that names the nearest setting, and a value must fit the annotated type.
``-`` and ``_`` are the same in keys.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dmnet.core.errors import ConfigError
from dmnet.core.plain_yaml import scalar
from dmnet.core.plugins import Choice, is_outside, load
from dmnet.core.ranges import ranges, shown

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
            choices = ", ".join(map(str, arguments))
            raise ConfigError(f"{where}: must be one of {choices}, got {shown(value)}")
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
        value = [scalar(part) for part in value.replace(",", " ").split()]
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
