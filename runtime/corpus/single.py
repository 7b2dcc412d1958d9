"""A corpus into one file, stdout, a FIFO or a device. A file appears when it is complete; such a run begins anew after a kill."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from moembed.corpus.arrow_types import STREAM
from moembed.corpus.inventory import take_inventory
from moembed.corpus.job import Job, rows_between
from moembed.corpus.meter import Meter
from moembed.corpus.runs import Options, job_of
from moembed.corpus.shards import Counts, computed, counts_of, reject_lines, shape_of
from moembed.corpus.sources import find
from moembed.corpus.spooling import spooled
from moembed.corpus.target import Sink
from moembed.corpus.threads import Behind
from moembed.corpus.vectors import Encoder
from moembed.corpus.writers import FORMATS, writer
from moembed.embedder import Embedder
from moembed.errors import InputError, MoembedError, OutputError
from moembed.files.destination import writing

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jl": "jsonl",
    ".csv": "csv",
    ".npy": "npy",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": STREAM,
    "": "jsonl",
}


def format_of(output: str | None, requested: str | None) -> str:
    """Return the format of an output: the requested one, else that of its suffix. Arrow on a stream is Arrow's stream format.

    Args:
        output: path; None for stdout.
        requested: one of `FORMATS`, or None.

    Raises:
        OutputError: unknown suffix.
    """
    form = requested or _SUFFIXES.get(Path(output or "").suffix.lower())
    if form is None:
        raise OutputError(
            f"-o {output}: unknown suffix {Path(output or '').suffix}; use .parquet, .jsonl, .csv, .npy or .arrow, a folder with "
            f"/ at the end, or choose a format with --format ({', '.join(FORMATS)})"
        )
    is_stream = output is None or (Path(output).exists() and not Path(output).is_file())
    return STREAM if form == "arrow" and is_stream else form


def embed_to(
    inputs: Sequence[str],
    output: str | None,
    embedder: Embedder,
    options: Options,
    *,
    rejects: str | None = None,
    log: Callable[[str], object] = lambda _text: None,
    show: bool | None = None,
) -> Counts:
    """Embed the texts of files into one file.

    Args:
        inputs: files, folders, globs, `s3://` addresses, or `-` for stdin.
        output: path; None for stdout.
        embedder: the model.
        options: all else; `form` may also be `STREAM`.
        rejects: file for rejected rows, under `on_error="skip"`.
        log: writes a message.
        show: False for no progress.

    Raises:
        InputError: the input or an option cannot be used, or a row under `on_error="fail"`.
        OutputError: the output cannot be written.
        BrokenPipeError: the reader of the output has exited.
        MissingExtraError: a format needs the extra `data`.
    """
    encoder = Encoder(
        embedder, prompt=options.prompt, dim=options.dim, precision=options.precision, overlong=options.overlong
    )
    sources = find(inputs, options.input_format, log)
    with tempfile.TemporaryDirectory(prefix="moembed-") as folder:
        copies = spooled(sources, Path(folder) / "input")
        job = job_of(copies, take_inventory(copies, options.selection), options, encoder)
        if options.form == "npy" and (options.selection.id_required or job.layout.kept):
            raise InputError(
                "an npy file holds vectors alone: for ids and kept columns pass -o FOLDER/ --format npy, or Parquet"
            )
        with ExitStack() as stack:
            refused = stack.enter_context(writing(rejects)) if rejects else None
            shown = False if output is None else show
            with Meter(job.inventory.rows, show=shown, log=log, sizes=job.sizes(range(job.shards))) as meter:
                return _write(job, encoder, output, refused, meter)


def _write(job: Job, encoder: Encoder, output: str | None, refused: BinaryIO | None, meter: Meter) -> Counts:
    counts = Counts()
    with _opened(output) as out, Sink(out) as sink, Behind() as behind:
        made = writer(job.form, sink, shape_of(job, job.layout, encoder))  # type: ignore[arg-type]
        for block in computed(job, encoder, rows_between(job, job.layout, 0, job.inventory.rows), meter.advance):
            counts += counts_of(block)
            if refused is not None:
                refused.write(reject_lines(job, block))
            behind.call(made.write, block)
        behind.wait()
        made.close()
    return counts


@contextmanager
def _opened(output: str | None) -> Iterator[BinaryIO]:
    if output is not None:
        with writing(output) as file:
            yield file
        return
    if sys.stdout is None:
        raise OutputError("stdout is closed: redirect it to a file")
    if not hasattr(sys.stdout, "buffer"):
        raise OutputError("this stdout takes only text: pass -o FILE")
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except (MoembedError, BrokenPipeError):
        raise
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror or error}") from error
