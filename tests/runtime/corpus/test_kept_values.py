"""Values of kept columns in every format of the output."""

import base64
import csv
import datetime
import decimal
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from moembed.corpus.values import json_values

pytest.importorskip("pandas", reason="pyarrow gives nanoseconds with pandas alone")
pytest.importorskip("pyarrow", "26", reason="an older pyarrow lacks types whose values are kept")

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


def extension(kind, storage):
    return pa.ExtensionArray.from_storage(kind, pa.array(storage, kind.storage_type))


PAIRS = [[("k", {"x": [1.5, None], "d": datetime.date(2026, 1, 2)})], None, []]
# Name -> array, type in Parquet, values in JSON.
OTHERS = {
    "uuid": (extension(pa.uuid(), [b"\x00" * 16, None, b"\xff" * 16]), pa.uuid(), [22 * "A" + "==", None, "/" * 21 + "w=="]),
    "json": (extension(pa.json_(), ['{"a": 1}', None, "[]"]), pa.json_(), ['{"a": 1}', None, "[]"]),
    "tensor": (
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype=np.float32).reshape(3, 2, 2)),
        pa.fixed_shape_tensor(pa.float32(), (2, 2), permutation=[0, 1]),
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
    ),
    "view": (pa.array(["a", None, "b"], pa.string_view()), pa.string(), ["a", None, "b"]),
    "bytes view": (pa.array([b"a", None, b""], pa.binary_view()), pa.binary(), ["YQ==", None, ""]),
    "views": (
        pa.array([[{"v": "a"}], None, []], pa.list_(pa.struct([("v", pa.string_view())]))),
        pa.list_(pa.field("element", pa.struct([("v", pa.string())]))),
        [[{"v": "a"}], None, []],
    ),
    "runs": (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", None]), pa.string(), ["a", "a", None]),
    "list view": (
        pa.array([[1], None, [2, 3]], pa.list_view(pa.int32())),
        pa.list_view(pa.field("element", pa.int32())),
        [[1], None, [2, 3]],
    ),
    "pairs": (
        pa.array(PAIRS, pa.map_(pa.string(), pa.struct([("x", pa.list_(pa.float64())), ("d", pa.date32())]))),
        None,
        [[["k", {"x": [1.5, None], "d": "2026-01-02"}]], None, []],
    ),
    "far days": (pa.array([5_000_000, None, 0], pa.date32()), pa.date32(), ["15659-07-15", None, "1970-01-01"]),
    "big": (
        pa.array([decimal.Decimal("1E+30"), None, decimal.Decimal("-0.5")], pa.decimal256(50, 2)),
        pa.decimal256(50, 2),
        ["1" + "0" * 30 + ".00", None, "-0.50"],
    ),
    "__index_level_0__": (pa.array([7, 8, 9]), pa.int64(), [7, 8, 9]),
}  # fmt: skip


def write_arrow(path, columns):
    table = pa.table({"text": ["a", "b", "c"]} | columns)
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)


def test_layouts_and_extension_types(run, here):
    write_arrow(here / "d.arrow", {name: array for name, (array, _, _) in OTHERS.items()})
    for form in ("parquet", "arrow", "jsonl"):
        run("d.arrow", form, form=form, keep_all=True)
    found = pq.ParquetFile("parquet/rows-000000000000.parquet").read()
    other = pyarrow.feather.read_table("arrow/rows-000000000000.arrow")
    lines = Path("jsonl/rows-000000000000.jsonl").read_text().splitlines()
    for name, (array, kind, expected) in OTHERS.items():
        assert kind is None or found.schema.field(name).type == kind
        for table in (found, other):
            if name != "far days":  # which Python does not hold
                assert table[name].to_pylist() == array.to_pylist()
        assert [json.loads(line)[name] for line in lines] == expected


@pytest.mark.parametrize(
    ("array", "form", "said"),
    [
        (
            pa.UnionArray.from_sparse(pa.array([0] * 3, pa.int8()), [pa.array([1, 2, 3])]),
            "parquet",
            "which Parquet lacks",
        ),
        (
            pa.UnionArray.from_sparse(pa.array([0] * 3, pa.int8()), [pa.array([1, 2, 3])]),
            "jsonl",
            "which has no form in JSON and CSV",
        ),
        (pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()), "parquet", "which Parquet lacks"),
        (
            pa.array([[(1, 2, 3)]] * 3, pa.list_(pa.month_day_nano_interval())),
            "csv",
            "which has no form in JSON and CSV",
        ),
        (pa.array([decimal.Decimal(100)] * 3, pa.decimal128(5, -2)), "parquet", "which Parquet lacks"),
        (pa.StructArray.from_arrays([pa.array([1, 2, 3])] * 2, ["a", "a"]), "jsonl", "which has one name twice"),
        (
            pa.ListArray.from_arrays([0, 1, 2, 3], pa.RunEndEncodedArray.from_arrays([3], ["a"])),
            "arrow",
            "which Arrow lacks",
        ),
    ],
)
def test_types_that_a_format_lacks_are_refused_before_anything_is_computed(refused, here, array, form, said):
    write_arrow(here / "d.arrow", {"k": array})
    message = refused("-i", "d.arrow", "--keep", "k", "-f", form)
    assert f"the kept column 'k' is {array.type} in d.arrow, {said}: keep other columns" in message
