"""Corpora in `moembed embed`: options, and runs into folders and single files."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from moembed.arguments import whole
from moembed.cli.common import log, open_embedder, prompt_of
from moembed.cli.interrupts import run_interrupts
from moembed.cli.stamp import stamp_output
from moembed.errors import InputError

if TYPE_CHECKING:
    from moembed.corpus.rows import Selection
    from moembed.corpus.runs import Options
    from moembed.corpus.shards import Counts
    from moembed.embedder import Embedder
    from moembed.integrations.ray_shards import RayShards

REJECTED = 3  # exit code
_S3 = "s3://"
# Options that need a folder, by their names in the parsed arguments.
_OF_FOLDERS = ("engine", "ray_address", "workers", "shard", "shard_rows", "only_rejects", "force")
_OF_CORPORA = ("template", "keep", "id", "on_error", "rejects", "plain_lists", *_OF_FOLDERS)
_OWN_SUFFIXES = (".parquet", ".pq", ".arrow", ".arrows", ".feather", ".ipc", ".gz", ".zst")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of corpora."""
    rows = parser.add_argument_group("rows of a corpus")
    rows.add_argument(
        "--template",
        metavar="TEXT",
        help=r"make the text of several fields, such as '{title}\n{text}', instead of --field",
    )
    rows.add_argument("--id", metavar="NAME", help="field with the id, which must not be missing; '' for no ids")
    rows.add_argument(
        "--keep",
        action="append",
        metavar="COLUMNS",
        help="columns to keep: names with commas between, NAME=NEW, or all",
    )
    rows.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        help="for rows that cannot be embedded: fail (default), or skip, which writes them to rejects and ends with exit code 3",
    )
    rows.add_argument("--rejects", metavar="FILE", help="file for rejected rows, if the output is not a folder")
    runs = parser.add_argument_group("runs into a folder (-o FOLDER/, or s3://...), which go on after an interruption")
    runs.add_argument("--workers", type=int, metavar="N", help="processes (default: 1)")
    runs.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="compute the shards by processes of this machine (default), or as tasks of Ray, whose nodes see the input and the "
        "folder at the same paths; --threads is then the CPUs of a task (default: 1), --workers the most tasks at a time",
    )
    runs.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="address of the cluster for --engine ray (default: RAY_ADDRESS, else a Ray of this machine and this run)",
    )
    runs.add_argument("--nice", type=int, metavar="N", help="lower the priority of this command by N, from 0 to 19")
    runs.add_argument(
        "--shard", metavar="I/N", help="compute slice I of N, counted from 0, of a run on several machines"
    )
    runs.add_argument("--shard-rows", type=int, metavar="N", help="rows of the input in a shard (default: 65536)")
    runs.add_argument("--only-rejects", metavar="FOLDER", help="embed only the rows that the run into FOLDER rejected")
    runs.add_argument(
        "--force", action="store_true", default=None, help="delete what another run wrote, and begin anew"
    )
    runs.add_argument(
        "--plain-lists",
        action="store_true",
        default=None,
        help="vectors in Parquet and Arrow as lists without a fixed size",
    )


def lower_priority(nice: int | None) -> None:
    """Lower the priority of this process and of those that it starts.

    Raises:
        InputError: the number is not from 0 to 19, or the system has no such priorities.
    """
    if nice is None:
        return
    whole("nice", nice, "an integer from 0 to 19, by which the priority is lowered", least=0, most=19)
    if not hasattr(os, "nice"):
        raise InputError(f"nice = {nice}; this system has no such priorities: leave the option out")
    os.nice(nice)


def is_corpus(arguments: argparse.Namespace) -> bool:
    """Check whether the arguments are for files as a whole, not for a stream of texts."""
    asked = any(getattr(arguments, name) is not None for name in _OF_CORPORA) or arguments.format in (
        "parquet",
        "arrow",
    )
    if arguments.texts:
        return asked
    return (
        asked
        or arguments.input_format in ("parquet", "arrow")
        or _is_folder(arguments.output)
        or (arguments.format is None and (arguments.output or "").lower().endswith(_OWN_SUFFIXES))
        or any(_needs_reader(path) for path in arguments.input)
    )


def _needs_reader(path: str) -> bool:
    return (
        "://" in path
        or path.lower().endswith(_OWN_SUFFIXES)
        or (path != "-" and (os.path.isdir(path) or (not os.path.lexists(path) and any(c in path for c in "*?["))))  # noqa: PTH112
    )


def _is_folder(output: str | None) -> bool:
    return output is not None and (output.startswith(_S3) or output.endswith(("/", os.sep)) or Path(output).is_dir())


def run_corpus(arguments: argparse.Namespace) -> int:
    """Embed the texts of files."""
    if arguments.texts:
        raise InputError(
            "texts in the command line go to stdout or to a .jsonl, .csv or .npy file; pass -i FILE for a corpus"
        )
    inputs = arguments.input or ["-"]
    if not _is_folder(arguments.output):
        for name in _OF_FOLDERS:
            if getattr(arguments, name) is not None:
                raise InputError(
                    f"--{name.replace('_', '-')} is for runs into a folder: pass -o FOLDER/, with a slash at the end"
                )
        return _run_single(arguments, inputs)
    return _run_folder(arguments, inputs)


