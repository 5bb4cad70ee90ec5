from __future__ import annotations

from typing import Any

import pytest

from dmnet.core.errors import ConfigError
from dmnet.cropping.choose import candidates, choose
from dmnet.cropping.slicers import CropConfig


def row(recall: Any, crops: Any, pixels: Any) -> dict[str, Any]:
    return {"recall_all": recall, "crops_per_image": crops, "relative_pixels": pixels}


def test_candidates_hold_the_defaults_once() -> None:
    settings = candidates(CropConfig())
    assert sum(config == CropConfig() for _, config in settings) == 1
    assert len({name for name, _ in settings}) == len(settings)


def test_fewest_pixels_within_the_bounds_first_on_a_tie() -> None:
    settings = candidates(CropConfig())[:6]
    rows = [
        row(0.97, 1.0, 0.1),  # recall too low
        row(0.99, 6.0, 0.2),  # too many crops
        row(0.99, 4.0, 0.5),
        row(0.98, 5.0, 0.4),
        row(0.99, 3.0, 0.4),  # a tie
        row(None, None, None),
    ]
    assert choose(settings, rows) == settings[3][1]
    assert choose(settings, rows, max_crops=6) == settings[1][1]


def test_nothing_fits() -> None:
    with pytest.raises(ConfigError, match=r"none of the 1 settings reaches .* 0\.98"):
        choose(candidates(CropConfig())[:1], [row(0.9, 1.0, 0.1)])
