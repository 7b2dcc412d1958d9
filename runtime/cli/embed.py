"""`moembed embed`."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import tee
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, add_model, add_task, open_embedder, prompt_of, say
from moembed.errors import InputError, OutputError
from moembed.overlong import Chunk
from moembed.precision import PRECISIONS
from moembed.progress import progress

if TYPE_CHECKING:
    from moembed.embedder import Embedding

_FORMATS = ("jsonl", "npy", "csv")
_OVERLONG = {"error": "error", "truncate": "truncate", "chunk": Chunk(pooled=False), "mean": Chunk()}


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "embed",
        help="texts to vectors",
        description="Embed texts given as arguments, in files (one text a line; a field of each line of a .jsonl), or on stdin.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text (default: the lines of stdin)")
    parser.add_argument(
        "-i", "--input", action="append", default=[], metavar="FILE", help="read texts from a file; '-' is stdin"
    )
    parser.add_argument("--field", default="text", help="field to embed in .jsonl input (default: text)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write here instead of stdout, complete or not at all"
    )
    parser.add_argument("-f", "--format", choices=_FORMATS, help="default: by the output's suffix, else jsonl")
    parser.add_argument("--dim", type=int, metavar="N", help="keep the first N dimensions, then normalise (Matryoshka)")
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
    form = arguments.format or _by_suffix(arguments.output)
    if form == "npy" and arguments.output is None:
        raise OutputError("npy needs a file: -o vectors.npy")
    embedder = open_embedder(arguments)
    texts, copy = tee(_texts(arguments))
    results = embedder.embed(
        texts,
        precision=arguments.precision,
        truncate_dim=arguments.dim,
        overlong=_OVERLONG[arguments.overlong],  # type: ignore[arg-type]
        prompt=prompt_of(arguments, embedder),
    )
    cut = 0
    show = None if arguments.output else False  # a bar between lines of output would be noise

    def paired() -> Iterator[tuple[str, "Embedding"]]:
        nonlocal cut
        text, position = "", -1
        with progress(None, "text", show=show) as advance:
            for result in results:
                while position < result.index:
                    text, position = next(copy), position + 1
                    advance(1)
                cut += result.truncated
                yield text, result

    with _destination(arguments.output, binary=form == "npy") as out:
        _WRITERS[form](out, paired())
    if cut:
        say(f"moembed: {cut} texts were cut to {embedder.max_tokens} tokens; they are marked truncated")
    return 0


def _by_suffix(output: Path | None) -> str:
    suffix = output.suffix.lstrip(".").lower() if output else ""
    return suffix if suffix in _FORMATS else "jsonl"


def _texts(arguments: argparse.Namespace) -> Iterator[str]:
    yield from arguments.texts
    if not arguments.texts and not arguments.input and sys.stdin.isatty():
        say("moembed: reading texts from the terminal, one a line; Ctrl-D ends")
    sources = arguments.input or ([] if arguments.texts else ["-"])
    for source in sources:
        for number, line in enumerate(_lines(source), 1):
            if not source.endswith(".jsonl"):
                yield line
                continue
            try:
                text = json.loads(line)[arguments.field]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{source}:{number}: no JSON object with a field {arguments.field!r} ({error})"
                ) from error
            if not isinstance(text, str):
                raise InputError(
                    f"{source}:{number}: field {arguments.field!r} is {type(text).__name__}, expected a string"
                )
            yield text


def _lines(source: str) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            raw: IO[bytes] = sys.stdin.buffer if source == "-" else stack.enter_context(Path(source).open("rb"))
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror}") from error
        for number, line in enumerate(raw, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                name = "stdin" if source == "-" else source
                raise InputError(
                    f"{name}:{number}: not UTF-8 at byte {error.start} of the line; convert it first"
                ) from None


@contextmanager
def _destination(path: Path | None, *, binary: bool) -> Iterator[IO[Any]]:
    if path is None:
        yield sys.stdout
        return
    from moembed.paths import replacing_file

    with (
        replacing_file(path) as partial,
        partial.open("w+b") if binary else partial.open("w", encoding="utf-8", newline="") as out,
    ):
        yield out


def _write_jsonl(out: IO[str], rows: Iterable[tuple[str, "Embedding"]]) -> None:
    for text, row in rows:
        record = {"index": row.index, "text": text, "tokens": row.tokens, "truncated": row.truncated}
        if (row.start, row.end) != (0, len(text)):
            record |= {"start": row.start, "end": row.end}
        if row.vector.dtype.kind != "f":
            record["scale"] = row.scale
        out.write(json.dumps(record | {"embedding": row.vector.tolist()}, ensure_ascii=False) + "\n")


def _write_csv(out: IO[str], rows: Iterable[tuple[str, "Embedding"]]) -> None:
    writer = csv.writer(out)
    for number, (text, row) in enumerate(rows):
        if number == 0:
            header = ["index", "text", "tokens", "truncated", "scale"]
            writer.writerow(header + [f"d{i}" for i in range(len(row.vector))])
        writer.writerow([row.index, text, row.tokens, int(row.truncated), row.scale, *row.vector.tolist()])


def _write_npy(out: IO[bytes], rows: Iterable[tuple[str, "Embedding"]]) -> None:
    """Stream rows; numpy's header leaves room for the first axis to grow, so it is written again at the end."""
    import numpy as np

    def header(count: int, dim: int, descr: str) -> None:
        np.lib.format.write_array_header_1_0(out, {"fortran_order": False, "descr": descr, "shape": (count, dim)})

    count, dim, descr = 0, 0, "<f4"
    for _, row in rows:
        if count == 0:
            dim, descr = len(row.vector), row.vector.dtype.str
            header(0, dim, descr)
        out.write(row.vector.tobytes())
        count += 1
    out.seek(0)
    header(count, dim, descr)


_WRITERS: dict[str, Callable[[IO[Any], Iterable[tuple[str, "Embedding"]]], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "npy": _write_npy,
}
