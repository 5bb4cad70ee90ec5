from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dmnet.core.errors import InputError
from dmnet.core.images import encode_png, read_image
from dmnet.core.records import Annotations
from dmnet.detectors.base import DetectionNet, build_model
from dmnet.detectors.training.augmentation import AugmentConfig
from dmnet.detectors.training.data import DataConfig, TrainingImage
from dmnet.detectors.training.loader import TrainingData
from dmnet.detectors.training.pixels import PixelStore, room, useful_size

Scenes = Callable[..., list[TrainingImage]]
FULL = DataConfig(shrink=False)


@pytest.fixture
def net() -> DetectionNet:
    """Images are scaled to 64 pixels."""
    return build_model("yolov6-n", {"input_size": 64})


def with_windows(samples: list[TrainingImage]) -> list[TrainingImage]:
    """Each image, then two windows of each."""
    windows = [(0, 0, 20, 30), (5, 9, 64, 64)]
    parts = [
        TrainingImage(s.image, Annotations.of("w", (y2 - y1, x2 - x1), [[1, 1, 9, 9]], [4]), window)
        for s in samples
        for window in windows
        for x1, y1, x2, y2 in [window]
    ]
    return samples + parts


def test_useful_size_by_hand(net: DetectionNet) -> None:
    # 64 / 400 x 1.5 = .24: a cut of 400 / 1.5 pixels has then 64
    assert useful_size((300, 400), net, 1.5) == (72, 96)
    assert useful_size((300, 400), net, 0.5) == (48, 64)
    assert useful_size((60, 90), net, 1.5) == (60, 90)
    assert useful_size((60, 90), net, 8.0) == (60, 90)


def test_crops_are_kept_as_large_as_their_own_zoom_needs(net: DetectionNet) -> None:
    big = Annotations.of("big", (300, 400), [], [])
    samples = [
        TrainingImage(Path("a.png"), big),
        TrainingImage(Path("a.png"), big, (0, 0, 400, 300)),
    ]
    config = DataConfig(augment=AugmentConfig(zoom=(1.0, 3.0), crop_zoom=(0.5, 1.5)))
    assert PixelStore(samples, net, config).sizes == [(144, 192), (72, 96)]


def test_stored_pixels_are_the_decoded_ones(
    scenes: Scenes, net: DetectionNet, tmp_path: Path
) -> None:
    samples = with_windows(scenes(2))
    for config in (FULL, replace(FULL, cache_gb=64 * 64 * 3e-9 * 2), replace(FULL, cache_gb=0.0)):
        stored = PixelStore(samples, net, config, tmp_path / f"store{config.cache_gb}")
        for pixels in (PixelStore(samples, net, config), stored, stored):
            for index, sample in enumerate(samples):
                x1, y1, x2, y2 = sample.window or (0, 0, 64, 64)
                expected = read_image(sample.image)[y1:y2, x1:x2]
                np.testing.assert_array_equal(pixels[index], expected)


def test_the_bound_holds(
    scenes: Scenes, net: DetectionNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(FULL, cache_gb=64 * 64 * 3e-9 * 2)  # two of three images of 64 x 64
    with caplog.at_level(logging.WARNING):
        pixels = PixelStore(scenes(3), net, config, tmp_path / "store")
    assert "1 of 3 images are decoded anew in every epoch" in caplog.text
    assert pixels.fill() == {}
    assert "leave room for 2.5e-05 GB of 3.7e-05 GB" in caplog.text
    assert [path.stat().st_size for path in (tmp_path / "store").iterdir()] == [64 * 64 * 3] * 2


def test_a_full_disk_bounds_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert room(tmp_path / "store", 20.0) == 900.0
    (tmp_path / "store" / "a.raw").write_bytes(bytes(50))  # of the run before
    assert room(tmp_path / "store", 20.0) == 950.0
    assert room(tmp_path / "store", 3e-7) == pytest.approx(300.0)


def test_each_file_is_decoded_once(
    scenes: Scenes, net: DetectionNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = with_windows(scenes(2))
    read: list[Path] = []

    def counted(path: Path, max_pixels: int) -> object:
        read.append(path)
        return read_image(path, max_pixels)

    monkeypatch.setattr("dmnet.detectors.training.pixels.read_image", counted)
    for _ in range(2):  # the second one goes on after a kill
        pixels = PixelStore(samples, net, FULL, tmp_path / "store")
        pixels.fill()
        for index in range(len(samples)):
            pixels[index]
    assert read == [samples[0].image, samples[1].image]


def test_another_size_or_picture_is_decoded_again(
    scenes: Scenes, net: DetectionNet, tmp_path: Path
) -> None:
    sample = scenes(1)[0]
    big = Annotations.of("big", (300, 400), [[0, 0, 40, 30]], [4])
    white = np.full((300, 400, 3), 255, np.uint8)
    sample.image.write_bytes(encode_png(white))
    store, zoomed = tmp_path / "store", DataConfig(augment=AugmentConfig(zoom=(1.0, 2.0)))
    for config, size in ((FULL, (300, 400)), (DataConfig(), (72, 96)), (zoomed, (96, 128))):
        pixels = PixelStore([replace(sample, annotations=big)], net, config, store)
        assert pixels[0].shape[:2] == size
        assert (pixels[0] == 255).all()
    sample.image.write_bytes(encode_png(white // 2))
    assert (PixelStore([replace(sample, annotations=big)], net, FULL, store)[0] == 127).all()


def test_boxes_are_scaled_with_the_pixels(scenes: Scenes, net: DetectionNet) -> None:
    sample = scenes(1)[0]
    sample.image.write_bytes(encode_png(np.zeros((300, 400, 3), np.uint8)))
    big = Annotations.of("big", (300, 400), [[0, 0, 40, 30], [100, 50, 200, 150]], [4, 0])
    still = AugmentConfig(flip=0.0, zoom=(1.0, 1.0), photometric=0.0)
    config = DataConfig(augment=still)
    pixels = PixelStore([replace(sample, annotations=big)], net, config)
    image, target = TrainingData(pixels, config, 0, 1)[(0, 0, 0)]
    assert image.shape == (3, 48, 64)
    torch.testing.assert_close(target["boxes"], torch.tensor([[0, 0, 6.4, 4.8]]))
    torch.testing.assert_close(target["ignore"], torch.tensor([[16, 8, 32, 24.0]]))


def test_damaged_images_are_named_and_wrong_sizes_refused(
    scenes: Scenes, net: DetectionNet, tmp_path: Path
) -> None:
    samples = scenes(2)
    samples[0].image.write_bytes(b"nothing")
    for folder in (None, tmp_path / "store"):
        aside = PixelStore(samples, net, FULL, folder).fill()
        assert list(aside) == [samples[0].image]
        assert "not an image, whatever its name says" in aside[samples[0].image]
    other = Annotations.of("b", (64, 63), [], [])
    with pytest.raises(InputError, match="shows 64x64 pixels, its annotations say 63x64"):
        PixelStore([replace(samples[1], annotations=other)], net, FULL, tmp_path / "s").fill()
