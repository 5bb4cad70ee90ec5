"""Devices, and the precision of what is computed there."""

from __future__ import annotations

import torch

from dmnet.core.errors import ConfigError
from dmnet.core.training.settings import TrainConfig


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


def precision_of(
    config: TrainConfig, device: torch.device, half: torch.dtype = torch.float16
) -> torch.dtype | None:
    """What `TrainConfig.amp` and `TrainConfig.cpu_bfloat16` mean on this machine.

    Args:
        config: the settings.
        device: where the network is.
        half: what it takes on a GPU, float16 or bfloat16.

    Returns:
        The type for autocast; None for float32.
    """
    if device.type == "cuda":
        able = half == torch.float16 or has_bfloat16("cuda")
        return half if config.amp and able else None
    able = config.cpu_bfloat16 and has_bfloat16("cpu")
    return torch.bfloat16 if able else None
