"""Image files: RGB uint8 in, JPEG or PNG out. Sizes are read from headers, without decoding."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image as Pil
from PIL import UnidentifiedImageError

from dmnet.core import limits
from dmnet.core.errors import InputError
from dmnet.core.reading import DAMAGED, opened
from dmnet.core.records import Image, Size

MAX_PIXELS = limits.IMAGE_PIXELS
"""Images with more pixels are refused before they are decoded (a guard against bombs)."""

Pil.MAX_IMAGE_PIXELS = None
# Pillow's own limit is another one for all users of the process; each file is checked here instead.

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""What is decoded, whatever a file's name says; Pillow would start programs for some others."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings that count as images, in lower case."""


_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
"""An image id that has no suffix and no folder."""


def image_id_of(file_name: str) -> str:
    """Image id of an image's name relative to the data set: posix, without an image suffix.

    Folders stay, so that two images of one name are two images; other dots belong to the name.

    >>> image_id_of("north/a.1.jpg"), image_id_of("a.1")
    ('north/a.1', 'a.1')
    """
    if _PLAIN.fullmatch(file_name):
        return file_name
    plain = PurePosixPath(file_name.strip())
    return str(plain.with_suffix("")) if plain.suffix.lower() in SUFFIXES else str(plain)


_ORIENTATION = 0x0112

_TURNS = {
    2: Pil.Transpose.FLIP_LEFT_RIGHT,
    3: Pil.Transpose.ROTATE_180,
    4: Pil.Transpose.FLIP_TOP_BOTTOM,
    5: Pil.Transpose.TRANSPOSE,
    6: Pil.Transpose.ROTATE_270,
    7: Pil.Transpose.TRANSVERSE,
    8: Pil.Transpose.ROTATE_90,
}


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image file to RGB, its EXIF orientation applied.

    Grey, palette and CMYK images are converted; 16-bit values keep their upper eight bits; an alpha
    channel is dropped.

    Args:
        path: the file.
        max_pixels: refuse larger images.

    Returns:
        ``(height, width, 3)`` uint8, RGB.

    Raises:
        InputError: the file is missing, empty, truncated, no image, of floating-point pixels, or
            larger than ``max_pixels``.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "grey.png"
    >>> _ = path.write_bytes(encode_png(np.full((4, 6, 3), 128, np.uint8)))
    >>> read_image(path).shape
    (4, 6, 3)
    """
    with _opened(path, max_pixels) as image:
        turn = _TURNS.get(_orientation(image))
        rgb = _to_rgb(path, image)
        if turn is not None:
            rgb = rgb.transpose(turn)
        return np.array(rgb)


def read_size(path: Path, max_pixels: int = MAX_PIXELS) -> Size:
    """``(height, width)`` as `read_image` would return it, from the header alone.

    Raises:
        InputError: the file is missing, empty, no image, or larger than ``max_pixels``.
    """
    with _opened(path, max_pixels) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def encode_jpeg(image: Image, quality: int = 95) -> bytes:
    """Encode as JPEG without chroma subsampling; the same pixels give the same bytes.

    Raises:
        InputError: a side is longer than the format can hold.
    """
    if max(image.shape[:2]) > limits.JPEG_SIDE:
        height, width = image.shape[:2]
        reason = f"{width}x{height} pixels, but a JPEG file holds 65,500 a side"
        raise InputError("picture", reason)
    buffer = io.BytesIO()
    Pil.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_png(image: Image) -> bytes:
    """Encode as PNG; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    Pil.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Pil.Image]:
    """Open a file and turn every way it can fail into an InputError."""
    try:
        # Pillow reports damaged EXIF and large images as warnings; the limit is checked below.
        with (
            warnings.catch_warnings(action="ignore"),
            opened(path) as stream,
            Pil.open(stream, formats=FORMATS) as image,
        ):
            width, height = image.size
            if width * height > max_pixels:
                limit = f"more than the limit of {max_pixels:,} pixels"
                raise InputError(path, f"{width}x{height} is {limit}; cut it into tiles first")
            yield image
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        known = ", ".join(FORMATS)
        reason = f"not an image, whatever its name says (known here: {known})"
        reason = "empty file (0 bytes)" if empty else reason
        raise InputError(path, reason) from error
    except MemoryError as error:
        raise InputError(path, "not enough memory to decode this image") from error
    except (OSError, struct.error, zlib.error, *DAMAGED) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(path, f"damaged or unreadable image ({reason})") from error


def _orientation(image: Pil.Image) -> int:
    """EXIF orientation 1-8 from the header; 1 where there is none.

    Pillow turns TIFF files by itself; for PNG it would decode the pixels to look for late EXIF.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in _TURNS else 1


def _to_rgb(path: Path, image: Pil.Image) -> Pil.Image:
    if image.mode.startswith("I;16"):
        return Pil.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(path, f"pixels of mode {image.mode} (32-bit); save it with 8 bits")
    if image.mode == "P":  # by way of RGBA, as a palette may hold transparency
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
