"""Buckets: listed, fetched when read, kept within bounds, through faults; artifacts there and back.

A local S3 server (moto) answers; a layer before it fails as real networks do.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dmnet.core import stubs
from dmnet.core.artifact import Artifact, Item, Product
from dmnet.core.errors import (
    ConfigError,
    EditedArtifactError,
    ForeignArtifactError,
    InputError,
    MissingInputError,
)
from dmnet.core.files import file_digest
from dmnet.core.reading import read_bytes
from dmnet.core.remote import CacheConfig, fetched, mirrored
from dmnet.core.stubs import trim
from dmnet.core.transfer import pull, push
from tests.s3 import NOISE, SECRET, Store, server, store

__all__ = ["server", "store"]  # fixtures

pytest.importorskip("s3fs", reason="needs the extra cloud: make setup EXTRAS=dev,cloud")
pytest.importorskip("moto.server", reason="needs moto's server: pip install 'moto[server,s3]'")

pytestmark = NOISE


@pytest.fixture
def config(tmp_path: Path) -> CacheConfig:
    return CacheConfig(tmp_path / "cache", 10_000)


def test_a_bucket_is_a_folder_that_fills_itself(store: Store, config: CacheConfig) -> None:
    store.put("data/images/a.jpg", b"a" * 100)
    store.put("data/images/b.jpg", b"b" * 50)
    root = mirrored("s3://bucket/data", config)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    assert files == ["images/a.jpg", "images/b.jpg"]
    path = root / "images" / "a.jpg"
    state = path.stat()
    assert (state.st_size, stat.S_IMODE(state.st_mode)) == (100, 0)
    assert store.faults.gets == []
    known = file_digest(path)  # from the listing
    assert store.faults.gets == []
    assert read_bytes(path) == b"a" * 100
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert file_digest(path) == known
    assert read_bytes(path) == b"a" * 100
    assert len(store.faults.gets) == 1  # fetched once
    assert mirrored("s3://bucket/data", config) == root
    assert read_bytes(path) == b"a" * 100 and len(store.faults.gets) == 1


def test_what_changes_in_the_bucket_is_fetched_anew(store: Store, config: CacheConfig) -> None:
    store.put("data/a.txt", b"old")
    store.put("data/b.txt", b"gone")
    root = mirrored("s3://bucket/data", config)
    before = file_digest(root / "a.txt")
    assert read_bytes(root / "a.txt") == b"old"
    store.put("data/a.txt", b"new")
    store.client.rm_file("bucket/data/b.txt")
    root = mirrored("s3://bucket/data", config)
    assert read_bytes(root / "a.txt") == b"new"
    assert file_digest(root / "a.txt") != before
    assert not (root / "b.txt").exists()


@pytest.mark.parametrize("faults", [["503", "503"], ["cut", "503", "cut"], ["slow"]])
def test_faults_that_pass_are_survived(
    store: Store, config: CacheConfig, faults: list[str]
) -> None:
    store.put("data/a.bin", bytes(range(256)))
    root = mirrored("s3://bucket/data", config)
    store.faults.plan = list(faults)
    assert read_bytes(root / "a.bin") == bytes(range(256))
    assert store.faults.plan == []
    assert not list(root.rglob("*.tmp"))


def test_a_fault_that_stays_is_an_error_of_that_file(store: Store, config: CacheConfig) -> None:
    store.put("data/a.bin", b"x" * 10)
    root = mirrored("s3://bucket/data", config)
    store.faults.plan = ["503"] * 20
    with pytest.raises(InputError, match=r"data/a.bin: no answer after 6 tries"):
        read_bytes(root / "a.bin")
    assert not list(root.rglob("*.tmp"))


def test_the_cache_keeps_its_bound(store: Store, config: CacheConfig) -> None:
    for number in range(8):
        store.put(f"data/{number}.bin", bytes([number]) * 4000)
    root = mirrored("s3://bucket/data", config)
    for number in range(8):
        assert read_bytes(root / f"{number}.bin") == bytes([number]) * 4000
    full = [path for path in root.glob("*.bin") if not stubs.is_stub(path.stat())]
    assert {path.name for path in full} == {"6.bin", "7.bin"}
    assert read_bytes(root / "0.bin") == bytes(4000)  # fetched again
    assert trim(config.folder, 0) == 0


def test_weights_are_one_file_and_their_content_counts(
    store: Store, config: CacheConfig, tmp_path: Path
) -> None:
    path = fetched(store.put("models/net.pt", b"weights"), config)
    assert path.read_bytes() == b"weights" and path.name == "net.pt"
    (tmp_path / "own.pt").write_bytes(b"weights")
    assert file_digest(path) == file_digest(tmp_path / "own.pt")


def test_wrong_addresses_say_so(store: Store, config: CacheConfig) -> None:
    with pytest.raises(MissingInputError, match="s3://bucket/nothing: no object there"):
        mirrored("s3://bucket/nothing", config)
    with pytest.raises(MissingInputError, match=r"not there, or not for these credentials"):
        fetched("s3://bucket/none.pt", config)
    for address in ("https://me:pass@host/data", "https://host/data?X-Amz-Signature=pass"):
        with pytest.raises(ConfigError, match="credentials belong in the environment") as caught:
            mirrored(address, config)
        assert "pass@" not in str(caught.value) and "Signature" not in str(caught.value)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    with Artifact(folder, "letters", 1, {}) as made:
        made.process([Item("a"), Item("b")], letters)
        made.output("all.txt", b"ab")
    return folder


def letters(item: Item) -> Product:
    return Product({f"deep/{item.id}.txt": item.id.encode() * 1000}, item.id)


def test_an_artifact_goes_there_and_back(store: Store, artifact: Path, tmp_path: Path) -> None:
    store.faults.plan = ["503"]
    assert push(artifact, "s3://bucket/runs/made") == 5
    store.faults.plan = ["503", "cut", "503"]
    assert pull("s3://bucket/runs/made", tmp_path / "back") == 5
    again = Artifact(tmp_path / "back", "letters", 1, {})
    assert again.inspect([Item("a"), Item("b")])["fresh"] == 2
    assert not again.changed  # sizes, times and digests are those of the original
    with pytest.raises(ForeignArtifactError, match="is there already"):
        pull("s3://bucket/runs/made", tmp_path / "back")


def test_what_is_damaged_is_neither_sent_nor_taken(
    store: Store, artifact: Path, tmp_path: Path
) -> None:
    push(artifact, "s3://bucket/made")
    store.put("made/deep/b.txt", b"damaged")
    with pytest.raises(InputError, match=r"made/deep/b.txt: is not what the artifact's journal"):
        pull("s3://bucket/made", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert push(artifact, "s3://bucket/made") == 5  # mends it
    pull("s3://bucket/made", tmp_path / "back")
    (artifact / "deep" / "a.txt").write_bytes(b"edited")
    with pytest.raises(EditedArtifactError, match=r"a.txt is missing or not as it was written"):
        push(artifact, "s3://bucket/made")


def test_no_secret_is_written(store: Store, config: CacheConfig, artifact: Path) -> None:
    store.put("data/a.bin", b"x")
    read_bytes(mirrored("s3://bucket/data", config) / "a.bin")
    push(artifact, "s3://bucket/made")
    for folder in (config.folder, artifact):
        for place, _, names in os.walk(folder):
            for name in names:
                data = Path(place, name).read_bytes()
                assert SECRET.encode() not in data and b"someone" not in data
