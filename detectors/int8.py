"""Exported detectors with 8-bit weights and activations, made by onnxruntime's static quantiser.

Convolutions get 8-bit weights (a scale a channel) and 8-bit inputs, whose ranges are measured on
given images; what decodes their outputs stays in floating point. The file is in QDQ form: any
runtime that knows `QuantizeLinear` reads it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmnet.core.errors import ConfigError, optional
from dmnet.core.records import Image
from dmnet.detectors.onnx import OnnxDetector, network_input, place


def quantised(data: bytes, images: Iterable[Image]) -> bytes:
    """The same detector in 8 bits.

    Args:
        data: an own export of a YOLOv6 or YOLOX.
        images: like those to come; ranges are measured on them.

    Raises:
        ConfigError: the export of another detector.
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    onnx = optional("onnx", "onnx")
    tools: Any = optional("onnxruntime.quantization", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, made = (Path(folder) / f"{name}.onnx" for name in ("plain", "ready", "made"))
        plain.write_bytes(data)
        feeds = _feeds(plain, images)
        tools.shape_inference.quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        tools.quantize_static(
            str(ready),
            str(made),
            _reader(tools, feeds),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
        model = onnx.load(str(made))
    _shorten(model.graph)
    onnx.checker.check_model(model)
    small: bytes = model.SerializeToString()
    return small


def _feeds(file: Path, images: Iterable[Image]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Inputs of the network, as the detector makes them."""
    detector = OnnxDetector(file, device="cpu")
    if detector.how.layout == "detections":
        raise ConfigError("8 bits are for YOLOv6 and YOLOX; export this detector without --int8")

    def feeds() -> Iterator[dict[str, NDArray[np.float32]]]:
        for image in images:
            where = place((image.shape[0], image.shape[1]), detector.how)
            yield {detector.names[0]: network_input(image, where, detector.how)[None]}

    return feeds()


def _reader(tools: Any, feeds: Iterator[dict[str, NDArray[np.float32]]]) -> Any:
    """The inputs as the quantiser wants them."""

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(feeds, None)

    return Reader()


def _shorten(graph: Any) -> None:
    """Short names inside the graph, no shapes: in a small network they outweigh the weights."""
    kept = {entry.name for entry in (*graph.input, *graph.output)} | {""}
    numbers = count()
    short: dict[str, str] = {}

    def renamed(name: str) -> str:
        if name in kept:
            return name
        if name not in short:
            short[name] = f"t{next(numbers)}"
        return short[name]

    for node in graph.node:
        node.name = ""
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for table in graph.initializer:
        table.name = renamed(table.name)
    del graph.value_info[:]
