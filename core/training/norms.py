"""Batch norm over the images of all processes, on a CPU too: torch's `SyncBatchNorm` needs GPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class _Normalise(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps)`` of each channel, over the pixels of all processes.

    One exchange forward and one backward. Source of the merged variance: Chan, Golub, LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised ``[B, c, h, w]``, mean and variance ``[c]``, number of pixels."""
        variances, means = torch.var_mean(images, (0, 2, 3), correction=0)
        number = images.new_tensor([images[:, 0].numel()])
        rows = _of_all(torch.cat([means, variances, number]))  # [processes, 2 c + 1]
        means, variances, counts = rows[:, : len(means)], rows[:, len(means) : -1], rows[:, -1:]
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(0) / count
        scale = (variance + eps).rsqrt()[:, None, None]
        normal = (images - mean[:, None, None]) * scale
        ctx.save_for_backward(normal, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return normal, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        """``(g - mean g - y * mean(g y)) / sqrt(variance + eps)``."""
        normal, scale, count = ctx.saved_tensors
        sums = torch.stack([gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))])
        distributed.all_reduce(sums)
        plain, along = (sums / count)[:, :, None, None]
        return (gradient - plain - normal * along) * scale, None


def _of_all(row: Tensor) -> Tensor:
    """The row ``[n]`` of every process: ``[processes, n]``."""
    rows = [torch.empty_like(row) for _ in range(distributed.get_world_size())]
    distributed.all_gather(rows, row)
    return torch.stack(rows)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of the images of all processes.

    The images may be of different sizes in each process; every pixel counts the same.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise ``[B, c, h, w]``; in evaluation mode no other process is asked."""
        if not self.training:
            return super().forward(images)
        self._check_input_dim(images)
        normal, mean, variance, count = _Normalise.apply(images, self.eps)
        self._remember(mean, variance * count / (count - 1))
        found: Tensor = normal
        if self.affine:
            found = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return found

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics; the variance is the unbiased one, as torch has it."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        step = self.momentum or 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(variance, step)


def share_norms(net: nn.Module) -> nn.Module:
    """The network with every `nn.BatchNorm2d` in it shared, in place; names and values stay."""
    if type(net) is nn.BatchNorm2d:
        shared = SharedBatchNorm2d(
            net.num_features, net.eps, net.momentum, net.affine, net.track_running_stats
        )
        shared.__dict__.update(net.__dict__)
        return shared
    for name, child in net.named_children():
        setattr(net, name, share_norms(child))
    return net
