"""Published weights from an ONNX file, whose convolutions hold their normalisation already.

The layers of the file and of the network are matched by the order in which they run. Normalisation
layers start as the identity; `settle` then gives them the statistics of real images without
changing what the network computes, so that a training goes on as if they had never been folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from dmnet.core.classes import Classes, plain
from dmnet.core.errors import CheckpointError, optional
from dmnet.detectors.base import class_names
from dmnet.detectors.dense import Letterbox
from dmnet.detectors.yolox.blocks import Conv
from dmnet.detectors.yolox.model import YoloX

COCO_ROWS: dict[str, int] = {
    "pedestrian": 0,
    "people": 0,
    "bicycle": 1,
    "car": 2,
    "van": 2,
    "truck": 7,
    "tricycle": 3,
    "awning-tricycle": 7,
    "bus": 5,
    "motor": 3,
}
"""Class of COCO (index of 80) that each class of VisDrone starts from, by likeness."""


def coco_rows(classes: Classes) -> list[int] | None:
    """Rows of COCO's class layer for the data set's classes; none where one has no likeness."""
    rows = [COCO_ROWS.get(plain(name)) for name in classes.names]
    found = [row for row in rows if row is not None]
    return found if len(found) == len(rows) else None


def file_layers(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution of an ONNX file, in the order in which they run.

    Raises:
        CheckpointError: missing, damaged, or a convolution without weight or bias in the file.
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    onnx: Any = optional("onnx", "onnx")
    damaged = optional("google.protobuf.message", "onnx").DecodeError
    if not path.is_file():
        raise CheckpointError(path, "no such weights file")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except damaged as error:
        raise CheckpointError(path, f"not a readable ONNX file ({error})") from error
    held = {entry.name: entry for entry in graph.initializer}
    for node in (node for node in graph.node if node.op_type == "Identity"):
        if node.input[0] in held:  # equal tensors are stored once
            held[node.output[0]] = held[node.input[0]]
    layers = []
    for node in (node for node in graph.node if node.op_type == "Conv"):
        if len(node.input) != 3 or not held.keys() >= set(node.input[1:]):
            raise CheckpointError(path, f"convolution '{node.name}' has no weight and bias in it")
        weight, bias = (onnx.numpy_helper.to_array(held[name]) for name in node.input[1:])
        layers.append((torch.tensor(weight).float(), torch.tensor(bias).float()))
    return layers


@torch.no_grad()
def running_order(net: YoloX) -> list[str]:
    """Names of the network's convolutions in the order in which they run."""
    order: list[str] = []
    handles = [
        layer.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    training = net.training
    net.eval().body(torch.zeros(1, 3, 64, 64))
    net.train(training)
    for handle in handles:
        handle.remove()
    return order


def read_folded(net: YoloX, path: Path) -> dict[str, Tensor]:
    """State of a YOLOX ONNX file by the names of ``net``, normalisation as the identity.

    The class layer of a file with COCO's 80 classes becomes that of the data set's (`COCO_ROWS`);
    with other classes it keeps the file's shape.

    Raises:
        CheckpointError: not the layers of this network.
    """
    layers, own, state = file_layers(path), dict(net.named_modules()), {}
    names = running_order(net)
    if len(layers) != len(names):
        raise CheckpointError(
            path,
            f"has {len(layers)} convolutions, {net.architecture} has {len(names)}; name the size "
            "it was made of as the model",
        )
    for name, (weight, bias) in zip(names, layers, strict=True):
        layer = own[name]
        assert isinstance(layer, nn.Conv2d)
        if name.endswith("class_out"):
            rows = coco_rows(class_names(net)) if len(weight) == 80 != net.classes else None
            weight, bias = (weight[rows], bias[rows]) if rows else (weight, bias)
        elif weight.shape != layer.weight.shape:
            raise CheckpointError(
                path,
                f"a convolution has shape {tuple(weight.shape)} where '{name}' of "
                f"{net.architecture} has {tuple(layer.weight.shape)}; name the size it was made of "
                "as the model",
            )
        block = own[name.rpartition(".")[0]]
        state[f"{name}.weight"] = weight
        state |= identity(name, block, bias) if isinstance(block, Conv) else {f"{name}.bias": bias}
    return state


def identity(name: str, block: Conv, bias: Tensor) -> dict[str, Tensor]:
    """State of a block's normalisation that only adds ``bias``."""
    assert isinstance(block.norm, BatchNorm)
    stem, one = name.removesuffix("conv") + "norm", torch.ones_like(bias)
    return {
        f"{stem}.weight": one * (1 + block.norm.eps) ** 0.5,
        f"{stem}.bias": bias,
        f"{stem}.running_mean": torch.zeros_like(bias),
        f"{stem}.running_var": one,
    }


class _Statistics:
    """Mean and variance of what comes into a normalisation layer."""

    def __init__(self, norm: BatchNorm) -> None:
        self.norm, self.count = norm, 0
        self.sums = torch.zeros(2, norm.num_features, dtype=torch.float64)
        self.handle = norm.register_forward_pre_hook(self._see)

    def _see(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0].transpose(0, 1).flatten(1).double()
        self.count += x.shape[1]
        self.sums += torch.stack([x.sum(1), x.square().sum(1)]).to(self.sums)

    def put(self) -> None:
        """Make them the layer's own, and undo the change in its weight and bias."""
        self.handle.remove()
        norm, like = self.norm, self.norm.weight
        assert norm.running_mean is not None and norm.running_var is not None
        mean, square = self.sums / self.count
        var = (square - mean.square()).clamp(min=0).to(like)
        mean = mean.to(like)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_((mean - norm.running_mean) * scale)
        norm.weight.copy_(scale * (var + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)


@torch.no_grad()
def settle(net: YoloX, images: Sequence[Tensor]) -> None:
    """Give the normalisation the statistics of ``images``; the network computes what it did.

    Args:
        net: the network, changed in place.
        images: a dozen or so, ``[3, h, w]`` RGB 0..1.
    """
    training = net.training
    net.eval()
    norms = [m.norm for m in net.body.modules() if isinstance(m, Conv)]
    seen = [_Statistics(norm) for norm in norms if isinstance(norm, BatchNorm)]
    for image in images:
        net.body(Letterbox([image], net.config).canvas)
    for one in seen:
        one.put()
    net.train(training)
