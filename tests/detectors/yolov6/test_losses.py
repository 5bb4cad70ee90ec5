from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from dmnet.detectors.yolov6 import losses

A = torch.tensor([[0.0, 0.0, 2.0, 2.0]])


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 50
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=generator) * 40], 1)


def test_varifocal_by_hand() -> None:
    logits, target = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.8])
    background = 0.75 * 0.5**2 * math.log(2)  # alpha p^gamma * -log(1 - p)
    assert losses.varifocal(logits, target).tolist() == pytest.approx(
        [background, 0.8 * math.log(2)]
    )


def test_varifocal_of_perfect_background_is_nothing() -> None:
    assert losses.varifocal(torch.tensor([-100.0]), torch.zeros(1)).item() == 0.0


def test_varifocal_is_least_at_the_target() -> None:
    scores = torch.linspace(0.01, 0.99, 99)
    loss = losses.varifocal(scores.logit(), torch.full((99,), 0.6))
    assert scores[loss.argmin()].item() == pytest.approx(0.6)


@pytest.mark.parametrize("seed", [0, 1])
def test_giou_is_torchvisions(seed: int) -> None:
    a, b = random_boxes(200, seed), random_boxes(200, seed + 10)
    torch.testing.assert_close(losses.giou(a, b), generalized_box_iou_loss(a, b))


def test_giou_by_hand() -> None:
    apart = torch.tensor([[3.0, 0.0, 5.0, 2.0]])  # hull 5 x 2, union 8
    assert losses.giou(A, apart).item() == pytest.approx(1 + 2 / 10)
    assert losses.giou(A, A).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("box", "loss"),
    [
        ([0, 0, 2, 2], 0.0),
        # along an axis: IoU 1/3, hull 3 x 2, angle cost 0, gamma 2
        ([1, 0, 3, 2], 2 / 3 + (1 - math.exp(-2 / 9)) / 2),
        # on the diagonal: IoU 1/7, hull 3 x 3, angle cost 1, gamma 1
        ([1, 1, 3, 3], 6 / 7 + (1 - math.exp(-1 / 9))),
        # another shape about the same centre: IoU 1/4, both sides differ by 2 of 4
        ([-1, -1, 3, 3], 3 / 4 + (1 - math.exp(-1 / 2)) ** 4),
    ],
)
def test_siou_by_hand(box: list[int], loss: float) -> None:
    found = losses.siou(A, torch.tensor([box], dtype=torch.float32))
    assert found.item() == pytest.approx(loss, abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_box_losses_do_not_depend_on_the_scale(seed: int, scale: float) -> None:
    a, b = random_boxes(20, seed), random_boxes(20, seed + 1)
    for loss in (losses.siou, losses.giou):
        torch.testing.assert_close(loss(a, b), loss(a * scale, b * scale), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", [losses.siou, losses.giou])
def test_following_the_gradient_finds_the_box(loss: object) -> None:
    box = torch.tensor([[10.0, 10.0, 40.0, 30.0]], requires_grad=True)
    wanted = torch.tensor([[30.0, 20.0, 70.0, 70.0]])
    optimizer = torch.optim.Adam([box], lr=1.0)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 1.0 - step / 300
        optimizer.zero_grad()
        loss(box, wanted).sum().backward()  # type: ignore[operator]
        assert box.grad is not None and box.grad.isfinite().all()
        optimizer.step()
    assert complete_box_iou_loss(box, wanted).item() < 0.05


def test_box_losses_of_no_boxes() -> None:
    none = torch.zeros(0, 4)
    assert losses.siou(none, none).shape == losses.giou(none, none).shape == (0,)


def test_dfl_by_hand() -> None:
    sides = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])).expand(1, 4, 4)
    target = torch.tensor([[0.0, 1.25, 2.0, 9.0]])
    found = losses.distribution_focal(sides, target)[0]
    wanted = [
        -math.log(0.1),
        -(0.75 * math.log(0.2) + 0.25 * math.log(0.3)),
        -math.log(0.3),
        -(0.01 * math.log(0.3) + 0.99 * math.log(0.4)),  # beyond the bins: almost the last
    ]
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)


def test_divergences_vanish_where_both_agree_and_grow_where_not() -> None:
    a, b = torch.randn(3, 4, 17), torch.randn(3, 4, 17)
    for divergence in (losses.class_divergence, losses.side_divergence):
        assert divergence(a, a).abs().max() < 1e-5
        assert divergence(a, b).sum() > 0.1
    maps = torch.randn(2, 3, 4, 5)
    assert losses.channel_divergence(maps, maps).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.channel_divergence(maps, torch.randn(2, 3, 4, 5)) > 0.1


def test_class_divergence_by_hand() -> None:
    student, teacher = torch.tensor([0.25]).logit(), torch.tensor([0.5]).logit()
    wanted = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert losses.class_divergence(student, teacher).item() == pytest.approx(wanted, rel=1e-5)


def test_side_divergence_by_hand() -> None:
    student = torch.log(torch.tensor([[0.25, 0.75]]))
    teacher = torch.log(torch.tensor([[0.5, 0.5]]))
    wanted = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert losses.side_divergence(student, teacher).item() == pytest.approx(wanted, rel=1e-5)


def test_channel_divergence_ignores_the_brightness_of_a_channel() -> None:
    maps = torch.randn(2, 3, 4, 5)
    shifted = maps + torch.randn(2, 3, 1, 1)
    assert losses.channel_divergence(maps, shifted).item() == pytest.approx(0.0, abs=1e-5)


def test_cosine_decay_falls_from_one() -> None:
    weights = [losses.cosine_decay(epoch, 5) for epoch in range(5)]
    assert weights == pytest.approx([1.0, 0.8550, 0.505, 0.1550, 0.01], abs=1e-3)
    assert losses.cosine_decay(0, 1) == 1.0
