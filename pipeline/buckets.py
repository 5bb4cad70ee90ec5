"""Options of the command line that may be addresses: ``s3://``, ``gs://``, ``https://``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmnet.core.errors import MissingInputError
from dmnet.core.journal import HEADER
from dmnet.core.remote import CacheConfig, default_cache, fetched, is_remote, mirrored

FILES = ("weights", "detector_weights", "sizes")
"""Options that name one file."""


def place(text: str) -> Path | str:
    """Type of an option: a path, or an address as it is.

    >>> place("s3://bucket/data"), place("data/x") == Path("data/x")
    ('s3://bucket/data', True)
    """
    return text if is_remote(text) else Path(text)


def from_buckets(fields: Mapping[str, Any], cache_gb: float) -> dict[str, Path | str]:
    """What addresses among the options stand for: files and folders of the cache.

    Args:
        fields: values by option.
        cache_gb: bytes of the cache, in 10^9.

    Raises:
        MissingInputError: there is nothing at an address, or an artifact.
        ConfigError: an address holds credentials.
        InputError: the storage does not answer.
        MissingExtraError: the extra ``cloud`` is not installed.
    """
    config = CacheConfig(default_cache(), int(cache_gb * 1e9))
    found: dict[str, Path | str] = {}
    for name in (*FILES, "data", "density"):
        value = fields.get(name)
        if isinstance(value, str) and is_remote(value):
            found[name] = fetched(value, config) if name in FILES else mirrored(value, config)
    if "density" in found:
        if (Path(found["density"]) / HEADER).exists():
            raise MissingInputError(
                f"{fields['density']}: an artifact; fetch it first: dmnet pull ADDRESS FOLDER"
            )
        found["density"] = str(found["density"])
    return found
