from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dmnet.core import limits
from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.training.device import may_have_gpu, pick_device
from dmnet.core.training.weights import load_state, read_weights, weights_bytes


def test_devices_that_are_there() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")


def test_torch_is_asked_for_a_gpu_only_where_a_driver_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not may_have_gpu(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert may_have_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert may_have_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not may_have_gpu(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for platform, asked in (("darwin", False), ("win32", True)):
        monkeypatch.setattr("sys.platform", platform)
        assert may_have_gpu(tmp_path / "nothing") is asked


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


def test_what_weights_unpack_to_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(1000)}, path)
    assert list(read_weights(path)[0]) == ["w"]
    monkeypatch.setattr(limits, "WEIGHTS_BYTES", 2000)
    with pytest.raises(CheckpointError, match=r"a\.pt: unpacks to .* more than the limit"):
        read_weights(path)


class _Bytes:
    """What torch unpickles beside tensors, as large as the file says."""

    def __reduce__(self) -> tuple[type[bytearray], tuple[int]]:
        return bytearray, (1_000,)


@pytest.mark.parametrize("zipped", [True, False])
def test_arrays_of_bytes_are_refused_before_they_are_made(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(1), "x": _Bytes()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"a\.pt: refused: it holds an array of bytes"):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_tuples_nested_in_each_other_do_not_keep_torch_busy(tmp_path: Path, zipped: bool) -> None:
    path, key = tmp_path / "a.pt", (1, 2)
    for _ in range(60):  # 2 ** 61 numbers, each of which a hash would visit
        key = (key, key)  # type: ignore[assignment]
    state = {"w": torch.zeros(1), "x": [(key, 1)]}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="refused: its pickle has more than 10,000,000 parts"):
        read_weights(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged(value: float) -> None:
    net = torch.nn.Linear(2, 1)
    state = {**net.state_dict(), "bias": torch.tensor([value])}
    with pytest.raises(CheckpointError, match="'bias' holds values that are not finite"):
        load_state(net, state, "weights.pt", "a network")
