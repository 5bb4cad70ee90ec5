"""YAML that holds settings: plain values only."""

from __future__ import annotations

import math
from typing import Any

import yaml

from dmnet.core import limits
from dmnet.core.reading import DAMAGED


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


def _whole(loader: yaml.SafeLoader, node: Any) -> int:
    """Refuse whole numbers of too many digits, in any base: Python cannot even print them."""
    value = int(loader.construct_yaml_int(node))
    if abs(value) >= 10**limits.DIGITS:
        problem = f"a whole number of more than {limits.DIGITS} digits"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return value


yaml.add_constructor("tag:yaml.org,2002:float", _finite, _Loader)
yaml.add_constructor("tag:yaml.org,2002:int", _whole, _Loader)
yaml.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str, _Loader)


def parse_yaml(text: str) -> Any:
    """Read YAML that holds settings: mappings, lists, text, finite numbers; dates are text.

    Raises:
        ValueError: not YAML, or with aliases, tags of objects, deep nesting, infinite or too long
            numbers.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, *DAMAGED) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def scalar(text: str) -> Any:
    """Read one command-line value as YAML does (``true``, ``0.1``, ``[70, 70]``, ``null``)."""
    try:
        return parse_yaml(text)
    except ValueError:
        return text
