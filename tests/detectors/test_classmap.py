from __future__ import annotations

import pytest

from dmnet.core.errors import ConfigError
from dmnet.detectors.classmap import DROPPED, category_table, parse_pairs


def test_names_of_visdrone_and_of_coco_are_known() -> None:
    assert category_table(["car", "awning-tricycle"], {}, "x").tolist() == [4, 8]
    coco = ["person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck"]
    assert category_table(coco, {}, "x").tolist() == [1, 3, 4, 10, DROPPED, 9, DROPPED, 6]


def test_given_names_replace_the_known_ones() -> None:
    given = parse_pairs(("vehicle=4", "a=b=1"), "x")
    assert given == {"vehicle": 4, "a=b": 1}
    assert category_table(["car", "vehicle", "a=b"], given, "x").tolist() == [DROPPED, 4, 1]


@pytest.mark.parametrize("pair", ["car", "car=", "car=0", "car=11", "car=four"])
def test_a_pair_that_is_none(pair: str) -> None:
    with pytest.raises(ConfigError, match="name=category"):
        parse_pairs((pair,), "mmdet.class_map")


def test_unknown_and_useless_names() -> None:
    with pytest.raises(ConfigError, match="no class 'lorry'; it has: car"):
        category_table(["car"], {"lorry": 6}, "x")
    with pytest.raises(ConfigError, match="none of the detector's classes"):
        category_table(["cat", "dog"], {}, "x")
