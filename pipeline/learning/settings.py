"""Settings of the two trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from dmnet.core.ranges import Count, Decay, Factor, Range, Share
from dmnet.density import settings as density
from dmnet.detectors.names import family
from dmnet.detectors.torchvision.settings import TorchvisionConfig
from dmnet.detectors.training.settings import TrainConfig
from dmnet.detectors.yolov6.settings import YoloConfig
from dmnet.detectors.yolox.settings import YoloxConfig
from dmnet.pipeline.mmdet import MmdetConfig


@dataclass(frozen=True)
class DetectorTraining(TrainConfig):
    """Training of the detector (docs/method.md, "Detectors")."""

    model: str = "fasterrcnn-r50"
    """Network: fasterrcnn-r50, fasterrcnn-r50-v2, fasterrcnn-mobilenetv3, fasterrcnn-mobilenetv2,
    retinanet-r50, fcos-r50, fcos-mobilenetv2, yolov6-n/-t/-s/-m/-l, yolox-nano/-tiny/-s, mmdet, or
    module:builder of an outside package. Without a GPU, where none is named, the preset cpu is used
    (configs/cpu.yaml)."""
    init: str | None = None
    """Start from the tensors of this file that fit: weights of an earlier training (of other
    classes or settings too), a plain state_dict, or a published YOLOX ONNX file."""
    crops: bool = True
    """Train on the crops too, not on whole images alone."""
    annotations: str | None = None
    """COCO JSON, or folder of Pascal VOC XML, of the training images, instead of what 'convert'
    made; needs crops false."""
    validate_on: str | None = None
    """Split on whose whole images every epoch is scored; its best epoch is kept. none: the last
    epoch is kept, so that no split to be reported is used for the choice."""
    validation: str | None = None
    """COCO JSON with the annotations of these images (of the split validate_on, else of val),
    where the split itself has none."""
    protocol: str = "coco@500"
    """Protocol of these scores."""
    score_threshold: Share = 0.3
    """Precision, recall, F1 and mean IoU count detections from this score on."""
    judge_train: Count = 0
    """Also report them on so many training images."""
    pictures: Annotated[int, Range(0, 1_000)] = 4
    """Draw what is found on so many images (of validate_on, else of the training set)."""
    torchvision: TorchvisionConfig = field(default_factory=TorchvisionConfig)
    """Settings of the torchvision networks."""
    yolov6: YoloConfig = field(default_factory=YoloConfig)
    """Settings of the YOLOv6 networks."""
    yolox: YoloxConfig = field(default_factory=YoloxConfig)
    """Settings of the YOLOX networks."""
    mmdet: MmdetConfig = field(default_factory=MmdetConfig)
    """Settings of MMDetection."""
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Settings of a network that has no section here."""

    def __post_init__(self) -> None:
        """Check the ranges, and that settings go to a network.

        Raises:
            ValueError: a number outside its range, or settings that the network does not take.
        """
        super().__post_init__()
        if self.own and hasattr(self, section := family(self.model)) and section != "own":
            raise ValueError(f"own has to be empty here: settings of {self.model} are {section}.*")


@dataclass(frozen=True)
class DensityTraining(density.TrainConfig):
    """Training of the density network (docs/method.md, "Density networks")."""

    train_on: tuple[str, ...] = ("train",)
    """Splits to train on; each needs its density maps."""
    validate_on: str | None = "val"
    """Split whose true maps the network is judged on after every epoch; none: no validation."""
    hold_out: Decay = 0.0
    """Above 0, the network is judged on at least this share of the training images instead of
    validate_on, and not trained on them: whole scenes, a scene being what a file name has before
    its first '_'."""
    recall_threshold: Factor = 0.08
    """Threshold of the crops whose region recall is reported."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: settings that cannot be trained with.
        """
        super().__post_init__()
        if not self.train_on:
            raise ValueError("train_on must name a split")
