"""Images and density maps that a density network is trained and judged on."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from dmnet.core.dataset import Dataset
from dmnet.core.listing import Entry
from dmnet.core.records import Annotations


@dataclass(frozen=True)
class Pairs:
    """Image and map of every usable entry of some splits, by ``<split>/<image id>``."""

    images: Mapping[str, Path]
    maps: Mapping[str, Path]
    truths: Mapping[str, tuple[Dataset, Entry]] = field(default_factory=dict)
    """Where annotations are, of what is judged on."""

    def files(self) -> dict[str, Path]:
        """All files by role, as inputs of the item."""
        named = {f"image {i}": path for i, path in self.images.items()}
        return named | {f"map {i}": path for i, path in self.maps.items()}

    def part(self, ids: Set[str]) -> Pairs:
        """The entries with these ids."""
        return Pairs(
            {i: path for i, path in self.images.items() if i in ids},
            {i: path for i, path in self.maps.items() if i in ids},
            {i: place for i, place in self.truths.items() if i in ids},
        )

    def __or__(self, other: Pairs) -> Pairs:
        """The entries of both."""
        return Pairs(
            {**self.images, **other.images},
            {**self.maps, **other.maps},
            {**self.truths, **other.truths},
        )

    def annotations(self) -> dict[str, Annotations]:
        """Annotations by image.

        Raises:
            InputError: a damaged file.
        """
        return {name: data.annotations(entry)[0] for name, (data, entry) in self.truths.items()}
