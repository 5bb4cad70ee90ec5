from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dmnet.detectors.yolov6.fuse import fuse
from dmnet.detectors.yolov6.head import FINE_STRIDES, STRIDES, cells_of, distances, to_boxes
from dmnet.detectors.yolov6.sizes import SIZES, Body, scaled_channels, scaled_repeats

PUBLISHED = {
    "yolov6-n": (4.3, 11.1),
    "yolov6-t": (15.0, 36.7),
    "yolov6-s": (17.2, 44.2),
    "yolov6-m": (34.3, 82.2),
    "yolov6-l": (58.5, 144.0),
}


@pytest.mark.parametrize("name", SIZES)
def test_size_as_published(name: str) -> None:
    body = Body(SIZES[name], 80).eval()
    fuse(body)
    body.to("meta")
    with FlopCounterMode(display=False) as counter:
        body(torch.zeros(1, 3, 640, 640, device="meta"))
    millions, giga = PUBLISHED[name]
    assert sum(p.numel() for p in body.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    assert counter.get_total_flops() / 1e9 == pytest.approx(giga, rel=0.02)


@pytest.mark.parametrize(("name", "millions"), [("yolov6-n", 4.7), ("yolov6-s", 18.5)])
def test_pooling_of_version_3(name: str, millions: float) -> None:
    body = Body(SIZES[name], 80, pool="csp").eval()
    fuse(body)
    assert sum(p.numel() for p in body.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_scaling_rules() -> None:
    assert [scaled_channels(c, 0.25) for c in (64, 100)] == [16, 32]
    assert [scaled_repeats(n, 0.33) for n in (1, 6, 12, 18)] == [1, 2, 4, 6]


def test_fine_level_is_added_and_changes_no_other_name() -> None:
    plain, fine = (Body(SIZES["yolov6-n"], 5, fine=extra).eval() for extra in (False, True))
    names = {key for key in fine.state_dict() if key not in plain.state_dict()}
    added = {".".join(key.split(".")[:2]) for key in names if key.startswith("neck.")}
    assert added == {f"neck.{n}" for n in ("reduce3", "up3", "down2", "stride2", "up3_out")}
    assert all(key.startswith(("neck.", "head.")) for key in names)
    with torch.no_grad():
        outputs = fine(torch.rand(1, 3, 64, 96))
    assert outputs.logits.shape == (1, sum((64 // s) * (96 // s) for s in FINE_STRIDES), 5)


def test_cell_centres() -> None:
    cells = cells_of([(2, 4), (1, 2), (1, 1)], torch.device("cpu"))
    assert cells.centres[:5].tolist() == [[4, 4], [12, 4], [20, 4], [28, 4], [4, 12]]
    assert cells.centres[8:].tolist() == [[8, 8], [24, 8], [16, 16]]
    assert cells.strides[:, 0].tolist() == [8.0] * 8 + [16.0] * 2 + [32.0]


def test_boxes_from_distances() -> None:
    cells = cells_of([(1, 1), (1, 1), (1, 1)], torch.device("cpu"))
    distance = torch.tensor([1.0, 0.5, 2.0, 0.25]).expand(3, 4)
    assert to_boxes(distance, cells)[0].tolist() == [-4.0, 0.0, 20.0, 6.0]


def test_distance_is_the_mean_of_its_bins() -> None:
    sides = torch.full((1, 1, 4 * 5), -100.0).view(1, 1, 4, 5)
    sides[..., 1], sides[..., 2] = 0.0, 0.0
    assert distances(sides.flatten(2), 4)[0, 0].tolist() == pytest.approx([1.5] * 4)
    assert (distances(torch.randn(1, 9, 4), 0) > 0).all()


@pytest.mark.parametrize("name", ["yolov6-n", "yolov6-m"])
def test_start_is_the_prior_and_boxes_of_two_strides(name: str) -> None:
    body = Body(SIZES[name], 5).eval()
    with torch.no_grad():
        outputs = body(torch.rand(1, 3, 64, 64))
    assert outputs.logits.sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)
    assert distances(outputs.sides, SIZES[name].bins).sub(1).abs().max() < 1e-3
    assert outputs.logits.shape == (1, sum((64 // s) ** 2 for s in STRIDES), 5)
