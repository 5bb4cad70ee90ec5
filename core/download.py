"""Fetch a data set: resumed downloads over HTTPS, checked, unpacked without leaving the folder."""

from __future__ import annotations

import http.client
import logging
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from tqdm import tqdm

from dmnet.core.errors import InputError, MissingInputError
from dmnet.core.images import SUFFIXES

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Archive:
    """One zip of a data set.

    ``folder`` is the name it gets below the data folder, ``images`` how many image files it must
    hold. No publisher states a checksum: the zip's own CRC-32 of every file and the number of
    images are what is checked.
    """

    split: str
    url: str
    folder: str
    images: int


def _visdrone(split: str, images: int) -> Archive:
    folder = f"VisDrone2019-DET-{split}"
    base = "https://github.com/ultralytics/assets/releases/download/v0.0.0"
    return Archive(split, f"{base}/{folder}.zip", folder, images)


VISDRONE: tuple[Archive, ...] = (
    _visdrone("train", 6471),
    _visdrone("val", 548),
    _visdrone("test-dev", 1610),
    _visdrone("test-challenge", 1580),
)
"""VisDrone2019-DET, about 1.44, 0.07, 0.28 and 0.28 GB.

The authors' own links (github.com/VisDrone/VisDrone-Dataset) lead to Google Drive and Baidu, which
cannot be fetched by a plain request; these are copies of the same zips.
"""


def fetch_archive(archive: Archive, data: Path, *, keep_zip: bool = False) -> Path:
    """Fetch and unpack one archive to ``data/<folder>``, unless it is there already.

    A zip of the same name that was put into ``data`` by hand is used instead of a download.

    Args:
        archive: what to fetch.
        data: the folder of the data set; made if needed.
        keep_zip: leave the zip beside the unpacked folder.

    Returns:
        The unpacked folder.

    Raises:
        MissingInputError: the download failed; the message says how to go on.
        InputError: damaged or malicious zip, wrong number of images, or a folder
            that is in the way.
    """
    target = data / archive.folder
    zip_path = data / PurePosixPath(urlsplit(archive.url).path).name
    if target.exists():
        _check_count(target, archive.images, target)
        log.info("%s is there already (%d images)", target, archive.images)
        if _scratch(target).exists():  # a run was stopped when only tidying up was left
            _tidy(zip_path, target, keep_zip)
        return target
    fetch(archive.url, zip_path)
    unpack(zip_path, target, images=archive.images, keep_zip=keep_zip)
    return target


