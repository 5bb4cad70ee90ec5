"""Networks as ONNX files, checked against the network they were made from.

The files describe themselves: their ``metadata_props`` hold, under `KEY`, a JSON object that
`dmnet.detectors.onnx` and `dmnet.density.onnx` read. Batch, height and width are dynamic; the
torchvision detectors, whose NMS is in the graph, take one image at a time.

The tracing exporter of torch is used, not the newer one (``dynamo=True``): it needs no further
package, takes the data-dependent second stage of Faster R-CNN, and is 30 times as fast here.
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from dmnet.core.errors import ConfigError, DmnetError, optional
from dmnet.core.onnx import KEY
from dmnet.detectors.base import DetectionNet
from dmnet.detectors.dense import GREY, MULTIPLE
from dmnet.detectors.torchvision.model import MEAN, STD, TorchvisionNet
from dmnet.detectors.yolov6.model import YoloV6
from dmnet.detectors.yolox.model import YoloX

OPSET = 17
TOLERANCE = 1e-3
"""Greatest difference of an output relative to its largest value (0..1 scores: absolute)."""

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Graph:
    """What is exported: a module, its inputs and outputs, and which of their sides may change."""

    module: nn.Module
    inputs: dict[str, dict[int, str]]
    """dynamic axes by input name, in the order of the module's arguments"""
    outputs: dict[str, dict[int, str]]
    """dynamic axes by output name"""
    examples: tuple[tuple[Tensor, ...], ...]
    """the first is traced, all are compared"""


