"""Exported networks in 8 bits: the weights alone, or what is computed too.

Weights alone (`light`): a quarter of the size, computed in floating point as before, for every
network. Weights and activations (`quantised`), for detectors: onnxruntime's static quantiser gives
convolutions 8-bit inputs, whose ranges are measured on given images; what decodes their outputs
stays in floating point. That file is in QDQ form: any runtime that knows `QuantizeLinear` reads it.
It can be quicker, but small networks of depthwise convolutions lose most of what they find.
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

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Layers whose second input is their weights."""


def light(data: bytes) -> bytes:
    """The same network with 8-bit weights.

    Weights are whole numbers times a scale, one for each row of their first axis: the greatest is
    127. They are made floats again when a runtime opens the file.

    Args:
        data: an own export.

    Raises:
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    onnx = optional("onnx", "onnx")
    model = onnx.load_from_string(data)
    used = {node.input[1] for node in model.graph.node if node.op_type in WEIGHTED}
    nodes, tables = [], []
    for table in model.graph.initializer:
        values = onnx.numpy_helper.to_array(table)
        if table.name not in used or values.ndim < 2:
            tables.append(table)
            continue
        whole, scale = rounded(values)
        names = [f"{table.name}.{part}" for part in ("int8", "scale", "float")]
        tables += map(onnx.numpy_helper.from_array, (whole, scale), names[:2])
        nodes.append(
            onnx.helper.make_node("Cast", [names[0]], [names[2]], to=onnx.TensorProto.FLOAT)
        )
        nodes.append(onnx.helper.make_node("Mul", names[:0:-1], [table.name]))
    nodes += model.graph.node
    for old, new in ((model.graph.node, nodes), (model.graph.initializer, tables)):
        kept = list(new)
        del old[:]
        old.extend(kept)
    return _packed(onnx, model)


def rounded(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers -127..127 of the shape of ``values``, and the scale of each row.

    >>> whole, scale = rounded(np.array([[0.5, -1.0], [0.0, 0.0]], dtype=np.float32))
    >>> whole.tolist(), (scale * 127).tolist()
    ([[64, -127], [0, 0]], [[1.0], [127.0]])
    """
    greatest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    scale = np.where(greatest > 0, greatest / 127, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def quantised(data: bytes, images: Iterable[Image]) -> bytes:
    """The same detector with 8-bit weights and activations.

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
    return _packed(onnx, model)


def _packed(onnx: Any, model: Any) -> bytes:
    """The file, as small as it gets."""
    _shorten(model.graph)
    onnx.checker.check_model(model)
    small: bytes = model.SerializeToString()
    return small


def _feeds(file: Path, images: Iterable[Image]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Inputs of the network, as the detector makes them."""
    detector = OnnxDetector(file, device="cpu")
    if detector.how.layout == "detections":
        raise ConfigError(
            "8-bit activations are for YOLOv6 and YOLOX; leave --images away: the weights alone "
            "can be in 8 bits"
        )

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
    kept = {entry.name for entry in (*graph.input, *graph.output)} | {"", *_names_within(graph)}
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


def _names_within(graph: Any) -> Iterator[str]:
    """Names that the branches and loops of a graph use; they may be the graph's own."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                for inner in attribute.g.node:
                    yield from (*inner.input, *inner.output)
                yield from (entry.name for entry in attribute.g.output)
                yield from _names_within(attribute.g)