def fetch(
    url: str,
    target: Path,
    *,
    attempts: int = 5,
    pause: float = 2.0,
    timeout: float = 60.0,
) -> Path:
    """Download one file; a broken download goes on where it stopped, now or in a later run.

    The bytes gather in ``<target>.part``; ``target`` appears only when all are there.

    Args:
        url: https; plain http only from this machine.
        target: where the file goes; one that exists is kept.
        attempts: give up after this many tries in a row; one that brings new bytes is a new first.
        pause: seconds before the next try, doubled each time.
        timeout: seconds without data that count as a broken connection.

    Raises:
        MissingInputError: an address that is not https, a refusal by the server, or no progress.
        InputError: the disk cannot take it.
    """
    _check_url(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        part = target.with_name(target.name + ".part")
        _gather(url, part, attempts, pause, timeout)
        part.replace(target)
    return target


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in _LOCAL
    if parts.scheme != "https" and not local:
        raise MissingInputError(f"{url}: only https addresses are fetched")


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never to an address that is not https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Check the new address first."""
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_HttpsRedirects()]
    if urlsplit(url).hostname in _LOCAL:
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _gather(url: str, part: Path, attempts: int, pause: float, timeout: float) -> None:
    """Try until all bytes are in ``part``."""
    idle, reason, best = 0, "", _size(part)
    while idle < attempts:
        if idle:
            time.sleep(pause * 2 ** (idle - 1))
        try:
            if _receive(url, part, timeout):
                return
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except ConnectionError as error:
            reason = str(error)
        except OSError as error:
            raise InputError(part, f"cannot be written ({error.strerror})") from error
        idle = 1 if _size(part) > best else idle + 1
        best = max(best, _size(part))
        log.warning("%s: %s after %d bytes", url, reason, _size(part))
    raise MissingInputError(
        f"{url} could not be fetched: {reason}. {_size(part)} bytes are kept in {part}; the same "
        f"command goes on from there. Or download the file yourself to "
        f"{part.with_suffix('')} and run the command again."
    )


def _receive(url: str, part: Path, timeout: float) -> bool:
    """One request, from the end of ``part`` on; True when the file is complete."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "dmnet"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = _opener(url).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return True  # nothing is missing: the last run ended before the file got its name
        part.unlink(missing_ok=True)
        return False
    with response:
        if response.status != 206 or not _continues(response, start):
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _append(response, part, start, total)
    return total is None or _size(part) == total


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    return (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-")


def _append(response: http.client.HTTPResponse, part: Path, start: int, total: int | None) -> None:
    bar = tqdm(
        total=total, initial=start, unit="B", unit_scale=True, unit_divisor=1024, desc=part.stem
    )
    with part.open("ab" if start else "wb") as stream, bar:
        while block := response.read1(_BLOCK):
            stream.write(block)
            bar.update(len(block))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _scratch(target: Path) -> Path:
    """Where an archive is unpacked; it stays until all is done."""
    return target.with_name(f".{target.name}.unpacking")


def _tidy(zip_path: Path, target: Path, keep_zip: bool) -> None:
    if not keep_zip:
        zip_path.unlink(missing_ok=True)
    shutil.rmtree(_scratch(target), ignore_errors=True)


def unpack(
    zip_path: Path, target: Path, *, images: int | None = None, keep_zip: bool = True
) -> None:
    """Unpack a zip to a new folder ``target``, which appears only when everything is right.

    A single folder at the top of the zip that holds ``images`` is taken off.

    Args:
        zip_path: the archive.
        target: the folder to make.
        images: how many image files ``target/images`` must hold; None does not check.
        keep_zip: leave the archive there.

    Raises:
        InputError: no zip, a CRC that does not match, an entry that would leave the folder or is
            a link, too little disk space, a wrong number of images, or ``target`` exists.
    """
    if target.exists():
        raise InputError(target, "is in the way; move it aside or delete it first")
    scratch = _scratch(target)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _extract(zip_path, scratch / "files")
        root = _root(scratch / "files")
        if images is not None:
            _check_count(root, images, zip_path)
        root.replace(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(zip_path, f"damaged zip ({error}); delete it and fetch again") from error
    except OSError as error:
        raise InputError(zip_path, f"cannot be unpacked to {target} ({error})") from error
    finally:
        _tidy(zip_path, target, keep_zip or not target.exists())  # also where a signal ends it


def _extract(zip_path: Path, scratch: Path) -> None:
    with zipfile.ZipFile(zip_path) as archive:
        entries = archive.infolist()
        for entry in entries:
            _check_entry(zip_path, entry)
        needed = sum(entry.file_size for entry in entries)
        free = shutil.disk_usage(zip_path.parent).free
        if needed > free:
            raise InputError(zip_path, f"unpacks to {needed:,} bytes, {free:,} are free")
        scratch.mkdir(parents=True)
        for entry in tqdm(entries, desc=zip_path.stem, unit="file", disable=None):
            archive.extract(entry, scratch)


def _check_entry(zip_path: Path, entry: zipfile.ZipInfo) -> None:
    """Refuse what could write outside the folder."""
    name = entry.orig_filename
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(c in name for c in "\\:\0"):
        raise InputError(zip_path, f"refused: entry {name!r} does not stay inside the folder")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(zip_path, f"refused: entry {name!r} is a link or a special file")


def _root(scratch: Path) -> Path:
    """The unpacked folder itself, or the only folder in it that holds ``images``."""
    inner = [path for path in scratch.iterdir() if (path / "images").is_dir()]
    return inner[0] if len(inner) == 1 and not (scratch / "images").is_dir() else scratch


def _check_count(root: Path, images: int, place: Path) -> None:
    folder = root / "images"
    names = folder.iterdir() if folder.is_dir() else iter(())
    found = sum(path.suffix.lower() in SUFFIXES for path in names)
    if found != images:
        raise InputError(
            place, f"holds {found} images, expected {images}; move it aside and fetch again"
        )
