"""Job: everything that a process needs to compute any shard of a corpus, as plain data.

A shard is cut by rows of the input alone: shard `k` has the rows from `k * shard_rows` on. Any engine may compute shards in any
order, anywhere; `moembed.corpus.shards.make_shard` computes one and commits it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from moembed.corpus.arrow_rows import rows_of_file
from moembed.corpus.arrow_types import TYPED
from moembed.corpus.columns import Layout, settle
from moembed.corpus.inventory import File, Inventory
from moembed.corpus.rows import Rows, Selection, nearest, rows_of_records, skip, take
from moembed.corpus.sources import COLUMNAR, Source
from moembed.corpus.text_rows import opened, records
from moembed.errors import InputError
from moembed.files.records import read_record
from moembed.precision import Precision
from moembed.truncation import Chunk, Overlong

SHARD_ROWS = 65_536
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Bundle of a job and how it is run; prompt and options of its vectors.

    Attributes:
        folder: path of the bundle.
        fingerprint: digest of the bundle, which is checked where it is opened.
        providers: providers of ONNX Runtime.
        threads: threads per call; None for the number of CPUs.
        prompt: text in front of every text.
        dim: width; None for the full one.
        precision: as for `Embedder.embed`.
        overlong: name of the policy.
        overlap: overlap of windows in tokens; None where the policy has no windows.
        window_tokens: most tokens of a window under `late`; None under other policies.
    """

    folder: str
    fingerprint: str
    providers: tuple[str, ...]
    threads: int | None
    prompt: str
    dim: int | None
    precision: str
    overlong: str
    overlap: int | None
    window_tokens: int | None

    @property
    def policy(self) -> Overlong:
        """The policy for texts that are too long."""
        if self.overlap is None:
            return self.overlong  # type: ignore[return-value]
        if self.window_tokens is not None:
            return Chunk(self.overlap, late=True, tokens=self.window_tokens)
        return Chunk(self.overlap, pooled=self.overlong == "mean")

    @property
    def checked_precision(self) -> Precision:
        """The precision, which `Encoder` checks."""
        return self.precision  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Job; see the module.

    Attributes:
        sources: the files.
        inventory: what is known of them.
        selection: what is read of a row.
        model: the model and its options.
        form: format of the output.
        fixed: True for lists of a fixed size.
        shard_rows: rows of a shard.
        skip_rejects: True if rejected rows are written to `rejects`, False if one ends the run.
        only: indices of the only rows to embed, ascending; None for all.
        folder: the output.
        token: in front of the names of unfinished files.
        renames: False if the folder's file system has no renames.
        digest: of the run record.
    """

    sources: tuple[Source, ...]
    inventory: Inventory
    selection: Selection
    model: ModelOptions
    form: str
    fixed: bool
    shard_rows: int
    skip_rejects: bool
    only: tuple[int, ...] | None
    folder: str = ""
    token: str = ""
    renames: bool = True
    digest: str = ""

    @property
    def shards(self) -> int:
        """Number of shards; one at least, so that the output of an empty corpus has a schema."""
        return max(-(-self.inventory.rows // self.shard_rows), 1)

    @cached_property
    def layout(self) -> Layout:
        """Columns of the output."""
        return settle(self.sources, self.inventory, self.selection, self.form)

    @cached_property
    def bases(self) -> list[int]:
        """Index of the first row of each file in the whole corpus."""
        bases, base = [], 0
        for file in self.inventory.files:
            bases.append(base)
            base += file.rows
        return bases

    def span(self, shard: int) -> tuple[int, int]:
        """Return the first row of a shard, and the one after its last."""
        first = shard * self.shard_rows
        return first, min(first + self.shard_rows, self.inventory.rows)

    def sizes(self, shards: Sequence[int]) -> list[tuple[int, int]]:
        """Return pairs of a number of rows and the bytes of input in the first so many rows of some shards, ascending."""
        points, before = [(0, 0)], 0
        for file, base in zip(self.inventory.files, self.bases, strict=True):
            size = file.marks[-1].offset - file.marks[0].offset or file.size
            points += [(base + mark.row, before + mark.offset - file.marks[0].offset) for mark in file.marks[1:]]
            points.append((base + file.rows, before + size))
            before += size
        rows, sizes = np.array(points, np.float64).T
        found, done, size = [(0, 0)], 0, 0
        for first, last in map(self.span, shards):
            inner = rows[np.searchsorted(rows, first, "right") : np.searchsorted(rows, last, "left")]
            ends = np.append(inner, last)
            within = np.interp(ends, rows, sizes) - np.interp(first, rows, sizes)
            found += [(done + int(end) - first, size + int(part)) for end, part in zip(ends, within, strict=True)]
            done, size = found[-1]
        return found

    def to_json(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Read what `to_json` wrote.

        Raises:
            InputError: it is of another version.
        """
        return read_record(cls, json.loads(text), "the job", error=InputError, remedy="use one version of moembed")


def shard_name(shard_rows: int, shard: int) -> str:
    """Return the name of a shard without a suffix: that of its first row, padded so that names sort as rows do."""
    return f"rows-{shard * shard_rows:0{_DIGITS}}"


def rows_between(job: Job, layout: Layout, first: int, last: int) -> Iterator[Rows]:
    """Yield the rows of a corpus from `first` up to `last`.

    Raises:
        InputError: a file cannot be read, or has changed since the inventory.
    """
    for number, (source, file, base) in enumerate(zip(job.sources, job.inventory.files, job.bases, strict=True)):
        start, end = max(first, base), min(last, base + file.rows)
        if start >= end:
            continue
        found = 0
        for rows in _rows_of(job, layout, source, file, number, base, start - base, end - start):
            found += len(rows)
            yield rows
        if found != end - start:
            raise InputError(
                f"{source.name} has fewer rows than when this run began: it must not change while it is read"
            )


def _rows_of(
    job: Job, layout: Layout, source: Source, file: File, number: int, base: int, first: int, count: int
) -> Iterator[Rows]:
    if source.form in COLUMNAR:
        yield from take(rows_of_file(source, number, base, first, job.selection, layout.kept, layout.types), count)
        return
    mark = nearest(file.marks, first)
    strict = job.form in TYPED
    with opened(source) as content:
        read = records(source, content, mark)
        parts = rows_of_records(read, source, number, base + mark.row, job.selection, layout.kept, strict_ids=strict)
        yield from take(skip(parts, first - mark.row), count)


def only_rows(parts: Iterator[Rows], wanted: tuple[int, ...] | None) -> Iterator[Rows]:
    """Leave out the rows that are not wanted."""
    if wanted is None:
        yield from parts
        return
    chosen = frozenset(wanted)
    for rows in parts:
        for position, index in enumerate(rows.indices):
            if index in chosen:
                yield rows.part(position, position + 1)
