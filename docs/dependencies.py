"""Licences of everything that requirements.lock pins, and known weaknesses of these versions.

    python docs/dependencies.py [--advisories FOLDER]

The licences are those that the installed packages state. FOLDER holds advisories in the OSV format,
one JSON file each, such as the unpacked PyPI/all.zip of osv.dev; without it nothing is looked up.
Exit code 1 where a pinned version is affected, a package states no licence, or FOLDER holds none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, files, metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"


def pinned(lock: Path = LOCK) -> dict[str, str]:
    """Versions by package name, as ``name==version`` lines say."""
    found = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", lock.read_text(), re.MULTILINE
    )
    return {canonicalize_name(name): version for name, version in found}


def licence(name: str) -> str:
    """What an installed package says its licence is, also by a file; empty where nothing does."""
    stated = metadata(name)
    classifiers = stated.get_all("Classifier") or []
    named = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    text = (stated.get("License") or "").strip().splitlines()
    short = text[0] if text and len(text[0]) < 60 else ""
    return stated.get("License-Expression") or ", ".join(named) or short or _file(name)


def _file(name: str) -> str:
    """The first line of a licence file."""
    for path in files(name) or ():
        if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            lines = path.locate().read_text(encoding="utf-8").split("\n")
            return next((line.strip() for line in lines if line.strip()), "")
    return ""


def advisories(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Every advisory of a folder."""
    for path in sorted(folder.rglob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def weak(advisory: Mapping[str, Any], versions: Mapping[str, str]) -> Iterator[str]:
    """Pinned packages that an advisory is about: ``name version: id summary``."""
    if advisory.get("withdrawn"):
        return
    for entry in advisory.get("affected", []):
        name = canonicalize_name(entry.get("package", {}).get("name", ""))
        version = versions.get(name)
        if version and entry["package"].get("ecosystem") == "PyPI" and _affects(entry, version):
            yield f"{name} {version}: {advisory.get('id')} {advisory.get('summary', '')}".strip()


def _affects(entry: Mapping[str, Any], version: str) -> bool:
    """Whether a version is listed, or lies in a range ``introduced <= version < fixed``."""
    if version in entry.get("versions", []):
        return True
    try:
        at = Version(version)
        for each in entry.get("ranges", []):
            if each.get("type") == "ECOSYSTEM" and _within(each.get("events", []), at):
                return True
    except InvalidVersion:
        return False
    return False


def _within(events: list[Mapping[str, str]], at: Version) -> bool:
    inside = False
    for event in events:  # in the order of versions, as the format asks for
        if "introduced" in event:
            inside |= event["introduced"] == "0" or Version(event["introduced"]) <= at
        elif "fixed" in event:
            inside &= at < Version(event["fixed"])
        elif "last_affected" in event:
            inside &= at <= Version(event["last_affected"])
    return inside


def main(arguments: list[str] | None = None) -> int:
    """Print the list; exit code 1 where something has to be looked at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--advisories", type=Path, metavar="FOLDER")
    args = parser.parse_args(arguments)
    versions, silent = pinned(), 0
    for name, version in versions.items():
        try:
            said = licence(name)
        except PackageNotFoundError:
            said = "not installed here"
        silent += not said
        sys.stdout.write(f"{name:32} {version:18} {said or 'NO LICENCE STATED'}\n")
    found, last = [], "advisories: none at hand (--advisories FOLDER)"
    if args.advisories is not None:
        every = list(advisories(args.advisories))
        found = [text for each in every for text in weak(each, versions)]
        found = found if every else [f"{args.advisories}: holds no advisories (*.json)"]
        last = "\n".join(found) or f"advisories: none of {len(every)} is about a pinned version"
    sys.stdout.write(f"{last}\n")
    return 1 if silent or found else 0


if __name__ == "__main__":
    sys.exit(main())
