"""Exported density networks (ONNX) in the place of a torch network.

`load` gives a module that `dmnet.density.predict.predict` takes like any other, tiles included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmnet.core.errors import CheckpointError, optional
from dmnet.core.reading import read_bytes
from dmnet.core.records import DensityMap, Image
from dmnet.density.networks import Scaling
from dmnet.density.predict import MAX_PIXELS, predict

KEY = "dmnet"
"""Metadata entry of our exports."""


class OnnxDensity(nn.Module):
    """An onnxruntime session that maps ``(N, 3, H, W)`` to ``(N, 1, H / stride, W / stride)``."""

    def __init__(self, session: Any, meta: Mapping[str, Any]) -> None:
        """Take the session and the sizes its metadata states."""
        super().__init__()
        self.session = session
        self.stride, self.multiple, self.reach = (
            int(meta[key]) for key in ("stride", "multiple", "reach")
        )
        self.input_name = session.get_inputs()[0].name

    def forward(self, images: Tensor) -> Tensor:
        """Run the file."""
        feed = {self.input_name: images.contiguous().cpu().numpy()}
        return torch.from_numpy(self.session.run(None, feed)[0])


def load(path: Path) -> tuple[OnnxDensity, Scaling]:
    """Open an exported density network.

    Returns:
        The network, and the scaling of its input.

    Raises:
        CheckpointError: missing, damaged, or not a density network written by this project.
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    runtime = optional("onnxruntime", "onnx")
    if not path.is_file():
        raise CheckpointError(path, "no such ONNX file")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    broken = tuple(
        getattr(runtime.capi.onnxruntime_pybind11_state, name)
        for name in ("Fail", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NotImplemented",
                     "RuntimeException", "NoModel")
    )  # fmt: skip
    try:
        # from memory: a file may name others, which would be opened
        data = read_bytes(path)
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except broken as error:
        raise CheckpointError(path, f"not a usable ONNX file ({error})") from error
    try:
        meta = json.loads(session.get_modelmeta().custom_metadata_map.get(KEY, "{}"))
        if meta["kind"] != "density":
            raise KeyError("kind")
        return OnnxDensity(session, meta), Scaling.of({"input": meta})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(path, "not a density network exported by this project") from error


def predict_onnx(path: Path, image: Image, *, max_pixels: int = MAX_PIXELS) -> DensityMap:
    """Predict one image's map with an exported network; see `dmnet.density.predict.predict`."""
    network, scaling = load(path)
    return predict(network, image, scaling, max_pixels=max_pixels)
