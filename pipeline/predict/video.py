"""Videos through OpenCV: frames in order, and annotated ones written."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from dmnet.core import limits
from dmnet.core.errors import InputError
from dmnet.core.records import Image, Size

CONTAINERS = "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2"
"""What FFmpeg may take a file for; play lists and the like, which open other files, are not."""

CHUNK = 1 << 20
"""Bytes of a piece of a written video."""


@dataclass(frozen=True)
class Video:
    """What the header of a video says."""

    path: Path
    size: Size
    frames: int
    rate: float
    """Frames a second."""


def open_video(path: Path) -> Video:
    """Read the header.

    Raises:
        InputError: not a video that OpenCV can open, one without frames, or beyond the limits.
    """
    with _capture(path) as capture:
        wide, high, count, rate = (
            capture.get(key)
            for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT,
                        cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS)
        )  # fmt: skip
        raw = not capture.get(cv2.CAP_PROP_FOURCC) and _letters(capture)[:3] in UNPACKED
    if raw:  # a decoder that writes beyond its frames where a file is damaged
        raise InputError(path, "holds uncompressed frames, which are not read; encode it (H.264)")
    if not (min(wide, high, count) >= 1 and math.isfinite(wide * high * count)):
        raise InputError(path, "holds no video frames")
    if wide * high > limits.IMAGE_PIXELS:
        shown = f"{wide:.0f}x{high:.0f}"
        raise InputError(path, f"frames of {shown} exceed {limits.IMAGE_PIXELS:,} pixels")
    if min(wide, high) < limits.VIDEO_SIDE:
        shown = f"{wide:.0f}x{high:.0f}"
        raise InputError(path, f"frames of {shown}, below {limits.VIDEO_SIDE} pixels a side")
    if count > limits.VIDEO_FRAMES:
        raise InputError(path, f"declares {count:.0f} frames, more than {limits.VIDEO_FRAMES:,}")
    return Video(path, (int(high), int(wide)), int(count), float(rate) if rate > 0 else 25.0)


UNPACKED = (b"BGR", b"RGB", b"PAL")
"""Pixels of uncompressed frames, where a file names no codec."""


def _letters(capture: Any) -> bytes:
    """Four letters that name the pixels of the codec."""
    return int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)).to_bytes(4, "little", signed=True)


@contextmanager
def _capture(path: Path) -> Iterator[Any]:
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", f"format_whitelist;{CONTAINERS}")
    # FFmpeg alone: OpenCV's own reader of AVI ends the process where a header is odd, and others
    # take a name for a pattern of names
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise InputError(path, "not a video that can be opened")
        yield capture
    finally:
        capture.release()


def frames(
    video: Video, wanted: Sequence[range] | None = None
) -> Iterator[tuple[int, Image | None]]:
    """Frames as RGB with their numbers from 0, in order; None where one cannot be decoded.

    Args:
        video: the video.
        wanted: the frames to give; None: all. Others are passed over.
    """
    wanted = [range(video.frames)] if wanted is None else wanted
    last = max((part.stop for part in wanted), default=0)
    with _capture(video.path) as capture:
        for index in range(last):
            grabbed = capture.grab()
            if not any(index in part for part in wanted):
                continue
            good, frame = capture.retrieve() if grabbed else (False, None)
            whole = good and frame is not None and frame.size > 0  # good ones may be empty
            yield index, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if whole else None


def write_mp4(pictures: Iterable[Image], rate: float, size: Size) -> Iterator[bytes]:
    """An mp4 (MPEG-4 part 2) of RGB pictures ``size`` at ``rate`` frames a second, in pieces.

    Each picture goes into a temporary file as it comes; neither they nor the file are held.

    Raises:
        InputError: this OpenCV cannot write one.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), code, rate, (size[1], size[0]))
        if not writer.isOpened():
            raise InputError("mp4", f"this OpenCV cannot write {size[1]}x{size[0]} at {rate:g}/s")
        with closing(_Closing(writer)):
            for picture in pictures:
                writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        with path.open("rb") as stream:
            yield from iter(partial(stream.read, CHUNK), b"")


@dataclass
class _Closing:
    writer: Any

    def close(self) -> None:
        self.writer.release()


def frame_name(name: str, index: int) -> str:
    """Name of a frame in tables: ``clip.mp4#000012``."""
    return f"{name}#{index:06d}"
