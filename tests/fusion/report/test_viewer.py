"""The viewer's page: what goes into it. How it behaves in a browser: test_viewer_in_browser."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from dmnet.core.classes import Classes
from dmnet.core.records import Annotations, Detections
from dmnet.fusion.report.viewer import (
    ViewerConfig,
    ViewerImage,
    density_png,
    picture_jpeg,
    viewer_page,
    viewer_part,
)

CLASSES = Classes(("car", "bus"))
GREY = np.full((80, 120, 3), 90, dtype=np.uint8)


def image(name: str = "a", **more: Any) -> ViewerImage:
    boxes = np.array([[10, 10, 30, 30], [50.04, 10, 70, 30], [5, 55, 15, 65], [0, 0, 9, 9]])
    scores, labels = np.array([0.9, 0.8765, 0.04, 0.7]), np.array([1, 2, 1, 3])
    found = Detections(boxes, scores, labels)
    truth = Annotations.of(name, (80, 120), [[10, 10, 30, 29], [80, 60, 90, 70]], [1, 2])
    layers = {"whole image": Detections.empty(), "fused": found}
    return ViewerImage(name, picture_jpeg(GREY), (80, 120), layers, truth, **more)


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'id="viewer-data">(.*?)</script>', html, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_boxes_by_hand() -> None:
    entry = data_of(viewer_part([image()], CLASSES))["images"][0]
    # x1 y1 x2 y2, score in thousandths, class position, matched truth; below .05 and unknown: out
    assert entry["boxes"]["fused"] == [10, 10, 30, 30, 900, 0, 0, 50, 10, 70, 30, 876, 1, -1]
    assert entry["boxes"]["whole image"] == []
    assert entry["truth"] == [10, 10, 30, 29, 0, 80, 60, 90, 70, 1]
    assert entry["size"] == [80, 120]
    assert entry["src"].startswith("data:image/jpeg;base64,")


def test_without_truth_nothing_is_matched() -> None:
    bare = ViewerImage("a", "pictures/a%20b.jpg", (80, 120), image().layers)
    entry = data_of(viewer_part([bare], CLASSES))["images"][0]
    assert entry["truth"] is None
    assert entry["boxes"]["fused"][6::7] == [-2, -2]
    assert entry["src"] == "pictures/a%20b.jpg"


def test_ground_truth_that_is_not_to_be_found_is_left_out() -> None:
    truth = Annotations.of("a", (80, 120), [[10, 10, 30, 30]], [1], [0])
    given = ViewerImage("a", b"", (80, 120), {"fused": Detections.empty()}, truth)
    assert data_of(viewer_part([given], CLASSES))["images"][0]["truth"] == []


def test_names_cannot_end_the_script() -> None:
    html = viewer_page("<b>T</b>", [image("</script><script>alert(1)")], Classes(("<i>car</i>",)))
    assert "<script>alert" not in html
    assert "<b>T</b>" not in html
    assert "<i>car</i>" not in html
    assert data_of(html)["images"][0]["id"] == "</script><script>alert(1)"


def test_layers_windows_density_and_settings() -> None:
    windows, heat = [(np.int64(1), np.int64(2), np.int64(30), np.int64(40))], density_png(np.eye(4))
    given = image(windows=windows, density=heat, count=2.5)
    data = data_of(viewer_part([given], CLASSES, ViewerConfig(score=0.01, floor=0.5)))
    assert (data["score"], data["floor"]) == (0.5, 0.5)
    assert data["layers"] == ["whole image", "fused"]
    assert data["images"][0]["windows"] == [[1, 2, 30, 40]]
    assert data["images"][0]["count"] == 2.5
    assert data["images"][0]["density"].startswith("data:image/png")


def test_same_bytes_and_no_address_outside() -> None:
    first, second = (viewer_page("T", [image()], CLASSES, subtitle="S") for _ in range(2))
    assert first == second
    assert "http:" not in first
    assert "https:" not in first
    assert "default-src &#39;none&#39;" in first


def test_no_images() -> None:
    assert data_of(viewer_page("T", [], CLASSES))["images"] == []


def test_pictures_fit_their_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    free, tight = picture_jpeg(noise, longest=200), picture_jpeg(noise, most=30_000)
    assert Pil.open(io.BytesIO(free)).size == (200, 150)
    assert len(tight) < len(picture_jpeg(noise)) <= 170_000


@pytest.mark.parametrize(("side", "expected"), [(5, 5), (9, 9), (721, 241)])
def test_density_overlay(side: int, expected: int) -> None:
    values = np.zeros((side, side))
    values[0, 0] = 4.0
    picture = Pil.open(io.BytesIO(density_png(values)))
    assert picture.size == (expected, expected)
    rgba = np.asarray(picture.convert("RGBA"))
    assert rgba[0, 0].tolist() == [252, 255, 164, 215]
    assert rgba[-1, -1, 3] == 0
    assert (rgba[..., 3] > 0).sum() == 1


def test_density_without_objects_is_clear() -> None:
    rgba = np.asarray(Pil.open(io.BytesIO(density_png(np.zeros((3, 4))))).convert("RGBA"))
    assert (rgba[..., 3] == 0).all()
