"""Six torchvision detectors with settings that suit hundreds of small objects.

Faster R-CNN (Ren et al. 2015) on feature pyramids (Lin et al. 2017) of four backbones, RetinaNet
(Lin et al. 2017) and FCOS (Tian et al. 2019). torchvision's own defaults (100 detections, anchors
from 32 pixels, frozen batch norm even from random weights) lose most objects of an aerial image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models, ops
from torchvision.models import detection
from torchvision.models.detection import faster_rcnn, fcos, retinanet, roi_heads, rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from dmnet.core import training
from dmnet.core.config import build as build_settings
from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.records import Size
from dmnet.detectors.base import DetectionNet, Found, Target

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class TorchvisionConfig:
    """Settings of the torchvision detectors."""

    weights: str = "none"
    """backbone weights: none, imagenet (downloaded by torchvision), or a file"""
    norm: Literal["auto", "frozen", "batch", "group"] = "auto"
    """backbone normalisation; auto: frozen with backbone weights, group without"""
    stride_on_first: bool = False
    """the ResNet-50 weights have stride 2 on conv1 of layers 2 to 4 (older convention)"""
    trainable_layers: int = 3
    """last backbone stages that are trained (0 to 5); all without backbone weights"""
    min_size: int = 960
    """shorter side of the network's input, pixels"""
    max_size: int = 1600
    """bound of the longer side, pixels"""
    max_zoom: float = 4.0
    """small crops are enlarged at most this many times"""
    divisor: int = 32
    """input sides are padded to a multiple of this, pixels"""
    anchors: tuple[float, ...] = (16.0, 32.0, 64.0, 128.0, 256.0)
    """anchor side of each of the five levels, pixels of the input (not used by FCOS)"""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """anchor height over width"""
    fpn_channels: int = 0
    """channels of the feature pyramid; 0: 256, and 128 for the MobileNets"""
    head_channels: int = 0
    """width of the box head; 0: 1024, and 256 for the MobileNets"""
    proposals: int = 2000
    """Faster R-CNN: proposals an image"""
    roi_samples: int = 512
    """Faster R-CNN: proposals an image in the loss"""
    score_threshold: float = 0.01
    """detections below are dropped"""
    nms: float = 0.5
    """IoU of the detector's own class-wise NMS"""
    max_detections: int = 500
    """detections an image"""
    ignore_share: float = 0.5
    """an anchor or proposal with this share inside ignored regions is no background"""


# --- input ---------------------------------------------------------------------------------------


def scaled_size(size: Size, config: TorchvisionConfig) -> Size:
    """Size of an image after scaling: as `TorchvisionConfig` bounds it, keeping the aspect."""
    short, long = min(size), max(size)
    scale = min(config.min_size / short, config.max_size / long, config.max_zoom)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def padded_size(size: Size, divisor: int) -> Size:
    """Sides rounded up to a multiple of ``divisor``."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


class Scaling(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's input transform with our rule for the size; scales ignored regions too."""

    def __init__(self, config: TorchvisionConfig) -> None:
        """Normalise as ImageNet networks expect."""
        super().__init__(config.min_size, config.max_size, MEAN, STD, size_divisible=config.divisor)
        self.config = config

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Scale one image ``[3, h, w]`` and the boxes of its target."""
        height, width = image.shape[-2:]
        new = scaled_size((height, width), self.config)
        if new != (height, width):
            image = functional.interpolate(image[None], new, mode="bilinear")[0]
        if target is None:
            return image, None
        ratio = image.new_tensor([new[1] / width, new[0] / height] * 2, dtype=torch.float32)
        scaled = {key: target[key] * ratio for key in ("boxes", "ignore")}
        return image, {**target, **scaled}


# --- ignored regions -----------------------------------------------------------------------------


def ignored_share(boxes: Tensor, regions: Tensor) -> Tensor:
    """Greatest share of each box's area inside one region, shape ``[n]``; 0 without regions."""
    if not len(regions):
        return boxes.new_zeros(len(boxes))
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)  # [n, m]
    share: Tensor = (inside / ops.box_area(boxes)[:, None].clamp(min=1e-6)).amax(1)
    return share


