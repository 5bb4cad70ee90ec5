from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dmnet.core.errors import ConfigError
from dmnet.core.training.device import pick_device
from dmnet.core.training.weights import read_weights, weights_bytes


def test_devices_that_are_there() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")


@pytest.mark.parametrize("device", ["foo", "cuda:99", "mps"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {device}: not usable on this machine"):
        pick_device(device)


def test_paths_in_the_settings_of_weights_keep_their_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    config = {"init": "/home/me/start.pt", "data": {"roots": ("a/b.json", 3)}, "lr": 0.1}
    meta = {"architecture": "x", "classes": ["n/a"], "config": config}
    path.write_bytes(weights_bytes({"a": torch.zeros(1)}, meta))
    _, found = read_weights(path)
    assert found["config"] == {"init": "start.pt", "data": {"roots": ["b.json", 3]}, "lr": 0.1}
    assert found["classes"] == ["n/a"]
