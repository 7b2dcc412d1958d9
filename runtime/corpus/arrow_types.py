"""Arrow types of kept columns: in which one a column is kept, and which a format cannot hold.

Views and run-end encoding are layouts of plain types, which pyarrow's functions and other readers do not take everywhere: such
columns are kept as the plain type.
"""

import io
from collections.abc import Iterator
from typing import Any

STREAM = "arrow stream"  # the format arrow where readers read as it comes
# Formats with Arrow's types, by their names in messages.
TYPED = {"parquet": "Parquet", "arrow": "Arrow", STREAM: "Arrow"}


def plain_type(kind: Any) -> Any:
    """Return the type in which a column of a type is kept."""
    import pyarrow as pa
    from pyarrow import types as t

    if t.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if t.is_string_view(kind):
        return pa.string()
    if t.is_binary_view(kind):
        return pa.binary()
    if t.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field), keys_sorted=kind.keys_sorted)
    if t.is_struct(kind):
        return pa.struct(list(map(_plain_field, kind)))
    if t.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if t.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if t.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    return kind


def _plain_field(field: Any) -> Any:
    # Run-end encoding within a list or a struct cannot be cast: `unfit` refuses it.
    from pyarrow import types as t

    return field if t.is_run_end_encoded(field.type) else field.with_type(plain_type(field.type))


def as_plain(array: Any, kind: Any) -> Any:
    """Return an array in the type of its column, which `plain_type` or a wider one of another file gave.

    Strings that are not UTF-8 stay as they are.
    """
    import pyarrow as pa

    if pa.types.is_run_end_encoded(array.type):
        array = pa.compute.run_end_decode(array)
    return array if array.type == kind else array.cast(kind)


def unfit(kind: Any, form: str) -> str:
    """Return why a format cannot hold a type that `plain_type` gave, such as `which Parquet lacks`; nothing if it can.

    Args:
        kind: the type.
        form: format of the output.
    """
    import pyarrow as pa

    if form not in TYPED:
        inner = list(_inner(kind))
        if any(pa.types.is_union(one) or pa.types.is_interval(one) for one in inner):
            return "which has no form in JSON and CSV"
        names = [[field.name for field in one] for one in inner if pa.types.is_struct(one)]
        return "which has one name twice" if any(len(set(some)) < len(some) for some in names) else ""
    try:
        pa.nulls(1, kind).take(pa.array([0]))
        if form == "parquet":
            import pyarrow.parquet as pq

            pq.ParquetWriter(io.BytesIO(), pa.schema([("column", kind)])).close()
    except (pa.ArrowException, OSError):
        return f"which {TYPED[form]} lacks"
    return ""


def _inner(kind: Any) -> Iterator[Any]:
    """Yield a type and those within it."""
    import pyarrow as pa

    yield kind
    if isinstance(kind, pa.BaseExtensionType):
        yield from _inner(kind.storage_type)
    elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        yield from _inner(kind.value_type)
    else:
        for number in range(kind.num_fields):
            yield from _inner(kind.field(number).type)
