"""`moembed embed`."""

import argparse
import sys
from collections.abc import Iterator
from itertools import tee
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, add_model, add_task, open_embedder, prompt_of, say
from moembed.cli.inputs import INPUT_FORMATS, STDIN, Record, read
from moembed.cli.outputs import FORMATS, STDOUT, format_of, write
from moembed.precision import PRECISIONS
from moembed.progress import is_terminal, progress
from moembed.truncation import Chunk

if TYPE_CHECKING:
    from moembed.embedder import Embedding

_OVERLONG = {"error": "error", "truncate": "truncate", "chunk": Chunk(pooled=False), "mean": Chunk()}


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "embed",
        help="texts to vectors",
        description="Embed texts given as arguments, in files (one text a line; a field of each record of JSONL, CSV or TSV), or "
        "on stdin. Ids of records are kept.",
    )
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="a text (default: the lines of stdin); after -- also one that is the name of a file",
    )
    parser.add_argument(
        "-i", "--input", action="append", default=[], metavar="FILE", help="read texts from a file; '-' is stdin"
    )
    parser.add_argument(
        "--input-format",
        choices=INPUT_FORMATS,
        help="of files and stdin (default: by the suffix .jsonl, .ndjson, .jl, .csv or .tsv, else lines)",
    )
    parser.add_argument("--field", default="text", metavar="NAME", help="field of the text in records (default: text)")
    parser.add_argument(
        "--id-field", default="id", metavar="NAME", help="field of the id, if there is one (default: id)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write here instead of stdout, complete or not at all; '-' is stdout"
    )
    parser.add_argument("-f", "--format", choices=FORMATS, help="default: by the output's suffix, jsonl without one")
    parser.add_argument("--dim", type=int, metavar="N", help="keep the first N dimensions, then normalize (Matryoshka)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the vectors (default: float32)")
    parser.add_argument(
        "--overlong",
        choices=_OVERLONG,
        default="error",
        help="a text beyond the model's limit: error (default), truncate (marked in the output), chunk (a vector per window), "
        "mean (of the windows)",
    )
    add_task(parser, "document")
    add_model(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Embed what was given."""
    output = None if arguments.output == STDOUT else arguments.output
    form = format_of(output, arguments.format)
    embedder = open_embedder(arguments)
    records, copy = tee(_records(arguments))
    options: dict[str, Any] = {"precision": arguments.precision, "truncate_dim": arguments.dim}
    results = embedder.embed(
        (record.text for record in records),
        overlong=_OVERLONG[arguments.overlong],  # type: ignore[arg-type]
        prompt=prompt_of(arguments, embedder),
        **options,
    )
    cut = 0
    show = None if output else False  # a bar between lines of output would be noise

    def rows() -> Iterator[tuple[Record, "Embedding"]]:
        nonlocal cut
        record, position = Record(""), -1
        with progress(None, "text", show=show) as advance:
            for result in results:
                while position < result.index:
                    record, position = next(copy), position + 1
                    advance(1)
                cut += result.truncated
                yield record, result

    write(output, form, rows(), empty=embedder.encode([], prompt="", **options))
    if cut:
        say(f"moembed: {cut} texts were cut to {embedder.max_tokens} tokens; they are marked truncated")
    return 0


def _records(arguments: argparse.Namespace) -> Iterator[Record]:
    yield from map(Record, arguments.texts)
    if not arguments.texts and not arguments.input and is_terminal(sys.stdin):
        say("moembed: reading texts from the terminal, one a line; Ctrl-D ends")
    for source in arguments.input or ([] if arguments.texts else [STDIN]):
        yield from read(source, arguments.input_format, field=arguments.field, id_field=arguments.id_field)