def export_graph(graph: Graph, meta: Mapping[str, Any]) -> bytes:
    """Trace a module to ONNX.

    Args:
        graph: see `Graph`.
        meta: JSON-ready description, stored under `KEY`.

    Raises:
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    onnx = optional("onnx", "onnx")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # traced Python values: checked on other shapes afterwards
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            graph.module.eval(),
            graph.examples[0],
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={k: v for k, v in {**graph.inputs, **graph.outputs}.items() if v},
        )
        model = onnx.load(str(file))
    onnx.helper.set_model_props(model, {KEY: json.dumps(meta, sort_keys=True)})
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def run_both(graph: Graph, data: bytes) -> list[tuple[Arrays, Arrays]]:
    """Outputs of the module and of the ONNX file on every example, as pairs."""
    import onnxruntime as runtime

    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    taken = {entry.name for entry in session.get_inputs()}  # the tracer drops unused inputs
    pairs = []
    for example in graph.examples:
        with torch.no_grad():
            wanted = graph.module(*example)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        feed = {name: x.numpy() for name, x in zip(graph.inputs, example, strict=True)}
        got = session.run(None, {name: value for name, value in feed.items() if name in taken})
        pairs.append(([tensor.numpy() for tensor in wanted], got))
    return pairs


def check_equal(pairs: Sequence[tuple[Arrays, Arrays]], name: str) -> None:
    """Compare dense outputs element by element.

    Raises:
        DmnetError: they differ by more than `TOLERANCE`.
    """
    for wanted, got in pairs:
        for index, (a, b) in enumerate(zip(wanted, got, strict=True)):
            if a.shape != b.shape:
                raise DmnetError(
                    f"export of {name}: output {index} has shape {b.shape} in the ONNX file, "
                    f"{a.shape} in the network; nothing was written"
                )
            bound = TOLERANCE * max(1e-6, float(np.abs(a).max(initial=0)))
            worst = float(np.abs(a - b).max(initial=0))
            if not worst <= bound:
                raise DmnetError(
                    f"export of {name}: output {index} differs by {worst:.2g} between the ONNX "
                    f"file and the network (at most {bound:.2g} is allowed); nothing was written"
                )


def check_detections(pairs: Sequence[tuple[Arrays, Arrays]], name: str) -> int:
    """Compare boxes, scores and labels after NMS, whatever the order of equal scores.

    Returns:
        Number of detections compared.

    Raises:
        DmnetError: the scores differ, or more than 2 % of the detections have no counterpart
            (rounding may turn a tie in an NMS).
    """
    compared = 0
    for (boxes, scores, labels), (boxes2, scores2, labels2) in pairs:
        compared += len(scores)
        near = np.abs(scores[:, None] - scores2) <= TOLERANCE  # [n, m]
        near &= labels[:, None] == labels2
        near &= np.abs(boxes[:, None] - boxes2).max(-1, initial=0) <= 0.1
        alone = int((~near.any(1)).sum()) if len(scores2) else len(scores)
        short = min(len(scores), len(scores2))
        drift = np.abs(np.sort(scores)[::-1][:short] - np.sort(scores2)[::-1][:short])
        if alone > 0.02 * len(scores) or len(scores) != len(scores2) or drift.max(initial=0) > 0.01:
            raise DmnetError(
                f"export of {name}: {alone} of {len(scores)} detections of the network have no "
                f"counterpart among the {len(scores2)} of the ONNX file; nothing was written"
            )
    return compared


# --- density networks ----------------------------------------------------------------------------


def export_density(network: nn.Module, architecture: str, scaling: Mapping[str, Any]) -> bytes:
    """Export a network that maps ``[B, 3, H, W]`` to objects per cell ``[B, 1, h, w]``.

    Args:
        network: with the attributes ``stride``, ``multiple`` and ``reach``.
        architecture: its name, for the file.
        scaling: of the input, ``(RGB 0..255 - mean) / std``: ``mean`` and ``std`` (one number or
            three) and the ``long_side`` that images are shrunk to.

    Raises:
        DmnetError: the file does not give what the network gives.
    """
    sizes = {key: int(getattr(network, key)) for key in ("stride", "multiple", "reach")}
    side = max(32, 4 * sizes["multiple"])
    mean, std = (torch.tensor(scaling[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    shapes = ((2, 3, side, 2 * side), (1, 3, 3 * side, side))
    random = torch.Generator().manual_seed(0)
    examples = tuple(
        ((torch.rand(shape, generator=random) * 255 - mean) / std,) for shape in shapes
    )
    graph = Graph(
        copy.deepcopy(network).cpu().float().eval(),
        {"images": {0: "batch", 2: "height", 3: "width"}},
        {"density": {0: "batch", 2: "rows", 3: "columns"}},
        examples,
    )
    meta = {"kind": "density", "architecture": architecture, **scaling, **sizes}
    data = export_graph(graph, meta)
    check_equal(run_both(graph, data), architecture)
    return data


# --- detectors -----------------------------------------------------------------------------------


class TorchvisionBody(nn.Module):
    """A torchvision detector behind its input transform, for one image.

    ``images`` ``[1, 3, H, W]`` normalised and padded, ``size`` ``[2]`` height and width of the part
    that is image -> boxes ``[n, 4]``, scores ``[n]``, labels ``[n]`` from 1.
    """

    def __init__(self, net: TorchvisionNet) -> None:
        """Share the network's weights."""
        super().__init__()
        self.model: Any = net.model
        self.shift = 1 - net.first

    def forward(self, images: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect; the size stays a tensor so that the trace does not fix it."""
        sizes: Any = [(size[0], size[1])]
        padded, features = ImageList(images, sizes), self.model.backbone(images)
        if hasattr(self.model, "rpn"):
            proposals, _ = self.model.rpn(padded, features)
            found = self.model.roi_heads(features, proposals, sizes)[0][0]
        else:
            found = self._one_stage(padded, list(features.values()), sizes)
        return found["boxes"], found["scores"], found["labels"] + self.shift

    def _one_stage(self, padded: ImageList, features: list[Tensor], sizes: Any) -> Any:
        outputs = self.model.head(features)
        anchors = self.model.anchor_generator(padded, features)
        cells = [feature.size(2) * feature.size(3) for feature in features]
        a_cell = self.model.anchor_generator.num_anchors_per_location()[0]
        counts = [count * a_cell for count in cells]
        levels = {name: list(value.split(counts, dim=1)) for name, value in outputs.items()}
        split = [list(one.split(counts)) for one in anchors]
        return self.model.postprocess_detections(levels, split, sizes)[0]


class YoloBody(nn.Module):
    """Decoded boxes and scores of YOLOv6 or YOLOX, before NMS."""

    def __init__(self, net: YoloV6 | YoloX) -> None:
        """Share the network's weights."""
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, 3, H, W]`` -> ``[B, A, 4]`` pixels of the input, ``[B, A, classes]``."""
        return self.net.predictions(images)


def torchvision_graph(net: TorchvisionNet) -> tuple[Graph, dict[str, Any]]:
    """Graph of a deployed torchvision detector, and how its file is to be read."""
    config = net.config
    random = torch.Generator().manual_seed(0)
    base = max(64, 2 * config.divisor)
    examples = []
    for height, width, cut in ((base, 2 * base, 5), (2 * base, base, 0), (3 * base, 2 * base, 9)):
        x = torch.rand((1, 3, height, width), generator=random) * 4 - 2
        examples.append((x, torch.tensor([height - cut, width - 2 * cut])))
    graph = Graph(
        TorchvisionBody(net),
        {"images": {2: "height", 3: "width"}, "size": {}},
        {"boxes": {0: "n"}, "scores": {0: "n"}, "labels": {0: "n"}},
        tuple(examples),
    )
    decoding = {
        "layout": "detections",
        "short_side": config.min_size,
        "long_side": config.max_size,
        "max_zoom": config.max_zoom,
        "divisor": config.divisor,
        "mean": MEAN,
        "std": STD,
        "fill": [255 * value for value in MEAN],
        "score_threshold": config.score_threshold,
        "nms": config.nms,
        "max_detections": config.max_detections,
    }
    return graph, decoding


def yolo_graph(net: YoloV6 | YoloX) -> tuple[Graph, dict[str, Any]]:
    """Graph of a deployed YOLOv6 or YOLOX, and how its file is to be read."""
    random = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 64, 96), (1, 3, 128, 64))
    graph = Graph(
        YoloBody(net),
        {"images": {0: "batch", 2: "height", 3: "width"}},
        {"boxes": {0: "batch", 1: "cells"}, "scores": {0: "batch", 1: "cells"}},
        tuple((torch.rand(shape, generator=random),) for shape in shapes),
    )
    config = net.config
    decoding = {
        "layout": "xyxy",
        "long_side": config.input_size - 2 * config.border,
        "max_zoom": config.max_zoom,
        "divisor": MULTIPLE,
        "border": config.border,
        "smooth": True,
        "fill": [255 * GREY],
        "objectness": False,
        "several_classes": True,
        "score_threshold": config.score_threshold,
        "nms": config.nms,
        "max_detections": config.max_detections,
    }
    return graph, decoding


def export_detector(net: DetectionNet) -> bytes:
    """Export a detection network in its form for inference.

    Raises:
        ConfigError: a network of a kind that has no export.
        DmnetError: the file does not give what the network gives.
    """
    net = copy.deepcopy(net).cpu().float().deploy()
    if isinstance(net, TorchvisionNet):
        graph, decoding = torchvision_graph(net)
    elif isinstance(net, YoloV6 | YoloX):
        graph, decoding = yolo_graph(net)
    else:
        raise ConfigError(f"{net.architecture}: there is no export of this network to ONNX")
    if net.named is None:
        decoding["class_map"] = [f"{index}={index + 1}" for index in range(net.classes)]
    else:
        decoding["names"] = list(net.named.names)
    meta = {"kind": "detector", "architecture": net.architecture, "decoding": decoding}
    data = export_graph(graph, meta)
    if decoding["layout"] != "detections":
        check_equal(run_both(graph, data), net.architecture)
    elif not check_detections(run_both(graph, data), net.architecture):
        _check_without_threshold(net, graph, meta)
    return data


def _check_without_threshold(net: Any, graph: Graph, meta: Mapping[str, Any]) -> None:
    """Compare what a trained network finds in noise when nothing is too unlikely."""
    owner = net.model.roi_heads if hasattr(net.model, "roi_heads") else net.model
    owner.score_thresh = 0.0
    if not check_detections(run_both(graph, export_graph(graph, meta)), net.architecture):
        raise DmnetError(f"export of {net.architecture}: the network finds nothing to compare")