class Rpn(rpn.RegionProposalNetwork):  # type: ignore[misc]
    """Region proposals; anchors in ignored regions are neither object nor background."""

    ignore_share = 0.5

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels of torchvision (1, 0, -1) with -1 for background in ignored regions."""
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            covered = ignored_share(anchor, target["ignore"]) >= self.ignore_share
            label[covered & (label == 0)] = -1
        return labels, matched

    def compute_loss(
        self,
        objectness: Tensor,
        deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Losses of the sampled anchors; 0 where every anchor is in an ignored region."""
        if all(bool((label < 0).all()) for label in labels):
            return objectness.sum() * 0, deltas.sum() * 0
        losses: tuple[Tensor, Tensor] = super().compute_loss(
            objectness, deltas, labels, regression_targets
        )
        return losses


class RoiHeads(roi_heads.RoIHeads):  # type: ignore[misc]
    """Second stage of Faster R-CNN; proposals in ignored regions are not sampled."""

    ignore_share = 0.5

    def select_training_samples(self, proposals: list[Tensor], targets: list[Target]) -> Any:
        """Keep the ignored regions at hand for `assign_targets_to_proposals`."""
        self.regions = [target["ignore"] for target in targets]
        samples = super().select_training_samples(proposals, targets)
        self.sampled = sum(len(boxes) for boxes in samples[0])
        return samples

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Torchvision's, with losses 0 where every proposal is in an ignored region."""
        detections, losses = super().forward(*args, **kwargs)
        if self.training and not self.sampled:
            zero = torch.stack([p.sum() for p in self.parameters()]).sum() * 0
            losses = {name: zero for name in losses}
        return detections, losses

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels of torchvision with -1 for background in ignored regions."""
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, boxes, regions in zip(labels, proposals, self.regions, strict=True):
            covered = ignored_share(boxes, regions.to(boxes.dtype)) >= self.ignore_share
            label[covered & (label == 0)] = -1
        return matched, labels


def silence_ignored(
    logits: Tensor,
    anchors: list[Tensor],
    matched: list[Tensor],
    targets: list[Target],
    share: float,
) -> Tensor:
    """Class logits ``[B, A, C]`` whose background in ignored regions has no loss.

    The focal loss of a negative at a logit of -100 is exactly 0, and so is its gradient.
    """
    covered = torch.stack(
        [
            (ignored_share(boxes, target["ignore"]) >= share) & (index < 0)
            for boxes, index, target in zip(anchors, matched, targets, strict=True)
        ]
    )
    return logits.masked_fill(covered[..., None], -100.0)


class RetinaHead(retinanet.RetinaNetHead):  # type: ignore[misc]
    """RetinaNet's head; background in ignored regions has no loss."""

    ignore_share = 0.5

    def compute_loss(
        self,
        targets: list[Target],
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched: list[Tensor],
    ) -> dict[str, Tensor]:
        """Focal loss and L1 on matched anchors."""
        logits = silence_ignored(
            outputs["cls_logits"], anchors, matched, targets, self.ignore_share
        )
        losses: dict[str, Tensor] = super().compute_loss(
            targets, {**outputs, "cls_logits": logits}, anchors, matched
        )
        return losses


class FcosHead(fcos.FCOSHead):  # type: ignore[misc]
    """FCOS's head; background in ignored regions has no loss."""

    ignore_share = 0.5

    def compute_loss(
        self,
        targets: list[Target],
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched: list[Tensor],
    ) -> dict[str, Tensor]:
        """Focal loss, GIoU and centre-ness on matched points."""
        logits = silence_ignored(
            outputs["cls_logits"], anchors, matched, targets, self.ignore_share
        )
        losses: dict[str, Tensor] = super().compute_loss(
            targets, {**outputs, "cls_logits": logits}, anchors, matched
        )
        return losses


# --- backbones -----------------------------------------------------------------------------------


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
class Trunk:
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


