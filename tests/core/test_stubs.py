"""Buckets without a server: a storage in memory, which fails on demand (S3: test_remote.py)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dmnet.core import remote, stubs, transfer
from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.errors import ConfigError, EditedArtifactError, InputError, MissingInputError
from dmnet.core.files import file_digest
from dmnet.core.reading import read_bytes
from dmnet.core.remote import CacheConfig, fetched, mirrored
from dmnet.core.transfer import pull, push
from dmnet.pipeline.buckets import from_buckets, place

BASE = "s3://bucket/data"


class Failing:
    """A storage whose next downloads fail as planned."""

    def __init__(self) -> None:
        self.files = fsspec.filesystem("memory", skip_instance_cache=True)
        self.plan: list[str] = []
        self.got: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def get_file(self, url: str, path: str) -> None:
        fault = self.plan.pop(0) if self.plan else ""
        if fault == "503":
            raise OSError("503 Slow Down")
        data = self.files.cat_file(url)
        Path(path).write_bytes(data[: len(data) // 2] if fault == "cut" else data)
        self.got.append(url)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    made = Failing()
    for module in (stubs, remote, transfer):
        monkeypatch.setattr(module, "system", lambda scheme: made)
    monkeypatch.setattr(stubs, "PAUSE", 0.0)
    made.pipe_file(f"{BASE}/images/a.jpg", b"a" * 100)
    made.pipe_file(f"{BASE}/images/b.jpg", b"b" * 50)
    yield made
    made.files.store.clear()


@pytest.fixture
def config(tmp_path: Path) -> CacheConfig:
    return CacheConfig(tmp_path / "cache", 10_000)


def test_files_are_fetched_when_they_are_read(store: Failing, config: CacheConfig) -> None:
    root = mirrored(BASE, config)
    path = root / "images" / "a.jpg"
    names = sorted(each.relative_to(root).as_posix() for each in root.rglob("*.jpg"))
    assert names == ["images/a.jpg", "images/b.jpg"]
    assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (100, 0)
    assert store.got == []
    assert read_bytes(path) == read_bytes(path) == b"a" * 100
    assert store.got == [f"{BASE}/images/a.jpg"]
    store.pipe_file(f"{BASE}/images/a.jpg", b"new")
    store.rm(f"{BASE}/images/b.jpg")
    assert mirrored(BASE, config) == root
    assert read_bytes(path) == b"new"
    assert not (root / "images" / "b.jpg").exists()


def test_faults_that_pass_are_survived_and_others_named(
    store: Failing, config: CacheConfig
) -> None:
    root = mirrored(BASE, config)
    store.plan = ["503", "cut", "503"]
    assert read_bytes(root / "images" / "a.jpg") == b"a" * 100
    store.plan = ["503"] * stubs.ATTEMPTS
    with pytest.raises(InputError, match=r"images/b.jpg: no answer after 6 tries \(OSError\)"):
        read_bytes(root / "images" / "b.jpg")
    assert not list(root.rglob("*.tmp"))


def test_the_cache_drops_what_was_fetched_first(store: Failing, config: CacheConfig) -> None:
    for number in range(8):
        store.pipe_file(f"{BASE}/{number}.bin", bytes([number]) * 4000)
    root = mirrored(BASE, config)
    for number in range(8):
        assert read_bytes(root / f"{number}.bin") == bytes([number]) * 4000
    full = {path.name for path in root.glob("*.bin") if not stubs.is_stub(path.stat())}
    assert full == {"6.bin", "7.bin"}
    assert read_bytes(root / "0.bin") == bytes(4000)


def test_weights_count_by_their_content(
    store: Failing, config: CacheConfig, tmp_path: Path
) -> None:
    (tmp_path / "own.jpg").write_bytes(b"a" * 100)
    assert file_digest(fetched(f"{BASE}/images/a.jpg", config)) == file_digest(tmp_path / "own.jpg")


def test_an_address_with_a_secret_is_refused(config: CacheConfig) -> None:
    for address in ("https://me:pass@host/data", "https://host/data?X-Amz-Signature=pass"):
        with pytest.raises(ConfigError, match="credentials belong in the environment") as caught:
            mirrored(address, config)
        assert "pass@" not in str(caught.value) and "Signature" not in str(caught.value)


def test_options_may_be_addresses(
    store: Failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMNET_CACHE", str(tmp_path / "cache"))
    fields = {"data": place(BASE), "weights": place(f"{BASE}/images/b.jpg"), "sizes": Path("s.csv")}
    found = from_buckets(fields, 1.0)
    assert found.keys() == {"data", "weights"}
    assert (Path(found["data"]) / "images").is_dir()
    assert Path(found["weights"]).read_bytes() == b"b" * 50
    with pytest.raises(MissingInputError, match=r"s3://bucket/none: no object there"):
        from_buckets({"data": "s3://bucket/none"}, 1.0)


def letters(item: Item) -> Product:
    return Product({f"deep/{item.id}.txt": item.id.encode() * 1000}, item.id)


def test_an_artifact_goes_there_and_back(store: Failing, tmp_path: Path) -> None:
    folder, url = tmp_path / "made", "s3://bucket/runs/made"
    with Artifact(folder, "letters", 1, {}) as made:
        made.process([Item("a"), Item("b")], letters)
        made.output("all.txt", b"ab")
    assert push(folder, url) == pull(url, tmp_path / "back") == 5
    again = Artifact(tmp_path / "back", "letters", 1, {})
    assert again.inspect([Item("a"), Item("b")])["fresh"] == 2
    assert not again.changed
    store.pipe_file(f"{url}/deep/b.txt", b"damaged")
    with pytest.raises(InputError, match=r"deep/b.txt: is not what the artifact's journal says"):
        pull(url, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (folder / "deep" / "a.txt").write_bytes(b"edited")
    with pytest.raises(EditedArtifactError, match=r"a.txt is missing or not as it was written"):
        push(folder, url)
