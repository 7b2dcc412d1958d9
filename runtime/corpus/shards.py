"""Shards: computed, committed, and checked.

A shard is finished when its files are in place and `_moembed/done/NAME.json`, written last, holds their sizes and digests and
the digest of the run record. A shard whose files do not have these digests is made again.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np

from moembed.corpus.block import Block, Shape
from moembed.corpus.columns import Layout
from moembed.corpus.job import Job, only_rows, rows_between, shard_name
from moembed.corpus.rows import Rows, blocks
from moembed.corpus.target import OWN, Entry, LocalTarget, RemoteTarget
from moembed.corpus.threads import Ahead, Behind
from moembed.corpus.values import json_lines
from moembed.corpus.vectors import Encoder, Vectors
from moembed.corpus.writers import SUFFIXES, IdsWriter, writer
from moembed.errors import InputError
from moembed.files.records import read_record

Progress = Callable[[int, int], object]
IDS = f"{OWN}/ids"
REJECTS = f"{OWN}/rejects"


@dataclass(frozen=True)
class Counts:
    """Numbers of a shard or a run.

    Attributes:
        rows: rows of the input.
        vectors: vectors.
        rejects: rejected rows.
        truncated: vectors of texts that were cut.
    """

    rows: int = 0
    vectors: int = 0
    rejects: int = 0
    truncated: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in asdict(self)))


def shape_of(job: Job, layout: Layout, encoder: Encoder) -> Shape:
    """Return what the writers of a job have to know."""
    return Shape(layout, encoder.dtype, encoder.stored, encoder.stamp.to_json(), encoder.has_windows, job.fixed)


def computed(job: Job, encoder: Encoder, parts: Iterator[Rows], advance: Progress) -> Iterator[Block]:
    """Yield the vectors of rows, block by block.

    Args:
        job: the job.
        encoder: its model.
        parts: the rows.
        advance: called with numbers of rows and of tokens after each block.

    Raises:
        InputError: a row is rejected, and the job does not skip rejects.
    """
    with Ahead(blocks(parts)) as read:
        for rows in read:
            vectors = encoder.compute(rows.texts)
            for position, reason in vectors.reasons.items():
                rows.reasons[position] = reason
            if not job.skip_rejects:
                _refuse(job, rows)
            yield Block(rows, vectors)
            advance(len(rows), vectors.computed)


def _refuse(job: Job, rows: Rows) -> None:
    for position, reason in enumerate(rows.reasons):
        if reason:
            place, row, line = place_of(job, rows, position)
            where = f"{place}:{line}" if line else f"{place}: row {row}"
            raise InputError(f"{where}: {reason}")


def place_of(job: Job, rows: Rows, position: int) -> tuple[str, int, int]:
    """Return the file of a row, its number in the file, and its line or 0."""
    number = rows.files[position]
    return job.sources[number].name, rows.indices[position] - job.bases[number], rows.lines[position]


def reject_lines(job: Job, block: Block) -> bytes:
    """Return the rejected rows of a block as lines of JSON."""
    found = []
    for position, reason in enumerate(block.rows.reasons):
        if reason:
            name, row, line = place_of(job, block.rows, position)
            record: dict[str, Any] = {"index": block.rows.indices[position], "file": name, "row": row}
            record |= {"line": line} if line else {}
            found.append(record | {"id": block.rows.ids[position], "reason": reason})
    # Names of files need not be UTF-8, nor ids.
    return json_lines(found)


def counts_of(block: Block) -> Counts:
    """Count the rows of a block."""
    vectors: Vectors = block.vectors
    return Counts(len(block.rows), len(vectors.rows), sum(map(bool, block.rows.reasons)), int(vectors.truncated.sum()))


def make_shard(job: Job, encoder: Encoder, target: LocalTarget | RemoteTarget, shard: int, advance: Progress) -> Counts:
    """Compute a shard and commit it. Several processes may do the same one: they put the same bytes in place.

    Args:
        job: the job.
        encoder: its model.
        target: the output.
        shard: number of the shard.
        advance: called with numbers of rows and of tokens after each block.

    Raises:
        InputError: the input cannot be read, or a row is rejected.
        OutputError: the shard cannot be written.
    """
    layout = job.layout
    shape, name = shape_of(job, layout, encoder), shard_name(job.shard_rows, shard)
    rejects, ids, beside, counts = [], [], [], Counts()

    def produce(out: BinaryIO) -> None:
        nonlocal counts
        made = writer(job.form, out, shape)
        parts = only_rows(rows_between(job, layout, *job.span(shard)), job.only)
        with Behind() as behind:
            for block in computed(job, encoder, parts, advance):
                counts += counts_of(block)
                rejects.append(reject_lines(job, block))
                ids.append(_id_digests(block))
                beside.append(block if job.form == "npy" else None)
                behind.call(made.write, block)
            behind.wait()
        made.close()

    main = f"{name}{SUFFIXES[job.form]}"
    target.remove(_marker(name))
    files: dict[str, Entry] = {main: target.put(main, produce)}
    if job.form == "npy":
        files[f"{name}.ids.jsonl"] = target.put(f"{name}.ids.jsonl", lambda out: _write_beside(out, shape, beside))
    for path, parts in ((f"{REJECTS}/{name}.jsonl", rejects), (f"{IDS}/{name}", ids)):
        content = b"".join(parts)
        if content:
            files[path] = target.put(path, lambda out, content=content: out.write(content))  # type: ignore[misc]
        else:
            target.remove(path)
    done = {
        "record": job.digest,
        "counts": asdict(counts),
        "files": {path: entry.to_dict() for path, entry in files.items()},
    }
    text = json.dumps(done, sort_keys=True).encode()
    target.put(_marker(name), lambda out: out.write(text))
    return counts


def finished(job: Job, target: LocalTarget | RemoteTarget, shard: int) -> Counts | None:
    """Return the counts of a shard that is finished, after hashing its files; None if it has to be made."""
    content = target.read(_marker(shard_name(job.shard_rows, shard)))
    if content is None:
        return None
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        done = json.loads(content)
        if done["record"] != job.digest:
            return None
        for path, expected in done["files"].items():
            entry = target.entry(path)
            if entry is None or entry.to_dict() != expected:
                return None
        return read_record(Counts, done["counts"], "a shard", error=InputError, remedy="make it again")
    return None


def _marker(name: str) -> str:
    return f"{OWN}/done/{name}.json"


def _write_beside(out: BinaryIO, shape: Shape, beside: list[Block | None]) -> None:
    made = IdsWriter(out, shape)
    for block in beside:
        if block is not None:
            made.write(block)


def _id_digests(block: Block) -> bytes:
    """Return 8 bytes for each id, by which duplicates are counted."""
    found = [
        own for own, reason in zip(block.rows.ids, block.rows.reasons, strict=True) if own is not None and not reason
    ]
    return b"".join(
        hashlib.blake2b(repr(own).encode("utf-8", "backslashreplace"), digest_size=8).digest() for own in found
    )


def count_repeated(target: LocalTarget | RemoteTarget, most: int = 32 << 20) -> int:
    """Count the rows whose id an earlier row has, by digests of 64 bits.

    Args:
        target: the output.
        most: digests in memory at a time; there are as many passes as that needs.
    """
    names = target.names(IDS)
    total = sum(len(_digests(target, name)) for name in names)
    passes = -(-total // most)
    repeated = 0
    for number in range(passes):
        own = np.concatenate([_share(target, name, number, passes) for name in names])
        own.sort()  # in place: copies would be most of a run's memory
        repeated += int(np.count_nonzero(own[1:] == own[:-1]))
    return repeated


def _share(target: LocalTarget | RemoteTarget, name: str, number: int, passes: int) -> Any:
    """Return the digests of a file that are counted in a pass; equal ones are in the same."""
    found = _digests(target, name)
    return found[found % np.uint64(passes) == number]


def _digests(target: LocalTarget | RemoteTarget, name: str) -> Any:
    return np.frombuffer(target.read(f"{IDS}/{name}") or b"", np.uint64)
