"""What a density network is trained to make small: errors of cells and of window sums."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["mse", "l1"]


def cell_loss(error: Tensor, kind: Kind) -> Tensor:
    """Error ``(N, 1, h, w)`` of the cells, summed over an image, mean over the batch."""
    cells = error.square() if kind == "mse" else error.abs()
    return cells.sum(dim=(1, 2, 3)).mean()


def window_loss(error: Tensor, targets: Tensor, side: int, kind: Kind, balance: float) -> Tensor:
    """Error of the counts of square windows, as `slicers` compares counts with a threshold.

    Windows overlap by half. Their mean error is multiplied by the number of windows side by side:
    errors that are independent from cell to cell then weigh as much as in `cell_loss`, and an error
    that all cells of a window share weighs ``side ** 2`` times as much.

    Args:
        error: ``(N, 1, h, w)`` predicted minus true, both scaled alike.
        targets: ``(N, 1, h, w)`` true objects per cell.
        side: of a window in cells; no more than the map's.
        kind: squares or absolute values.
        balance: the error of a window with ``n`` objects is divided by ``(1 + n) ** balance``, so
            that crowds do not drown what is nearly empty; 0: all windows weigh the same.
    """
    height, width = error.shape[2:]
    side = min(side, height, width)
    step = max(1, side // 2)
    sums = F.avg_pool2d(error, side, step) * side**2
    true = F.avg_pool2d(targets, side, step) * side**2
    each = sums.square() if kind == "mse" else sums.abs()
    weighed = each / (1 + true) ** balance
    return weighed.mean() * (height * width / side**2)


def density_loss(
    predicted: Tensor,
    targets: Tensor,
    *,
    kind: Kind = "mse",
    windows: tuple[int, ...] = (),
    window_weight: float = 1.0,
    balance: float = 0.0,
    leak: float = 1.0,
    scale: float = 1.0,
) -> Tensor:
    """Error of cells plus ``window_weight`` times that of windows of each side in ``windows``.

    Args:
        predicted: ``(N, 1, h, w)``, objects per cell times ``scale``.
        targets: ``(N, 1, h, w)``, objects per cell.
        kind: see `cell_loss`.
        windows: sides in cells.
        window_weight: of each size of windows against the cells.
        balance: see `window_loss`.
        leak: negative predictions are multiplied by this first. Prediction sets them to 0, so with
            1 what is left of errors around 0 adds up to objects that are not there.
        scale: what the network's answer is multiplied by in training.
    """
    error = F.leaky_relu(predicted, leak) - targets * scale
    parts = [window_loss(error, targets, side, kind, balance) for side in windows]
    return cell_loss(error, kind) + window_weight * torch.stack([error.new_zeros(()), *parts]).sum()
