"""`moembed embed`."""

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, add_model, add_task, log, open_embedder, prompt_of
from moembed.cli.corpus import add_options, is_corpus, lower_priority, run_corpus
from moembed.cli.outputs import FORMATS, STDOUT, format_of, write
from moembed.cli.stamp import stamp_output
from moembed.errors import InputError
from moembed.precision import PRECISIONS
from moembed.progress import is_terminal, progress
from moembed.truncation import LATE_TOKENS, OVERLONG_NAMES, Chunk, Overlong, OverlongName

if TYPE_CHECKING:
    from moembed.corpus.streamed import RecordId, Streamed
    from moembed.embedding import Embedding

INPUT_FORMATS = ("lines", "jsonl", "csv", "tsv", "parquet", "arrow")
_STDIN = "-"
_FILE_BATCH = 1024  # texts of a file that are read at a time


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "embed",
        help="turn texts into vectors",
        description="Embed texts from arguments, files or stdin: one text per line, or a field of each record of JSONL, CSV, "
        "TSV, Parquet or Arrow. Ids of records appear in the output.",
    )
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="a text (default: the lines of stdin); put -- before a text that is also the name of a file",
    )
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="FILE",
        help="read texts from a file, folder, glob or s3:// address; '-' is stdin",
    )
    parser.add_argument(
        "--input-format",
        choices=INPUT_FORMATS,
        help="format of the input (default: from the suffix .jsonl, .ndjson, .jl, .csv, .tsv, .parquet, .arrow or .feather, of "
        "text formats also with .gz or .zst, else lines)",
    )
    parser.add_argument("--field", metavar="NAME", help="record field with the text (default: text)")
    parser.add_argument(
        "--id-field", default="id", metavar="NAME", help="record field with the id, which may be missing (default: id)"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write to this file or folder (with / at the end) instead of stdout, atomically; '-' is stdout",
    )
    parser.add_argument(
        "-f",
        "--format",
        choices=(*FORMATS, "parquet", "arrow"),
        help="output format (default: from the suffix of the output, parquet for a folder, else jsonl)",
    )
    parser.add_argument("--dim", type=int, metavar="N", help="keep the first N dimensions and normalize (Matryoshka)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="precision of the vectors (default: float32)"
    )
    parser.add_argument(
        "--overlong",
        choices=OVERLONG_NAMES,
        default="error",
        help="for texts that exceed the model's limit: error (default), truncate or truncate_start (cut off the end or start; "
        "marked in the output), chunk (one vector per window), mean (mean of the windows' vectors); late (late chunking: one "
        "vector per window of any text, averaged from the states of its tokens)",
    )
    parser.add_argument(
        "--window-tokens",
        type=int,
        metavar="N",
        help=f"most tokens of a window of --overlong late (default: {LATE_TOKENS})",
    )
    add_options(parser)
    add_task(parser, "document")
    add_model(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Embed the texts and write their vectors."""
    arguments.overlong = _policy(arguments)
    lower_priority(arguments.nice)
    if is_corpus(arguments):
        return run_corpus(arguments)
    output = None if arguments.output == STDOUT else arguments.output
    form = format_of(output, arguments.format)
    records = _records(arguments)
    embedder = open_embedder(arguments)
    options: dict[str, Any] = {"precision": arguments.precision, "truncate_dim": arguments.dim}
    ids: deque[RecordId] = deque()  # of the texts that were read and not written yet

    def texts() -> Iterator[str]:
        for record in records:
            ids.append(record.id)
            yield record.text

    prompt = prompt_of(arguments, embedder)
    # Of a file many texts are read at a time, which leaves less padding; of a pipe few, so that vectors come as texts do.
    reading: dict[str, Any] = {"batch_size": _FILE_BATCH} if arguments.input and _STDIN not in arguments.input else {}
    results = embedder.embed(texts(), overlong=arguments.overlong, prompt=prompt, **options, **reading)
    truncated = 0
    show = None if output else False  # no progress bar between the lines of the output

    def rows() -> "Iterator[tuple[RecordId, Embedding]]":
        nonlocal truncated
        record_id, position = None, -1
        with progress(None, "text", show=show) as advance:
            for result in results:
                while position < result.index:
                    record_id, position = ids.popleft(), position + 1
                    advance(1)
                truncated += result.truncated
                yield record_id, result

    write(output, form, rows(), empty=embedder.encode([], prompt="", **options))
    stamp_output(output, embedder, prompt, arguments)
    if truncated:
        log(f"moembed: {truncated} texts were cut to {embedder.max_tokens} tokens; they are marked truncated")
    return 0


def _policy(arguments: argparse.Namespace) -> Overlong:
    name: OverlongName = arguments.overlong
    if arguments.window_tokens is None:
        return name
    if name != "late":
        raise InputError(f"--window-tokens is for --overlong late; found --overlong {name}: leave one of them out")
    return Chunk(late=True, tokens=arguments.window_tokens)


def _records(arguments: argparse.Namespace) -> "Iterator[Streamed]":
    """Return the texts of the command line, then those of files or stdin; an input that cannot be named is refused at once."""
    from moembed.corpus.rows import Selection
    from moembed.corpus.sources import find
    from moembed.corpus.streamed import Streamed, stream

    if not arguments.texts and not arguments.input and is_terminal(sys.stdin):
        log("moembed: reading texts from the terminal, one per line; press Ctrl-D to finish")
    inputs = arguments.input or ([] if arguments.texts else [_STDIN])
    sources = find(inputs, arguments.input_format, log)
    selection = Selection(field=arguments.field or "text", id=arguments.id_field)
    return chain(map(Streamed, arguments.texts), *(stream(source, selection) for source in sources))
