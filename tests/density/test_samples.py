from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.errors import ConfigError, InputError
from dmnet.core.images import encode_jpeg
from dmnet.core.records import DensityMap
from dmnet.density.samples import Augmentation, AugmentedPairs, DensityPair, Shrunk, augment, target
from dmnet.density.scale import Scaling
from dmnet.density.settings import AugmentConfig

STILL = AugmentConfig(flip=0.0, flip_vertical=0.0, zoom=(1.0, 1.0))
FLIPS = AugmentConfig(zoom=(1.0, 1.0))
PLAIN = Augmentation(16, STILL)


def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells with their own index, and an image whose red channel is the index of the cell."""
    cells = np.arange(height * width, dtype=np.float32).reshape(height, width)
    image = np.zeros((height * 4, width * 4, 3), np.uint8)
    image[..., 0] = cells.astype(np.uint8).repeat(4, 0).repeat(4, 1)
    return image, cells


def test_a_full_size_map_is_pooled_to_a_quarter() -> None:
    full = DensityMap(np.ones((9, 9), np.float32), 1, (9, 9))
    assert target(full).values.tolist() == [[16, 16, 4], [16, 16, 4], [4, 4, 1]]
    assert target(target(full)) is not None
    other = DensityMap(np.ones((2, 2), np.float32), 8, (16, 16))
    with pytest.raises(ConfigError, match="at that stride or a finer one, got 8"):
        target(other)


@pytest.mark.parametrize("how", [PLAIN, Augmentation(16, FLIPS)])
def test_image_and_cells_stay_together(how: Augmentation, rng: np.random.Generator) -> None:
    image, cells = grid(10, 12)
    for _ in range(20):
        part, target_part = augment(image, cells, how, 0.0, rng)
        assert part.shape == (16, 16, 3)
        np.testing.assert_array_equal(part[::4, ::4, 0], target_part)


def test_every_window_and_flip_comes_up(rng: np.random.Generator) -> None:
    image, cells = grid(5, 5)
    how = Augmentation(16, FLIPS)
    seen = {augment(image, cells, how, 0.0, rng)[1].tobytes() for _ in range(200)}
    assert len(seen) == 4 * 4


def test_rescaling_keeps_the_sum(rng: np.random.Generator) -> None:
    cells = rng.random((30, 30)).astype(np.float32)
    image = np.zeros((120, 120, 3), np.uint8)
    how = Augmentation(64, replace(STILL, zoom=(1 / 1.5, 1.5)))
    sums = []
    for _ in range(20):
        part, target_part = augment(image, cells, how, 0.0, rng)
        assert part.shape == (64, 64, 3) and target_part.shape == (16, 16)
        sums.append(target_part.sum())
    # between 16/1.5 and 16*1.5 cells of mean 0.5 in the window
    assert min(sums) > 0.8 * 0.5 * 10.6**2 and max(sums) < 1.2 * 0.5 * 24.1**2
    assert max(sums) > 2 * min(sums)


def test_small_images_are_padded_with_the_mean(rng: np.random.Generator) -> None:
    image, cells = grid(2, 3)
    part, target_part = augment(image[:7, :11] + np.uint8(1), cells, PLAIN, 99.6, rng)
    assert part.shape == (16, 16, 3)
    assert target_part.sum() == cells.sum()
    assert (part[8:] == 100).all() and (part[7, :11] == 100).all()


def test_shrunk_pictures_and_their_targets(tmp_path: Path) -> None:
    image, cells = grid(10, 12)
    path = tmp_path / "a.png"
    path.write_bytes(encode_jpeg(image))
    shrunk = Shrunk([DensityPair(path, lambda: DensityMap(cells, 4, (40, 48)))], 24, 4)
    small, mass = shrunk[0]
    assert small.shape == (20, 24, 3) and mass.shape == (5, 6)
    assert mass[0, 0] == cells[:2, :2].sum() and mass.sum() == cells.sum()
    shrunk.fill(1)
    path.unlink()
    np.testing.assert_array_equal(shrunk[0][0], small)  # from memory


def test_what_has_no_room_is_read_again(tmp_path: Path) -> None:
    shrunk = Shrunk([DensityPair(tmp_path / "absent.png", lambda: None)])  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match=r"absent\.png"):
        shrunk.fill(0)


@pytest.mark.parametrize("stride", [4, 8])
def test_cells_of_any_stride_stay_with_their_pixels(stride: int, rng: np.random.Generator) -> None:
    cells = np.arange(30, dtype=np.float32).reshape(5, 6)
    image = np.zeros((5 * stride, 6 * stride, 3), np.uint8)
    image[..., 0] = cells.repeat(stride, 0).repeat(stride, 1)
    how = Augmentation(16, FLIPS, stride=stride)
    for _ in range(10):
        part, target_part = augment(image, cells, how, 0.0, rng)
        np.testing.assert_array_equal(part[::stride, ::stride, 0], target_part)


def test_another_light_keeps_the_map(rng: np.random.Generator) -> None:
    image, cells = np.full((16, 16, 3), 100, np.uint8), np.ones((4, 4), np.float32)
    how = Augmentation(16, replace(STILL, photometric=0.2))
    seen = [augment(image, cells, how, 0.0, rng) for _ in range(50)]
    assert all((target_part == 1).all() for _, target_part in seen)
    means = [part.mean() for part, _ in seen]
    assert 60 < min(means) < 90 and 110 < max(means) < 140
    assert any(len(set(part[0, 0].tolist())) > 1 for part, _ in seen)  # a tint


def test_whole_images_keep_their_size(rng: np.random.Generator) -> None:
    image, cells = grid(5, 7)
    part, target_part = augment(image[:18, :27], cells, Augmentation(0, STILL), 0.0, rng)
    assert part.shape == (20, 28, 3)
    np.testing.assert_array_equal(target_part, cells)


def test_whole_images_are_padded_for_the_network(rng: np.random.Generator) -> None:
    image, cells = grid(5, 8)
    how = Augmentation(0, STILL, multiple=16)
    part, target_part = augment(image[:18, :27], cells, how, 9.0, rng)
    assert part.shape == (32, 32, 3) and target_part.shape == (8, 8)
    assert target_part.sum() == cells.sum()
    assert (part[18:] == 9).all()


def test_pairs_are_read_lazily_and_do_not_depend_on_order(tmp_path: Path) -> None:
    image, cells = grid(10, 10)
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(image))
    read: list[int] = []

    def sample(index: int) -> DensityPair:
        def density() -> DensityMap:
            read.append(index)
            return DensityMap(cells, 4, (40, 40))

        return DensityPair(path, density)

    samples = [sample(i) for i in range(3)]
    pairs = AugmentedPairs(Shrunk(samples), PLAIN, Scaling(10.0, 2.0), seed=1, epoch=2)
    assert len(pairs) == 3 and read == []
    second = pairs[1]
    assert read == [1]
    pairs[0]
    again = pairs[1]
    assert second[0].shape == (3, 16, 16) and second[1].shape == (1, 4, 4)
    assert (second[0] == again[0]).all() and (second[1] == again[1]).all()
    assert second[0].min() == -5.0  # (0 - 10) / 2: the empty channels
    other = AugmentedPairs(Shrunk(samples), PLAIN, Scaling(10.0, 2.0), seed=1, epoch=3)
    assert any((other[i][1] != pairs[i][1]).any() for i in range(3))


def test_a_map_of_another_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(np.zeros((40, 44, 3), np.uint8)))
    density = DensityMap(np.zeros((10, 10), np.float32), 4, (40, 40))
    pairs = AugmentedPairs(Shrunk([DensityPair(path, lambda: density)]), PLAIN, Scaling(), 0, 0)
    with pytest.raises(InputError, match=r"a\.jpg: the image is 40x44 .* made for 40x40"):
        pairs[0]
