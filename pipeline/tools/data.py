"""``dmnet data``: download VisDrone and unpack it where the stages look for it."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from dmnet.core.download import VISDRONE, fetch_archive

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    splits = [archive.split for archive in VISDRONE]
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument(
        "--split", "--mode", choices=[*splits, "test", "all"], default="all", help="what to fetch"
    )
    parser.add_argument("--keep-zip", action="store_true", help="leave the zip files there")


def run(args: argparse.Namespace) -> int:
    """Fetch what is not there yet."""
    wanted = "test-dev" if args.split == "test" else args.split
    for archive in VISDRONE:
        if wanted in ("all", archive.split):
            folder = fetch_archive(archive, args.data, keep_zip=args.keep_zip)
            _log.info("%s: %s", archive.split, folder)
    return 0
