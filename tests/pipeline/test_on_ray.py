"""A Ray cluster of two machines (processes here), one of which is lost in the middle of a stage."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.errors import ConfigError, InputError, LostWorkersError
from dmnet.core.journal import read_journal
from dmnet.pipeline.cli import main
from dmnet.pipeline.executors.base import Engine
from dmnet.pipeline.executors.on_ray import OnRay, connected

from .conftest import tree, write_split

ray = pytest.importorskip("ray", reason="needs the extra ray: make setup EXTRAS=dev,ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WEIGHTS = Path(__file__).parents[2] / "configs" / "weights" / "mcnn-hit-uav.pt"
SLOW = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_agent_register_timeout_ms": "300000",  # a busy machine is no lost machine
    "RAY_health_check_failure_threshold": "8",  # 24 s
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_worker_niceness": "0",
}


def small() -> dict[str, Any]:
    """A machine with one core; named ports, so that it does not wait for its agents to choose."""
    ports = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port",
             "runtime_env_agent_port")  # fmt: skip
    with contextlib.ExitStack() as stack:  # all open at once, so that no two are the same
        sockets = [stack.enter_context(socket.socket()) for _ in ports]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        chosen = {name: each.getsockname()[1] for name, each in zip(ports, sockets, strict=True)}
    return {"num_cpus": 1, "object_store_memory": 80_000_000, **chosen}


class Patient:
    """The clock that Ray waits by for a new machine: its 30 seconds, fixed there, last longer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() / 10


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A machine that stays; tests add a second one."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in SLOW.items():
            patch.setenv(name, value)
        patch.setattr("ray._private.node.time", Patient())
        made = Cluster()
        try:
            made.add_node(wait=False, **small(), include_dashboard=False)
            made.wait_for_nodes(timeout=300)
            ray.init(address=made.address, log_to_driver=False)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images."""
    root = tmp_path_factory.mktemp("ray")
    write_split(root / "data", "val", range(100, 112), (96, 128))
    return root


def arguments(root: Path, run: str, stage: str) -> list[str]:
    given = {"predict-density": ["--weights", str(WEIGHTS)], "crop": ["--crop.min-side", "40"]}
    places = ["--data", str(root / "data"), "--artifacts", str(root / "out"), "--run", run]
    return [stage, *places, "--device", "cpu", *given.get(stage, [])]


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch, cluster: Any) -> Callable[[], Any]:
    """Lose the second machine right after the second line of the next journal."""
    append = Artifact._append

    def arm() -> Any:
        machine = cluster.add_node(wait=False, **small())
        cluster.wait_for_nodes(timeout=300)
        lines = 0

        def appended(self: Artifact, record: Any) -> None:
            nonlocal lines
            append(self, record)
            lines += 1
            if lines == 2:
                cluster.remove_node(machine, allow_graceful=False)

        monkeypatch.setattr(Artifact, "_append", appended)

    return arm


@pytest.mark.parametrize("stage", ["density", "crop", "predict-density"])
def test_a_machine_lost_in_the_middle_changes_nothing(
    images: Path, killing: Callable[[], Any], stage: str
) -> None:
    for run in ("local", "ray") if stage == "crop" else ():
        assert main(arguments(images, run, "density")) == 0
    assert main(arguments(images, "local", stage)) == 0
    killing()
    command = [*arguments(images, "ray", stage), "--executor", "ray", "--ray-actors", "2"]
    assert main(command) == 0
    folders = [images / "out" / run / "val" / stage for run in ("local", "ray")]
    assert tree(folders[0]) == tree(folders[1])
    lines = (folders[1] / "items.jsonl").read_text().splitlines()
    assert len(lines) == len(read_journal(folders[1])) == 12


def test_all_stages_give_the_bytes_of_this_machine(images: Path, cluster: Any) -> None:
    """``all``: predicted maps, crops with pictures, labels, an ONNX detector, fusion, report."""
    places = ["--data", str(images / "data"), "--device", "cpu"]
    given = ["--weights", str(WEIGHTS), "--detector", "onnx", "--crop.min-side", "40",
             "--detector-weights", str(WEIGHTS.with_name("hit-uav-detector.onnx"))]  # fmt: skip
    for engine in ("local", "ray"):
        folder = ["--artifacts", str(images / engine), "--executor", engine]
        command = ["all", *places, *given, *folder]
        assert main([*command, "--fuse-eval.bootstrap", "10"]) == 0
    for stage in ("predict-density", "crop", "convert", "detect", "fuse-eval"):
        local, far = (tree(images / run / "default" / "val" / stage) for run in ("local", "ray"))
        assert local and local == far, stage


def test_pictures_are_predicted_as_on_this_machine(
    images: Path, cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """``dmnet predict``: half of the pictures, then all of them; a raster stays in this process."""
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    folder = images / "data" / "VisDrone2019-DET-val" / "images"
    raster = images / "field.tif"
    shape = {"width": 96, "height": 64, "count": 3, "dtype": "uint8", "crs": "EPSG:32650"}
    place = rasterio.Affine(0.1, 0, 500_000, 0, -0.1, 4_000_000)
    with rasterio.open(raster, "w", driver="GTiff", transform=place, **shape) as file:
        file.write(np.full((3, 64, 96), 120, np.uint8))
    words = [
        str(folder),
        str(raster),
        "--model",
        "hit-uav",
        "--device",
        "cpu",
        "--confidence",
        ".1",
    ]
    for engine in ("local", "ray"):
        out = ["--executor", engine, "--ray-actors", "2", "--out", str(images / f"found-{engine}")]
        if engine == "ray":
            assert main(["predict", *map(str, sorted(folder.iterdir())[:6]), *words[2:], *out]) == 0
        assert main(["predict", *words, *out]) == 0
    assert "rasters and videos are done in this process: 2 parts" in capsys.readouterr().err
    local, far = (tree(images / f"found-{engine}") for engine in ("local", "ray"))
    assert local == far
    assert {"predictions.json", "geo/field.geojson"} < set(local)
    lines = (images / "found-ray" / "items.jsonl").read_text().splitlines()
    assert len(lines) == len(read_journal(images / "found-ray")) == 14


def die(item: Item) -> Product:
    """Work that ends its worker at one item."""
    import os

    if item.id == "2":
        os._exit(1)
    return Product({f"{item.id}.txt": b""})


def refuse(item: Item) -> Product:
    raise InputError(item.id, "bad") if item.id == "1" else ConfigError("no such thing")


def test_an_item_that_kills_its_workers_is_named(cluster: Any, tmp_path: Path) -> None:
    carrier = OnRay.of(Engine("ray")).tasks(die, "die")
    with (
        pytest.raises(LostWorkersError, match="lost 4 times while doing 2 to 2"),
        Artifact(tmp_path / "out", "die", 1, {}) as artifact,
    ):
        artifact.carry_out([Item("1"), Item("2"), Item("3")], carrier)


def test_errors_of_the_work_arrive_as_they_were(cluster: Any, tmp_path: Path) -> None:
    carrier = OnRay.of(Engine("ray")).tasks(refuse, "refuse")
    with (
        pytest.raises(ConfigError, match=r"^no such thing$"),
        Artifact(tmp_path / "out", "refuse", 1, {}) as artifact,
    ):
        artifact.carry_out([Item("1"), Item("2")], carrier)


def test_several_devices_are_left_to_ray() -> None:
    with pytest.raises(ConfigError, match="Ray hands out GPUs itself"):
        OnRay.of(Engine("ray", device="cuda:0,cuda:1"))


def test_a_connection_that_is_there_is_used_and_kept(cluster: Any) -> None:
    with connected(ray, Engine("ray", ray_address="nowhere:1")):
        assert ray.is_initialized()
    assert ray.is_initialized()
