"""The worked examples of CONTRIBUTING.md: packages of one's own, used by ``module:name``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dmnet.core.config import build, resolved
from dmnet.core.errors import ConfigError
from dmnet.core.records import Detections
from dmnet.fusion.merge import MergeConfig, merge

CONTRIBUTING = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", CONTRIBUTING, re.DOTALL))


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as modules that can be imported."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name, text in EXAMPLES.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))


DETECTIONS = Detections(
    [[0, 0, 9, 9], [1, 0, 9, 9], [50, 50, 60, 60]],  # type: ignore[arg-type]
    [0.5, 0.9, 0.7],  # type: ignore[arg-type]
    [1, 1, 2],  # type: ignore[arg-type]
)


def test_a_merge_rule() -> None:
    config = build(MergeConfig, {"method": "my_merge:BEST", "own": {"keep": 2}}, "merge")
    assert merge(DETECTIONS, config).scores.tolist() == [0.9, 0.7]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"method": "nsm"}, "merge.method must be one of nms, .*, or module:name, got 'nsm'"),
        ({"method": "nowhere:BEST"}, r"merge.method: nowhere:BEST: cannot be imported \(No module"),
        ({"method": "my_merge:WORST"}, "merge.method: my_merge:WORST: cannot be imported"),
        ({"method": "my_merge:best"}, "my_merge:best: is no Rule, but function"),
        ({"method": "my_merge:BEST", "own": {"keep": 0}}, "merge.own.keep must be 1 to 1,000,000"),
        ({"method": "my_merge:BEST", "own": {"kep": 2}}, "own.kep: no such setting; did you mean"),
        ({"own": {"keep": 2}}, "merge.own has to be empty here, got keep"),
        ({"own": 3}, "merge.own: holds further settings, got 3"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_sentence(
    given: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        build(MergeConfig, given, "merge")


def test_no_settings_of_its_own_leave_no_trace() -> None:
    assert "own" not in resolved(MergeConfig())
    assert resolved(MergeConfig("my_merge:BEST", own={"keep": 2}))["own"] == {"keep": 2}
