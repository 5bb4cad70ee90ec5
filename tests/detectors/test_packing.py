"""Packing of crops onto shared canvases, and the way back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet.core.errors import ConfigError
from dmnet.core.images import encode_png
from dmnet.core.records import Detections, Image, Size
from dmnet.detectors.infer import InferConfig, detect_items
from dmnet.detectors.packing import PackConfig, PackedDetector, Usage, pack, split

SIDE = 64


class Bright:
    """Finds every block of white pixels; remembers the sizes of the images of each call."""

    def __init__(self) -> None:
        self.sizes: list[list[Size]] = []

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        self.sizes.append([(i.shape[0], i.shape[1]) for i in images])
        return [self._find(image) for image in images]

    def _find(self, image: Image) -> Detections:
        from scipy import ndimage

        labels, count = ndimage.label(image[:, :, 0] > 200)
        boxes = [
            (s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(labels)
        ]
        return Detections(
            np.array(boxes, dtype=float).reshape(-1, 4), np.full(count, 0.5), np.ones(count, int)
        )


def crop(size: Size, box: tuple[int, int, int, int]) -> Image:
    image = np.zeros((*size, 3), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image


def test_two_half_canvases_share_one() -> None:
    places = pack([(32, 64), (24, 64)], PackConfig(side=SIDE, zoom=1.0, gap=8))
    assert [p.canvas for p in places] == [0, 0]
    assert sorted(p.window for p in places) == [(0, 0, 64, 32), (0, 40, 64, 64)]


def test_crops_are_enlarged_up_to_the_bound_and_shrunk_to_the_side() -> None:
    config = PackConfig(side=SIDE, zoom=2.0, gap=0)
    assert pack([(10, 20)], config)[0].window == (0, 0, 40, 20)
    assert pack([(128, 64)], config)[0].window == (0, 0, 32, 64)


def test_a_little_smaller_saves_a_canvas() -> None:
    config = PackConfig(side=SIDE, zoom=1.0, gap=0)
    assert {p.canvas for p in pack([(34, 64), (34, 64)], config)} == {0}
    assert {p.canvas for p in pack([(60, 64), (60, 64)], config)} == {0, 1}


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), max_size=12),
    st.integers(0, 9),
    st.floats(0.5, 4),
)
def test_no_overlap_and_inside(sizes: list[Size], gap: int, zoom: float) -> None:
    places = pack(sizes, PackConfig(side=SIDE, zoom=zoom, gap=gap))
    assert [p.size for p in places] == sizes
    taken = np.zeros((1 + max((p.canvas for p in places), default=0), SIDE, SIDE), bool)
    for place in places:
        x1, y1, x2, y2 = place.window
        assert 0 <= x1 < x2 <= SIDE and 0 <= y1 < y2 <= SIDE
        assert not taken[place.canvas, y1:y2, x1:x2].any()
        taken[place.canvas, y1:y2, x1:x2] = True


def test_boxes_come_back_to_their_crop_and_never_cross_a_seam() -> None:
    places = pack([(32, 64), (32, 64)], PackConfig(side=SIDE, zoom=1.0, gap=0))
    upper, lower = sorted(range(2), key=lambda i: places[i].window[1])
    canvas = Detections(
        np.array([[4, 30, 10, 36], [8, 40, 12, 50]], float), np.array([0.9, 0.8]), np.array([1, 2])
    )
    parts = split([canvas], places)
    assert len(parts[upper]) == 0
    assert parts[lower].boxes.tolist() == [[4, 0, 10, 4], [8, 8, 12, 18]]
    assert parts[lower].labels.tolist() == [1, 2]


def test_packed_equals_alone_at_the_same_scale() -> None:
    crops = [
        crop((20, 30), (3, 4, 9, 8)),
        crop((24, 24), (10, 10, 20, 14)),
        crop((9, 50), (1, 1, 5, 5)),
    ]
    packed = PackedDetector(Bright(), PackConfig(side=SIDE, zoom=1.0, gap=4))
    alone = Bright().predict(crops)
    together = packed.predict(crops)
    for a, b in zip(alone, together, strict=True):
        assert a.boxes.tolist() == b.boxes.tolist()
    assert packed.usage.passes == 1
    assert packed.usage.padded == packed.usage.pixels - 20 * 30 - 24 * 24 - 9 * 50


def test_no_crops_no_pass() -> None:
    packed = PackedDetector(Bright(), PackConfig(side=SIDE))
    assert packed.predict([]) == [] and packed.usage.passes == 0
    assert pack([], PackConfig(side=SIDE)) == []


def test_the_whole_image_has_a_pass_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(crop((60, 100), (10, 10, 16, 14))))
    detector, usage = Bright(), Usage()
    windows = [None, (0, 0, 30, 30), (5, 5, 40, 25)]
    config = InferConfig(pack=PackConfig(side=SIDE, zoom=1.0))
    ((_, found),) = detect_items(detector, [(path, windows)], config, usage)
    assert isinstance(found, list)
    assert [part.boxes.tolist() for part in found] == [
        [[10, 10, 16, 14]], [[10, 10, 16, 14]], [[5, 5, 11, 9]]]  # fmt: skip
    assert sorted(itertools.chain(*detector.sizes)) == [(60, 100), (64, 64)]
    assert usage.passes == 2


@pytest.mark.parametrize(
    "values", [{"side": -1}, {"zoom": 0.0}, {"zoom": float("nan")}, {"gap": -1}, {"gap": 1000}]
)
def test_settings_have_ranges(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        PackConfig(**values)  # type: ignore[arg-type]


def test_a_canvas_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"pack\.side"):
        PackedDetector(Bright(), PackConfig())
