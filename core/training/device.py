"""Devices, and the precision of what is computed there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dmnet.core.errors import ConfigError
from dmnet.core.training.settings import TrainConfig

if TYPE_CHECKING:
    import torch

GPU_FILES = ("proc/driver/nvidia", "dev/nvidia0", "dev/nvidiactl", "dev/nvhost-ctrl-gpu",
             "dev/nvmap", "dev/kfd", "dev/dxg")  # fmt: skip
"""What a driver leaves below the root where torch may find a GPU: NVIDIA's, that of its Jetson
boards, AMD's, and that of Linux inside Windows."""


def may_have_gpu(root: Path = Path("/")) -> bool:
    """Whether torch, which takes seconds to import, has to be asked for a GPU.

    False only where it surely finds none: on a Mac (its own GPU is not meant by ``auto``), on a
    Linux without a driver, and where ``CUDA_VISIBLE_DEVICES`` hides all.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or sys.platform == "darwin":
        return False
    return sys.platform != "linux" or any((root / name).exists() for name in GPU_FILES)


# oneDNN compiles a kernel for every layer and shape of input and keeps 1,024 of them: three shapes
# of YOLOv6-N. With more shapes than that in turn, every step compiled its kernels again.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")


def pick_device(device: str = "auto") -> str:
    """``auto`` is the GPU if there is one, else the CPU.

    Raises:
        ConfigError: no such device on this machine.
    """
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu"
    import torch

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
    import torch

    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def precision_of(
    config: TrainConfig, device: torch.device, half: torch.dtype | None = None
) -> torch.dtype | None:
    """What `TrainConfig.amp` and `TrainConfig.cpu_bfloat16` mean on this machine.

    Args:
        config: the settings.
        device: where the network is.
        half: what it takes on a GPU, float16 or bfloat16; None: float16.

    Returns:
        The type for autocast; None for float32.
    """
    import torch

    half = half or torch.float16
    if device.type == "cuda":
        able = half == torch.float16 or has_bfloat16("cuda")
        return half if config.amp and able else None
    able = config.cpu_bfloat16 and has_bfloat16("cpu")
    return torch.bfloat16 if able else None
