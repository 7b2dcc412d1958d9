"""Values of kept columns in every format of the output."""

import base64
import csv
import datetime
import decimal
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from moembed.corpus.values import json_values

MOMENTS = ["1970-01-01T00:00:01.000000001Z", None, "1970-01-01T00:00:00.000000007Z"]
KEPT = {
    "integer": (pa.array([1, None, 3]), [1, None, 3]),
    "real": (pa.array([0.5, float("nan"), float("inf")]), [0.5, None, None]),
    "flag": (pa.array([True, False, None]), [True, False, None]),
    "words": (pa.array(["a", "", None]).dictionary_encode(), ["a", "", None]),
    "price": (pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-3.00")]), ["1.10", None, "-3.00"]),
    "day": (pa.array([datetime.date(2026, 1, 2), None, None]), ["2026-01-02", None, None]),
    "hour": (pa.array([datetime.time(1, 2, 3), None, None]), ["01:02:03.000000", None, None]),
    "moment": (pa.array([10**9 + 1, None, 7], pa.timestamp("ns", "Asia/Tokyo")), MOMENTS),
    "local": (pa.array([0, None, 1], pa.timestamp("ms")), ["1970-01-01T00:00:00.000", None, "1970-01-01T00:00:00.001"]),
    "span": (pa.array([2, None, 3], pa.duration("ms")), [2_000_000, None, 3_000_000]),
    "bytes": (pa.array([b"\x00\xff", b"", None]), [base64.b64encode(b"\x00\xff").decode(), "", None]),
    "items": (pa.array([[{"x": 1.5, "y": b"a"}], [], None]), [[{"x": 1.5, "y": "YQ=="}], [], None]),
    "pairs": (pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())), [[["k", 1]], None, []]),
    "inner": (pa.array([{"t": datetime.date(2026, 1, 2)}, None, {"t": None}]), [{"t": "2026-01-02"}, None, {"t": None}]),
}  # fmt: skip


@pytest.fixture
def kept(here):
    """Parquet file with a column of each kind."""
    table = pa.table({"text": ["a", "b", "c"]} | {name: array for name, (array, _) in KEPT.items()})
    pq.write_table(table, here / "d.parquet")
    return table


@pytest.mark.parametrize("name", KEPT)
def test_forms_of_kept_values(name):
    array, expected = KEPT[name]
    assert json_values(array) == expected
    assert json_values(pa.concat_arrays([array, array]).slice(1, 3)) == [*expected[1:], expected[0]]


def test_kept_values_in_every_format(run, kept, here):
    for form in ("parquet", "arrow", "jsonl", "csv"):
        run("d.parquet", form, form=form, keep_all=True)
    found = pq.read_table("parquet")
    for name in KEPT:
        assert repr(found[name].to_pylist()) == repr(kept[name].to_pylist())
        assert found.schema.field(name).type == kept.schema.field(name).type
    assert (
        pyarrow.feather.read_table("arrow/rows-000000000000.arrow")
        .select(list(KEPT))
        .schema.equals(kept.select(list(KEPT)).schema)
    )

    def no_constant(text):
        raise AssertionError(text)  # NaN is not JSON

    lines = Path("jsonl/rows-000000000000.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=no_constant) for line in lines]
    with Path("csv/rows-000000000000.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    for name, (_, expected) in KEPT.items():
        assert [record[name] for record in records] == expected
        for cell, value in zip((row[name] for row in cells), expected, strict=True):
            assert cell == ("" if value is None else value if isinstance(value, str) else json.dumps(value))
