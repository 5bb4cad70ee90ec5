"""Memory: recognising that it ran out, on the CPU or on a device, and leaving it unsearched."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SAID = ("out of memory", "can't allocate memory", "failed to allocate memory", "alloc_failed",
         "bad_alloc", "bad allocation", "can't start new thread")  # fmt: skip
"""How torch (CPU), CUDA libraries, onnxruntime and Python word it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory."))
    (True, True)
    >>> is_out_of_memory(RuntimeError("shapes do not fit"))
    False
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and says_out_of_memory(error)


def says_out_of_memory(error: BaseException) -> bool:
    """Whether the text of an error says so; for libraries whose errors have no kind of their own.

    >>> says_out_of_memory(Exception("Non-zero status code while running Conv: std::bad_alloc"))
    True
    """
    return any(text in str(error).lower() for text in _SAID)


def release() -> None:
    """Give back what a device's allocator keeps, where torch is in use at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for reference cycles meanwhile: of many small objects without any it takes long."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
