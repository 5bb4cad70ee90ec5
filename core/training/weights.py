"""Weights files and checkpoints: tensors and JSON, never code; written in one step."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from dmnet.core import files, limits
from dmnet.core.errors import CheckpointError
from dmnet.core.reading import DAMAGED

FORMAT = "dmnet-checkpoint-1"


def to_bytes(payload: Mapping[str, Any]) -> bytes:
    """Serialise with ``torch.save``; the same payload gives the same bytes."""
    buffer = io.BytesIO()
    torch.save(dict(payload), buffer)
    return buffer.getvalue()


def write_atomic(path: Path, data: bytes) -> None:
    """Write in one step and bring it to the disc: no kill and no power cut leaves half a file."""
    files.write_atomic(path, [data], durable=True)


def portable(values: Any) -> Any:
    """Settings as they are stored with weights: a path is a place on one machine, its name stays.

    >>> portable({"init": "/home/me/start.pt", "data": {"crops": True}})
    {'init': 'start.pt', 'data': {'crops': True}}
    """
    if isinstance(values, Mapping):
        return {key: portable(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [portable(value) for value in values]
    return Path(values).name if isinstance(values, str) and os.sep in values else values


def weights_bytes(state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """One weights file: the state_dict and its JSON metadata.

    Args:
        state: parameters and buffers by name.
        meta: JSON-serialisable; at least ``architecture``, ``input`` (scaling) and ``config``.
    """
    cpu = {key: value.detach().cpu() for key, value in state.items()}
    stored = {key: portable(value) if key == "config" else value for key, value in meta.items()}
    payload = {"format": FORMAT, "state_dict": cpu, "meta": json.dumps(stored, sort_keys=True)}
    return to_bytes(payload)


def read_payload(path: Path) -> dict[str, Any]:
    """Load a file of tensors and plain containers; never runs code from the file.

    Raises:
        CheckpointError: the file is missing, damaged, or holds pickled objects other than tensors.
    """
    if not path.is_file():
        raise CheckpointError(path, "no such weights file")
    _check_archive(path)
    _check_pickles(path)
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            path,
            "refused: it holds pickled objects beside tensors, which could run code when loaded; "
            "save a plain state_dict instead (torch.save(model.state_dict(), path))",
        ) from error
    except (OSError, struct.error, zlib.error, zipfile.BadZipFile, *DAMAGED) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(path, f"not a readable torch file ({first})") from error
    if not isinstance(payload, dict):
        raise CheckpointError(path, f"holds a {type(payload).__name__}, expected a state_dict")
    return payload


def _check_archive(path: Path) -> None:
    """Refuse a weights file that would unpack to more than the limit.

    Raises:
        CheckpointError: see `limits.WEIGHTS_BYTES`.
    """
    total = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            total += sum(info.file_size for info in archive.infolist())
    except (OSError, zipfile.BadZipFile, *DAMAGED):
        pass  # an older format, or a damaged file; torch.load says which
    if total > 2 * limits.WEIGHTS_BYTES:
        raise CheckpointError(path, f"unpacks to {total:,} bytes, more than the limit")


def _check_pickles(path: Path) -> None:
    """Refuse what torch would let a pickle do without end: arrays of bytes, tuples of tuples.

    Raises:
        CheckpointError: it is there, or a pickle is too large to be looked at.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [info for info in archive.infolist() if info.filename.endswith(".pkl")]
            if sum(info.file_size for info in pickles) > limits.TEXT_BYTES:
                raise CheckpointError(path, "its names and settings exceed the limit of a text")
            streams: list[IO[bytes]] = [io.BytesIO(archive.read(info)) for info in pickles]
    except (OSError, zlib.error, zipfile.BadZipFile, *DAMAGED) as error:  # or an older format
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                raise CheckpointError(path, f"not a readable torch file ({error})") from error
            stream.seek(0)
            _check_pickle(path, [stream] * _OLD_PICKLES)
    else:
        _check_pickle(path, streams)


_OLD_PICKLES = 5
"""Pickles before the tensors in a file of torch's older format: marks, state, names."""


