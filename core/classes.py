"""What the objects of a data set are called: a value that travels with everything made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dmnet.core.errors import ConfigError

IGNORED_REGION = 0
"""Label of regions without annotation, in every data set."""

OTHERS = 11
"""VisDrone's label of objects that are none of its ten classes."""

_REGION = {IGNORED_REGION: "ignored-region"}


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, in its order.

    A label counts from 1 in that order, so that networks and tables need no translation; ``ids``
    are the category ids in files (COCO), 1..N unless given. ``ignored`` names the labels that are
    never scored: 0 is a region without annotation, VisDrone has 11 for other objects besides.

    >>> classes = Classes(("car", "bus"), ids=(3, 6))
    >>> classes.scored, classes.label_of("Bus"), classes.ids_of[2]
    ({1: 'car', 2: 'bus'}, 2, 6)
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()
    ignored: Mapping[int, str] = field(default_factory=lambda: dict(_REGION))

    def __post_init__(self) -> None:
        """Check that names and ids are unique and parallel.

        Raises:
            ConfigError: no class, an empty name, a name or id twice, or another number of ids than
                of names.
        """
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "ids", tuple(self.ids) or tuple(range(1, len(self.names) + 1)))
        if not self.names:
            raise ConfigError("a data set needs at least one class name")
        if not all(name.strip() for name in self.names):
            raise ConfigError("a class has an empty name")
        for what in (self.names, self.ids):
            twice = [each for each in what if what.count(each) > 1]
            if twice:
                raise ConfigError(f"the class {twice[0]!r} is listed twice")
        if len(self.ids) != len(self.names):
            raise ConfigError(f"{len(self.names)} class names, but {len(self.ids)} category ids")

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.names)

    def __hash__(self) -> int:
        """Hash of names and ids; equal classes have equal hashes."""
        return hash((self.names, self.ids))

    def __str__(self) -> str:
        """Names, the first ten."""
        more = f", and {len(self) - 10} more" if len(self) > 10 else ""
        return ", ".join(self.names[:10]) + more

    @cached_property
    def scored(self) -> dict[int, str]:
        """Name of every class by label."""
        return dict(enumerate(self.names, start=1))

    @cached_property
    def every(self) -> dict[int, str]:
        """Name of every label, the ignored ones included, in the order of the labels."""
        return dict(sorted({**self.scored, **self.ignored}.items()))

    @cached_property
    def ids_of(self) -> dict[int, int]:
        """Category id in files by label; ignored labels keep their number where it is free."""
        ids = dict(enumerate(self.ids, start=1))
        free = max(ids.values()) + 1
        for label in self.ignored:
            ids[label] = label if label not in self.ids else free + label
        return ids

    @cached_property
    def labels_of(self) -> dict[int, int]:
        """Label by category id in files."""
        return {category: label for label, category in self.ids_of.items()}

    def is_object(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which labels ``(N,)`` are classes, not ignored ones."""
        return np.asarray((labels >= 1) & (labels <= len(self.names)))

    def label_of(self, name: str) -> int | None:
        """Label of a name, ignored ones too, or None.

        Case, spaces and underscores do not matter where that leaves no doubt.
        """
        return self._by_name.get(name, self._by_plain.get(plain(name)))

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: label for label, name in self.every.items()}

    @cached_property
    def _by_plain(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for label, name in self.every.items():
            found.setdefault(plain(name), label)
        return {"ignored-regions": IGNORED_REGION, **found}

    def same_names(self, names: Sequence[str]) -> bool:
        """Whether names are these classes, in the same order, up to case and spaces."""
        return [plain(name) for name in names] == [plain(name) for name in self.names]

    @property
    def facts(self) -> dict[str, list[list[int | str]]]:
        """What an artifact records; nothing for VisDrone's own, as before there were others."""
        if (self.names, self.ids) == (VISDRONE.names, VISDRONE.ids):
            return {}
        return {"classes": [[i, name] for i, name in zip(self.ids, self.names, strict=True)]}

    @classmethod
    def of(cls, names: Iterable[str], ids: Iterable[int] = ()) -> Classes:
        """Classes from names and ids; VisDrone's own are recognised, with their ignored labels."""
        made = cls(tuple(names), tuple(ids))
        if VISDRONE.same_names(made.names):
            return cls(VISDRONE.names, made.ids, VISDRONE.ignored)
        return made


def plain(name: str) -> str:
    """A name in lower case with dashes for spaces and underscores, to compare by."""
    return name.strip().lower().replace(" ", "-").replace("_", "-")


VISDRONE = Classes(
    (
        "pedestrian",
        "people",
        "bicycle",
        "car",
        "van",
        "truck",
        "tricycle",
        "awning-tricycle",
        "bus",
        "motor",
    ),
    ignored={**_REGION, OTHERS: "others"},
)
"""The ten classes of VisDrone-DET."""
