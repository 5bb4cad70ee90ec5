"""What the paths of a command line name: pictures, folders, globs, list files."""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dmnet.core import links
from dmnet.core.errors import MissingInputError
from dmnet.core.images import SUFFIXES
from dmnet.core.journal import HEADER
from dmnet.core.reading import read_text

LISTS = frozenset({".txt", ".lst"})
"""Endings of files that list paths, one a line."""
LONGEST_NAME = 120
"""Bytes of a part of an id; longer file names are shortened, with a digest."""


@dataclass(frozen=True)
class Input:
    """A file to predict on.

    ``id`` is unique and relative (``folder/name.jpg``); ``stem`` names what is written for it: the
    id without suffix, or with it where two files differ only there.
    """

    id: str
    path: Path
    stem: str = ""


@dataclass(frozen=True)
class Inputs:
    """All files to predict on, and what was passed over: reasons by name."""

    files: tuple[Input, ...]
    problems: dict[str, str]
    left_out: dict[str, list[Path]]
    """Files of folders that are nothing to predict on, by suffix."""


RASTERS = frozenset({".tif", ".tiff", ".jp2"})
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".m4v"})
KNOWN = SUFFIXES | RASTERS | VIDEOS
"""Endings of files to predict on, in lower case."""


def find_inputs(paths: Sequence[str], suffixes: frozenset[str] = KNOWN) -> Inputs:
    """List the files that paths name, sorted by id; a file named twice counts once.

    Args:
        paths: files, folders (with their subfolders, but for what dmnet wrote there), globs, or
            list files (.txt, .lst: one path a line, relative to the list's folder).
        suffixes: of files to predict on, in lower case.

    Raises:
        MissingInputError: nothing to predict on at all.
    """
    found: dict[Path, str] = {}
    problems: dict[str, str] = {}
    left_out: dict[str, list[Path]] = {}
    for text in paths:
        named = list(_named(text))
        if not named:
            problems[text] = "no such file or folder"
        for path, name in named:
            if not path.is_file():
                problems[str(path)] = "no such file"
            elif Path(text).is_dir() and _leaves(path, Path(text)):
                problems[str(path)] = f"leads out of {text}; {links.OPTION} says that links may"
            elif path.suffix.lower() in suffixes:
                found.setdefault(path.resolve(), name)
            elif len(named) == 1:
                known = ", ".join(sorted(suffixes))
                problems[str(path)] = f"not a picture by its name; known endings: {known}"
            else:
                left_out.setdefault(path.suffix.lower() or path.name, []).append(path)
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(problems.items())[:3])
        raise MissingInputError(
            f"nothing to predict on in {', '.join(paths)}{reasons and f' ({reasons})'}. Give "
            "pictures, folders, globs, or a list file (.txt, one path a line)."
        )
    return Inputs(tuple(_with_stems(_unique(found))), problems, left_out)


def _leaves(path: Path, folder: Path) -> bool:
    """Whether a link leads out of the folder that it was found in, and must not."""
    inside = path.resolve().is_relative_to(folder.resolve())
    return not (inside or links.ALLOWED.get())


def _named(text: str) -> Iterator[tuple[Path, str]]:
    """Files and their names: relative to the folder, the list, or the glob's fixed part."""
    path = Path(text)
    if path.is_dir():
        every = sorted(path.rglob("*"))
        made = {each.parent for each in every if each.name == HEADER} - {path}
        for each in every:
            hidden = any(part.startswith(".") for part in each.relative_to(path).parts)
            if each.is_file() and not hidden and made.isdisjoint(each.parents):
                yield each, each.relative_to(path).as_posix()
    elif path.is_file() and path.suffix.lower() in LISTS:
        for line in read_text(path).splitlines():
            if line.strip():
                listed = path.parent / line.strip()
                yield listed, _relative(listed, path.parent)
    elif path.exists():
        yield path, path.name
    elif glob.has_magic(text):
        root = Path(*_fixed(path))
        for each in sorted(root.glob("/".join(path.parts[len(root.parts) :]))):
            if each.is_file():
                yield each, _relative(each, root)


def _fixed(path: Path) -> Iterator[str]:
    """The parts before the first one with a wildcard."""
    for part in path.parts:
        if glob.has_magic(part):
            return
        yield part


def _relative(path: Path, root: Path) -> str:
    inside = path.resolve().is_relative_to(root.resolve())
    return path.resolve().relative_to(root.resolve()).as_posix() if inside else path.name


def _unique(found: dict[Path, str]) -> Iterator[Input]:
    """Ids that differ: where two files have one name, each gets its folder's name before it."""
    names = {path: _printable(name) for path, name in found.items()}
    often = Counter(names.values())
    longer = {p: f"{_printable(p.parent.name)}/{n}" if often[n] > 1 else n
              for p, n in names.items()}  # fmt: skip
    often = Counter(longer.values())
    for path, name in sorted(longer.items(), key=lambda pair: (pair[1], str(pair[0]))):
        mark = hashlib.blake2b(str(path).encode("utf-8", "surrogateescape"), digest_size=4)
        yield Input(f"{mark.hexdigest()}/{name}" if often[name] > 1 else name, path)


def _printable(name: str) -> str:
    """A name that every file system and text file can hold."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "/".join(map(_short, text.split("/")))


def _short(part: str) -> str:
    if len(part.encode()) <= LONGEST_NAME:
        return part
    mark = hashlib.blake2b(part.encode(), digest_size=6).hexdigest()
    kept = part.encode()[: LONGEST_NAME - 32].decode("utf-8", "ignore")
    return f"{kept}~{mark}{Path(part).suffix[:12]}"


def _with_stems(inputs: Iterator[Input]) -> Iterator[Input]:
    listed = list(inputs)
    plain = {each.id: str(Path(each.id).with_suffix("").as_posix()) for each in listed}
    often = Counter(stem.casefold() for stem in plain.values())
    for each in listed:
        stem = plain[each.id]
        yield replace(each, stem=each.id if often[stem.casefold()] > 1 else stem)
