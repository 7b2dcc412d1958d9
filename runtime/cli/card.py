"""`moembed card`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "card",
        help="the model card of a trained model (needs the extra 'eval')",
        description="Write a model card and a plot of the expert loads. Quality comes from the bundle's certificate, where "
        "`moembed evaluate --certify` puts it; the training report comes from the checkpoint.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="INT8 bundle with quality in its certificate")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the checkpoint that it was made from")
    parser.add_argument(
        "text", type=Path, nargs="+", help="JSONL files of texts, as for training, to measure expert loads"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder for CARD.md and routing.png"
    )
    parser.add_argument("--texts", type=int, default=40, help="texts per language (default: %(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Write the card."""
    from moembed.train.release.card import write_card

    card = write_card(arguments.bundle, arguments.checkpoint, arguments.text, arguments.output, texts=arguments.texts)
    emit(str(card))
    return 0
