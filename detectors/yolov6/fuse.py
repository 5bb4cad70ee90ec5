"""Re-parameterisation of a whole network."""

from __future__ import annotations

from torch import nn


def fuse(module: nn.Module) -> nn.Module:
    """Replace every block that has a deployed form by it, in place (blocks' outputs are kept).

    A block has one if it has a method ``fused() -> nn.Module``. Give a network in evaluation mode:
    the running statistics are what is folded in.
    """
    fused = getattr(module, "fused", None)
    if callable(fused):
        made: nn.Module = fused()
        return made.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, fuse(child))
    return module
