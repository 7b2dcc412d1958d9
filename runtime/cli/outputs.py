"""Output of `moembed embed`: vectors with their texts and ids, as JSONL, npy or CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from moembed.cli.streams import stdout
from moembed.digits import json_list
from moembed.errors import OutputError
from moembed.progress import is_terminal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from moembed.corpus.streamed import RecordId
    from moembed.embedding import Embedding

    Rows = Iterable[tuple[RecordId, Embedding]]

FORMATS = ("jsonl", "npy", "csv")
STDOUT = "-"
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".jl": "jsonl", ".npy": "npy", ".csv": "csv", "": "jsonl"}
_MAX_MEMORY = 64 << 20  # bytes that are spooled in memory, not on disk, where the count must be written first


def format_of(output: str | None, requested: str | None) -> str:
    """Return the output format: the requested one, else that of the output's suffix.

    Raises:
        OutputError: unknown suffix, or the output cannot hold the format.
    """
    suffix = Path(output or STDOUT).suffix.lower()
    form = requested or _SUFFIXES.get(suffix)
    if form is None:
        raise OutputError(
            f"-o {output}: unknown suffix {suffix}; use .jsonl, .npy or .csv, or choose a format with --format "
            f"({', '.join(FORMATS)})"
        )
    if form == "npy" and output is None:
        with stdout() as out:
            if is_terminal(out):
                raise OutputError("npy cannot be written to a terminal: pass -o vectors.npy, or redirect stdout")
    return form


def write(output: str | None, form: str, rows: "Rows", empty: "NDArray[Any]") -> None:
    """Write vectors as they are computed.

    Args:
        output: path, or None for stdout.
        form: one of `FORMATS`.
        rows: record ids and embeddings.
        empty: array `[0, dim]` with the dtype of the vectors.

    Raises:
        OutputError: the output cannot be written.
        BrokenPipeError: the reader of the output has exited.
    """
    if form == "npy":
        with _bytes(output) as out:
            _write_npy(out, rows, empty)
        return
    with _text(output) as text:
        _TEXT_WRITERS[form](text, rows, empty)


@contextmanager
def _bytes(output: str | None) -> Iterator[IO[bytes]]:
    if output is None:
        with stdout() as out:
            if not hasattr(out, "buffer"):
                raise OutputError("this stdout takes only text: pass -o vectors.npy")
            yield out.buffer
        return
    from moembed.files.destination import writing

    with writing(output) as file:
        yield file


@contextmanager
def _text(output: str | None) -> Iterator[IO[str]]:
    if output is None:
        with stdout() as out:
            yield out
        return
    with _bytes(output) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        try:
            yield text
        finally:
            text.detach()  # flushes it; the file stays open for whoever opened it


def _write_jsonl(out: IO[str], rows: "Rows", _empty: "NDArray[Any]") -> None:
    for record_id, row in rows:
        head: dict[str, Any] = {"index": row.index} | ({} if record_id is None else {"id": record_id})
        head |= {"text": row.text, "tokens": row.tokens, "truncated": row.truncated}
        if (row.start, row.end) != (0, len(row.text)):
            head |= {"start": row.start, "end": row.end}
        if row.vector.dtype.kind != "f":
            head["scale"] = row.scale
        out.write(json.dumps(head | {"embedding": json_list(row.vector)}, ensure_ascii=False) + "\n")


def _write_csv(out: IO[str], rows: "Rows", empty: "NDArray[Any]") -> None:
    writer = csv.writer(out)
    writer.writerow(["index", "id", "text", "tokens", "truncated", "scale", *(f"d{i}" for i in range(empty.shape[1]))])
    for record_id, row in rows:
        written_id = "" if record_id is None else record_id
        writer.writerow(
            [row.index, written_id, row.text, row.tokens, int(row.truncated), row.scale, *json_list(row.vector)]
        )


def _write_npy(out: IO[bytes], rows: "Rows", empty: "NDArray[Any]") -> None:
    """Stream rows. numpy's header has room for the first axis to grow, so it is rewritten at the end."""
    if not out.readable():  # such as a pipe: the header cannot be rewritten
        import shutil
        import tempfile

        with tempfile.SpooledTemporaryFile(_MAX_MEMORY) as spooled:
            _write_npy(spooled, rows, empty)
            spooled.seek(0)
            shutil.copyfileobj(spooled, out)
        return
    import numpy as np

    def header(count: int) -> None:
        shape = (count, empty.shape[1])
        np.lib.format.write_array_header_1_0(out, {"fortran_order": False, "descr": empty.dtype.str, "shape": shape})

    count = 0
    header(count)
    for _, row in rows:
        out.write(row.vector.tobytes())
        count += 1
    out.seek(0)
    header(count)


_TEXT_WRITERS: dict[str, Callable[[IO[str], "Rows", "NDArray[Any]"], None]] = {"jsonl": _write_jsonl, "csv": _write_csv}
