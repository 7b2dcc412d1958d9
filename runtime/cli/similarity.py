"""`moembed similarity`."""

import argparse
from typing import Any

from moembed.cli.common import Subparsers, add_model, add_task, emit, emit_json, open_embedder, prompt_of
from moembed.errors import InputError


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "similarity",
        help="compare texts by cosine similarity",
        description="Print the cosine similarity of two texts, or the similarity matrix of more.",
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="two or more texts")
    parser.add_argument("--dim", type=int, metavar="N", help="compare only the first N dimensions (Matryoshka)")
    parser.add_argument("--json", action="store_true", help="print the whole matrix as JSON")
    add_task(parser, "query")
    add_model(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Compare the texts."""
    if len(arguments.texts) < 2:
        raise InputError(f"similarity needs at least two texts, found {len(arguments.texts)}")
    embedder = open_embedder(arguments)
    vectors = embedder.encode(arguments.texts, truncate_dim=arguments.dim, prompt=prompt_of(arguments, embedder))
    matrix = embedder.similarity(vectors, vectors)
    if arguments.json:
        emit_json({"texts": arguments.texts, "similarity": [[round(float(v), 6) for v in row] for row in matrix]})
    elif len(matrix) == 2:
        emit(f"{matrix[0, 1]:.4f}")
    else:
        for row, text in zip(matrix, arguments.texts, strict=True):
            emit("\t".join(f"{value:.4f}" for value in row) + "\t" + text)
    return 0
