"""Verb ``push``: send a finished artifact to a bucket, every file verified by its digest."""

from __future__ import annotations

import argparse
from pathlib import Path

from dmnet.core.transfer import push


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is copied, and where to."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the artifact")
    parser.add_argument("url", metavar="URL", help="s3://bucket/place, or another storage")


def run(args: argparse.Namespace) -> int:
    """Copy, and say how much."""
    count = push(args.folder, args.url)
    print(f"{count} files, each verified: {args.url}")
    return 0
