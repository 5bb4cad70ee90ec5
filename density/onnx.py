"""Exported density networks (ONNX) in the place of a torch network.

`load` gives what `dmnet.density.predict.predict` takes like any other, tiles included.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmnet.core.errors import CheckpointError
from dmnet.core.onnx import open_session
from dmnet.core.reading import DAMAGED
from dmnet.density.scale import Scaling


class OnnxNetwork:
    """An onnxruntime session that maps ``(N, 3, H, W)`` to ``(N, 1, H / stride, W / stride)``."""

    def __init__(self, session: Any, meta: Mapping[str, Any]) -> None:
        """Take the session and the sizes its metadata states."""
        self.session = session
        self.stride, self.multiple, self.reach = (
            int(meta[key]) for key in ("stride", "multiple", "reach")
        )
        self.input_name = session.get_inputs()[0].name

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `dmnet.density.predict.Network.run`."""
        outputs: NDArray[np.float32] = self.session.run(None, {self.input_name: inputs})[0]
        return outputs


def load(path: Path) -> tuple[OnnxNetwork, Scaling]:
    """Open an exported density network.

    Returns:
        The network, and the scaling of its input.

    Raises:
        CheckpointError: missing, damaged, or not a density network written by this project.
    """
    session, meta = open_session(path, "cpu")
    try:
        if meta["kind"] != "density":
            raise KeyError("kind")
        return OnnxNetwork(session, meta), Scaling.of({"input": meta})
    except DAMAGED as error:
        raise CheckpointError(path, "not a density network exported by this project") from error
