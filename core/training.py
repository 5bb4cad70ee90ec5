"""What every training loop needs: safe checkpoints, exact resume, moving averages, schedules.

The only module of `dmnet.core` that imports torch; nothing else in `core` imports it.

Randomness is stateless: `seed_epoch` derives every generator from (seed, epoch), so a training that
was killed resumes at an epoch boundary and ends with the same weights, without stored generator
states.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from dmnet.core import files, limits
from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.reading import DAMAGED

FORMAT = "dmnet-checkpoint-1"


def pick_device(device: str = "auto") -> str:
    """``auto`` is the GPU if there is one, else the CPU.

    Raises:
        ConfigError: no such device on this machine.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise ConfigError(
            f"--device {device}: not usable on this machine ({reason}); give cpu, cuda, cuda:1, "
            "or auto"
        ) from error
    return device


def has_bfloat16(device: str) -> bool:
    """Whether a device of this kind (``cpu``, ``cuda``, ``cuda:1``) computes bfloat16 quickly."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """Seed python, numpy and torch for one epoch and return a CPU generator for the sampler."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - third-party code (mmdet, torchvision) reads the global state
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def shared_count(count: Tensor) -> Tensor:
    """What a loss summed over a batch is divided by: ``count``, at least 1.

    Under DDP, which averages the processes, the mean of all their counts: the average of the
    quotients is then the quotient of one process with the whole batch.
    """
    total, world = count.detach().clone(), 1
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        world = distributed.get_world_size()
    return total.clamp(min=1) / world


def item_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Generator for the augmentation of one item; independent of the number of loader workers."""
    return np.random.default_rng([seed, epoch, index])


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


class Ema:
    """Exponential moving average of a model's weights; ``decay`` ramps up at first."""

    def __init__(self, model: nn.Module, decay: float = 0.999, ramp: int = 100) -> None:
        """Copy the model; ``decay`` 0 keeps the average equal to the model."""
        self.model = copy.deepcopy(model).eval()
        self.decay, self.ramp, self.updates = decay, ramp, 0
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``; integer buffers are copied."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp))
        source = model.state_dict()
        for key, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(source[key].detach().to(value.dtype), 1 - decay)
            else:
                value.copy_(source[key])

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.01) -> float:
    """Learning-rate factor: linear from 0 over ``warmup`` steps, then cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def history_csv(rows: Iterable[Mapping[str, float | int | str]]) -> bytes:
    """Render one line an epoch; columns are the union of the keys in order of appearance."""
    listed = list(rows)
    columns = list(dict.fromkeys(key for row in listed for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(listed)
    return text.getvalue().encode()
