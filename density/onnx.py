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
from dmnet.core.onnx import image_input, open_session, run
from dmnet.core.reading import DAMAGED
from dmnet.density.scale import Scaling

LARGEST = 1 << 16
"""Pixels that stride, multiple and reach may have."""


class OnnxNetwork:
    """An onnxruntime session that maps ``(N, 3, H, W)`` to ``(N, 1, H / stride, W / stride)``."""

    def __init__(self, path: Path, session: Any, meta: Mapping[str, Any]) -> None:
        """Take the session and the sizes its metadata states.

        Raises:
            ValueError: sizes that no network has.
            CheckpointError: its input takes no float images.
        """
        self.path, self.session = path, session
        sizes = self.stride, self.multiple, self.reach = tuple(
            int(meta[key]) for key in ("stride", "multiple", "reach")
        )
        if min(*sizes[:2], self.reach + 1) < 1 or max(sizes) > LARGEST or (
            self.multiple % self.stride
        ):  # fmt: skip
            raise ValueError(f"stride, multiple and reach of {sizes} fit no network")
        image_input(path, session)
        self.input_name = session.get_inputs()[0].name

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `dmnet.density.predict.Network.run`.

        Raises:
            CheckpointError: the file cannot be run, or does not give one value a cell.
        """
        values: NDArray[np.float32] = run(self.path, self.session, {self.input_name: inputs})[0]
        count, _, height, width = inputs.shape
        wanted = (count, 1, height // self.stride, width // self.stride)
        if values.shape != wanted:
            raise CheckpointError(
                self.path, f"gives values of shape {values.shape}, expected {wanted}"
            )
        return values


def load(path: Path) -> tuple[OnnxNetwork, Scaling]:
    """Open an exported density network.

    Returns:
        The network, and the scaling of its input.

    Raises:
        CheckpointError: missing, damaged, or not a density network written by this project, with
            an input of float images.
    """
    session, meta = open_session(path, "cpu")
    try:
        if meta["kind"] != "density":
            raise KeyError("kind")
        return OnnxNetwork(path, session, meta), Scaling.of({"input": meta})
    except DAMAGED as error:
        raise CheckpointError(path, "not a density network exported by this project") from error