RESNET50 = Trunk(
    models.resnet50,
    "IMAGENET1K_V1",
    ("layer1", "layer2", "layer3", "layer4"),
    (256, 512, 1024, 2048),
    (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
)
MOBILENET_V3 = Trunk(
    models.mobilenet_v3_large,
    "IMAGENET1K_V1",
    ("3", "6", "12", "16"),
    (24, 40, 112, 960),
    (_numbers(0, 1), _numbers(2, 3), _numbers(4, 6), _numbers(7, 12), _numbers(13, 16)),
    eps=1e-3,
    light=True,
)
MOBILENET_V2 = Trunk(
    models.mobilenet_v2,
    "IMAGENET1K_V1",
    ("3", "6", "13", "18"),
    (24, 32, 96, 1280),
    (_numbers(0, 1), _numbers(2, 3), _numbers(4, 6), _numbers(7, 13), _numbers(14, 18)),
    light=True,
)

ARCHITECTURES: dict[str, tuple[str, Trunk]] = {
    "fasterrcnn-r50": ("fasterrcnn", RESNET50),
    "fasterrcnn-r50-v2": ("fasterrcnn-v2", RESNET50),
    "fasterrcnn-mobilenetv3": ("fasterrcnn", MOBILENET_V3),
    "fasterrcnn-mobilenetv2": ("fasterrcnn", MOBILENET_V2),
    "retinanet-r50": ("retinanet", RESNET50),
    "fcos-r50": ("fcos", RESNET50),
}
"""Name -> (family, backbone)."""


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


def load_trunk(body: nn.Module, path: Path) -> None:
    """Put ImageNet weights from a file into a backbone; a classifier in the file is left out.

    Raises:
        CheckpointError: names or shapes do not fit the backbone.
    """
    state, _ = training.read_weights(path)
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


def make_trunk(trunk: Trunk, config: TorchvisionConfig, kind: str) -> nn.Module:
    """The ImageNet network with its weights, early stages frozen, ready to be cut into levels."""
    imagenet = trunk.imagenet if config.weights == "imagenet" else None
    body = trunk.make(weights=imagenet, norm_layer=norm_layer(kind, trunk.eps))
    if config.stride_on_first:
        if trunk is not RESNET50:
            raise ConfigError("stride_on_first: only ResNet-50 has this variant")
        for layer in (body.layer2, body.layer3, body.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)  # type: ignore[index,union-attr]
    if config.weights not in ("none", "imagenet"):
        load_trunk(body, Path(config.weights))
    layers = body if trunk is RESNET50 else body.features
    assert isinstance(layers, nn.Module)
    return layers


def freeze_stages(layers: nn.Module, trunk: Trunk, trainable: int) -> None:
    """Freeze all but the last ``trainable`` of the five stages."""
    for stage in trunk.stages[: 5 - trainable]:
        for name in stage:
            layers.get_submodule(name).requires_grad_(False)


def make_backbone(family: str, trunk: Trunk, config: TorchvisionConfig) -> BackboneWithFPN:
    """Backbone and feature pyramid of five levels.

    Strides 4 to 64 for Faster R-CNN, 8 to 128 for the one-stage networks.
    """
    kind = norm_kind(config)
    if not 0 <= config.trainable_layers <= 5:
        raise ConfigError(f"trainable_layers: must be 0 to 5, got {config.trainable_layers}")
    layers = make_trunk(trunk, config, kind)
    if config.weights != "none":
        freeze_stages(layers, trunk, config.trainable_layers)
    first = 0 if family.startswith("fasterrcnn") else 1
    out = config.fpn_channels or (128 if trunk.light else 256)
    return BackboneWithFPN(
        layers,
        {name: str(i) for i, name in enumerate(trunk.layers[first:])},
        list(trunk.channels[first:]),
        out,
        extra_blocks=LastLevelMaxPool() if first == 0 else LastLevelP6P7(out, out),
        norm_layer=None if kind == "frozen" and family != "fasterrcnn-v2" else _free_norm(kind),
    )


def _free_norm(kind: str) -> Callable[[int], nn.Module]:
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


# --- the networks --------------------------------------------------------------------------------


def faster_rcnn_model(
    family: str, trunk: Trunk, config: TorchvisionConfig, classes: int
) -> nn.Module:
    """Faster R-CNN; ``fasterrcnn-v2`` has a deeper RPN head and a convolutional box head."""
    backbone = make_backbone(family, trunk, config)
    width, deep = backbone.out_channels, family == "fasterrcnn-v2"
    hidden = config.head_channels or (256 if trunk.light else 1024)
    generator = AnchorGenerator([(side,) for side in config.anchors], [config.ratios] * 5)
    per_cell = generator.num_anchors_per_location()[0]
    limits = {"training": config.proposals, "testing": config.proposals}
    proposer = Rpn(
        generator, rpn.RPNHead(width, per_cell, conv_depth=2 if deep else 1),
        0.7, 0.3, 256, 0.5, limits, limits, 0.7,
    )  # fmt: skip
    pool = ops.MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
    free = _free_norm(norm_kind(config))
    head = (
        faster_rcnn.FastRCNNConvFCHead((width, 7, 7), [width] * 4, [hidden], norm_layer=free)
        if deep
        else faster_rcnn.TwoMLPHead(width * 49, hidden)
    )
    heads = RoiHeads(
        pool, head, faster_rcnn.FastRCNNPredictor(hidden, classes + 1),
        0.5, 0.5, config.roi_samples, 0.25, None,
        config.score_threshold, config.nms, config.max_detections,
    )  # fmt: skip
    proposer.ignore_share = heads.ignore_share = config.ignore_share
    model: nn.Module = detection.generalized_rcnn.GeneralizedRCNN(
        backbone, proposer, heads, Scaling(config)
    )
    return model


def retinanet_model(
    family: str, trunk: Trunk, config: TorchvisionConfig, classes: int
) -> nn.Module:
    """RetinaNet with three octave scales an anchor."""
    backbone = make_backbone(family, trunk, config)
    sizes = [tuple(side * 2 ** (k / 3) for k in range(3)) for side in config.anchors]
    generator = AnchorGenerator(sizes, [config.ratios] * 5)
    free = None if norm_kind(config) == "frozen" else _free_norm(norm_kind(config))
    head = RetinaHead(backbone.out_channels, generator.num_anchors_per_location()[0], classes, free)
    head.ignore_share = config.ignore_share
    model: nn.Module = retinanet.RetinaNet(
        backbone,
        classes,
        anchor_generator=generator,
        head=head,
        score_thresh=config.score_threshold,
        nms_thresh=config.nms,
        detections_per_img=config.max_detections,
    )
    model.transform = Scaling(config)
    return model


def fcos_model(family: str, trunk: Trunk, config: TorchvisionConfig, classes: int) -> nn.Module:
    """FCOS: one point a cell, so no anchor settings."""
    backbone = make_backbone(family, trunk, config)
    generator = AnchorGenerator([(8,), (16,), (32,), (64,), (128,)], [(1.0,)] * 5)
    head = FcosHead(backbone.out_channels, 1, classes)
    head.ignore_share = config.ignore_share
    model: nn.Module = fcos.FCOS(
        backbone,
        classes,
        anchor_generator=generator,
        head=head,
        score_thresh=config.score_threshold,
        nms_thresh=config.nms,
        detections_per_img=config.max_detections,
    )
    model.transform = Scaling(config)
    return model


FAMILIES: dict[str, Callable[[str, Trunk, TorchvisionConfig, int], nn.Module]] = {
    "fasterrcnn": faster_rcnn_model,
    "fasterrcnn-v2": faster_rcnn_model,
    "retinanet": retinanet_model,
    "fcos": fcos_model,
}


class TorchvisionNet(DetectionNet):
    """One of `ARCHITECTURES` behind the interface of `DetectionNet`."""

    def __init__(self, name: str, config: TorchvisionConfig, classes: int) -> None:
        """Build the network.

        Raises:
            ConfigError: settings that do not fit together.
            CheckpointError: backbone weights that do not fit.
        """
        super().__init__()
        if len(config.anchors) != 5:
            raise ConfigError(f"anchors: needs 5 sides, one a level, got {len(config.anchors)}")
        self.architecture, self.classes, self.config = name, classes, config
        self.settings = asdict(config)
        family, trunk = ARCHITECTURES[name]
        self.model = FAMILIES[family](family, trunk, config, classes)
        self.first = 1 if family.startswith("fasterrcnn") else 0  # index of the first class

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """See `DetectionNet.losses`; the names are torchvision's."""
        shift = self.first - 1
        shifted = [{**target, "labels": target["labels"] + shift} for target in targets]
        out: dict[str, Tensor] = self.model(list(images), shifted)
        return out

    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        """See `DetectionNet.detect`."""
        shift = 1 - self.first
        out: list[Found] = self.model(list(images))
        return [Found(one, labels=one["labels"] + shift) for one in out]

    def input_shape(self, size: Size) -> Size:
        """See `DetectionNet.input_shape`."""
        return padded_size(scaled_size(size, self.config), self.config.divisor)

    def deploy(self) -> TorchvisionNet:
        """Fold frozen and batch norm into the convolutions before them."""
        self.eval()
        fold_norms(self.model)
        return self

    @property
    def input_scaling(self) -> dict[str, Any]:
        """ImageNet mean and standard deviation, and the size bounds."""
        size = {"min_size": self.config.min_size, "max_size": self.config.max_size}
        return {"order": "RGB", "range": [0, 1], "mean": MEAN, "std": STD, **size}


def build(name: str, settings: Mapping[str, Any], classes: int) -> TorchvisionNet:
    """Make one of `ARCHITECTURES`, see `dmnet.detectors.base.Builder`.

    Raises:
        ConfigError: unknown settings, or ones that do not fit together.
    """
    return TorchvisionNet(name, build_settings(TorchvisionConfig, settings, name), classes)
