"""``dmnet verify RUN``: what of a run is damaged, stale or foreign, and what mends it.

Every file of every artifact is hashed again, several at a time, and so are the files that the items
were made from. Journals and headers carry check sums of their own. Then each stage is planned once
more on the data at hand, as ``status`` does. Nothing is written.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from dmnet.core.errors import DmnetError, MissingInputError
from dmnet.core.files import bytes_digest
from dmnet.core.journal import HEADER
from dmnet.core.products import LOG
from dmnet.core.verify import Books, Fault, judged, measured, read_books
from dmnet.pipeline.chain import KEEPS, as_made, command, look
from dmnet.pipeline.context import STAGES, Context
from dmnet.pipeline.outcome import processes

SHOWN = 20
"""Faults of one stage that are listed; the rest are counted."""

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("run", nargs="?", default="default", metavar="RUN",
        help="name of a run, or any folder with artifacts in it (predict's OUT)")  # fmt: skip
    add("--artifacts", type=Path, default=Path("artifacts"), metavar="DIR")
    add("--data", type=Path, metavar="DIR", help="the data set, if it lies elsewhere by now")
    add(
        "--threads", type=processes, default=0, metavar="N", help="files read at once (0: by cores)"
    )


def run(args: argparse.Namespace) -> int:
    """Check everything; exit code 1 where anything is not as it was written."""
    start = time.perf_counter()
    root = _root(args.artifacts, args.run)
    books = [read_books(folder) for folder in sorted(folders(root), key=partial(_order, root))]
    paths = {claim.path for each in books for claim in each.claims}
    owned = {claim.path for each in books for claim in each.claims if claim.own}
    found = measured(paths, args.threads or 2 * (os.cpu_count() or 1))
    count, places = 0, {root}
    for each in books:
        faults = list(judged(each, found, owned))
        context = _context(each, args.data or _recorded(each, *books))
        if context and each.stage not in ("", each.folder.name):
            faults = [Fault("foreign", each.folder, f"holds an artifact of {each.stage}")]
        elif all(fault.kind == "stale" for fault in faults):
            faults = _chain(context, each, faults)  # inputs may have been moved with the run
        count += len(faults)
        places |= {context.artifacts / context.run} if context else set()
        for text in _report(root, each, faults, context):
            print(text)
    faults = [fault for place in sorted(places) for fault in kernel_faults(place)]
    for fault in faults:
        print(f"{fault}; remove it, density makes it again")
    size = sum(state[0] for state in found.values() if state)
    print(
        f"verified {len(found):,} files ({size / 1e6:,.1f} MB) of {len(books)} artifacts in "
        f"{time.perf_counter() - start:.1f} s: "
        f"{f'{count + len(faults)} faults' if count + len(faults) else 'all as written'}"
    )
    return 1 if count + len(faults) else 0


def _root(artifacts: Path, name: str) -> Path:
    """The folder that is looked through.

    Raises:
        MissingInputError: there is none, or it holds no artifact.
    """
    for root in (artifacts / name, Path(name)):
        if root.is_dir() and next(folders(root), None) is not None:
            return root.absolute()
    raise MissingInputError(
        f"verify: there is no run '{name}' in {artifacts} and no folder of that name with "
        "artifacts in it; name a RUN, and --artifacts if they lie elsewhere."
    )


def folders(root: Path) -> Iterator[Path]:
    """Artifact folders: those with a header, or with the journal that is left of one."""
    for place, below, names in os.walk(root):
        below.sort()
        if "stage.json" in names or "items.jsonl" in names:
            below.clear()
            yield Path(place)


def _order(root: Path, folder: Path) -> tuple[bool, int, str]:
    """What is read by others comes first: it is to be mended first."""
    split, name = str(folder.relative_to(root).parent), folder.name
    return split != "train", STAGES.index(name) if name in STAGES else len(STAGES), split


def _recorded(*books: Books) -> Path:
    """The data set that the first of these headers names that can be read."""
    named = ((each.header or {}).get("options", {}).get("data") for each in books)
    return Path(next((data for data in named if data), "data"))


def _context(books: Books, data: Path) -> Context | None:
    """The run that a folder belongs to; None where it is no stage's."""
    if books.folder.name not in STAGES or len(books.folder.parents) < 4:
        return None
    split, run, artifacts, *_ = books.folder.parents
    return Context(data=data, split=split.name, run=run.name, artifacts=artifacts)


def _chain(context: Context | None, books: Books, stale: list[Fault]) -> list[Fault]:
    """Whether a stage, planned anew on the data at hand, would give what is there.

    Args:
        context: of the run; None: no stage's.
        books: of the stage's folder.
        stale: inputs that changed where they were; they stand where nothing can be planned.
    """
    if context is None or books.header is None:
        return stale
    stage = books.folder.name
    try:
        made = as_made(replace(context, verify=bool(stale)), stage)
        why = look(made, stage).reasons(sums=True)
    except MissingInputError as error:
        _log.warning("%s: the chain cannot be followed: %s", books.folder, error)
        before = [context.folder(s["stage"], s["split"]) for s in books.header.get("made_from", ())]
        lost = [] if stage in KEEPS else [each for each in before if not (each / HEADER).exists()]
        text = f"gone; {stage} was made from it"
        return [*stale, *(Fault("missing", each, text) for each in lost)]
    except DmnetError as error:
        why = [str(error)]
    return [*stale, Fault("stale", books.folder, "; ".join(why))] if why else []


def _report(
    root: Path, books: Books, faults: list[Fault], context: Context | None
) -> Iterator[str]:
    """Faults of one folder and the command that mends them."""
    name = books.folder.relative_to(root)
    if not faults:
        yield f"{'fine':<11}{name}"
    for fault in faults[:SHOWN]:
        yield str(fault)
    if len(faults) > SHOWN:
        yield f"{'':<11}and {len(faults) - SHOWN} more in {name}"
    told = [fault for fault in faults if fault.path.name == LOG and fault.kind == "damaged"]
    kinds = {fault.kind for fault in faults if fault not in told}
    if told:
        yield f"{'':<11}{LOG} only tells of the runs: remove it"
    if "foreign" in kinds:
        yield f"{'':<11}foreign files and folders: move them elsewhere"
    if context is not None and books.stage != books.folder.name:
        yield f"{'':<11}only {HEADER} held its options and settings: add those it was made with"
    if kinds - {"foreign"} or any(fault.path == books.folder for fault in faults):
        yield f"{'mend':<11}{_mend(books, kinds, context)}"


def _mend(books: Books, kinds: set[str], context: Context | None) -> str:
    """What brings a folder back to what it should be."""
    if context is None:
        return (
            "remove the files named above and run the same command again (with --force, or without "
            "this folder, where stage.json is among them)"
        )
    stage = books.folder.name
    if books.stage not in ("", stage):
        return command(context, stage)
    try:
        made = replace(as_made(context, stage), memo={})
    except DmnetError:
        made = context  # its header cannot be read; the other stages' options are their own
    force = "damaged" in kinds or books.header is None
    options = ["--force --verify"] if force else ["--verify"] * ("stale" in kinds)
    return command(made, stage, *options)


def kernel_faults(root: Path) -> Iterator[Fault]:
    """The kernels that the density stages of a run share."""
    path = root / "kernels.h5"
    if path.is_file():
        from dmnet.density.kernels import KernelBank

        good = KernelBank.build().to_bytes()
        if measured([path], 1)[path] != (len(good), bytes_digest(good)):
            yield Fault("damaged", path, "not the kernels that this version computes")
