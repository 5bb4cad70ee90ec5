from __future__ import annotations

import numpy as np
import pytest

from dmnet.core.errors import ConfigError
from dmnet.core.records import Annotations, DensityMap
from dmnet.cropping.pictures import (
    HEAD,
    PANEL,
    contact_sheet,
    crop_picture,
    density_overlay,
    mask_overlay,
)
from dmnet.cropping.slicers import CropConfig
from tests.written import pooled

SIZE = (150, 200)


def grey(size: tuple[int, int] = SIZE, level: int = 100) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def one_spot() -> DensityMap:
    values = np.zeros(SIZE, np.float32)
    values[40:60, 50:80] = 0.01
    return DensityMap(values, 1, SIZE)


def test_overlay_colours_the_spot_and_dims_the_rest() -> None:
    picture = density_overlay(grey(), one_spot())
    assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
    assert (picture[:30] == 60).all()
    assert picture[50, 65].tolist() == [252, 255, 164]  # the strongest colour of inferno


def test_overlay_of_an_empty_map_is_grey() -> None:
    empty = DensityMap(np.zeros((38, 50), np.float32), 4, SIZE)
    assert (density_overlay(grey(), empty) == 60).all()


def test_overlay_shows_the_same_level_at_every_stride() -> None:
    fine = density_overlay(grey(), one_spot(), top=0.02)
    coarse = density_overlay(grey(), pooled(one_spot(), 2), top=0.02)
    assert np.abs(fine[50, 65].astype(int) - coarse[50, 65]).max() <= 1


def test_mask_overlay_keeps_what_is_inside() -> None:
    mask = np.zeros(SIZE, bool)
    mask[:70, :70] = True
    picture = mask_overlay(grey(), mask)
    assert (picture[:70, :70] == 100).all() and (picture[70:] == 45).all()
    reduced = mask_overlay(grey((75, 100)), mask)
    assert (reduced[:35, :35] == 100).all() and (reduced[35:] == 45).all()


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("spots", [True, False])
@pytest.mark.parametrize("size", [SIZE, (900, 1600)])
def test_picture_has_four_panels(truth: bool, spots: bool, size: tuple[int, int]) -> None:
    found = Annotations.of("a", size, [[55, 40, 75, 60], [0, 0, 9, 9]], [4, 0]) if truth else None
    values = np.full(size, 1e-4 if spots else 0, np.float32)
    picture = crop_picture(grey(size), DensityMap(values, 1, size), CropConfig(), found, "title")
    assert picture.dtype == np.uint8
    assert picture.shape == (round(PANEL * size[0] / size[1]) + HEAD, 4 * PANEL, 3)


def test_pictures_repeat_exactly_and_leave_the_image_alone(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    before = image.copy()
    first = crop_picture(image, one_spot(), CropConfig(), title="a")
    np.testing.assert_array_equal(first, crop_picture(image, one_spot(), CropConfig(), title="a"))
    assert (first != crop_picture(image, one_spot(), CropConfig.of(slicer="none"), title="a")).any()
    np.testing.assert_array_equal(image, before)


def test_a_map_of_another_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"150x200 .* has 151x200"):
        crop_picture(grey((151, 200)), one_spot(), CropConfig())


def test_contact_sheet_by_hand() -> None:
    a, b, c = grey((4, 6), 1), grey((5, 3), 2), grey((2, 6), 3)
    sheet = contact_sheet([a, b, c], columns=2, gap=1)
    assert sheet.shape == (5 + 1 + 2, 6 + 1 + 6, 3)
    assert (sheet[:4, :6] == 1).all() and (sheet[:5, 7:10] == 2).all()
    assert (sheet[6:8, :6] == 3).all() and (sheet[5] == 255).all() and (sheet[:, 6] == 255).all()
    np.testing.assert_array_equal(contact_sheet([a], gap=0), a)


def test_contact_sheet_needs_pictures() -> None:
    with pytest.raises(ConfigError, match="at least one picture"):
        contact_sheet([])
