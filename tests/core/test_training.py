from __future__ import annotations

import pytest

from dmnet.core.errors import ConfigError
from dmnet.core.training import pick_device


def test_devices_that_are_there() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")


@pytest.mark.parametrize("device", ["foo", "cuda:99", "mps"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {device}: not usable on this machine"):
        pick_device(device)
