"""`moembed pull`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, add_quiet, emit, log, reporter_of


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "pull",
        help="download a model, convert it to a bundle and keep it (needs the extra 'convert')",
        description="Download a checkpoint, convert it to a bundle, check the bundle and keep it in the data folder, from which "
        "-m NAME opens it without the network. Known models are pinned to a revision and checked against its sha256.",
    )
    parser.add_argument(
        "source", metavar="NAME", help="hub name such as nomic-ai/nomic-embed-text-v2-moe, or checkpoint folder"
    )
    parser.add_argument(
        "--revision", help="commit, tag or branch of a hub name (default: the pinned commit of a known model)"
    )
    parser.add_argument("--recipe", help="name of the quantization recipe (default: int8)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="write the bundle to this folder instead of the data folder"
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle at FOLDER")
    parser.add_argument("--keep", action="store_true", help="keep the downloaded checkpoint in the hub's cache")
    parser.add_argument("--cache-dir", type=Path, help="cache folder of hub files (default: huggingface_hub's default)")
    parser.add_argument("--offline", action="store_true", help="do not use the network")
    add_quiet(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Pull the model and print the bundle's folder."""
    from moembed.cli.interrupts import prompt_interrupts
    from moembed.pull.opening import pull
    from moembed.pull.request import Request

    request = Request(
        recipe=arguments.recipe,
        out=arguments.output,
        keep=arguments.keep,
        offline=arguments.offline,
        cache_dir=arguments.cache_dir,
        force=arguments.force,
    )
    with prompt_interrupts(arguments.source):
        bundle = pull(arguments.source, arguments.revision, request, reporter_of(arguments))
    if not arguments.quiet:
        log(f"moembed: {bundle.manifest.name}, {bundle.manifest.recipe}, {bundle.size / 1e6:.1f} MB")
    emit(str(bundle.folder))
    return 0
