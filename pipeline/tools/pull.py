"""Verb ``pull``: fetch an artifact from a bucket, every file verified by its digest."""

from __future__ import annotations

import argparse
from pathlib import Path

from dmnet.core.transfer import pull


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is copied, and where to."""
    parser.add_argument("url", metavar="URL", help="s3://bucket/place, or another storage")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the artifact")


def run(args: argparse.Namespace) -> int:
    """Copy, and say how much."""
    count = pull(args.url, args.folder)
    print(f"{count} files, each verified: {args.folder}")
    return 0
