"""Stages whose data and weights lie in a bucket: killed, resumed, through faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmnet.pipeline.cli import main
from tests.s3 import NOISE, SECRET, Store, server, store

from .conftest import tree, write_split

__all__ = ["server", "store"]  # fixtures

pytest.importorskip("s3fs", reason="needs the extra cloud: make setup EXTRAS=dev,cloud")
pytest.importorskip("moto.server", reason="needs moto's server: pip install 'moto[server,s3]'")

pytestmark = NOISE

KILLER = Path(__file__).with_name("killer.py")
WEIGHTS = Path(__file__).parents[2] / "configs" / "weights"
GIVEN = {
    "density": {},
    "predict-density": {"--weights": "mcnn-hit-uav.pt"},
    "crop": {"--crop.min-side": "40"},
    "detect": {"--detector": "onnx", "--detector-weights": "hit-uav-detector.onnx"},
}


def words(stage: str, data: str, weights: str, folder: Path) -> list[str]:
    """The command line of a stage."""
    options = {
        name: f"{weights}/{value}" if name.endswith("weights") else value
        for name, value in GIVEN[stage].items()
    }
    given = {"--data": data, "--artifacts": str(folder), "--device": "cpu", "--workers": "1"}
    return [stage, *(word for pair in {**given, **options}.items() for word in pair)]


def upload(store: Store, folder: Path, name: str, files: list[Path]) -> None:
    for path in files:
        store.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_stages_from_a_bucket(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = tmp_path / "data"
    write_split(data, "val", range(100, 104), (96, 128))
    upload(store, data, "data", [path for path in data.rglob("*") if path.is_file()])
    upload(
        store, WEIGHTS, "models", [WEIGHTS / "mcnn-hit-uav.pt", WEIGHTS / "hit-uav-detector.onnx"]
    )
    for stage in GIVEN:
        assert main(words(stage, str(data), str(WEIGHTS), tmp_path / "local")) == 0
        remote = words(stage, "s3://bucket/data", "s3://bucket/models", tmp_path / "remote")
        folders = [tmp_path / place / "default" / "val" / stage for place in ("local", "remote")]
        store.faults.plan = ["503", "cut", "slow"]
        killed = [sys.executable, str(KILLER), "2", *remote]
        assert subprocess.run(killed, env=os.environ).returncode == -signal.SIGKILL
        done = (folders[1] / "items.jsonl").read_text()
        assert done.count('"key"') == 2
        store.faults.plan = ["cut", "503", "503"]
        assert main(remote) == 0
        assert tree(folders[0]) == tree(folders[1])
        assert main(remote) == 0  # and nothing is left to do
    written = [path for path in tmp_path.rglob("*") if path.is_file() and os.access(path, os.R_OK)]
    assert len(written) > 40
    for path in written:
        content = path.read_bytes()
        assert SECRET.encode() not in content and b"someone" not in content, path
