"""Forms of kept values in JSONL and CSV.

| value of Parquet or Arrow | form |
|---|---|
| integer, boolean, string | as it is |
| float that is NaN or infinite | null |
| decimal | its digits, as a string |
| date, time, timestamp | ISO 8601, a timestamp with a zone in UTC; nanoseconds in 9 digits |
| duration | its number of nanoseconds |
| binary | base64 |
| list, struct | array, object, of these forms |
| map | array of [key, value] |
| extension type | that of what it stores |

Unions, intervals of months, and structs with equal names have none (`moembed.corpus.arrow_types`).

CSV holds strings as they are, null as nothing, and everything else as its JSON text.
"""

import base64
import json
import math
from collections.abc import Sequence
from itertools import islice
from typing import Any


def json_values(column: Any) -> list[Any]:
    """Return a kept column, a list or an Arrow array, as values that strict JSON holds."""
    if isinstance(column, list):
        return [_finite(value) for value in column]
    from pyarrow import types as t

    kind = column.type
    if t.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    return _of_array(column, kind)


def _of_array(column: Any, kind: Any) -> list[Any]:
    from pyarrow import ExtensionArray
    from pyarrow import types as t

    if isinstance(column, ExtensionArray):
        return json_values(column.storage)
    if t.is_timestamp(kind):
        return _times(column.cast("int64"), kind.unit, "Z" if kind.tz else "")
    if t.is_date(kind):
        return _times(column.cast("date32").cast("int32"), "D")
    if t.is_duration(kind):
        factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
        return [None if value is None else value * factor for value in column.cast("int64").to_pylist()]
    if t.is_time(kind):
        return column.cast("string").to_pylist()  # type: ignore[no-any-return]
    if t.is_decimal(kind):
        return [None if value is None else format(value, "f") for value in column.to_pylist()]
    if t.is_struct(kind):
        parts = {kind.field(i).name: json_values(column.field(i)) for i in range(kind.num_fields)}
        present = column.is_valid().to_pylist()
        return [
            {n: values[row] for n, values in parts.items()} if is_there else None
            for row, is_there in enumerate(present)
        ]
    if t.is_map(kind):
        return _pairs(column, kind)
    if t.is_nested(kind):
        return _lists(column)
    return [_plain(value) for value in column.to_pylist()]


def _times(column: Any, unit: Any, end: str = "") -> list[str | None]:
    import numpy as np  # whose years have no limit

    return [None if value is None else f"{np.datetime64(value, unit)}{end}" for value in column.to_pylist()]


def _lists(column: Any) -> list[list[Any] | None]:
    """Return the values of lists of any layout."""
    import pyarrow

    items = iter(json_values(column.flatten()))
    lengths = pyarrow.compute.list_value_length(column).to_pylist()
    return [None if length is None else list(islice(items, length)) for length in lengths]


def _pairs(column: Any, kind: Any) -> list[list[Any] | None]:
    import pyarrow

    pair = pyarrow.struct([kind.key_field.with_name("key"), kind.item_field.with_name("value")])
    rows = _lists(column.cast(pyarrow.list_(pyarrow.field("pair", pair, nullable=False))))
    return [None if row is None else [list(one.values()) for one in row] for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def csv_cells(column: Any) -> list[str]:
    """Return a kept column as cells of CSV."""
    return ["" if value is None else value if isinstance(value, str) else _json(value) for value in json_values(column)]


def typed_values(column: list[Any], kind: Any) -> Any:
    """Return a kept column of a text file as an Arrow array; objects and arrays become their JSON text."""
    import pyarrow

    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        column = [value if value is None or isinstance(value, str) else _json(value) for value in column]
    return pyarrow.array(column, kind)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def json_lines(records: Sequence[dict[str, Any]]) -> bytes:
    """Return records as lines of JSON in UTF-8; lone surrogates are escaped."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return text.encode("utf-8", "backslashreplace")
