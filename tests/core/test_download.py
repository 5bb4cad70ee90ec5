"""Downloads against a local server, and zips that are not what they should be."""

from __future__ import annotations

import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dmnet.core import download
from dmnet.core.download import VISDRONE, Archive, fetch, fetch_archive, unpack
from dmnet.core.errors import InputError, MissingInputError

BODY = bytes(range(256)) * 4000  # 1 MB


@dataclass
class Site:
    """What the server does and saw."""

    url: str = ""
    body: bytes = BODY
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    """How many bytes to send before hanging up, one a request."""
    status: list[int] = field(default_factory=list)
    location: str | None = None
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """A file server with ranges that can break off."""

    site: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        site.asked.append(self.headers.get("Range"))
        if site.location and self.path != "/moved.bin":
            self.send_response(302)
            self.send_header("Location", site.location)
            self.end_headers()
            return
        if site.status:
            self.send_error(site.status.pop(0))
            return
        start = self._start()
        if start is None:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(start)

    def _start(self) -> int | None:
        site, asked = self.site, self.headers.get("Range")
        if asked is None or not site.ranges:
            return 0
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        return start if start < len(site.body) else None

    def _send(self, start: int) -> None:
        site = self.site
        self.send_response(206 if start else 200)
        if start:
            end = f"{len(site.body) - 1}/{len(site.body)}"
            self.send_header("Content-Range", f"bytes {start}-{end}")
        self.send_header("Content-Length", str(len(site.body) - start))
        self.end_headers()
        cut = site.cuts.pop(0) if site.cuts else None
        self.wfile.write(site.body[start:] if cut is None else site.body[start : start + cut])


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()
    handler = type("BoundHandler", (Handler,), {"site": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_plain_download(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    assert fetch(site.url, target) == target
    assert target.read_bytes() == BODY
    assert names(target.parent) == ["file.bin"]


def test_an_empty_file(site: Site, tmp_path: Path) -> None:
    site.body = b""
    assert fetch(site.url, tmp_path / "a").read_bytes() == b""


def test_a_file_that_is_there_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(BODY)
    fetch(site.url, target)
    assert site.asked == []


def test_a_broken_connection_goes_on_by_itself(site: Site, tmp_path: Path) -> None:
    site.cuts = [1000, 500_000, 0]
    target = fetch(site.url, tmp_path / "file.bin", pause=0.001)
    assert target.read_bytes() == BODY
    assert site.asked == [None, "bytes=1000-", "bytes=501000-", "bytes=501000-"]


def test_a_later_run_goes_on(site: Site, tmp_path: Path) -> None:
    site.cuts = [700_000]
    target = tmp_path / "file.bin"
    with pytest.raises(MissingInputError) as caught:
        fetch(site.url, target, attempts=1, pause=0)
    text = str(caught.value)
    assert f"{site.url} could not be fetched: the connection ended early" in text
    assert f"700000 bytes are kept in {target}.part; the same command goes on from there" in text
    assert f"yourself to {target} and run" in text
    assert not target.exists()
    assert fetch(site.url, target).read_bytes() == BODY
    assert site.asked == [None, "bytes=700000-"]
    assert names(tmp_path) == ["file.bin"]


def test_a_run_that_ended_before_the_file_got_its_name(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY)
    assert fetch(site.url, tmp_path / "file.bin").read_bytes() == BODY
    assert site.asked == [f"bytes={len(BODY)}-"]


def test_a_part_that_is_too_long_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY + b"x")
    assert fetch(site.url, tmp_path / "file.bin", pause=0).read_bytes() == BODY
    assert site.asked == [f"bytes={len(BODY) + 1}-", None]


def test_a_server_without_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    site.cuts, site.ranges = [1000], False
    target = fetch(site.url, tmp_path / "file.bin", pause=0)
    assert target.read_bytes() == BODY


def test_no_progress_ends(site: Site, tmp_path: Path) -> None:
    site.cuts = [10] + [0] * 9
    with pytest.raises(MissingInputError, match="10 bytes are kept"):
        fetch(site.url, tmp_path / "file.bin", attempts=3, pause=0)
    assert site.asked == [None, "bytes=10-", "bytes=10-"]


def test_server_errors_are_tried_again(site: Site, tmp_path: Path) -> None:
    site.status = [503, 429]
    assert fetch(site.url, tmp_path / "file.bin", pause=0).read_bytes() == BODY


def test_not_found_is_final(site: Site, tmp_path: Path) -> None:
    site.status = [404, 404]
    with pytest.raises(MissingInputError, match="the server answered 404 Not Found"):
        fetch(site.url, tmp_path / "file.bin", pause=0)
    assert len(site.asked) == 1


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="Connection refused"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "a", attempts=2, pause=0)


@pytest.mark.parametrize(
    "url", ["http://example.org/a.zip", "ftp://example.org/a", "file:///a", "a.zip"]
)
def test_only_https(tmp_path: Path, url: str) -> None:
    with pytest.raises(MissingInputError, match="only https addresses are fetched"):
        fetch(url, tmp_path / "a")


def test_redirects_are_followed_but_not_to_http(site: Site, tmp_path: Path) -> None:
    site.location = "/moved.bin"
    assert fetch(site.url, tmp_path / "a").read_bytes() == BODY
    site.location = "http://example.org/moved.bin"
    with pytest.raises(MissingInputError, match=r"http://example\.org/moved\.bin: only https"):
        fetch(site.url, tmp_path / "b")


def zipped(entries: dict[str, bytes] | list[tuple[zipfile.ZipInfo | str, bytes]]) -> bytes:
    pairs = list(entries.items()) if isinstance(entries, dict) else entries
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in pairs:
            archive.writestr(name, data)
    return buffer.getvalue()


def put(folder: Path, data: bytes) -> Path:
    path = folder / "set.zip"
    path.write_bytes(data)
    return path


GOOD = {"set/images/a b.jpg": b"1", "set/images/é.JPG": b"2", "set/annotations/a b.txt": b""}


@pytest.mark.parametrize("top", ["set/", "other/", "", "deep/"])
def test_unpack(tmp_path: Path, top: str) -> None:
    data = zipped({name.replace("set/", top): text for name, text in GOOD.items()})
    unpack(put(tmp_path, data), tmp_path / "set", images=2)
    assert names(tmp_path) == ["set", "set.zip"]
    assert names(tmp_path / "set" / "images") == ["a b.jpg", "é.JPG"]
    assert names(tmp_path / "set" / "annotations") == ["a b.txt"]


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.txt", "does not stay inside the folder"),
        ("set/../../evil.txt", "does not stay inside the folder"),
        ("/evil.txt", "does not stay inside the folder"),
        ("..\\evil.txt", "does not stay inside the folder"),
        ("C:evil.txt", "does not stay inside the folder"),
        (link("set/images/way-out"), "is a link or a special file"),
    ],
)
def test_malicious_entries(tmp_path: Path, name: zipfile.ZipInfo | str, reason: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = put(folder, zipped([*GOOD.items(), (name, b"../..")]))
    with pytest.raises(InputError, match=rf"set\.zip: refused: entry .* {reason}"):
        unpack(path, folder / "set")
    assert names(folder) == ["set.zip"]
    assert names(tmp_path) == ["inner"]


def test_damaged_zips(tmp_path: Path) -> None:
    data = zipped({"set/images/a.jpg": b"0123456789" * 100})
    flipped = bytearray(data)
    flipped[100] ^= 1
    for bad in (b"", b"<html>", data[: len(data) // 2], bytes(flipped)):
        path = put(tmp_path, bad)
        with pytest.raises(InputError, match=r"damaged zip .*; delete it and fetch again"):
            unpack(path, tmp_path / "set")
        assert names(tmp_path) == ["set.zip"]
    with pytest.raises(InputError, match=r"none\.zip: cannot be unpacked"):
        unpack(tmp_path / "none.zip", tmp_path / "set")


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    path = put(tmp_path, zipped([("set/images", b"file"), ("set/images/a.jpg", b"1")]))
    with pytest.raises(InputError, match=r"set\.zip: cannot be unpacked"):
        unpack(path, tmp_path / "set")
    assert names(tmp_path) == ["set.zip"]


def test_wrong_number_of_images(tmp_path: Path) -> None:
    path = put(tmp_path, zipped(GOOD))
    with pytest.raises(InputError, match="holds 2 images, expected 3"):
        unpack(path, tmp_path / "set", images=3)
    assert names(tmp_path) == ["set.zip"]


def test_too_large_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, zipped(GOOD))
    usage = download.shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="unpacks to 2 bytes, 1 are free"):
        unpack(path, tmp_path / "set")


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match="set: is in the way; move it aside or delete it first"):
        unpack(put(tmp_path, zipped(GOOD)), tmp_path / "set")
    assert names(tmp_path / "set") == []


