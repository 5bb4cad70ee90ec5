"""ONNX files opened through onnxruntime: from memory, with named errors; the one place for it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.memory import says_out_of_memory
from dmnet.core.reading import read_bytes

KEY = "dmnet"
"""Metadata entry under which our own exports describe themselves (JSON)."""

_OTHER_FILES = "session.model_external_initializers_file_folder_path"

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
    # waiting threads leave the processor to those that decode, look for density, and write
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # it would look for the weights of a file that comes from memory in the working directory
    options.add_session_config_entry(_OTHER_FILES, os.devnull)
    broken: tuple[type[Exception], ...] = (UnicodeDecodeError, *_errors())
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


def image_input(path: Path, session: Any, others: int = 0) -> list[Any]:
    """Shape of the input that takes images: ``[batch, 3, height, width]``, numbers or names.

    Args:
        path: of the file, for messages.
        session: the open file.
        others: further inputs that it may have.

    Raises:
        CheckpointError: it takes something else than 32-bit floats of three channels, has more
            inputs, or gives something else than arrays of numbers.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = list(inputs[0].shape) if inputs else []
    if len(shape) != 4 or shape[1] not in (3, "channels") or len(inputs) > 1 + others:
        raise CheckpointError(
            path,
            f"its first input of {len(inputs)} has shape {shape}, expected one "
            "[batch, 3, height, width] for images",
        )
    if inputs[0].type != "tensor(float)":
        raise CheckpointError(
            path,
            f"its input '{inputs[0].name}' takes {inputs[0].type}, expected 32-bit floats "
            "(tensor(float)); export it without integer or 16-bit inputs",
        )
    for entry in outputs:
        if entry.type not in _NUMBERS:
            raise CheckpointError(
                path, f"its output '{entry.name}' is {entry.type}, expected an array of numbers"
            )
    return shape


_NUMBERS = {f"tensor({kind})" for kind in ("float", "double", "float16", "int32", "int64")}


def run(path: Path, session: Any, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of an open file.

    Raises:
        MemoryError: there is not enough memory for this input.
        CheckpointError: it cannot compute them from this input.
    """
    # NumPy refuses outputs of more than 64 axes with a ValueError
    broken: tuple[type[Exception], ...] = (ValueError, *_errors())
    try:
        outputs: list[NDArray[Any]] = session.run(None, feed)
    except broken as error:
        if says_out_of_memory(error):
            raise MemoryError(str(error)) from error
        shapes = ", ".join(f"{name} {value.shape}" for name, value in feed.items())
        raise CheckpointError(path, f"cannot be run on {shapes} ({error})") from error
    return outputs


def _errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; they have no ancestor of their own."""
    import onnxruntime as runtime

    found = runtime.capi.onnxruntime_pybind11_state
    return tuple(getattr(found, name) for name in _BROKEN)


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
