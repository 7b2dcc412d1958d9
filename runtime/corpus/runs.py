"""Runs: `embed_files` embeds the texts of files into a folder of shards, and goes on where an earlier run was stopped."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from moembed.arguments import one_of, whole
from moembed.corpus.claims import claimed
from moembed.corpus.inventory import Inventory, check_digest, take_inventory
from moembed.corpus.job import SHARD_ROWS, Job, ModelOptions
from moembed.corpus.meter import Meter
from moembed.corpus.pool import run_workers
from moembed.corpus.rejected import rejected_rows
from moembed.corpus.rows import Selection
from moembed.corpus.run_record import RunRecord, settle_record
from moembed.corpus.shards import Counts, Progress, count_repeated, finished, make_shard
from moembed.corpus.sources import Source, find
from moembed.corpus.spooling import spooled
from moembed.corpus.target import OWN, LocalTarget, RemoteTarget, open_target
from moembed.corpus.vectors import Encoder
from moembed.corpus.writers import FORMATS
from moembed.embedder import Embedder
from moembed.errors import InputError
from moembed.inference.cpu import available_cpus
from moembed.precision import Precision
from moembed.truncation import Chunk, Overlong, policy_name, policy_of
from moembed.version import __version__

_INPUTS = f"{OWN}/inputs.json"
OnError = Literal["fail", "skip"]
ON_ERROR: tuple[OnError, ...] = ("fail", "skip")
# Computes shards elsewhere: job, numbers of shards, progress, and a call for each shard that is finished.
Compute = Callable[[Job, Sequence[int], Progress, Callable[[int, Counts], object]], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run.

    Attributes:
        selection: what is read of a row.
        input_format: one of `moembed.corpus.sources.FORMS` for all files; None for what their names say.
        form: one of `moembed.corpus.writers.FORMATS`.
        fixed: lists of a fixed size in Parquet and Arrow; False for plain lists.
        prompt: text in front of every text.
        dim: width; None for the full one.
        precision: as for `Embedder.embed`.
        overlong: as for `Embedder.embed`, but for `spans`, a function, which a run cannot record.
        on_error: `fail` to stop at a row that cannot be used, `skip` to write it to the rejects.
        shard_rows: rows of the input in a shard.
        workers: number of processes.
        slice: number of this slice from 0, and number of slices.
        only_rejects: output folder of a run whose rejected rows alone are embedded; None for all rows.
        force: begin anew in a folder with another run.
    """

    selection: Selection
    input_format: str | None = None
    form: str = "parquet"
    fixed: bool = True
    prompt: str
    dim: int | None = None
    precision: Precision = "float32"
    overlong: Overlong = "error"
    on_error: OnError = "fail"
    shard_rows: int = SHARD_ROWS
    workers: int = 1
    slice: tuple[int, int] = (0, 1)
    only_rejects: str | None = None
    force: bool = False


@dataclass(frozen=True)
class Result:
    """What a run did.

    Attributes:
        counts: numbers of all finished shards of this slice.
        made: shards that this run computed.
        kept: shards that were finished before.
        repeated: rows whose id an earlier row has, in all finished shards of the folder.
    """

    counts: Counts
    made: tuple[int, ...]
    kept: tuple[int, ...]
    repeated: int


def parse_slice(text: str) -> tuple[int, int]:
    """Read `I/N`: slice I of N, counted from 0.

    Raises:
        InputError: it is not such a pair.
    """
    first, _, second = text.partition("/")
    if not (first.isascii() and first.isdigit() and second.isascii() and second.isdigit() and int(first) < int(second)):
        raise InputError(
            f"shard {text!r}; expected I/N, where I counts from 0: 0/4, 1/4, 2/4 and 3/4 are the parts of a run"
        )
    return int(first), int(second)


def embed_files(
    inputs: Sequence[str],
    output: str,
    embedder: Embedder,
    options: Options,
    *,
    compute: Compute | None = None,
    log: Callable[[str], object] = lambda _text: None,
    show: bool | None = None,
) -> Result:
    """Embed the texts of files into a folder of shards.

    The same call goes on after any interruption, and gives the same bytes as an unbroken run.

    Args:
        inputs: files, folders, globs, `s3://` addresses, or `-` for stdin.
        output: folder, or `s3://` address of one.
        embedder: the model.
        options: all else.
        compute: computes the shards elsewhere, such as `moembed.integrations.ray_shards.RayShards`; None for this machine.
        log: writes a message.
        show: False for no progress.

    Raises:
        InputError: the input or an option cannot be used, or a row under `on_error="fail"`.
        OutputError: the folder cannot be written, belongs to another command, or is being written.
        MissingExtraError: a format needs the extra `data`.
    """
    _check(options)
    encoder = Encoder(
        embedder, prompt=options.prompt, dim=options.dim, precision=options.precision, overlong=options.overlong
    )
    sources = find(inputs, options.input_format, log)
    part, slices = options.slice
    name = f"{part}-of-{slices}"
    token = f"{name}-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
    target = open_target(output, token)
    is_new = False
    try:
        with claimed(target, name) as exclusive, _temporary(target, token) as place:
            is_new = True
            if isinstance(target, LocalTarget):
                if exclusive:
                    target.sweep(name)
                if not target.renames:
                    log(
                        f"moembed: {output} has no renames: shards are written in place, and count once their records are there"
                    )
            sources = spooled(sources, place)
            inventory = _inventory(sources, options, target)
            job = job_of(sources, inventory, options, encoder)
            record = _record(job, encoder, slices)
            job = replace(job, folder=target.path, token=token, renames=target.renames, digest=record.digest)
            before = settle_record(target, record, force=options.force)
            is_new = False
            if before is not None and before.information.get("moembed") != __version__:
                log(
                    f"moembed: {output} was begun with moembed {before.information['moembed']}, and goes on with {__version__}"
                )
            if slices > 1:
                text = inventory.to_json().encode()
                target.put(_INPUTS, lambda out: out.write(text))
            return _shards(job, encoder, target, options, compute, log, show)
    finally:
        if is_new and isinstance(target, LocalTarget):
            target.discard_if_empty()