def _check_pickle(path: Path, streams: Iterable[IO[bytes]]) -> None:
    """Walk through pickles without making anything.

    What is put together is counted with all that it holds, as often as it holds it: torch hashes a
    tuple that is a key just so.
    """
    with suppress(ValueError, IndexError, KeyError, MemoryError):  # no pickle: torch.load says so
        for stream in streams:
            stack: list[int] = []  # parts of every object; 0: a mark
            memo: dict[int, int] = {}
            for number, (code, value, _) in enumerate(pickletools.genops(stream)):
                if isinstance(value, str) and "bytearray" in value.split():
                    reason = "refused: it holds an array of bytes, expected tensors"
                    raise CheckpointError(path, reason)
                parts = _step(code, value, stack, memo)
                if max(parts, number) > limits.PICKLE_PARTS:
                    reason = f"refused: its pickle has more than {limits.PICKLE_PARTS:,} parts"
                    raise CheckpointError(path, reason)


def _step(code: pickletools.OpcodeInfo, value: Any, stack: list[int], memo: dict[int, int]) -> int:
    """One operation of a pickle on the stack, as `pickletools.dis` has it; parts of its result."""
    before, taken = list(code.stack_before), []
    if pickletools.markobject in before:
        while part := stack.pop():
            taken.append(part)
        before = before[: before.index(pickletools.markobject)]
    if before:
        taken += stack[-len(before) :]
        del stack[-len(before) :]
    parts = 1 + sum(taken)
    if "PUT" in code.name or code.name == "MEMOIZE":
        memo[len(memo) if value is None else int(value)] = (taken or stack)[-1]
    elif "GET" in code.name:
        parts = memo[int(value)]
    made = (after is not pickletools.markobject for after in code.stack_after)
    stack.extend(parts if thing else 0 for thing in made)
    return parts


def _meta(path: Path, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of our own weights files; empty for others.

    Raises:
        CheckpointError: it is damaged.
    """
    if payload.get("format") != FORMAT:
        return {}
    try:
        meta = json.loads(payload["meta"])
    except DAMAGED as error:
        raise CheckpointError(path, f"its metadata is damaged ({error})") from error
    kinds = {"architecture": str, "settings": dict, "classes": list, "input": dict}
    if not isinstance(meta, dict) or any(
        not isinstance(meta.get(name, kind()), kind) for name, kind in kinds.items()
    ):
        raise CheckpointError(path, "its metadata is damaged (another type than written)")
    return meta


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a weights file: ours (with metadata) or a plain state_dict (metadata is then empty).

    A state_dict under the key ``state_dict`` or ``model`` is found too.

    Raises:
        CheckpointError: see `read_payload`; or no tensors are found.
    """
    payload = read_payload(path)
    meta = _meta(path, payload)
    for key in ("state_dict", "model"):
        if isinstance(payload.get(key), Mapping):
            payload = dict(payload[key])
            break
    tensors = {str(key): value for key, value in payload.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(path, "holds no tensors, expected a state_dict")
    return tensors, meta


def load_state(
    net: nn.Module, state: Mapping[str, Tensor], path: Path | str, name: str, *, extra: bool = False
) -> None:
    """Put a state_dict into a network.

    Args:
        net: the network.
        state: from the file.
        path: of the file.
        name: what messages call the network.
        extra: names that the network does not have are passed over.

    Raises:
        CheckpointError: names or shapes do not fit, or a value is not finite; the text names the
            first ones.
    """
    own = net.state_dict()
    wrong = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    if wrong:
        key = wrong[0]
        raise CheckpointError(
            path,
            f"'{key}' has shape {tuple(state[key].shape)}, but {name} needs "
            f"{tuple(own[key].shape)}: made for another number of classes or other settings; name "
            "those, or train again",
        )
    spoilt = [key for key, value in state.items() if key in own and not value.isfinite().all()]
    if spoilt:
        raise CheckpointError(
            path, f"'{spoilt[0]}' holds values that are not finite: the training diverged"
        )
    missing = sorted(own.keys() - state.keys())
    strange = [] if extra else sorted(state.keys() - own.keys())
    if missing or strange:
        raise CheckpointError(
            path,
            f"not weights of {name}: {len(missing)} of {len(own)} names are missing"
            f"{f' (such as {missing[0]!r})' if missing else ''} and {len(strange)} are unknown"
            f"{f' (such as {strange[0]!r})' if strange else ''}; name what it was made for",
        )
    net.load_state_dict(dict(state), strict=not extra)
