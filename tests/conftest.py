"""Shared fixtures: where the real data is, and a seeded generator."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

pytest_plugins = ("tests.browser",)

hypothesis.settings.register_profile(
    "any machine", deadline=None
)  # a busy one is slow now and then
hypothesis.settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disc() -> Iterator[None]:
    """What a power cut leaves is the matter of one campaign; the other tests do not wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout."""
    path = ROOT.parent / "shared"
    if not (path / "data").is_dir():
        pytest.skip("needs the real data folder ../shared, which is not beside this checkout")
    return path


def _unpacked(archive: Path, target: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target


@pytest.fixture(scope="session")
def annotation_archive(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All VisDrone annotation files and image_sizes.csv."""
    archive = shared / "data" / "visdrone-annotations.tar.xz"
    return _unpacked(archive, tmp_path_factory.mktemp("annotations"))


@pytest.fixture(scope="session")
def thirdparty_detections(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Third-party detections on VisDrone val, one txt per image."""
    archive = shared / "data" / "detections" / "visdrone-val-thirdparty.tar.xz"
    return _unpacked(archive, tmp_path_factory.mktemp("detections")) / "pred_txt"
