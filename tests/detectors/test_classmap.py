from __future__ import annotations

import pytest

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import ConfigError
from dmnet.core.records import Detections
from dmnet.detectors.classmap import DROPPED, category_table, parse_pairs, translated


def test_names_of_visdrone_and_of_coco_are_known() -> None:
    assert category_table(["car", "awning-tricycle"], {}, VISDRONE, "x").tolist() == [4, 8]
    coco = ["person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck"]
    assert category_table(coco, {}, VISDRONE, "x").tolist() == [1, 3, 4, 10, DROPPED, 9, DROPPED, 6]


def test_given_names_replace_the_known_ones() -> None:
    given = parse_pairs(("vehicle=4", "a=b=people"), VISDRONE, "x")
    assert given == {"vehicle": 4, "a=b": 2}
    assert category_table(["car", "vehicle", "a=b"], given, VISDRONE, "x").tolist() == [
        DROPPED,
        4,
        2,
    ]


@pytest.mark.parametrize("pair", ["car", "car=", "car=0", "car=11", "car=four"])
def test_a_pair_that_is_none(pair: str) -> None:
    with pytest.raises(ConfigError, match="name=class"):
        parse_pairs((pair,), VISDRONE, "mmdet.class_map")


def test_unknown_and_useless_names() -> None:
    with pytest.raises(ConfigError, match="no class 'lorry'; it has: car"):
        category_table(["car"], {"lorry": 6}, VISDRONE, "x")
    with pytest.raises(ConfigError, match="none of the detector's classes"):
        category_table(["cat", "dog"], {}, VISDRONE, "x")


def test_detections_get_the_labels_of_other_classes() -> None:
    cars = Classes(("bus", "Car", "person"))
    table = category_table(VISDRONE.names, {}, cars, "x")
    assert table.tolist() == [3, DROPPED, DROPPED, 2, *[DROPPED] * 4, 1, DROPPED]
    found = Detections([[0, 0, 1, 1]] * 3, [0.9, 0.8, 0.7], [9, 2, 4])
    assert translated(found, table).labels.tolist() == [1, 2]
    assert translated(found, table).scores.tolist() == [0.9, 0.7]
