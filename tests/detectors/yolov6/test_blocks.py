from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dmnet.detectors.yolov6.blocks import (
    BottleRep,
    Conv,
    CspSppf,
    CspStackRep,
    RepVGG,
    Sppf,
    conv_relu,
    conv_silu,
    fold,
    identity_kernel,
    norm,
    rep_stack,
)
from dmnet.detectors.yolov6.fuse import fuse

Stir = Callable[[nn.Module], None]


def test_fold_by_hand() -> None:
    bn = norm(1).eval()
    assert bn.running_mean is not None and bn.running_var is not None
    with torch.no_grad():
        bn.running_mean.fill_(3.0)
        bn.running_var.fill_(4.0 - bn.eps)
        bn.weight.fill_(6.0)
        bn.bias.fill_(1.0)
        weight, bias = fold(torch.full((1, 1, 1, 1), 2.0), bn)
    assert weight.item() == pytest.approx(6.0)  # 2 * 6 / sqrt(4)
    assert bias.item() == pytest.approx(-8.0)  # 1 - 3 * 6 / 2


def test_identity_kernel_changes_nothing() -> None:
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(torch.conv2d(x, identity_kernel(4, x), padding=1), x)


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: Conv(8, 12, 1, act="silu"),
    "conv-strided": lambda: Conv(8, 12, 3, 2),
    "rep": lambda: RepVGG(8, 12, 1),
    "rep-identity": lambda: RepVGG(8, 8, 1),
    "rep-strided": lambda: RepVGG(8, 8, 2),
    "relu": lambda: conv_relu(8, 8),
    "silu": lambda: conv_silu(8, 8),
    "stack": lambda: rep_stack(8, 16, 3, RepVGG),
    "bottle": lambda: BottleRep(8, RepVGG),
    "csp": lambda: CspStackRep(8, 12, 4, 0.5, RepVGG, "relu"),
    "sppf": lambda: Sppf(8, 8),
    "csp-sppf": lambda: CspSppf(8, 8),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_fused_block_equals_unfused(name: str, stir: Stir) -> None:
    block = BLOCKS[name]()
    stir(block)
    block.eval()
    x = torch.randn(2, 8, 16, 16)
    with torch.no_grad():
        before: Tensor = block(x)
        fused = fuse(block)
        after: Tensor = fused(x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert (before - after).abs().max() < 1e-4
    assert before.abs().max() > 0.1


def test_rep_block_has_three_branches_only_where_the_shape_is_kept() -> None:
    assert RepVGG(4, 4, 1).identity is not None
    assert RepVGG(4, 4, 2).identity is None
    assert RepVGG(4, 8, 1).identity is None


def test_synchronised_norms_fuse_too(stir: Stir) -> None:
    block = RepVGG(4, 4)
    stir(block)
    wanted = block.eval().fused()
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(block).fused()
    assert torch.equal(wanted.conv.weight, synced.conv.weight)


def test_rep_block_becomes_one_convolution() -> None:
    fused = RepVGG(4, 6, 2).eval().fused()
    assert fused.conv.weight.shape == (6, 4, 3, 3)
    assert fused.conv.stride == (2, 2)
    assert sum(p.numel() for p in fused.parameters()) == 6 * 4 * 9 + 6


def test_csp_stack_counts_pairs_of_blocks() -> None:
    assert len(CspStackRep(8, 8, 7, 0.5, RepVGG, "relu").stack) == 3
    assert len(CspStackRep(8, 8, 1, 0.5, RepVGG, "relu").stack) == 1


def test_sppf_sees_a_window_of_13() -> None:
    block = Sppf(2, 2).eval()
    with torch.no_grad():
        for conv in (block.reduce.conv, block.join.conv):
            conv.weight.fill_(1.0)
        x = torch.zeros(1, 2, 15, 15)
        x[0, 0, 7, 7] = 1.0
        reached = block(x)[0, 0] > 0
    assert reached.sum() == 13 * 13
    assert reached[1:14, 1:14].all()


def test_the_stem_trains_in_channels_last_order() -> None:
    block = RepVGG(3, 16, 2).train()
    last = copy.deepcopy(block).to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 64, 96)
    for one in (block, last):
        for _ in range(3):
            one(x).square().mean().backward()
    for mine, its in zip(block.parameters(), last.parameters(), strict=True):
        assert mine.grad is not None and its.grad is not None
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-3, atol=1e-5)
