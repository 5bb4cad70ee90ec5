"""Image files: what is converted, what is refused, and sizes from headers."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from dmnet.core.errors import InputError
from dmnet.core.images import encode_jpeg, encode_png, read_image, read_size
from dmnet.core.records import Image


def picture(height: int = 6, width: int = 9) -> Image:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 20, y * 30, x * y], axis=-1).astype(np.uint8)


def save(path: Path, image: Pil.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("name", ["a b.c.png", "ünïcödé 图.PNG", "plain.png", "text named.jpg"])
def test_png_is_exact_under_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encode_png(picture()))
    assert np.array_equal(read_image(path), picture())
    assert read_image(path).dtype == np.uint8
    assert read_size(path) == (6, 9)


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.repeat(np.repeat(picture(), 16, axis=0), 16, axis=1)
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(smooth))
    assert read_size(path) == (96, 144)
    assert np.abs(read_image(path).astype(int) - smooth).max() < 12
    assert encode_jpeg(smooth) == encode_jpeg(smooth.copy())
    assert len(encode_jpeg(smooth, quality=30)) < len(encode_jpeg(smooth, quality=95))


def test_a_view_can_be_encoded() -> None:
    big = picture(20, 30)
    assert encode_png(big[2:9, 3:11]) == encode_png(big[2:9, 3:11].copy())


def test_the_array_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(picture()))
    read_image(path)[0, 0] = 1


def test_grey_and_bilevel(tmp_path: Path) -> None:
    grey = Pil.fromarray(picture()).convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, axis=2)
    assert np.array_equal(read_image(save(tmp_path / "a.png", grey)), expected)
    two = read_image(save(tmp_path / "b.png", grey.convert("1")))
    assert set(np.unique(two)) <= {0, 255}


def test_16_bit_grey_keeps_the_upper_byte(tmp_path: Path) -> None:
    deep = (np.arange(54, dtype=np.uint16) * 1200).reshape(6, 9)
    for name in ("a.png", "a.tif"):
        found = read_image(save(tmp_path / name, Pil.fromarray(deep)))
        assert np.array_equal(found[..., 0], deep >> 8)
        assert np.array_equal(found[..., 0], found[..., 2])


def test_16_bit_colour(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_png(9, 6, depth=16, kind=2, row=b"\x80\x7f\x40\x00\x20\x00" * 9))
    assert read_image(path)[3, 4].tolist() == [0x80, 0x40, 0x20]


def test_cmyk(tmp_path: Path) -> None:
    ink = Pil.new("CMYK", (9, 6), (255, 0, 0, 0))
    found = read_image(save(tmp_path / "a.jpg", ink, quality=100))
    assert found.shape == (6, 9, 3)
    assert np.abs(found.astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_and_palette(tmp_path: Path, mode: str) -> None:
    alpha = np.arange(54, dtype=np.uint8).reshape(6, 9)
    rgba = np.dstack([np.full((6, 9, 3), 90, np.uint8), alpha])
    path = save(tmp_path / "a.png", Pil.fromarray(rgba).convert(mode))
    assert np.array_equal(read_image(path), rgba[..., :3])


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Pil.new("P", (9, 6), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    path = save(tmp_path / "a.png", image, transparency=b"\x00\x80")
    assert (read_image(path) == [10, 20, 30]).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, name: str) -> None:
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = 255  # the top left quarter is white
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Pil.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / name, Pil.fromarray(turned), exif=exif)
    found = read_image(path)
    assert read_size(path) == found.shape[:2] == (32, 64)
    assert np.abs(found.astype(int) - upright).max() < 10


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist_are_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Pil.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Pil.fromarray(picture()), exif=exif)
    assert np.array_equal(read_image(path), picture())
    assert read_size(path) == (6, 9)


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Pil.fromarray(picture()), exif=b"Exif\x00\x00II*\x00\xff\xff")
    assert read_image(path).shape == (6, 9, 3)
    assert read_size(path) == (6, 9)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_truncated(tmp_path: Path, kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode_jpeg(noise) if kind == "jpg" else encode_png(noise)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=rf"a\.{kind}: damaged or unreadable image") as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert read_size(path) == (64, 64)  # the header is whole


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = bytearray(encode_png(noise))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or unreadable image"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_size])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "a.jpg: empty file (0 bytes)"),
        (b"this is text\n", "a.jpg: not an image, whatever its name says"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a.jpg: "),
        (b"\x89PNG\r\n\x1a\n", "a.jpg: "),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, read: object, data: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(path)  # type: ignore[operator]
    assert reason in str(caught.value)


@pytest.mark.parametrize("read", [read_image, read_size])
def test_missing_files_and_folders(tmp_path: Path, read: object) -> None:
    with pytest.raises(InputError, match=r"no\.jpg: cannot be read \(No such file"):
        read(tmp_path / "no.jpg")  # type: ignore[operator]
    with pytest.raises(InputError, match="Is a directory"):
        read(tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize("pixels", [np.float32, np.int32])
def test_32_bit_pixels_are_refused(tmp_path: Path, pixels: type) -> None:
    path = save(tmp_path / "a.tif", Pil.fromarray(np.ones((6, 9), pixels)))
    with pytest.raises(InputError, match=r"pixels of mode . \(32-bit\); save it with 8 bits"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_size])
@pytest.mark.parametrize(
    ("side", "reason"),
    [
        (13_000, "13000x13000 is more than the limit of 150,000,000 pixels"),
        (60_000, "more than the limit"),
    ],
)
def test_bombs_are_refused_before_decoding(
    tmp_path: Path, read: object, side: int, reason: str
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(side, side, depth=1, kind=0, row=b""))
    with pytest.raises(InputError, match=reason):
        read(path)  # type: ignore[operator]


def test_large_images_within_the_budget_give_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(_png(12_000, 12_000, depth=1, kind=0, row=b""))
    assert read_size(path) == (12_000, 12_000)


def test_the_pixel_budget_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(picture()))
    with pytest.raises(InputError, match="9x6 is more than the limit of 53 pixels; cut it into"):
        read_image(path, max_pixels=53)
    assert read_size(path, max_pixels=54) == (6, 9)


def test_sizes_are_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for name in ("a.jpg", "a.png", "a.tif", "a.webp", "a.bmp"):
        paths.append(save(tmp_path / name, Pil.fromarray(picture())))

    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert [read_size(path) for path in paths] == [(6, 9)] * 5


def test_real_pictures(shared: Path) -> None:
    found = sorted((shared / "data" / "visdrone-mini").glob("*/images/*.jpg"))
    assert len(found) == 20
    for path in found:
        with Pil.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(read_image(path), expected)
        assert read_size(path) == expected.shape[:2]


def _png(width: int, height: int, depth: int, kind: int, row: bytes) -> bytes:
    """A PNG written by hand: ``kind`` 0 grey, 2 RGB; an empty row leaves the pixels out."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    out = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    out.seek(0, io.SEEK_END)
    out.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)))
    out.write(chunk(b"IDAT", zlib.compress((b"\x00" + row) * height if row else b"")))
    out.write(chunk(b"IEND", b""))
    return out.getvalue()


def test_an_image_that_memory_has_no_room_for_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(np.zeros((4, 4, 3), np.uint8)))

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dmnet.core.images._to_rgb", full)
    with pytest.raises(InputError, match=r"a\.png: not enough memory to decode this image"):
        read_image(path)
