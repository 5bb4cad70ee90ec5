"""Exported density networks of strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmnet.core.errors import CheckpointError
from dmnet.density.load import load_density
from tests.campaigns.seeds import constant_onnx

pytest.importorskip("onnx")

SIZES = {"kind": "density", "stride": 4, "multiple": 4, "reach": 8}


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "d.onnx"
    path.write_bytes(data)
    return path


def test_a_network_of_zeros_predicts_zeros(tmp_path: Path) -> None:
    path = written(tmp_path, constant_onnx((1, 1, 8, 8), meta=SIZES))
    assert load_density(path).predict(np.zeros((32, 32, 3), np.uint8)).count == 0


def test_integer_inputs_are_refused_at_opening(tmp_path: Path) -> None:
    path = written(tmp_path, constant_onnx((1, 1, 8, 8), meta=SIZES, kind="INT32"))
    with pytest.raises(CheckpointError, match=r"takes tensor\(int32\), expected 32-bit floats"):
        load_density(path)


@pytest.mark.parametrize(
    "wrong", [{"stride": 0}, {"reach": -1}, {"multiple": 10**9}, {"multiple": 6}, {"stride": "a"}]
)
def test_sizes_that_fit_no_network(wrong: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, constant_onnx((1, 1, 8, 8), meta=SIZES | wrong))
    with pytest.raises(CheckpointError, match="not a density network exported by this project"):
        load_density(path)


def test_values_that_are_no_map(tmp_path: Path) -> None:
    path = written(tmp_path, constant_onnx((1, 2, 8, 8), meta=SIZES))
    with pytest.raises(CheckpointError, match=r"shape \(1, 2, 8, 8\), expected \(1, 1, 8, 8\)"):
        load_density(path).predict(np.zeros((32, 32, 3), np.uint8))
