"""Executors: the same bytes from this process, several devices, and a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dmnet.core.artifact import Artifact, Item, Product, Result
from dmnet.core.errors import ConfigError, DmnetError, InputError
from dmnet.core.journal import read_journal
from dmnet.core.work import Stream, parcels
from dmnet.pipeline.cli import main
from dmnet.pipeline.executors.base import Engine
from dmnet.pipeline.executors.choose import executor_for
from dmnet.pipeline.executors.local import Local
from dmnet.pipeline.executors.on_ray import connected

from .conftest import Run, tree

ITEMS = [Item(f"{i:02d}", facts=i) for i in range(20)]


def load(folder: Path, device: str) -> Stream:
    """A network that squares numbers; every loading leaves a file."""
    mark = folder / f"{len(list(folder.iterdir()))} {device.replace(':', '-')}"
    mark.touch(exist_ok=False)
    return squares


def squares(items: list[Item]) -> Iterator[tuple[Item, Result]]:
    for item in items:
        if item.facts == 7:
            yield item, InputError("07", "nobody squares seven")
        else:
            yield item, Product({f"{item.id}.txt": str(item.facts**2).encode()}, item.facts)


@pytest.mark.parametrize("devices", [["a"], ["a", "b"]])
def test_each_device_loads_the_network_once_and_the_bytes_are_the_same(
    tmp_path: Path, devices: list[str]
) -> None:
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    with Artifact(tmp_path / "out", "squares", 1, {}) as artifact:
        artifact.carry_out(ITEMS, Local(1, devices).networks(partial(load, loaded), "squares"))
        assert artifact.summary.bad == {"07": "07: nobody squares seven"}
    assert {path.name[2:] for path in loaded.iterdir()} <= set(devices)
    assert 1 <= len(list(loaded.iterdir())) <= len(devices)
    expected = {f"{i:02d}.txt": str(i**2).encode() for i in range(20) if i != 7}
    assert tree(tmp_path / "out") == expected


def test_nothing_to_do_loads_nothing(tmp_path: Path) -> None:
    for devices in (["a"], ["a", "b"]):
        with Artifact(tmp_path / "out", "squares", 1, {}) as artifact:
            artifact.carry_out([], Local(1, devices).networks(partial(load, tmp_path / "no"), ""))


def test_parcels_keep_the_parts_of_an_image_together() -> None:
    items = [Item(f"{part}/{i}", {"image": Path(f"{i}.jpg")}) for i in range(9) for part in "ab"]
    listed = list(parcels(items, 1))
    assert [item for parcel in listed for item in parcel] == items
    assert [len(parcel) for parcel in listed] == [4, 4, 4, 4, 2]
    assert list(parcels([], 3)) == []


def test_wrong_engines_are_named() -> None:
    with pytest.raises(ConfigError, match="--executor slurm: there are local, ray"):
        executor_for(Engine("slurm"))
    with pytest.raises(ConfigError, match="name devices as in cuda:0,cuda:1"):
        executor_for(Engine(device="cuda:0,"))


@pytest.mark.slow
def test_two_devices_predict_the_same_maps(dmnet: Run, tmp_path: Path) -> None:
    weights = Path(__file__).parents[2] / "configs" / "weights" / "mcnn-hit-uav.pt"
    done = []
    for device in ("cpu", "cpu,cpu"):
        again = ["--weights", str(weights), "--device", device, "--run", device.replace(",", "-")]
        assert dmnet("predict-density", *again) == 0
        folder = tmp_path / "artifacts" / again[-1] / "val" / "predict-density"
        assert len(read_journal(folder)) == 3
        done.append(tree(folder))
    assert done[0] == done[1]
    assert len(done[0]) == 4


def test_the_command_line_refuses_an_engine_that_does_not_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["density", "--executor", "slurm"]) == 2
    assert "invalid choice: 'slurm'" in capsys.readouterr().err


class SlowToStart:
    """A Ray whose cluster needs more than 30 seconds for so many attempts."""

    def __init__(self, attempts: int) -> None:
        self.left = attempts
        self.tries = 0

    def is_initialized(self) -> bool:
        return False

    def init(self, **how: object) -> None:
        self.tries += 1
        self.left -= 1
        if self.left >= 0:
            raise Exception("The current node timed out during startup. This could happen")

    def shutdown(self) -> None: ...


def test_a_cluster_that_starts_slowly_is_started_again() -> None:
    for attempts in (0, 3):
        slow = SlowToStart(attempts)
        with connected(slow, Engine("ray")):
            assert slow.tries == attempts + 1
    slow = SlowToStart(9)
    with pytest.raises(DmnetError, match=r"30 seconds, 4 times; .* --executor local"):
        with connected(slow, Engine("ray")):
            raise AssertionError("there is no cluster")
    assert slow.tries == 4
