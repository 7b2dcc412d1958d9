"""Batches of Arrow with a column of vectors added: as many rows out as in.

A row that cannot be embedded gets a null vector and a reason, and never raises: an engine would compute its batch again and
again. A batch is computed in blocks of limited length, whatever its number of rows, and each distinct text of a block once.
"""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import one_of
from moembed.corpus.vectors import Encoder, Vectors
from moembed.embedder import Embedder
from moembed.errors import BundleError, InputError, extra, shown
from moembed.inference.cpu import available_cpus
from moembed.precision import PRECISIONS, Precision
from moembed.stamps.stamp import KEY, Stamp, differences
from moembed.truncation import Chunk, Overlong, policy_name, policy_of

_READ_ROWS = 512
_BLOCK_ROWS, _BLOCK_CHARACTERS = 4096, 1 << 20
_CUTS = ("truncate", "truncate_start")
_ATTRIBUTES = {"_scale": "scales", "_truncated": "truncated"}  # suffix of a column -> attribute of Vectors


class BatchKeywords(TypedDict, total=False):
    """Keywords of `BatchOptions`."""

    field: str
    into: str
    model: str | None
    revision: str | None
    prompt_name: str | None
    prompt: str | None
    truncate_dim: int | None
    precision: Precision
    overlong: Overlong
    stamp: str | None


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What is embedded, and how.

    Attributes:
        field: column with the texts: strings of any Arrow layout.
        into: column of the vectors, which the batch must not have. `<into>_reason` is why a row has none.
        model: hub name, or folder of a bundle on every node; None for the built-in model.
        revision: commit, tag or branch of a hub name.
        prompt_name: name of a prompt; None for that of documents.
        prompt: text in front of every text, instead of a named prompt.
        truncate_dim: width; None for the full one.
        precision: as for `Embedder.encode`.
        overlong: as for `Embedder.encode`; a text that is too long under `"error"` is a row without a vector.
        stamp: JSON of the stamp that vectors must have; a node that would compute others is refused. None for any.
    """

    field: str = "text"
    into: str = "embedding"
    model: str | None = None
    revision: str | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    truncate_dim: int | None = None
    precision: Precision = "float32"
    overlong: Overlong = "error"
    stamp: str | None = None

    def __post_init__(self) -> None:
        """Check what needs no model.

        Raises:
            InputError: an option cannot be used.
        """
        policy = policy_of(self.overlong)
        if isinstance(policy, Chunk) and not policy.pooled:
            raise InputError(
                f"overlong = {policy_name(policy)} gives several vectors per row, and a batch has as many rows out as in: pass "
                "overlong='mean', or use moembed embed"
            )
        one_of("precision", self.precision, PRECISIONS)
        for name in ("field", "into"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InputError(f"{name} = {shown(value)}; expected the name of a column")


_opening = threading.Lock()


@cache
def _opened(model: str | None, revision: str | None, threads: int) -> Embedder:
    return Embedder.from_pretrained(model, revision=revision, threads=threads, spin=False)


def open_model(model: str | None, revision: str | None, threads: int) -> Embedder:
    """Return the model of this process, opened on first use.

    Args:
        model: hub name or folder; None for the built-in model.
        revision: commit, tag or branch of a hub name.
        threads: threads per call.
    """
    with _opening:
        return _opened(model, revision, threads)


def openings() -> int:
    """Count the models that `open_model` opened in this process."""
    return _opened.cache_info().misses


class BatchEncoder:
    """Adds vectors to batches of Arrow.

    Attributes:
        encoder: computes the vectors.
        stamp: stamp of the vectors.
    """

    def __init__(self, options: BatchOptions, *, threads: int | None = None, fixed: bool = True) -> None:
        """Open the model.

        Args:
            options: what is embedded.
            threads: threads per call; None for the number of CPUs.
            fixed: vectors as lists of a fixed size; False for plain lists.

        Raises:
            InputError: an option cannot be used.
            BundleError: the model cannot be opened, or would compute other vectors than `options.stamp` says.
            SourceError: there is no such model.
        """
        embedder = open_model(options.model, options.revision, available_cpus() if threads is None else threads)
        if options.prompt is not None and options.prompt_name is not None:
            raise InputError("prompt and prompt_name: pass only one of them")
        prompt = options.prompt
        if prompt is None:
            prompt = embedder.prompt_for(options.prompt_name or "document")
        self.encoder = Encoder(
            embedder,
            prompt=prompt,
            dim=options.truncate_dim,
            precision=options.precision,
            overlong=options.overlong,
        )
        self.stamp, self._options, self._fixed = self.encoder.stamp, options, fixed
        if options.stamp is not None:
            check_stamp(self.stamp, options.stamp)

    def columns(self) -> list[Any]:
        """Return the `pyarrow.Field` of each column that is added."""
        with extra("data", "embedding batches"):
            import pyarrow as pa
        name, encoder = self._options.into, self.encoder
        item = pa.field("element", pa.from_numpy_dtype(encoder.dtype), nullable=False)
        vector = pa.list_(item, encoder.stored) if self._fixed else pa.list_(item)
        fields = [pa.field(name, vector, metadata={KEY: self.stamp.to_json()})]
        if encoder.dtype.kind != "f":
            fields.append(pa.field(f"{name}_scale", pa.float32()))
        if self._options.overlong in _CUTS:
            fields.append(pa.field(f"{name}_truncated", pa.bool_()))
        return [*fields, pa.field(f"{name}_reason", pa.string())]

    def check(self, names: list[str]) -> None:
        """Check the names of a batch's columns.

        Raises:
            InputError: the column of the texts is missing or there twice, or one that is added is there, if only in other case.
        """
        count = names.count(self._options.field)
        if count != 1:
            found = ", ".join(map(repr, names)) or "none"
            twice = ": rename all but one of them" if count else ""
            raise InputError(f"field = {self._options.field!r}; the columns are {found}{twice}")
        taken = {name.lower() for name in names}  # Spark and others do not tell cases apart
        for field in self.columns():
            if field.name.lower() in taken:
                raise InputError(
                    f"there is a column {field.name!r} already: choose another name for the vectors with into"
                )

    def __call__(self, batch: Any) -> Any:
        """Return a batch with the columns of the vectors added.

        Args:
            batch: a `pyarrow.Table` or `pyarrow.RecordBatch`.

        Raises:
            InputError: its columns cannot be used.
            BundleError: the model fails.
        """
        fields = self.columns()
        if batch.num_rows == 0 and not batch.schema.names:  # an empty block of Ray has no schema
            return _empty(batch, fields, self.stamp)
        self.check(batch.schema.names)
        column = batch.column(batch.schema.names.index(self._options.field))
        _check_text(self._options.field, column.type)
        for field, array in zip(fields, self._arrays(column, fields), strict=True):
            batch = batch.append_column(field, array)
        metadata = dict(batch.schema.metadata or {})
        # In a table with several columns of vectors, their own stamps count.
        metadata.setdefault(KEY.encode(), self.stamp.to_json().encode())
        return batch.replace_schema_metadata(metadata)

    def _arrays(self, column: Any, fields: list[Any]) -> list[Any]:
        """Return the arrays of the added columns: of `len(column)` items, null where a row has no vector."""
        import pyarrow as pa

        reasons: list[str] = []
        parts: list[Vectors] = []
        rows: list[NDArray[np.int64]] = []
        for texts, own in _blocks(column):
            vectors = self.encoder.compute(texts)
            for position, reason in vectors.reasons.items():
                own[position] = reason
            rows.append(vectors.rows + len(reasons))
            reasons += own
            parts.append(vectors)
        size, of_vector = len(reasons), np.concatenate([np.empty(0, np.int64), *rows])
        missing = np.ones(size, bool)
        missing[of_vector] = False
        codes = np.concatenate(
            [np.empty((0, self.encoder.stored), self.encoder.dtype), *(part.codes for part in parts)]
        )
        kind = fields[0].type
        if self._fixed:
            whole = np.zeros((size, self.encoder.stored), self.encoder.dtype)  # a null has a place too
            whole[of_vector] = codes
            flat = pa.array(whole.reshape(-1))
            arrays = [pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array(missing))]
        else:
            offsets = np.concatenate([[0], np.cumsum(~missing)]) * self.encoder.stored
            flat = pa.array(np.ascontiguousarray(codes).reshape(-1))
            offsets_array = pa.array(offsets.astype(np.int32))
            arrays = [pa.ListArray.from_arrays(offsets_array, flat, type=kind, mask=pa.array(missing))]
        for field, name in ((field, field.name.removeprefix(self._options.into)) for field in fields[1:-1]):
            values = np.zeros(size, np.float32 if name == "_scale" else bool)
            values[~missing] = [value for part in parts for value in getattr(part, _ATTRIBUTES[name])]
            arrays.append(pa.array(values, field.type, mask=missing))
        return [*arrays, pa.array([reason or None for reason in reasons], fields[-1].type)]


def check_stamp(stamp: Stamp, expected: str) -> None:
    """Check that vectors would be the same as elsewhere.

    Args:
        stamp: of the vectors that this process would compute.
        expected: JSON of the stamp of the others.

    Raises:
        BundleError: they would not.
    """
    found = differences(Stamp.from_json(expected, "the job"), stamp)
    if found:
        raise BundleError(
            f"{socket.gethostname()} would compute other vectors than the job began with; as they were, and as they are here: "
            f"{'; '.join(found)}. Put the same bundle and the same moembed on all nodes"
        )


def _empty(batch: Any, fields: list[Any], stamp: Stamp) -> Any:
    import pyarrow as pa

    schema = pa.schema(fields, metadata={KEY: stamp.to_json()})
    return type(batch).from_arrays([pa.array([], field.type) for field in fields], schema=schema)


def _check_text(name: str, kind: Any) -> None:
    from pyarrow import types as t

    inner = kind.value_type if t.is_dictionary(kind) else kind
    if not (t.is_string(inner) or t.is_large_string(inner) or t.is_string_view(inner) or t.is_null(inner)):
        raise InputError(f"the column {name!r} is {kind}; expected strings: choose another column with field")


def _blocks(column: Any) -> Iterator[tuple[list[str | None], list[str]]]:
    """Yield texts and reasons in blocks of limited length; at least a part of the column is read at a time."""
    texts: list[str | None] = []
    reasons: list[str] = []
    characters = 0
    for start in range(0, len(column), _READ_ROWS):
        for text, reason in _texts(column.slice(start, _READ_ROWS)):
            texts.append(text)
            reasons.append(reason)
            characters += len(text or "")
            if characters >= _BLOCK_CHARACTERS or len(texts) == _BLOCK_ROWS:
                yield texts, reasons
                texts, reasons, characters = [], [], 0
    if texts:
        yield texts, reasons


def _texts(part: Any) -> Iterator[tuple[str | None, str]]:
    try:
        values = part.to_pylist()
    except UnicodeDecodeError:
        for item in part:
            try:
                yield _checked(item.as_py())
            except UnicodeDecodeError as error:
                yield None, f"the text is not UTF-8 at byte {error.start}"
        return
    yield from map(_checked, values)


def _checked(text: str | None) -> tuple[str | None, str]:
    return text, "the text is null" if text is None else ""
