from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dmnet.detectors.dense import pooled
from dmnet.detectors.yolov6.fuse import fuse
from dmnet.detectors.yolox.blocks import Focus
from dmnet.detectors.yolox.body import SIZES, Body, cells_of, to_boxes
from dmnet.detectors.yolox.criterion import raw_boxes

PUBLISHED = {
    "yolox-nano": (0.91, 1.08, 416),
    "yolox-tiny": (5.06, 6.45, 416),
    "yolox-s": (8.97, 26.8, 640),
}
"""Parameters in millions, GFLOPs, input side: 80 classes, as published."""


@pytest.mark.parametrize("name", SIZES)
def test_size_as_published(name: str) -> None:
    body = Body(SIZES[name], 80).eval()
    millions, giga, side = PUBLISHED[name]
    assert sum(p.numel() for p in body.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)
    fuse(body)
    body.to("meta")
    with FlopCounterMode(display=False) as counter:
        body(torch.zeros(1, 3, side, side, device="meta"))
    # the published counts include the normalisation: 3 % of nano's thin layers
    assert counter.get_total_flops() / 1e9 == pytest.approx(giga, rel=0.035)


def test_outputs_of_any_size() -> None:
    body = Body(SIZES["yolox-nano"], 3).eval()
    out = body(torch.rand(2, 3, 64, 96))
    cells = 8 * 12 + 4 * 6 + 2 * 3
    assert out.logits.shape == (2, cells, 3) and out.boxes.shape == (2, cells, 4)
    assert out.objectness.shape == (2, cells) and out.grids == ((8, 12), (4, 6), (2, 3))


def test_focus_joins_the_corners_column_by_column() -> None:
    focus = Focus(12).eval()
    focus.conv = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.arange(4.0).reshape(1, 1, 2, 2).expand(1, 3, 2, 2) + torch.tensor(
        [0.0, 10, 20]
    ).reshape(1, 3, 1, 1)
    assert focus(x).flatten().tolist() == [0, 10, 20, 2, 12, 22, 1, 11, 21, 3, 13, 23]


def test_pools_in_a_row_are_windows_of_5_9_and_13() -> None:
    x = torch.rand(1, 2, 20, 20)
    for window, got in zip((1, 5, 9, 13), pooled(x).chunk(4, 1), strict=True):
        assert torch.equal(torch.nn.MaxPool2d(window, 1, window // 2)(x), got)


def test_boxes_by_hand_and_back() -> None:
    cells = cells_of(((1, 2), (1, 1), (1, 1)), torch.device("cpu"))
    raw = torch.zeros(1, 4, 4)
    raw[0, 1] = torch.tensor([0.5, 0.25, 0.0, 0.6931472])  # column 1 of stride 8: 8 x 16 pixels
    boxes = to_boxes(raw, cells)
    assert boxes[0, 1].tolist() == pytest.approx([8, -6, 16, 10], abs=1e-5)
    assert boxes[0, 3].tolist() == [-16, -16, 16, 16]
    assert torch.allclose(raw_boxes(boxes[0], cells, torch.arange(4)), raw[0], atol=1e-6)
