"""`moembed gather`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit, emit_json


class _ListRepositories(argparse.Action):
    """Option that prints the repositories and exits, like `--version`."""

    def __call__(self, parser: argparse.ArgumentParser, *_arguments: Any) -> None:
        from moembed.train.data.public_repositories import REPOSITORIES

        for repository in REPOSITORIES:
            emit(f"{repository.name}\t{repository.license}")
        parser.exit()


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
    parser.add_argument(
        "--list",
        action=_ListRepositories,
        nargs=0,
        help="print the repositories at github.com and their licenses, and exit",
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Gather the texts."""
    from moembed.train.data.gather import gather

    emit_json(gather(arguments.clones, arguments.output, arguments.pairs, arguments.without))
    return 0
