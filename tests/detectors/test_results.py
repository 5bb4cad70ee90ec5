from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmnet.core.errors import ConfigError, InputError
from dmnet.detectors.load import load_detector
from dmnet.detectors.results import ResultsDetector, load


def row(image_id: int, score: float, **more: Any) -> dict[str, Any]:
    return {
        "image_id": image_id, "category_id": 4, "bbox": [1, 2, 3, 4], "score": score, **more
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_no_rows(tmp_path: Path) -> None:
    found = load(write(tmp_path / "r.json", []), {})
    assert len(found.for_image(1)) == 0
    found.check({})


def test_rows_by_image_and_score(tmp_path: Path) -> None:
    rows = [row(2, 0.1), row(1, 0.5), row(2, 0.9, category_id=9), row(2, 0.1, category_id=10)]
    found = load(write(tmp_path / "r.json", rows), {})
    assert found.for_image(2).labels.tolist() == [9, 4, 10]
    assert found.for_image(1).boxes.tolist() == [[1, 2, 4, 6]]
    assert len(found.for_image(3)) == 0


def test_it_is_a_detector_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", [row(1, 0.5), row(1, 0.2)])
    found = load_detector("results", path, settings={"score_threshold": 0.3})
    assert isinstance(found, ResultsDetector)
    assert len(found.for_image(1)) == 1


def test_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", [row(7, 0.5), row(8, 0.5)])
    found = load(path, {})
    found.check({7: None, 8: None})
    with pytest.raises(InputError, match=r"r.json: image_id 8 is not in the image list \(1 such"):
        found.check({7: None})
    with pytest.raises(InputError, match="cannot see images"):
        found.predict([])
    with pytest.raises(ConfigError, match="no such setting"):
        load(path, {"iou": 0.5})
    with pytest.raises(InputError, match="category_id 99"):
        load(write(path, [row(1, 0.5, category_id=99)]), {})
