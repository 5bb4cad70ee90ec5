from __future__ import annotations

import pytest
import torch

from dmnet.density.losses import cell_loss, density_loss, window_loss

ERROR = torch.tensor(
    [
        [1.0, -1.0, 0.0, 0.0, 2.0, 2.0],
        [0.0, 0.0, 0.0, 0.0, 2.0, 2.0],
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)[None, None]
"""Sums of the 2x2 windows at step 1:
0 -1  0  4  8 | 0  1  2  3  4 | 0  1  2  1  0."""

EMPTY = torch.zeros_like(ERROR)


def test_cells_by_hand() -> None:
    assert cell_loss(ERROR, "mse").item() == 20  # 1 + 1 + 4 * 4 + 1 + 1
    assert cell_loss(ERROR, "l1").item() == 12
    two = torch.cat([ERROR, EMPTY])
    assert cell_loss(two, "mse").item() == 10


@pytest.mark.parametrize(
    ("kind", "total"), [("mse", 1 + 16 + 64 + 1 + 4 + 9 + 16 + 1 + 4 + 1), ("l1", 27)]
)
def test_windows_by_hand(kind: str, total: int) -> None:
    found = window_loss(ERROR, EMPTY, 2, kind, 0.0)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(total / 15 * 6)  # the mean, times 24 / 4 windows


def test_an_error_all_cells_share_weighs_more_in_windows() -> None:
    error = torch.full((1, 1, 4, 4), 0.5)
    assert cell_loss(error, "mse").item() == 4
    assert window_loss(error, torch.zeros_like(error), 4, "mse", 0.0).item() == 64


def test_errors_that_cancel_inside_a_window_do_not_count() -> None:
    error = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[None, None]
    assert window_loss(error, torch.zeros_like(error), 2, "mse", 0.0).item() == 0


def test_the_balance_weighs_crowds_down() -> None:
    crowd = torch.full((1, 1, 2, 2), 0.75)  # three objects
    one = torch.full((1, 1, 2, 2), 0.5)
    assert window_loss(one, crowd, 2, "mse", 1.0).item() == 4 / (1 + 3)
    assert window_loss(one, crowd, 2, "mse", 0.5).item() == 2
    assert window_loss(one, torch.zeros_like(one), 2, "mse", 1.0).item() == 4


def test_a_window_larger_than_the_map_is_the_map() -> None:
    error = torch.ones(1, 1, 2, 3)
    assert window_loss(error, torch.zeros_like(error), 9, "l1", 0.0).item() == 6


def test_the_parts_add_up() -> None:
    targets = torch.full_like(ERROR, 0.25)
    predicted = ERROR + 2 * targets
    alone = density_loss(predicted, targets, scale=2.0)
    both = density_loss(predicted, targets, windows=(2, 4), window_weight=0.5, scale=2.0)
    parts = [window_loss(ERROR, targets, side, "mse", 0.0) for side in (2, 4)]
    assert alone.item() == 20
    assert both.item() == pytest.approx(20 + 0.5 * sum(part.item() for part in parts))


def test_negative_answers_count_by_the_leak() -> None:
    predicted = torch.tensor([[-2.0, 1.0], [0.0, -4.0]])[None, None]
    targets = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    assert density_loss(predicted, targets).item() == 4 + 25
    assert density_loss(predicted, targets, leak=0.0).item() == 1
    assert density_loss(predicted, targets, leak=0.5).item() == 1 + 9
