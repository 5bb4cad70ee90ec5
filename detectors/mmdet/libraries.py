"""MMDetection's libraries, loaded and kept within bounds; and its checkpoints, read safely.

Written against the import names ``mmdet``, ``mmengine`` and ``mmcv`` only: the maintained fork and
the official packages are the same here. No file is unpickled beyond tensors and the few types
MMDetection's own checkpoints need.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmnet.core.errors import CheckpointError, optional
from dmnet.core.training.weights import FORMAT, read_payload


def _history_method(owner: type, name: str) -> Any:
    """What ``getattr`` does in MMDetection's checkpoints, and nothing more.

    They hold references to the methods of `HistoryBuffer`, which pickle writes as ``getattr``
    calls; the real ``getattr`` (which mmengine itself allows) would reach any attribute.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise pickle.UnpicklingError(f"getattr({owner!r}, {name!r})")
    return getattr(owner, name)


def _safe_globals() -> list[Any]:
    """What MMDetection's own checkpoints hold beside tensors; none of it can run code."""
    from mmengine.logging.history_buffer import HistoryBuffer

    rebuild, make = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(code)) for code in ("f8", "f4", "i8", "i4", "u4", "u1", "?")]
    named = [
        (_history_method, "builtins.getattr"),
        (rebuild, "numpy.core.multiarray._reconstruct"),  # numpy 1's names
        (make, "numpy.core.multiarray.scalar"),
    ]
    return [HistoryBuffer, np.ndarray, np.dtype, rebuild, make, *dtypes, *named]


@contextlib.contextmanager
def libraries() -> Iterator[None]:
    """Load the libraries with the operators' stand-in, and keep them within bounds.

    Inside, every ``torch.load`` of anybody is weights-only (mmengine otherwise falls back to full
    unpickling with a log line), and what they print goes to stderr.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    for module in ("mmengine", "mmcv"):
        optional(module, "mmdet")
    forced = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": None}
    before = {name: os.environ.get(name) for name in forced}
    _set_environment(forced)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")  # theirs, of no use to the user
            optional("dmnet.detectors.mmdet.plugins", "mmdet")
            with torch.serialization.safe_globals(_safe_globals()):
                yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read MMDetection's checkpoint or a weights file written here.

    Returns:
        The state_dict, and the metadata: ``classes`` (names), ``categories`` (ids, maybe absent),
        ``mmdet`` (stored config, only in files written here).

    Raises:
        CheckpointError: damaged, or holds pickled objects that MMDetection itself does not write.
    """
    with libraries():  # allows the few globals of its own checkpoints
        payload = read_payload(path)
    state = payload.get("state_dict", payload)
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(path, "holds no tensors, expected an MMDetection checkpoint")
    if payload.get("format") == FORMAT:
        return state, json.loads(payload["meta"])
    return state, _foreign_meta(payload.get("meta"))


def _foreign_meta(meta: Any) -> dict[str, Any]:
    """Class names out of MMDetection's metadata, of version 3 or older."""
    if not isinstance(meta, Mapping):
        return {}
    data = meta.get("dataset_meta", meta)
    lower = {str(key).lower(): value for key, value in data.items()}
    if "classes" not in lower:
        return {}
    found: dict[str, Any] = {"classes": [str(name) for name in lower["classes"]]}
    if "categories" in lower:
        found["categories"] = [int(value) for value in lower["categories"]]
    return found
