"""Columns of the output, settled over all files before the first row.

| kept from | kept as, in Parquet and Arrow |
|---|---|
| Parquet, Arrow | its type, or the plain one of views and run ends; of several widths the widest; absent as null |
| CSV, TSV, lines, names of Hive folders | string |
| JSON | string, bool, int64, float64; objects and arrays as their JSON text; several kinds in one column are an error |

JSONL and CSV take the values as they are; what JSON lacks has a stated form (`moembed.corpus.values`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moembed.corpus.arrow_types import TYPED, plain_type, unfit
from moembed.corpus.inventory import File, Inventory
from moembed.corpus.rows import DEFAULT_ID, Kept, Selection
from moembed.corpus.sources import COLUMNAR, Source
from moembed.errors import InputError, extra

_OWN = ("index", "id", "tokens", "truncated", "window", "start", "end", "scale", "embedding")
_RENAME = "keep it under another name with --keep {0}=NEW_NAME"


@dataclass(frozen=True)
class Layout:
    """Columns of the output.

    Attributes:
        kept: the kept columns.
        types: name in the output -> `pyarrow.DataType` of each kept column; empty if nothing needs types.
        id_type: `string`, `int64`, or None if no file has the column.
    """

    kept: tuple[Kept, ...]
    types: dict[str, Any]
    id_type: str | None


def settle(sources: Sequence[Source], inventory: Inventory, selection: Selection, form: str) -> Layout:
    """Settle the columns of the output.

    Args:
        sources: the files.
        inventory: what is known of them.
        selection: what is read.
        form: format of the output.

    Raises:
        InputError: a column is missing, has two types, occurs twice, or has the name of a column of the output.
        MissingExtraError: the output is Parquet or Arrow, and pyarrow is not installed.
    """
    if form in TYPED:
        with extra("data", "writing Parquet and Arrow"):
            import pyarrow  # noqa: F401  (before anything is written)
    known = [file for file in inventory.files if file.names]
    for file in known:
        _check_present(file, selection)
    kept = _kept(inventory.files, selection, form)
    for file in inventory.files:
        _check_repeated(file, selection, kept)
    _check_text(known, selection)
    columnar = any(source.form in COLUMNAR for source in sources)
    types = {column.name: _type(column, known, form) for column in kept} if form in TYPED or columnar else {}
    return Layout(kept, types, _id_type(known, selection, form))


def check_columns(file: File, selection: Selection) -> None:
    """Check the columns of one file that are read of it.

    Raises:
        InputError: one is missing, or occurs twice.
    """
    _check_present(file, selection)
    _check_repeated(file, selection, ())


def _check_repeated(file: File, selection: Selection, kept: Sequence[Kept]) -> None:
    for name in file.repeated:
        if name in selection.read_fields or any(column.source == name for column in kept):
            kind = "header" if file.form in ("csv", "tsv") else "file"
            place = f"{file.path}:1" if kind == "header" else file.path
            raise InputError(f"{place}: the {kind} has several columns {name!r}: rename all but one of them")


def _check_present(file: File, selection: Selection) -> None:
    """Check that a file has the columns of the text, and the id if it was asked for."""
    if file.form == "lines":
        return
    wanted = list(selection.text_fields) if not selection.template else []
    if selection.template and not set(selection.template.fields) & set(file.names):
        wanted = list(selection.template.fields)
    if selection.id and selection.id_required:
        wanted.append(selection.id)
    columns = ", ".join(map(repr, file.names)) or "none"
    for name in wanted:
        if name in file.names:
            continue
        if file.form == "jsonl":
            continue  # told for each row
        option = (
            "--id"
            if name == selection.id and selection.id_required
            else "--template"
            if selection.template
            else "--field"
        )
        place = f"{file.path}:1" if file.form in ("csv", "tsv") else file.path
        raise InputError(f"{place}: expected a column {name!r}, found {columns}; choose another with {option}")


def _check_text(files: Sequence[File], selection: Selection) -> None:
    if selection.template and files:
        everywhere = {name for file in files for name in file.names}
        for name in selection.template.fields:
            if name not in everywhere:
                columns = ", ".join(map(repr, sorted(everywhere))) or "none"
                raise InputError(f"template: no row has the field {name!r}; found {columns}")
    for file in files:
        if not file.schema:
            continue
        schema = file.arrow_schema
        for name in selection.text_fields:
            index = schema.get_field_index(name)
            if index >= 0 and not _is_text(schema.field(index).type, any_scalar=selection.template is not None):
                raise InputError(
                    f"{file.path}: the column {name!r} is {schema.field(index).type}; expected strings: choose another by --field"
                )


def _is_text(kind: Any, *, any_scalar: bool) -> bool:
    from pyarrow import types as t

    inner = kind.value_type if t.is_dictionary(kind) else kind
    if t.is_string(inner) or t.is_large_string(inner) or t.is_string_view(inner) or t.is_null(inner):
        return True
    return any_scalar and (t.is_integer(inner) or t.is_floating(inner) or t.is_boolean(inner) or t.is_temporal(inner))


def _kept(files: Sequence[File], selection: Selection, form: str) -> tuple[Kept, ...]:
    pairs = list(selection.keep)
    named = {source for source, _ in pairs}
    own_text = selection.field if form in ("jsonl", "csv") and not selection.template else None
    if selection.keep_all:
        everywhere = dict.fromkeys(name for file in files for name in file.names)
        pairs += [(name, name) for name in everywhere if name not in named | {selection.id, own_text}]
    found = {name for file in files for name in file.names}
    for source, _ in selection.keep:
        if source not in found and any(file.names for file in files):
            columns = ", ".join(map(repr, sorted(found))) or "none"
            raise InputError(f"keep: no file has the column {source!r}; found {columns}")
    taken = dict.fromkeys(_OWN, "a column of the output")
    if form in ("jsonl", "csv"):
        taken["text"] = "a column of the output"
    for source, name in pairs:
        if name.lower() in taken or (form == "csv" and name[:1] == "d" and name[1:].isdigit()):
            other = taken.get(name.lower(), "a column of the output")
            raise InputError(f"the kept column {name!r} has the name of {other}: {_RENAME.format(source)}")
        taken[name.lower()] = f"the kept column {name!r} (letter case is not told apart)"
    return tuple(Kept(source, name) for source, name in pairs)


def _type(column: Kept, files: Sequence[File], form: str) -> Any:
    """Return the one Arrow type of a kept column."""
    import pyarrow

    merged, where, nested = pyarrow.null(), "", False
    for kind, words, place in _types_of(column.source, files):
        is_nested = words in _NESTED
        joined = (
            None
            if merged != pyarrow.null() and kind != pyarrow.null() and nested != is_nested
            else _joined(merged, kind)
        )
        if joined is None:
            raise InputError(
                f"the kept column {column.source!r} is {where}, and {words} in {place}: make them alike, or keep other columns"
            )
        if merged != joined:
            merged, where, nested = joined, f"{words} in {place}", is_nested
    if reason := unfit(merged, form):
        raise InputError(
            f"the kept column {column.source!r} is {where}, {reason}: keep other columns, or choose another --format"
        )
    return merged


def _types_of(name: str, files: Sequence[File]) -> Iterator[tuple[Any, str, str]]:
    """Yield the Arrow types of a column, each with its name and the place where it occurs."""
    import pyarrow

    for file in files:
        if name not in file.names:
            continue
        if file.schema and (index := file.arrow_schema.get_field_index(name)) >= 0:
            kind = file.arrow_schema.field(index).type
            yield plain_type(kind), str(kind), file.path
        elif file.form == "jsonl" and name in file.kinds:
            for words, line in file.kinds[name].items():
                if words not in _JSON_TYPES:
                    raise InputError(
                        f"{file.path}:{line}: the kept column {name!r} has {words}, which Parquet and Arrow lack"
                    )
                yield _JSON_TYPES[words](pyarrow), words, f"{file.path}:{line}"
        else:
            yield pyarrow.string(), "string", file.path


_NESTED = frozenset({"an object", "an array"})
_JSON_TYPES: dict[str, Any] = {
    "null": lambda pa: pa.null(),
    "a string": lambda pa: pa.string(),
    "a boolean": lambda pa: pa.bool_(),
    "an integer": lambda pa: pa.int64(),
    "a number": lambda pa: pa.float64(),
    "an object": lambda pa: pa.large_string(),
    "an array": lambda pa: pa.large_string(),
}


def _joined(one: Any, other: Any) -> Any:
    """Return the type that holds the values of two types; None if there is none."""
    from pyarrow import float64, large_string, string
    from pyarrow import types as t

    if one == other or t.is_null(other):
        return one
    if t.is_null(one):
        return other
    flat = [kind.value_type if t.is_dictionary(kind) else kind for kind in (one, other)]
    if all(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind) for kind in flat):
        return large_string() if any(map(t.is_large_string, flat)) else string()
    for group in (t.is_signed_integer, t.is_unsigned_integer, t.is_floating):
        if all(map(group, flat)):
            return max(flat, key=lambda kind: kind.bit_width)
    if all(t.is_signed_integer(kind) or t.is_float64(kind) for kind in flat):
        return float64()
    return None


def _id_type(files: Sequence[File], selection: Selection, form: str) -> str | None:
    name, found, where = selection.id, None, ""
    for file in files:
        if not name or file.form == "lines" or name not in file.names:
            continue
        for kind, place in _id_kinds(file, name):
            if kind == "":
                raise InputError(
                    f"{file.path}{place}: ids are strings or integers; {name!r} is neither: choose another with --id, or "
                    "--id '' for none"
                )
            if found is not None and kind != found and form in TYPED:
                raise InputError(
                    f"the id {name!r} is {found} in {where} and {kind} in {file.path}{place}: make them alike, or write JSONL"
                )
            found, where = kind, file.path + place
    return found or ("string" if name != DEFAULT_ID and name else None)


def _id_kinds(file: File, name: str) -> Iterator[tuple[str, str]]:
    if file.schema and (index := file.arrow_schema.get_field_index(name)) >= 0:
        from pyarrow import types as t

        kind = file.arrow_schema.field(index).type
        if not t.is_null(kind):
            yield ("string" if _is_text(kind, any_scalar=False) else "int64" if t.is_integer(kind) else ""), ""
    elif file.form == "jsonl" and name in file.kinds:
        for found, line in file.kinds[name].items():
            if found in ("a string", "an integer"):
                yield ("string" if found == "a string" else "int64"), f":{line}"
    else:
        yield "string", ""
