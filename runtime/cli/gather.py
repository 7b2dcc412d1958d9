"""`moembed gather`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit_json


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "gather",
        help="training texts from clones of public repositories",
        description="Read training texts and pairs from clones of public repositories; a missing clone is skipped. Texts that "
        "overlap an evaluation set are left out. Prints the number of rows by repository as JSON.",
    )
    parser.add_argument("clones", type=Path, help="folder with a clone of each repository")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="JSONL file of texts to write, gzip"
    )
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="JSONL file of pairs to write, gzip")
    parser.add_argument(
        "--without", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders of evaluation sets"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Gather the texts."""
    from moembed.train.data.gather import gather

    emit_json(gather(arguments.clones, arguments.output, arguments.pairs, arguments.without))
    return 0
