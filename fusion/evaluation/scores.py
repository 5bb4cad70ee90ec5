"""Scores of one result under one named protocol, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

CLOSE = 0.9
"""AP above this share of AP50 is suspicious: real detectors lie near 0.6."""


@dataclass(frozen=True)
class Scores:
    """Scores of one result.

    ``summary`` metric -> value for the whole set, ``classes`` class name -> metric -> value, NaN
    where there is nothing to score; the unit is the protocol's own (``fraction`` for COCO,
    ``per cent`` for VisDrone). ``counts`` images, objects and detections that were scored.
    """

    protocol: str
    unit: Literal["fraction", "per cent"]
    summary: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    name: str = ""
    ignore_regions: bool = False
    warnings: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for ``json.dumps``; NaN becomes None."""
        return {
            "protocol": self.protocol,
            "unit": self.unit,
            "name": self.name,
            "ignore_regions": self.ignore_regions,
            **{metric: _plain(value) for metric, value in self.summary.items()},
            "classes": {
                name: {metric: _plain(value) for metric, value in row.items()}
                for name, row in self.classes.items()
            },
            "counts": dict(self.counts),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], name: str | None = None) -> Scores:
        """Scores as `to_json` wrote them; ``name`` replaces theirs.

        Raises:
            KeyError: a part is missing.
            TypeError: a part is of another type.
            ValueError: a value is no number.
        """
        own = ("protocol", "unit", "name", "ignore_regions", "classes", "counts", "warnings")
        return cls(
            str(data["protocol"]),
            "fraction" if data["unit"] == "fraction" else "per cent",
            {key: _number(value) for key, value in data.items() if key not in own},
            {
                label: {key: _number(value) for key, value in row.items()}
                for label, row in data["classes"].items()
            },
            {key: int(value) for key, value in data["counts"].items()},
            str(data["name"]) if name is None else name,
            bool(data["ignore_regions"]),
            tuple(map(str, data["warnings"])),
        )

    def csv_rows(self) -> list[tuple[str, ...]]:
        """Rows ``name, protocol, unit, class, metric, value``, the header first."""
        out: list[tuple[str, ...]] = [("name", "protocol", "unit", "class", "metric", "value")]
        for label, row in {"all": self.summary, **self.classes}.items():
            head = (self.name, self.protocol, self.unit, label)
            out += [(*head, metric, _digits(value)) for metric, value in row.items()]
        return out

    def table(self) -> str:
        """Text table; every line begins with the protocol."""
        head = f"{self.protocol}, {self.unit}" + (f", {self.name}" if self.name else "")
        wide = [("protocol", "metric", "all")]
        wide += [(self.protocol, key, self._short(value)) for key, value in self.summary.items()]
        parts = [head, columns(wide)]
        if self.classes:
            metrics = list(next(iter(self.classes.values())))
            rows = [("protocol", "class", *metrics)]
            for name, row in self.classes.items():
                rows.append((self.protocol, name, *(self._short(row[m], m) for m in metrics)))
            parts.append(columns(rows))
        parts.append(", ".join(f"{count} {what}" for what, count in self.counts.items()))
        parts += [f"warning: {text}" for text in self.warnings]
        return "\n\n".join(parts) + "\n"

    def _short(self, value: float, metric: str = "") -> str:
        if math.isnan(value):
            return "-"
        if metric in ("objects", "images"):
            return f"{value:.0f}"
        return f"{value:.4f}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Align a table of texts: the first two columns to the left, the rest to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def guard(summary: Mapping[str, float]) -> tuple[str, ...]:
    """Warn if AP lies close to AP50, the mark of a broken evaluation."""
    ap, ap50 = summary["AP"], summary["AP50"]
    if ap50 > 0 and ap >= CLOSE * ap50:
        return (
            f"AP {ap:.4g} is {ap / ap50:.0%} of AP50 {ap50:.4g}; real detectors lie near 60%. "
            "Are the detections copies of the ground truth, or the thresholds not applied?",
        )
    return ()


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _digits(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