def _check(options: Options) -> None:
    one_of("format", options.form, FORMATS)
    one_of("on_error", options.on_error, ON_ERROR)
    whole("shard_rows", options.shard_rows)
    whole("workers", options.workers)
    if options.force and options.slice[1] > 1:
        raise InputError(
            "force begins the whole folder anew, which is not for one slice of it: delete the folder instead"
        )


@contextmanager
def _temporary(target: LocalTarget | RemoteTarget, token: str) -> Iterator[Path]:
    """Yield a path for copies of inputs; they are removed at the end, and by the next run after a kill."""
    if isinstance(target, LocalTarget):
        place = target.spool("input")
    else:
        import tempfile

        place = Path(tempfile.gettempdir()) / f"moembed-{token}-input"
    try:
        yield place
    finally:
        for path in place.parent.glob(f"{place.name}*"):
            with suppress(OSError):
                path.unlink()


def _inventory(sources: Sequence[Source], options: Options, target: LocalTarget | RemoteTarget) -> Inventory:
    """Take the inventory. A slice takes over that of an earlier one, and hashes the files that it reads."""
    content = target.read(_INPUTS) if options.slice[1] > 1 else None
    if content is None:
        return take_inventory(sources, options.selection)
    inventory = Inventory.from_json(content, f"{target.path}/{_INPUTS}")
    if [(file.path, file.form) for file in inventory.files] != [(source.name, source.form) for source in sources]:
        return take_inventory(sources, options.selection)
    base, (part, slices) = 0, options.slice
    for source, file in zip(sources, inventory.files, strict=True):
        shards = range(base // options.shard_rows, (base + max(file.rows, 1) - 1) // options.shard_rows + 1)
        if any(shard % slices == part for shard in shards) and not check_digest(source, file):
            return take_inventory(sources, options.selection)
        base += file.rows
    return inventory


def job_of(sources: Sequence[Source], inventory: Inventory, options: Options, encoder: Encoder) -> Job:
    """Make a job, without an output folder.

    Raises:
        InputError: columns or options cannot be used.
    """
    embedder, policy = encoder.embedder, policy_of(options.overlong)
    threads = embedder.threads
    if options.workers > 1 and threads == available_cpus():
        threads = max(threads // options.workers, 1)
    model = ModelOptions(
        folder=str(embedder.bundle.folder.absolute()),
        fingerprint=embedder.bundle.fingerprint,
        providers=embedder.providers,
        threads=threads,
        prompt=options.prompt,
        dim=options.dim,
        precision=options.precision,
        overlong=policy_name(policy),
        overlap=policy.overlap if isinstance(policy, Chunk) else None,
        window_tokens=policy.tokens if isinstance(policy, Chunk) and policy.late else None,
    )
    only = None if options.only_rejects is None else rejected_rows(options.only_rejects, inventory)
    job = Job(
        sources=tuple(sources),
        inventory=inventory,
        selection=options.selection,
        model=model,
        form=options.form,
        fixed=options.fixed,
        shard_rows=options.shard_rows,
        skip_rejects=options.on_error == "skip",
        only=only,
    )
    job.layout  # noqa: B018  (raises before anything is written)
    return job


def _record(job: Job, encoder: Encoder, slices: int) -> RunRecord:
    return RunRecord.of(
        job.inventory,
        job.selection,
        encoder.stamp,
        form=job.form,
        fixed=job.fixed,
        shard_rows=job.shard_rows,
        slices=slices,
        only=job.only,
    )


def wanted_shards(job: Job, part: int, slices: int) -> list[int]:
    """Return the numbers of the shards of a slice: every `slices`-th, and of rejects alone those that have some."""
    every: Sequence[int] = range(job.shards)
    if job.only is not None:
        every = sorted({index // job.shard_rows for index in job.only}) or [0]
    return [shard for shard in every if shard % slices == part]


def _shards(
    job: Job,
    encoder: Encoder,
    target: LocalTarget | RemoteTarget,
    options: Options,
    compute: Compute | None,
    log: Callable[[str], object],
    show: bool | None,
) -> Result:
    counts, kept, todo, made = Counts(), [], [], []
    for shard in wanted_shards(job, *options.slice):
        found = finished(job, target, shard)
        if found is None:
            todo.append(shard)
        else:
            kept.append(shard)
            counts += found
    if kept:
        log(f"moembed: {len(kept)} of {len(kept) + len(todo)} shards are finished; going on")

    def done(shard: int, own: Counts) -> None:
        nonlocal counts
        made.append(shard)
        counts += own

    rows = sum(last - first for first, last in map(job.span, todo))
    with Meter(rows, show=show, log=log, sizes=job.sizes(todo)) as meter:
        if compute is not None and todo:
            compute(job, todo, meter.advance, done)
        elif options.workers > 1 and len(todo) > 1:
            run_workers(job, todo, options.workers, meter.advance, done)
        else:
            for shard in todo:
                done(shard, make_shard(job, encoder, target, shard, meter.advance))
    return Result(counts, tuple(sorted(made)), tuple(kept), count_repeated(target))
