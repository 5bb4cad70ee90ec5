"""Run a verb and SIGKILL the own process at the N-th journal line or training checkpoint."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def kill_after(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function: the process dies right after its N-th call."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        result = function(*args, **kwargs)
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def main() -> None:
    from dmnet.core import artifact
    from dmnet.pipeline.cli import main as dmnet

    count, verb = int(sys.argv[1]), sys.argv[2]
    if verb.startswith("train-"):
        from dmnet.core.training import loop, weights

        write = kill_after(count, weights.write_atomic)
        weights.write_atomic = loop.write_atomic = write  # type: ignore[attr-defined]
    else:
        artifact.Artifact._append = kill_after(count, artifact.Artifact._append)  # type: ignore[method-assign]
    raise SystemExit(dmnet(sys.argv[2:]))


if __name__ == "__main__":
    main()
