"""ONNX files opened through onnxruntime: from memory, with named errors; the one place for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.reading import read_bytes

KEY = "dmnet"
"""Metadata entry under which our own exports describe themselves (JSON)."""

_BROKEN = ("Fail", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NotImplemented",
           "RuntimeException", "NoModel")  # fmt: skip


def open_session(path: Path, device: str = "auto") -> tuple[Any, dict[str, Any]]:
    """Open an ONNX file.

    It runs on as many threads as ``OMP_NUM_THREADS`` says, else on all cores.

    Args:
        path: the file; what it refers to outside itself is not opened.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The onnxruntime session, and our metadata (empty for foreign files).

    Raises:
        CheckpointError: missing or damaged.
        ConfigError: a GPU is asked for and this onnxruntime has none.
    """
    import onnxruntime as runtime  # takes a third of a second

    if not path.is_file():
        raise CheckpointError(path, "no such ONNX file")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    errors = runtime.capi.onnxruntime_pybind11_state
    broken = (UnicodeDecodeError, *(getattr(errors, name) for name in _BROKEN))
    try:
        # from memory: a file may name others, which would be opened
        session = runtime.InferenceSession(
            read_bytes(path), options, providers=_providers(runtime, device)
        )
        for entry in (*session.get_inputs(), *session.get_outputs()):
            _ = entry.name, entry.shape  # names may be no text at all
    except broken as error:
        raise CheckpointError(path, f"not a usable ONNX file ({error})") from error
    return session, _meta(path, session)


def _providers(runtime: Any, device: str) -> list[str]:
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        if not device.startswith("cpu"):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    elif device.startswith("cuda"):
        raise ConfigError(
            "this onnxruntime runs on the CPU only; install onnxruntime-gpu in its place, or "
            "choose the CPU as device"
        )
    return ["CPUExecutionProvider"]


def _meta(path: Path, session: Any) -> dict[str, Any]:
    try:
        text = session.get_modelmeta().custom_metadata_map.get(KEY)  # may be no text at all
        meta = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f"its metadata is damaged ({error})") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("decoding", {}), dict):
        raise CheckpointError(path, "its metadata is damaged (not a mapping)")
    return meta
