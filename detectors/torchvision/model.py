"""Torchvision detectors with settings that suit hundreds of small objects.

Faster R-CNN (Ren et al. 2015) on feature pyramids (Lin et al. 2017) of four backbones, RetinaNet
(Lin et al. 2017) and FCOS (Tian et al. 2019). torchvision's own defaults (100 detections, anchors
from 32 pixels, frozen batch norm even from random weights) lose most objects of an aerial image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import ops
from torchvision.models import detection
from torchvision.models.detection import faster_rcnn, fcos, retinanet, rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import poolers

from dmnet.core.config import build as build_settings
from dmnet.core.errors import ConfigError
from dmnet.core.records import Size
from dmnet.core.training.processes import shared_size
from dmnet.detectors.base import LOADED, DetectionNet, Found, Target
from dmnet.detectors.torchvision.backbones import (
    MOBILENET_V2,
    MOBILENET_V3,
    RESNET50,
    Backbone,
    fold_norms,
    free_norm,
    make_backbone,
    norm_kind,
)
from dmnet.detectors.torchvision.ignored import FcosHead, RetinaHead, RoiHeads, Rpn
from dmnet.detectors.torchvision.settings import TorchvisionConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
    """torchvision's input transform with our rule for the size; scales ignored regions too.

    In training, images are padded to the size that the largest needs in any process.
    """

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

    def max_by_axis(self, the_list: list[list[int]]) -> list[int]:
        """Channels, height and width of the largest image."""
        channels, height, width = super().max_by_axis(the_list)
        return [channels, *(shared_size(height, width) if self.training else (height, width))]


class Pool(ops.MultiScaleRoIAlign):  # type: ignore[misc]
    """torchvision's RoI align, with the strides 4 to 32 that its levels have.

    By itself it infers them from the first batch and keeps them; of an image a few cells high,
    whose padding counts for much, it infers wrong ones, for that image and all that follow.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As torchvision's."""
        super().__init__(*args, **kwargs)
        self.scales = [2.0**-level for level in (2, 3, 4, 5)]
        self.map_levels = poolers.initLevelMapper(2, 5)


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors in float32, whatever the precision of the features.

    In the features' own bfloat16, coordinates beyond 256 pixels would be even numbers, and small
    boxes would have no side left.
    """

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors of each image, ``[n, 4]``."""
        shapes = [m.new_empty((1, 1, *m.shape[-2:]), dtype=torch.float32) for m in feature_maps]
        anchors: list[Tensor] = super().forward(image_list, shapes)
        return anchors


# --- the networks --------------------------------------------------------------------------------

ARCHITECTURES: dict[str, tuple[str, Backbone]] = {
    "fasterrcnn-r50": ("fasterrcnn", RESNET50),
    "fasterrcnn-r50-v2": ("fasterrcnn-v2", RESNET50),
    "fasterrcnn-mobilenetv3": ("fasterrcnn", MOBILENET_V3),
    "fasterrcnn-mobilenetv2": ("fasterrcnn", MOBILENET_V2),
    "retinanet-r50": ("retinanet", RESNET50),
    "fcos-r50": ("fcos", RESNET50),
    "fcos-mobilenetv2": ("fcos", MOBILENET_V2),
}
"""Name -> (family, backbone)."""


def faster_rcnn_model(
    family: str, base: Backbone, config: TorchvisionConfig, classes: int
) -> nn.Module:
    """Faster R-CNN; ``fasterrcnn-v2`` has a deeper RPN head and a convolutional box head."""
    backbone = make_backbone(family, base, config)
    width, deep = backbone.out_channels, family == "fasterrcnn-v2"
    hidden = config.head_channels or (256 if base.light else 1024)
    generator = Anchors([(side,) for side in config.anchors], [config.ratios] * 5)
    per_cell = generator.num_anchors_per_location()[0]
    limits = {"training": config.proposals, "testing": config.proposals}
    proposer = Rpn(
        generator, rpn.RPNHead(width, per_cell, conv_depth=2 if deep else 1),
        0.7, 0.3, 256, 0.5, limits, limits, 0.7,
    )  # fmt: skip
    pool = Pool(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
    free = free_norm(norm_kind(config))
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


def one_stage(
    make: Callable[..., nn.Module], backbone: nn.Module, generator: Anchors,
    head: RetinaHead | FcosHead, config: TorchvisionConfig, classes: int,
) -> nn.Module:  # fmt: skip
    """What torchvision makes of the parts of a network, with our input transform."""
    head.ignore_share = config.ignore_share
    model = make(
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


def retinanet_model(
    family: str, base: Backbone, config: TorchvisionConfig, classes: int
) -> nn.Module:
    """RetinaNet with three octave scales an anchor."""
    backbone = make_backbone(family, base, config)
    sizes = [tuple(side * 2 ** (k / 3) for k in range(3)) for side in config.anchors]
    generator = Anchors(sizes, [config.ratios] * 5)
    free = None if norm_kind(config) == "frozen" else free_norm(norm_kind(config))
    head = RetinaHead(backbone.out_channels, generator.num_anchors_per_location()[0], classes, free)
    return one_stage(retinanet.RetinaNet, backbone, generator, head, config, classes)


def fcos_model(family: str, base: Backbone, config: TorchvisionConfig, classes: int) -> nn.Module:
    """FCOS: one point a cell, so no anchor settings.

    Raises:
        ConfigError: a width that its group normalisation cannot share out.
    """
    if config.fpn_channels % 32:
        raise ConfigError(
            f"fpn_channels: FCOS needs a multiple of 32, such as 64, got {config.fpn_channels}"
        )
    backbone = make_backbone(family, base, config)
    generator = Anchors([(8,), (16,), (32,), (64,), (128,)], [(1.0,)] * 5)
    head = FcosHead(backbone.out_channels, 1, classes)
    return one_stage(fcos.FCOS, backbone, generator, head, config, classes)


FAMILIES: dict[str, Callable[[str, Backbone, TorchvisionConfig, int], nn.Module]] = {
    "fasterrcnn": faster_rcnn_model,
    "fasterrcnn-v2": faster_rcnn_model,
    "retinanet": retinanet_model,
    "fcos": fcos_model,
}


class TorchvisionNet(DetectionNet):
    """One of `ARCHITECTURES` behind the interface of `DetectionNet`."""

    resizable = True

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
        kept = "none" if config.weights == "none" else LOADED  # what a weights file is read with
        self.settings = asdict(replace(config, weights=kept))
        family, base = ARCHITECTURES[name]
        self.model = FAMILIES[family](family, base, config, classes)
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
        return [{**one, "labels": one["labels"] + shift} for one in out]

    def input_shape(self, size: Size) -> Size:
        """See `DetectionNet.input_shape`."""
        return padded_size(scaled_size(size, self.config), self.config.divisor)

    def at_side(self, side: int) -> Self:
        """See `DetectionNet.at_side`; the shorter side has no bound of its own."""
        other, model = copy(self), copy(self.model)
        other.config = replace(self.config, min_size=side, max_size=side)
        model._modules = {**model._modules, "transform": Scaling(other.config).train(self.training)}
        other._modules = {**other._modules, "model": model}
        return other

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