def test_the_whole_way(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    site.body = zipped(GOOD)
    site.cuts = [20]
    archive = Archive("val", site.url.replace("file.bin", "set.zip?x=1"), "set", 2)
    with pytest.raises(MissingInputError):
        fetch_archive(replace(archive, url="http://example.org/set.zip"), tmp_path)
    assert fetch_archive(archive, tmp_path / "data") == tmp_path / "data" / "set"
    assert names(tmp_path / "data") == ["set"]
    asked = len(site.asked)
    fetch_archive(archive, tmp_path / "data")
    assert len(site.asked) == asked == 2
    (tmp_path / "data" / "set" / "images" / "a b.jpg").unlink()
    with pytest.raises(InputError, match="set: holds 1 images, expected 2; move it aside"):
        fetch_archive(archive, tmp_path / "data")


def test_a_zip_that_changed_between_two_runs_is_found(site: Site, tmp_path: Path) -> None:
    archive = Archive("val", site.url.replace("file.bin", "set.zip"), "set", 1)
    site.body, site.cuts = zipped({"set/images/a.jpg": b"old" * 500}), [1000]
    with pytest.raises(MissingInputError, match="1000 bytes are kept"):
        fetch(archive.url, tmp_path / "set.zip", attempts=1)
    site.body = zipped({"set/images/a.jpg": b"new" * 500})
    with pytest.raises(InputError, match=r"damaged zip .*CRC.*; delete it and fetch again"):
        fetch_archive(archive, tmp_path)
    (tmp_path / "set.zip").unlink()
    fetch_archive(archive, tmp_path)
    assert (tmp_path / "set" / "images" / "a.jpg").read_bytes() == b"new" * 500


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_stopped_when_all_was_unpacked_leaves_nothing(keep: bool, tmp_path: Path) -> None:
    """Found by the campaign kill_verbs: the zip stayed for ever."""
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "a.jpg").write_bytes(b"a")
    (tmp_path / "set.zip").write_bytes(b"unpacked")
    (tmp_path / ".set.unpacking").mkdir()
    archive = Archive("val", "https://example.org/set.zip", "set", 1)
    assert fetch_archive(archive, tmp_path, keep_zip=keep) == tmp_path / "set"
    assert sorted(p.name for p in tmp_path.iterdir()) == (["set", "set.zip"] if keep else ["set"])


