"""ImageNet networks as backbones with feature pyramids, and their normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models, ops
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from dmnet.core.errors import CheckpointError, ConfigError, MissingInputError
from dmnet.core.training.weights import read_weights
from dmnet.detectors.base import LOADED
from dmnet.detectors.torchvision.settings import TorchvisionConfig


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at most 32 groups of at least 4 channels where they divide."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 4)), channels)


def norm_layer(kind: str, eps: float = 1e-5) -> Callable[[int], nn.Module]:
    """Layer factory for ``frozen``, ``batch`` or ``group``."""
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen": partial(ops.FrozenBatchNorm2d, eps=eps),
        "batch": partial(nn.BatchNorm2d, eps=eps),
        "group": group_norm,
    }
    return layers[kind]


@dataclass(frozen=True)
class Backbone:
    """An ImageNet network as backbone: how it is made and where strides 4, 8, 16, 32 come out."""

    make: Callable[..., nn.Module]
    imagenet: str
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    stages: tuple[tuple[str, ...], ...]
    eps: float = 1e-5
    light: bool = False


def _numbers(first: int, last: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(first, last + 1))


RESNET50 = Backbone(
    models.resnet50,
    "IMAGENET1K_V1",
    ("layer1", "layer2", "layer3", "layer4"),
    (256, 512, 1024, 2048),
    (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
)
MOBILENET_V3 = Backbone(
    models.mobilenet_v3_large,
    "IMAGENET1K_V1",
    ("3", "6", "12", "16"),
    (24, 40, 112, 960),
    (_numbers(0, 1), _numbers(2, 3), _numbers(4, 6), _numbers(7, 12), _numbers(13, 16)),
    eps=1e-3,
    light=True,
)
MOBILENET_V2 = Backbone(
    models.mobilenet_v2,
    "IMAGENET1K_V1",
    ("3", "6", "13", "18"),
    (24, 32, 96, 1280),
    (_numbers(0, 1), _numbers(2, 3), _numbers(4, 6), _numbers(7, 13), _numbers(14, 18)),
    light=True,
)


def norm_kind(config: TorchvisionConfig) -> str:
    """``config.norm`` with ``auto`` decided.

    Raises:
        ConfigError: frozen statistics without weights to freeze, or group norm with weights.
    """
    given = config.weights != "none"
    kind = config.norm if config.norm != "auto" else ("frozen" if given else "group")
    if given and kind == "group":
        raise ConfigError(
            "norm 'group': ImageNet weights were made with batch norm; "
            "set norm to frozen or batch, or weights to none"
        )
    if kind == "frozen" and not given:
        raise ConfigError(
            "norm 'frozen': random weights have no statistics to freeze; "
            "set norm to group or batch, or name backbone weights"
        )
    return kind


def load_body(body: nn.Module, path: Path) -> None:
    """Put ImageNet weights from a file into a backbone; a classifier in the file is left out.

    Raises:
        CheckpointError: names or shapes do not fit the backbone.
    """
    state, _ = read_weights(path)
    own = body.state_dict()
    head = ("fc.", "classifier.")
    state = {key: value.float() for key, value in state.items() if not key.startswith(head)}
    needed = {key for key in own if not key.startswith(head) and "num_batches" not in key}
    missing = sorted(needed - state.keys())
    wrong = sorted(k for k in needed & state.keys() if own[k].shape != state[k].shape)
    if missing or wrong:
        key = (missing or wrong)[0]
        raise CheckpointError(
            path,
            f"not weights of this backbone: {key!r} is {'absent' if missing else 'of other shape'}"
            f" ({len(missing)} absent, {len(wrong)} of other shape); name the fitting detector, "
            "or set weights to imagenet or none",
        )
    body.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def make_body(base: Backbone, config: TorchvisionConfig, kind: str) -> nn.Module:
    """The ImageNet network with its weights, early stages frozen, ready to be cut into levels.

    Raises:
        MissingInputError: the published weights cannot be fetched.
    """
    imagenet = base.imagenet if config.weights == "imagenet" else None
    try:
        body = base.make(weights=imagenet, norm_layer=norm_layer(kind, base.eps))
    except OSError as error:
        url = models.get_model_weights(base.make)[base.imagenet].url
        raise MissingInputError(
            f"{url} could not be fetched ({getattr(error, 'reason', error)}). Bring that file here "
            "by another way and name it: --train-detector.torchvision.weights FILE; or train from "
            "random weights: --train-detector.torchvision.weights none."
        ) from error
    if config.stride_on_first:
        if base is not RESNET50:
            raise ConfigError("stride_on_first: only ResNet-50 has this variant")
        for layer in (body.layer2, body.layer3, body.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)  # type: ignore[index,union-attr]
    if config.weights not in ("none", "imagenet", LOADED):
        load_body(body, Path(config.weights))
    layers = body if base is RESNET50 else body.features
    assert isinstance(layers, nn.Module)
    return layers


def freeze_stages(layers: nn.Module, base: Backbone, trainable: int) -> None:
    """Freeze all but the last ``trainable`` of the five stages."""
    for stage in base.stages[: 5 - trainable]:
        for name in stage:
            layers.get_submodule(name).requires_grad_(False)


def make_backbone(family: str, base: Backbone, config: TorchvisionConfig) -> BackboneWithFPN:
    """Backbone and feature pyramid of five levels.

    Strides 4 to 64 for Faster R-CNN, 8 to 128 for the one-stage networks.
    """
    kind = norm_kind(config)
    layers = make_body(base, config, kind)
    if config.weights != "none":
        freeze_stages(layers, base, config.trainable_layers)
    first = 0 if family.startswith("fasterrcnn") else 1
    out = config.fpn_channels or (128 if base.light else 256)
    return BackboneWithFPN(
        layers,
        {name: str(i) for i, name in enumerate(base.layers[first:])},
        list(base.channels[first:]),
        out,
        extra_blocks=LastLevelMaxPool() if first == 0 else LastLevelP6P7(out, out),
        norm_layer=None if kind == "frozen" and family != "fasterrcnn-v2" else free_norm(kind),
    )


def free_norm(kind: str) -> Callable[[int], nn.Module]:
    """Norm of layers that start from random weights: never frozen."""
    return norm_layer("group" if kind == "frozen" else kind)


def fold_norms(module: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into it, in place.

    With scale ``s = weight / sqrt(var + eps)``, ``norm(conv(x))`` is the convolution of weight ``s
    W`` and bias ``s (b - mean) + beta``.
    """
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        fold_norms(child)
        norm = isinstance(child, nn.BatchNorm2d | ops.FrozenBatchNorm2d)
        if norm and before is not None and isinstance(before[1], nn.Conv2d):
            module.add_module(before[0], _folded(before[1], child))
            module.add_module(name, nn.Identity())
        before = (name, child)


@torch.no_grad()
def _folded(conv: nn.Conv2d, norm: Any) -> nn.Conv2d:
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    conv.weight.mul_(scale[:, None, None, None])
    conv.bias = nn.Parameter(shift, requires_grad=False)
    return conv