def _run_folder(arguments: argparse.Namespace, inputs: list[str]) -> int:
    from moembed.corpus.runs import embed_files
    from moembed.corpus.writers import FORMATS

    if arguments.rejects is not None:
        raise InputError("--rejects is for a single file: in a folder, rejected rows are in _moembed/rejects")
    form = arguments.format or "parquet"
    if form not in FORMATS:
        raise InputError(f"--format {form}; expected one of {', '.join(FORMATS)}")
    output = arguments.output
    with run_interrupts(output):
        on_ray = _is_on_ray(arguments)
        embedder, options = _options(arguments, form)
        show = False if arguments.quiet else None
        compute = _ray_shards(embedder, arguments) if on_ray else None
        result = embed_files(inputs, output, embedder, options, compute=compute, log=log, show=show)
        if not arguments.quiet:
            log(
                f"moembed: {_told(result.counts)}, {len(result.made)} shards computed, {len(result.kept)} kept, in {output}"
            )
        if result.repeated:
            log(f"moembed: {result.repeated:,} rows have an id that an earlier row has; all rows are in the output")
        return _code(result.counts, f"{output.rstrip('/')}/_moembed/rejects")


def _is_on_ray(arguments: argparse.Namespace) -> bool:
    if arguments.engine != "ray":
        if arguments.ray_address is not None:
            raise InputError("--ray-address is for --engine ray: pass both")
        return False
    if arguments.provider != "cpu":
        raise InputError(f"--engine ray computes on CPUs; found --provider {arguments.provider}: leave one of them out")
    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"workers = {arguments.workers}; expected a positive integer")
    arguments.threads = 1 if arguments.threads is None else arguments.threads
    return True


def _ray_shards(embedder: "Embedder", arguments: argparse.Namespace) -> "RayShards":
    from moembed.integrations.ray_shards import RayShards

    return RayShards(
        embedder=embedder,
        address=arguments.ray_address,
        workers=arguments.workers,
        threads=embedder.threads,
        log=log,
    )


def _run_single(arguments: argparse.Namespace, inputs: list[str]) -> int:
    from moembed.corpus.single import embed_to, format_of

    output = None if arguments.output == "-" else arguments.output
    form = format_of(output, arguments.format)
    if arguments.on_error == "skip" and arguments.rejects is None:
        raise InputError("--on-error skip needs a place for the rejected rows: pass --rejects FILE, or -o FOLDER/")
    embedder, options = _options(arguments, form)
    show = False if arguments.quiet else None
    counts = embed_to(inputs, output, embedder, options, rejects=arguments.rejects, log=log, show=show)
    stamp_output(output, embedder, options.prompt, arguments)
    if counts.truncated:
        log(f"moembed: {counts.truncated} texts were cut to {embedder.max_tokens} tokens; they are marked truncated")
    return _code(counts, arguments.rejects)


def _options(arguments: argparse.Namespace, form: str) -> "tuple[Embedder, Options]":
    from moembed.corpus.job import SHARD_ROWS
    from moembed.corpus.runs import Options, parse_slice

    selection = _selection(arguments)
    part = parse_slice(arguments.shard) if arguments.shard is not None else (0, 1)
    embedder = open_embedder(arguments)
    return embedder, Options(
        selection=selection,
        input_format=arguments.input_format,
        form=form,
        fixed=not arguments.plain_lists,
        prompt=prompt_of(arguments, embedder),
        dim=arguments.dim,
        precision=arguments.precision,
        overlong=arguments.overlong,
        on_error=arguments.on_error or "fail",
        shard_rows=SHARD_ROWS if arguments.shard_rows is None else arguments.shard_rows,
        workers=1 if arguments.workers is None else arguments.workers,
        slice=part,
        only_rejects=arguments.only_rejects,
        force=bool(arguments.force),
    )


def _selection(arguments: argparse.Namespace) -> "Selection":
    from moembed.corpus.rows import Selection
    from moembed.corpus.template import Template

    if arguments.template is not None and arguments.field is not None:
        raise InputError("pass --field for one column, or --template for several, not both")
    keep, keep_all = Selection.parse_keep(arguments.keep or [])
    return Selection(
        field=arguments.field or "text",
        template=None if arguments.template is None else Template.parse(arguments.template),
        id=arguments.id_field if arguments.id is None else arguments.id,
        id_required=bool(arguments.id),
        keep=keep,
        keep_all=keep_all,
    )


def _told(counts: "Counts") -> str:
    told = f"{counts.rows:,} rows, {counts.vectors:,} vectors"
    told += f", {counts.truncated:,} of them of texts that were cut" if counts.truncated else ""
    return told + (f", {counts.rejects:,} rejected" if counts.rejects else "")


def _code(counts: "Counts", rejects: str) -> int:
    if not counts.rejects:
        return 0
    log(f"moembed: {counts.rejects:,} rows were rejected; see {rejects}")
    return REJECTED
