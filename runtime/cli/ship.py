"""`moembed ship`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit, log
from moembed.errors import extra


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "ship",
        help="replace the built-in model by a trained checkpoint (needs the extras 'train' and 'eval')",
        description="Export and quantize a checkpoint, record its quality on evaluation sets in the certificate, and write "
        "its model card. The bundle is replaced only if all of this succeeds and it is small enough for a wheel. Default folders "
        "are relative to a source checkout.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint of `moembed train`")
    parser.add_argument("text", type=Path, nargs="+", help="JSONL files of texts that it was trained on")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder of the evaluation sets")
    parser.add_argument(
        "--sets", nargs="+", required=True, metavar="DATASET", help="evaluation sets, named as for `moembed evaluate`"
    )
    parser.add_argument("--recipe", default="int8-table4", help="recipe of `moembed quantize` (default: %(default)s)")
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for intermediate results, which are overwritten",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=Path("runtime/default"),
        metavar="BUNDLE",
        help="bundle folder to replace (default: %(default)s)",
    )
    parser.add_argument(
        "--card", type=Path, default=Path("models"), metavar="FOLDER", help="folder of the card (default: %(default)s)"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Ship the checkpoint."""
    with extra("train", "moembed ship"):
        from moembed.train.release.ship import ship
    bundle = ship(
        arguments.checkpoint,
        arguments.text,
        data=arguments.data,
        sets=arguments.sets,
        quantization=arguments.recipe,
        work=arguments.work,
        bundle=arguments.bundle,
        card_dir=arguments.card,
        log=log,
    )
    log(f"{bundle.manifest.name}, {bundle.manifest.recipe}, {bundle.size / 1e6:.1f} MB")
    emit(str(bundle.folder))
    return 0
