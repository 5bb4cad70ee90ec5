"""Every error a user can meet.

::

    DmnetError                what the command line prints as one paragraph (exit code 2)
    |-- ConfigError           a setting that does not exist or does not fit
    |-- InputError            a file a user gave is unusable: names file, place and reason
    |   `-- CheckpointError   a weights file that does not fit the network
    |-- MissingInputError     an artifact or file that has to be made or given first
    |-- StaleInputError       an artifact made from other inputs than the ones at hand
    |-- ForeignArtifactError  a folder that this pipeline did not make and will not write to
    |-- EditedArtifactError   an own file that was changed by hand and will not be overwritten
    |-- LockedArtifactError   another process is writing into the folder
    |-- RemovedArtifactError  the folder was taken away while it was written
    |-- LostWorkerError       a worker process was ended from outside
    |-- LostWorkersError      workers of a cluster were lost again and again
    `-- MissingExtraError     an optional library that is not installed

Messages name the thing, the place and the way out.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType


class DmnetError(Exception):
    """Base of all errors that are the user's to mend; the text is the whole message."""


class ConfigError(DmnetError):
    """A setting that does not exist or whose value does not fit."""


class InputError(DmnetError):
    """A file given by the user cannot be used.

    Inside a stage it quarantines the one item it concerns; the run goes on.
    """

    def __init__(self, path: Path | str, reason: str, line: int | None = None) -> None:
        """Build ``path:line: reason`` (``line`` is 1-based)."""
        self.path, self.reason, self.line = str(path), reason, line
        place = f"{path}{f':{line}' if line is not None else ''}"
        super().__init__(printable(f"{place}: {reason}"))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, int | None]]:
        """Survive the way back from a worker process."""
        return type(self), (self.path, self.reason, self.line)


def printable(text: str) -> str:
    r"""A text for terminals and logs: control characters and half characters are escaped.

    >>> printable("a\x07\udcff")
    'a\\x07\\udcff'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class CheckpointError(InputError):
    """A weights file that is damaged, unsafe, or made for another network."""


class MissingInputError(DmnetError):
    """Something has to be made or given first; the message holds the command."""


class StaleInputError(DmnetError):
    """An artifact that was made from other inputs than those at hand; says how to renew it."""


class ForeignArtifactError(DmnetError):
    """A folder that this pipeline did not make and therefore does not write to."""


class EditedArtifactError(DmnetError):
    """A file of an own artifact was changed by hand; it is not overwritten silently."""


class LockedArtifactError(DmnetError):
    """Another process writes into this artifact folder."""


class RemovedArtifactError(DmnetError):
    """An artifact's folder was removed or moved while a stage was writing into it."""


class LostWorkerError(DmnetError):
    """A worker process was ended from outside, as a system does that is out of memory."""


class LostWorkersError(DmnetError):
    """Workers of a cluster were lost again and again while doing the same items."""


class MissingExtraError(DmnetError):
    """An optional library is needed and not installed."""


def optional(module: str, extra: str) -> ModuleType:
    """Import an optional library, or say which extra brings it.

    Args:
        module: import name, for example ``"onnxruntime"``.
        extra: the extra of this package that installs it, for example ``"onnx"``.

    Raises:
        MissingExtraError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"'{module}' is not installed; it comes with the extra '{extra}': "
            f"pip install 'dmnet[{extra}]' (in a checkout: make setup EXTRAS={extra})"
        ) from error
