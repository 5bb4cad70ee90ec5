"""Running stages: one, or all in order."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dmnet.core.artifact import LOG, Artifact
from dmnet.core.errors import ConfigError
from dmnet.core.files import named, naming
from dmnet.core.shards import Shard
from dmnet.core.work import Carrier
from dmnet.pipeline.chain import open_artifact
from dmnet.pipeline.context import Context, Plan, stage_module
from dmnet.pipeline.executors.choose import executor_for
from dmnet.pipeline.inputs import refuse_changed_truth
from dmnet.pipeline.together import help_with, is_helper, led, processes, refuse_together

_log = logging.getLogger(__name__)


Say = Callable[[str], None]
"""Takes a line of results."""


def execute(
    context: Context, stage: str, say: Say = _log.info, made: Carrier | None = None
) -> dict[str, str]:
    """Run one stage on what is stale; log one summary line.

    Args:
        context: where things are, and the settings.
        stage: its name.
        say: gets the results that a stage shows, line by line.
        made: carries out the work in the place of the run's executor.

    Returns:
        The items that were set aside: id -> reason.

    Raises:
        ConfigError: a part of a training is asked for, or torchrun for another stage.
        DmnetError: the stage cannot run; nothing that was done is lost.
    """
    if stage.startswith("train-"):
        if context.shard is not None:
            raise ConfigError(f"--shard: {stage} is one piece of work; use torchrun for it")
        context = replace(context, split="train", device=context.engine.devices[0])
    else:
        refuse_together(stage)
    memo: dict[Any, Any] = {}
    try:
        return _execute(replace(context, memo=memo), stage, say, made)
    finally:
        memo.clear()  # what it holds refers back to it: files would stay open until a collection


def _execute(context: Context, stage: str, say: Say, made: Carrier | None) -> dict[str, str]:
    start = time.perf_counter()
    plan = part_of(stage_module(stage).plan(context), context.shard)
    if is_helper():
        help_with(plan, context.device)
        return {}
    label = f"{stage} {context.split}{f' {context.shard}' if context.shard else ''}"
    with open_artifact(context, stage, plan) as target, _log_file(target):
        if plan.prepare is not None:
            plan.prepare()
        for note in plan.notes:
            _log.warning("%s", note)
        for problem in plan.problems:
            _log.error("left out: %s", problem)
        summary = target.carry_out(plan.items, made or carrier(context, plan, label), label)
        finish, problems = plan.finish, plan.problems
        del plan  # what was planned is done: its items are not held while they are summed up
        if target.changed and finish is not None:
            lines = tuple(finish(target) or ())
            refuse_changed_truth(context)
            for line in lines:
                say(line)
        for name in target.records.partial - target.records.aside:  # what a training left out
            summary.bad |= target.records[name].set_aside
        _log.info(
            "%s: %d done, %d kept, %d removed, %d set aside, %.1f s -> %s",
            label,
            summary.done,
            summary.kept,
            summary.removed,
            len(summary.bad) + len(problems),
            time.perf_counter() - start,
            target.root,
        )
    return summary.bad | {problem.partition(": ")[0]: problem for problem in problems}


def part_of(plan: Plan, shard: Shard | None) -> Plan:
    """The items of a part; what sums up all items, or concerns all, is left to `merge`."""
    if shard is None:
        return plan
    items = [item for item in plan.items if shard.holds(item)]
    return replace(plan, items=items, finish=None, problems=())


def carrier(context: Context, plan: Plan, label: str) -> Carrier:
    """Who carries out a plan: the executor that the run asks for, or torchrun's processes."""
    if processes() > 1 and plan.work is not None:
        return led(plan.work, context.device)
    executor = executor_for(context.engine)
    if plan.network is not None:
        return executor.networks(plan.network, label)
    assert plan.work is not None
    return executor.tasks(plan.work, label)


def execute_all(context: Context, say: Say = _log.info) -> dict[str, str]:
    """Run every stage in order: the training split first, then the split to evaluate.

    With ``weights`` the density network is not trained; with ``detector_weights`` or foreign
    detections the detector is not. Crops of the evaluated split come from predicted maps unless
    ``density`` says otherwise.
    """
    bad: dict[str, str] = {}
    for split, stage in steps(context):
        density = "true" if split == "train" else context.density or "predicted"
        found = execute(replace(context, split=split, density=density), stage, say)
        bad |= {f"{split} {stage} {i}": why for i, why in found.items()}
    return bad


def steps(context: Context) -> list[tuple[str, str]]:
    """``(split, stage)`` in the order of `execute_all`: what the slicer and the weights need."""
    maps = context.config("crop", stage_module("crop").Config).needs == "map"
    predicted = maps and context.density in ("", "predicted")
    order: list[tuple[str, str]] = []
    if predicted and context.weights is None:
        order += [(split, "density") for split in _mapped(context)] + [("train", "train-density")]
    if context.detector_weights is None and context.detections is None:
        order += [("train", "density")] * maps
        order += [("train", stage) for stage in ("crop", "convert", "train-detector")]
    last = ["density"] * (maps and context.density == "true") + ["predict-density"] * predicted
    last += ["crop", "convert"] + ["detect"] * (context.detections is None) + ["fuse-eval"]
    return list(dict.fromkeys(order + [(context.split, stage) for stage in last]))


def _mapped(context: Context) -> list[str]:
    """Splits whose true maps the density network is trained or judged on."""
    config = context.config("train-density", stage_module("train-density").Config)
    judged = [] if config.hold_out or config.validate_on is None else [config.validate_on]
    return [*config.train_on, *judged]


class _LogFile(logging.FileHandler):
    """Lines of a log; where one cannot be written, that is an error which names the file."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise what the disc says; logging itself would print a traceback and go on."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise named(error, Path(self.baseFilename)) from error
        super().handleError(record)

    def close(self) -> None:
        """Write what is left and close the file."""
        with naming(Path(self.baseFilename)):
            super().close()


@contextmanager
def _log_file(target: Artifact) -> Iterator[None]:
    """Copy this package's log lines into the artifact's log; not of a run with nothing to do."""
    path = target.root / LOG
    before = path.stat().st_size if path.exists() else 0
    handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("dmnet")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
    if not target.touched:
        os.truncate(path, before)
