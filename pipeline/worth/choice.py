"""Choosing crop, packing and fusion settings: the greatest AP within a budget of milliseconds.

Three steps. `candidates` are measured once; their price is what the clock said, or `Prices` that
the user states. `walk` tries settings of fusion on what a candidate has detected, one group after
another. `choose` takes the best of what the budget allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import yaml

from dmnet.core.errors import ConfigError
from dmnet.cropping.slicers import CropConfig
from dmnet.detectors.packing import PackConfig
from dmnet.fusion.fuse import FuseConfig
from dmnet.fusion.merge import MergeConfig
from dmnet.pipeline.worth.measure import Row, Setup, frontier

GAIN = 0.001
"""Less AP than this is no reason to pay more or to leave a default: a few hundred images do not
tell such settings apart."""

FINALISTS = 4
"""Setups on which settings of fusion are tried."""

MERGES = (
    *(MergeConfig(iou=iou) for iou in (0.5, 0.6)),
    MergeConfig("soft-nms"),
    *(MergeConfig("nmm", iou=iou, metric="ios") for iou in (0.5, 0.7)),
    *(MergeConfig("wbf", iou=iou) for iou in (0.55, 0.65)),
)
STEPS: tuple[tuple[Mapping[str, Any], ...], ...] = (
    tuple({"merge": merge} for merge in MERGES),
    tuple({"edge_margin": margin} for margin in (None, 4.0)),
    ({"inside": "drop_inside"},),
    ({"whole_weight": 0.8}, {"crop_weight": 0.8}),
)
"""Alternatives to the defaults of `FuseConfig`, group by group."""


def candidates(
    thresholds: Sequence[float],
    max_sides: Sequence[int],
    least: Sequence[float],
    side: int,
    zooms: Sequence[float],
    whole_sides: Sequence[int] = (0,),
) -> list[Setup]:
    """Whole image, two grids, density crops of every threshold, greatest side and least objects.

    Density crops have passes of their own and, where ``side`` is above 0, share canvases of that
    side with every zoom. The whole image alone and beside density crops is looked at with every
    one of ``whole_sides``, beside grids as the detector has it.
    """
    setups = [
        Setup("whole image", CropConfig.of("none")),
        Setup("grid", CropConfig.of("grid", tile=640)),
        Setup("grid", CropConfig.of("grid", tile=512)),
    ]
    setups += [replace(setups[0], whole_side=whole) for whole in whole_sides if whole]
    packs = [PackConfig(side=side, zoom=zoom) for zoom in zooms] if side else []
    for threshold, longest, objects in product(thresholds, max_sides, least):
        crop = CropConfig.of(threshold=threshold, max_side=longest, min_objects=objects)
        text = f"threshold {threshold:g}, side {longest}, objects {objects:g}"
        looks = [Setup("density", crop, None, text)]
        looks += [Setup("density", crop, p, f"{text}, zoom {p.zoom:g}") for p in packs]
        setups += [replace(look, whole_side=whole) for whole in whole_sides for look in looks]
    return setups


@dataclass(frozen=True)
class Prices:
    """Milliseconds that the user states, so that the choice does not depend on a noisy machine."""

    pass_ms: float
    """the detector on a whole image; other passes cost in proportion to their input's pixels"""
    density_ms: float
    """the density map of an image, with the crops' windows"""

    def of(self, row: Row, setup: Setup, whole: Row) -> Row:
        """A row at these prices; fusion is not priced.

        Args:
            row: as measured.
            setup: what it is of.
            whole: the whole image alone, as measured.
        """
        passes = row.figures["input_pixels"] / whole.figures["input_pixels"]
        mapped = setup.crop.needs == "map"
        stated = {
            "detect_ms": self.pass_ms * passes,
            "density_ms": self.density_ms if mapped else 0.0,
            "fuse_ms": 0.0,
        }
        return replace(row, figures={**row.figures, **stated})


@dataclass(frozen=True)
class Trial:
    """A setup (by its position) under one setting of fusion."""

    setup: int
    fusion: FuseConfig
    row: Row

    @property
    def ap(self) -> float:
        """AP by coco@500."""
        return self.row.figures["AP"]


def finalists(trials: Sequence[Trial], budget: float) -> list[Trial]:
    """Of those on the frontier of AP over milliseconds and within the budget, the greatest APs.

    Raises:
        ConfigError: nothing fits the budget.
    """
    marks = frontier([trial.row for trial in trials])
    front = [trial for trial, mark in zip(trials, marks, strict=True) if mark]
    fitting = [trial for trial in front if trial.row.ms <= budget]
    if not fitting:
        least = min(trial.row.ms for trial in trials)
        raise ConfigError(
            f"nothing fits {budget:.0f} ms per image, the cheapest setup takes {least:.0f}: raise "
            "--share or --budget-ms, or take a cheaper detector"
        )
    return sorted(fitting, key=lambda trial: -trial.ap)[:FINALISTS]


def walk(start: Trial, measure: Callable[[FuseConfig], Row], budget: float) -> list[Trial]:
    """Settings of fusion, one group of `STEPS` after another, each from the best one so far.

    Args:
        start: a setup under the defaults.
        measure: the setup's row under other settings.
        budget: milliseconds per image.

    Returns:
        All that were tried, the start first; what was taken last gained at least `GAIN` a step.
    """
    tried, best = [start], start
    for step in STEPS:
        fusions = [replace(best.fusion, **change) for change in step]
        found = [Trial(start.setup, fusion, measure(fusion)) for fusion in fusions]
        tried += found
        fitting = [trial for trial in found if trial.row.ms <= budget]
        leader = max(fitting, key=lambda trial: trial.ap, default=best)
        best = leader if leader.ap >= best.ap + GAIN else best
    return tried


def choose(trials: Sequence[Trial], budget: float) -> Trial:
    """The cheapest within `GAIN` of the greatest AP that the budget allows.

    On equal milliseconds the greater AP wins, then the earlier one.
    """
    fitting = [trial for trial in trials if trial.row.ms <= budget]
    top = max(trial.ap for trial in fitting)
    near = [trial for trial in fitting if trial.ap > top - GAIN]
    return min(near, key=lambda trial: (trial.row.ms, -trial.ap))


def settings_of(setup: Setup, fusion: FuseConfig, long_side: int | None) -> dict[str, Any]:
    """What was chosen, as the sections of a preset."""
    keys = {"density": ("threshold", "max_side", "min_objects"), "grid": ("tile", "overlap")}
    crop = {key: setup.crop.own[key] for key in keys.get(setup.crop.slicer, ())}
    pack = setup.pack or PackConfig()
    merge = {key: getattr(fusion.merge, key) for key in ("method", "iou", "metric")}
    rest = ("edge_margin", "inside", "whole_weight", "crop_weight")
    density = {} if long_side is None else {"predict_density": {"long_side": long_side}}
    return {
        **density,
        "crop": {"slicer": setup.crop.slicer, **crop},
        "detect": {
            "whole_side": setup.whole_side,
            "pack": {"side": pack.side, "zoom": pack.zoom},
        },
        "fuse_eval": {"merge": merge, **{key: getattr(fusion, key) for key in rest}},
    }


def preset(settings: Mapping[str, Any], comments: Sequence[str]) -> bytes:
    """A preset as YAML, its numbers above it as comments."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comments)
    return (head + yaml.safe_dump(dict(settings), sort_keys=False)).encode()
