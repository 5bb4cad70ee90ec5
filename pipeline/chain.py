"""A chain, not links: an earlier artifact is used only while it belongs to the inputs at hand.

`require` plans the earlier stage once more, as its header says it was run, on the data at hand, and
compares that plan with what the artifact holds: an image, annotation, map, window, weights file or
setting that changed since shows as an item that is not fresh. What that stage was made from is
checked the same way, so staleness is found however far up it is.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmnet.core import config, links
from dmnet.core.artifact import Artifact
from dmnet.core.dataset import absolute
from dmnet.core.errors import (
    ConfigError,
    DmnetError,
    EditedArtifactError,
    MissingInputError,
    StaleInputError,
)
from dmnet.core.files import digest
from dmnet.core.finished import Records
from dmnet.core.journal import read_header, read_journal
from dmnet.pipeline.context import OPTIONS, STAGES, Context, Plan, Upstream, stage_module

_log = logging.getLogger(__name__)

PATHS = ("weights", "crops", "detections", "detector_weights", "sizes")
AT_HAND = ("crops", "detections")
"""Options that a stage hands on as they are: its upstream must be made of the same windows."""
KEEPS = ("train-density", "train-detector")
"""Stages whose product, the weights, stands for itself where their inputs are no longer there."""


@dataclass(frozen=True)
class Finding:
    """An artifact beside what it should be."""

    plan: Plan
    artifact: Artifact
    counts: Mapping[str, int]

    def reasons(self, *, sums: bool) -> list[str]:
        """Why it is not fresh; nothing if it is.

        Args:
            sums: the files that sum up all items count too.
        """
        artifact, header = self.artifact, self.artifact.header
        why = [] if header.get("complete") else ["was interrupted"]
        why += differences(header, artifact.identity)
        texts = {"stale": "changed", "new": "new", "gone": "no longer there"}
        for state, text in texts.items():
            if self.counts[state] and (state != "stale" or not why):
                why.append(f"{self.counts[state]} {text} (such as {artifact.first[state]})")
        if sums and header.get("totals", {}) != artifact.totals:
            why.append("inputs of the summary changed")
        if sums and artifact.missing:
            why.append(f"{', '.join(artifact.missing)} missing")
        return why


def open_artifact(context: Context, stage: str, plan: Plan, *, origin: bool = True) -> Artifact:
    """The artifact a plan writes to, not yet locked; without its origin it is for looking at."""
    return Artifact(
        context.target(stage),
        stage,
        stage_module(stage).VERSION,
        config.resolved(plan.config),
        facts=plan.facts,
        totals=plan.totals,
        origin=_origin(context, stage, plan) if origin else {},
        force=context.force,
        verify=context.verify,
    )


def _origin(context: Context, stage: str, plan: Plan) -> dict[str, Any]:
    return {
        "data": {"root": str(context.dataset.root.absolute()), "split": context.split},
        "settings": config.resolved(plan.settings or plan.config),
        "options": options(context, stage),
        "made_from": [upstream.seal() for upstream in plan.made_from],
    }


def look(context: Context, stage: str) -> Finding:
    """Plan a stage and compare, without writing anything; once for all who ask the same."""

    def found() -> Finding:
        plan: Plan = stage_module(stage).plan(context)
        artifact = open_artifact(context, stage, plan, origin=False)
        return Finding(plan, artifact, artifact.inspect(plan.items))

    return context.once(("look", stage, _question(context, stage)), found)


def options(context: Context, stage: str) -> dict[str, str]:
    """Options that this stage heeds, as they were given; paths absolute."""
    found = {"data": str(absolute(context.data))}
    for name in OPTIONS[stage]:
        value = getattr(context, name)
        if name in PATHS or (name == "density" and value not in ("", "true", "predicted")):
            found |= {name: str(Path(value).absolute())} if value else {}
        elif value:
            found[name] = value
    return found


def as_made(
    context: Context, stage: str, split: str | None = None, *, own: tuple[str, ...] = ()
) -> Context:
    """The context that a stage's artifact was made in, on the data at hand.

    Settings and options are the recorded ones; on the same split, what the user names now wins. Of
    another split everything is as recorded.

    Args:
        context: of the stage that asks.
        stage: the stage whose header is read.
        split: its split; none: the context's.
        own: options of `AT_HAND` to be taken from the header nevertheless.
    """
    split = split or context.split
    same = split == context.split
    header = read_header(context.folder(stage, split)) or {}
    section = stage.replace("-", "_")
    made = header.get("settings") or {
        **header.get("config", {}),
        **header.get("totals", {}).get("scoring", {}),
    }
    given = context.settings if same else {}
    settings = {**given, section: config.merged(made, given.get(section) or {})}
    fields = {name: getattr(context if same else Context(), name) for name in EVERY}
    fields["sizes"] = context.sizes
    recorded = dict(header.get("options", {}))
    if not recorded and header.get("facts", {}).get("density") in ("true", "predicted"):
        recorded["density"] = header["facts"]["density"]
    for name in OPTIONS.get(stage, ()):
        handed = same and name in AT_HAND and name not in own
        if not fields[name] and recorded.get(name) and not handed:
            fields[name] = Path(recorded[name]) if name in PATHS else recorded[name]
    return replace(context, split=split, settings=settings, shard=None, **fields)


EVERY = tuple(dict.fromkeys(name for names in OPTIONS.values() for name in names))


def require(
    context: Context,
    stage: str,
    split: str | None = None,
    *,
    instead: str = "",
    sums: bool = False,
) -> Upstream:
    """An earlier stage's finished artifact that belongs to the inputs at hand.

    Args:
        context: of the stage that needs it.
        stage: the stage that must have run.
        split: another split than this run's.
        instead: other ways out, added to the message.
        sums: the files that sum up all its items are used, not its items alone.

    Raises:
        MissingInputError: it is absent or not finished; says the command that makes it.
        StaleInputError: it was made from other inputs; says the command that renews it.
        EditedArtifactError: a file of it was changed or damaged since it was written.
    """
    folder = context.folder(stage, split)
    header = read_header(folder)
    if header is None or header["stage"] != stage or not header.get("complete"):
        state = "was begun and is not finished" if header else "does not exist yet"
        raise MissingInputError(
            f"The artifact of '{stage}' {state} ({folder}). Make it with: "
            f"{command(context, stage, split=split)}{instead and f' ({instead})'}"
        )
    made = as_made(context, stage, split)
    records = context.once(
        ("checked", stage, sums, _question(made, stage)), lambda: _check(made, stage, instead, sums)
    )
    return context.once(
        ("upstream", folder), lambda: Upstream(stage, made.split, folder, header, records)
    )


def recorded_data(context: Context) -> Path | None:
    """The data that a run was last made on, as its headers tell; None before its first stage."""
    for stage in STAGES:
        for split in (context.split, "train"):
            data = (read_header(context.folder(stage, split)) or {}).get("options", {}).get("data")
            if data:
                return Path(data)
    return None


def _question(made: Context, stage: str) -> str:
    """All that a look at a stage depends on: what it or a stage before it heeds."""
    stages = STAGES[: STAGES.index(stage) + 1]
    names = {name for each in stages for name in OPTIONS[each]}
    fields = {name: str(getattr(made, name)) for name in (*names, "data", "split", "run")}
    settings = {s: made.settings.get(s.replace("-", "_")) for s in stages}
    return digest([fields, settings])


def _check(made: Context, stage: str, instead: str, sums: bool) -> Records:
    """What the journal holds; raises what `require` says where the artifact is not as it should."""
    folder = made.folder(stage)
    try:
        found = look(made, stage)
        why = found.reasons(sums=sums)
    except EditedArtifactError as error:
        way = command(made, stage, "--force")
        raise EditedArtifactError(f"{error} Here: {way}{instead and f' ({instead})'}") from error
    except ConfigError as error:
        why = [f"made by another version ({error})"]
    except MissingInputError as error:
        if stage not in KEEPS:
            raise
        _check_files(folder)
        _log.warning(
            "%s: used as it is; what it was trained on cannot be checked (%s)", folder, error
        )
        return read_journal(folder)
    if why:
        raise StaleInputError(
            f"The artifact of '{stage}' ({folder}) does not belong to the inputs at hand: "
            f"{'; '.join(why)}. Renew it with: {command(made, stage)}"
            f"{instead and f' ({instead})'}"
        )
    return found.artifact.records


def _check_files(folder: Path) -> None:
    """Make sure that the files of an artifact are as they were written.

    Raises:
        EditedArtifactError: one was changed.
        MissingInputError: one is missing.
    """
    header = read_header(folder) or {}
    artifact = Artifact(folder, header["stage"], header["version"], header["config"])
    artifact.inspect([])
    absent = [name for r in artifact.good.values() for name in r.files
              if not (folder / name).exists()]  # fmt: skip
    if absent or artifact.missing:
        raise MissingInputError(f"{folder}: {[*absent, *artifact.missing][0]} is missing.")


def check_elsewhere(folder: Path, stage: str) -> None:
    """Make sure that an artifact of another run is finished and undamaged.

    Raises:
        MissingInputError: it is not finished, or a file is missing.
        EditedArtifactError: a file was changed since it was written.
        StaleInputError: it is of another stage.
    """
    header = read_header(folder)
    if header is None:
        return
    if header["stage"] != stage:
        raise StaleInputError(f"{folder} is an artifact of '{header['stage']}', not of '{stage}'.")
    if not header.get("complete"):
        raise MissingInputError(f"{folder} was begun and is not finished; finish that run first.")
    _check_files(folder)


def command(context: Context, stage: str, *settings: str, split: str | None = None) -> str:
    """The make command that runs a stage with this run's data, options and settings."""
    split = split or context.split
    words = [f"make {stage} MODE={shlex.quote(split)}", f"DATA={shlex.quote(str(context.data))}"]
    if context.run != "default":
        words.append(f"RUN={shlex.quote(context.run)}")
    if context.artifacts != Path("artifacts"):
        words.append(f"ARTIFACTS={shlex.quote(str(context.artifacts))}")
    for name in dict.fromkeys(("sizes", *OPTIONS[stage])):
        if split == context.split or name == "sizes":
            value = getattr(context, name)
            words += [f"{name.upper()}={shlex.quote(str(value))}"] if value else []
    changed = [*(_settings(context, stage) if split == context.split else ()), *settings]
    changed += [links.OPTION] if links.ALLOWED.get() else []
    if changed:
        words.append(f"SET={shlex.quote(' '.join(changed))}")
    return " ".join(words)


def _settings(context: Context, stage: str) -> Iterator[str]:
    """Settings of a stage that differ from their defaults, as words of a command line."""
    section = stage.replace("-", "_")
    cls = stage_module(stage).Config
    try:
        own = config.resolved(context.config(stage, cls))
    except DmnetError:
        return
    yield from _words(f"--{section.replace('_', '-')}", own, config.resolved(cls()))


def _words(at: str, values: Mapping[str, Any], usual: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        here = f"{at}.{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from _words(here, value, usual.get(name) or {})
        elif value != usual.get(name):
            each = value if isinstance(value, (list, tuple)) else [value]
            shown = ["null" if v is None else str(v).lower() if isinstance(v, bool) else str(v)
                     for v in each]  # fmt: skip
            yield f"{here} {' '.join(map(shlex.quote, shown))}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Name every setting that differs between two headers: ``threshold 0.08 -> 0.1``."""
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            yield from differences(before, value, f"{at}{key}.")
        elif before != value:
            yield f"{at.removeprefix('config.')}{key} {before} -> {value}"