def test_a_signal_after_all_was_unpacked_leaves_no_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the campaign kill_verbs, with SIGTERM."""
    put(tmp_path, zipped(GOOD))
    usual = Path.replace

    def stopped(self: Path, target: Path) -> Path:
        found = usual(self, target)
        if target.name == "set":
            raise SystemExit(143)
        return found

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(SystemExit):
        fetch_archive(Archive("val", "https://example.org/set.zip", "set", 2), tmp_path)
    assert names(tmp_path) == ["set"]


def test_a_zip_of_an_unpacked_set_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set.zip").write_bytes(b"mine")
    fetch_archive(Archive("val", "https://example.org/set.zip", "set", 0), tmp_path)
    assert (tmp_path / "set.zip").read_bytes() == b"mine"


def test_a_zip_put_there_by_hand_is_used(tmp_path: Path) -> None:
    path = put(tmp_path, zipped(GOOD))
    archive = Archive("val", "https://example.invalid/set.zip", "set", 2)
    fetch_archive(archive, tmp_path, keep_zip=True)
    assert names(tmp_path) == ["set", "set.zip"]
    assert path.exists()


def test_the_table_of_visdrone() -> None:
    assert [(a.split, a.images) for a in VISDRONE] == [
        ("train", 6471),
        ("val", 548),
        ("test-dev", 1610),
        ("test-challenge", 1580),
    ]
    for archive in VISDRONE:
        assert archive.url.startswith("https://")
        assert archive.url.endswith(f"/{archive.folder}.zip")
