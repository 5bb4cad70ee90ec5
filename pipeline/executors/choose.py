"""The executor that a run asks for."""

from __future__ import annotations

from dmnet.core.errors import ConfigError
from dmnet.pipeline.executors.base import EXECUTORS, Engine, Executor
from dmnet.pipeline.executors.local import Local


def executor_for(engine: Engine) -> Executor:
    """The executor asked for.

    Raises:
        ConfigError: there is none of that name.
        MissingExtraError: its library is not installed.
    """
    if engine.executor == "local":
        return Local(engine.workers, engine.devices)
    if engine.executor == "ray":
        from dmnet.pipeline.executors.on_ray import OnRay

        return OnRay.of(engine)
    raise ConfigError(f"--executor {engine.executor}: there are {', '.join(EXECUTORS)}")
