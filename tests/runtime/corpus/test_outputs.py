"""What is written: tables that others read, JSON of any kept value, files, streams and S3."""

import base64
import csv
import datetime
import decimal
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from moembed.cli import main
from moembed.corpus import Selection
from moembed.corpus.inventory import take_inventory
from moembed.corpus.job import Job
from moembed.corpus.meter import Meter, duration
from moembed.corpus.sources import find
from moembed.corpus.values import json_values
from moembed.digits import shortest
from moembed.stamps.stamp import KEY
from support.corpora import content, rejects, write_jsonl
from support.parquet_readers import READERS, read_vectors

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


def test_parquet_has_no_dictionary_of_components(run, here):
    write_jsonl(here / "d.jsonl", [{"id": f"k{n}", "text": f"text {n} of many"} for n in range(2000)])
    run("d.jsonl", dim=None, shard_rows=5000)
    metadata = pq.read_metadata("out/rows-000000000000.parquet")
    assert metadata.num_row_groups == 1
    group = metadata.row_group(0)
    (column,) = (
        group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema.startswith("embedding")
    )
    assert not column.has_dictionary_page
    assert "BYTE_STREAM_SPLIT" in column.encodings
    components = 2000 * 384
    assert column.total_uncompressed_size <= 4.05 * components
    assert column.total_compressed_size <= 3.6 * components
    assert column.compression == "ZSTD"


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "plain"])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "uint8", "ubinary"])
def test_what_readers_read(run, model, here, precision, fixed):
    """Values are equal in every reader; docs/corpora.md has the table of what they see."""
    write_jsonl(here / "d.jsonl", [{"text": text} for text in "abc"])
    run("d.jsonl", precision=precision, fixed=fixed)
    expected = model.encode(["a", "b", "c"], prompt="", truncate_dim=8, precision=precision)
    (path,) = Path("out").glob("*.parquet")
    schema = pq.read_schema(path)
    assert pa.types.is_fixed_size_list(schema.field("embedding").type) is fixed
    for reader in READERS:
        values, _ = read_vectors(reader, path)
        assert np.array_equal(np.array(values, expected.dtype), expected), reader
    if precision in ("int8", "uint8"):
        from moembed import dequantize_embeddings

        scales = pq.read_table(path)["scale"].to_numpy()
        restored = dequantize_embeddings(expected, precision, scales)
        assert np.abs(restored - model.encode(["a", "b", "c"], prompt="", truncate_dim=8)).max() < 0.01


def test_npy_has_its_ids_beside_it(run, model, here):
    write_jsonl(here / "d.jsonl", [{"id": text, "text": text, "n": n} for n, text in enumerate("abcde")])
    run("d.jsonl", form="npy", shard_rows=3, keep=(("n", "n"),))
    arrays = [np.load(path) for path in sorted(Path("out").glob("*.npy"))]
    assert np.array_equal(np.concatenate(arrays), model.encode(list("abcde"), prompt="", truncate_dim=8))
    lines = [line for path in sorted(Path("out").glob("*.ids.jsonl")) for line in path.read_text().splitlines()]
    assert json.loads(lines[4]) == {"index": 4, "id": "e", "n": 4, "tokens": 3, "truncated": False}


def test_floats_have_the_fewest_digits(run, model, here):
    texts = [f"text {n}" for n in range(20)]
    write_jsonl(here / "d.jsonl", [{"text": text} for text in texts])
    run("d.jsonl", "jsonl", form="jsonl", dim=None, shard_rows=100)
    run("d.jsonl", "csv", form="csv", dim=None, shard_rows=100)
    expected = model.encode(texts, prompt="")
    lines = Path("jsonl/rows-000000000000.jsonl").read_text().splitlines()
    assert np.array_equal(np.array([json.loads(line)["embedding"] for line in lines], np.float32), expected)
    digits = [repr(value) for value in shortest(expected[0]).tolist()]
    assert f'"embedding": [{", ".join(digits)}]' in lines[0]
    with Path("csv/rows-000000000000.csv").open(newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert rows[0][-384:] == digits
    assert max(map(len, lines)) < 384 * 15


@pytest.mark.parametrize("name", ["v.parquet", "v.arrow", "v.feather", "v.arrows", "v.jsonl", "v.csv"])
def test_single_files(embed, model, here, name):
    write_jsonl(here / "d.jsonl", [{"id": n, "text": f"text {n}", "k": "x"} for n in range(5)])
    assert embed("-i", "d.jsonl", "-o", name, "--id", "id", "--keep", "k", "--prompt", "") == (0, "")
    expected = model.encode([f"text {n}" for n in range(5)], prompt="", truncate_dim=8)
    if name.endswith(("jsonl", "csv")):
        text = Path(name).read_text()
        assert text.count("\n") == 5 + name.endswith("csv")
        return
    read = {"v.parquet": pq.read_table, "v.arrows": lambda path: pa.ipc.open_stream(path).read_all()}
    table = read.get(name, pyarrow.feather.read_table)(name)
    assert table["id"].to_pylist() == list(range(5))
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), expected)
    assert KEY.encode() in table.schema.metadata


def test_single_files_need_places(embed, here):
    write_jsonl(here / "d.jsonl", [{"id": 1, "text": "a"}, {"id": 2, "text": None}])
    assert "needs a place for the rejected rows" in embed("-i", "d.jsonl", "-o", "v.parquet", "--on-error", "skip")[1]
    code, _ = embed("-i", "d.jsonl", "-o", "v.parquet", "--on-error", "skip", "--rejects", "r.jsonl")
    assert (code, json.loads(Path("r.jsonl").read_text())["row"]) == (3, 1)
    assert "d.jsonl:2" in embed("-i", "d.jsonl", "-o", "w.parquet")[1]
    assert not Path("w.parquet").exists()
    assert "holds vectors alone" in embed("-i", "d.jsonl", "-o", "v.npy", "--id", "id")[1]
    assert "--workers is for runs into a folder" in embed("-i", "d.jsonl", "-o", "v.parquet", "--workers", "2")[1]
    assert "unknown suffix .xlsx" in embed("-i", "d.jsonl", "--keep", "id=k", "-o", "v.xlsx")[1]
    assert "--rejects is for a single file" in embed("-i", "d.jsonl", "-o", "out/", "--rejects", "r")[1]


def test_an_arrow_stream_on_stdout_and_into_a_fifo(embed, here, monkeypatch):
    write_jsonl(here / "d.jsonl", [{"id": n, "text": f"text {n}"} for n in range(5)])
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(written))
        assert embed("-i", "d.jsonl", "-f", "arrow") == (0, "")
        table = pa.ipc.open_stream(io.BytesIO(written.getvalue())).read_all()
    assert table["id"].to_pylist() == list(range(5))
    assert KEY.encode() in table.schema.metadata
    os.mkfifo(here / "fifo")
    got = []
    reader = threading.Thread(target=lambda: got.append((here / "fifo").read_bytes()))
    reader.start()
    assert embed("-i", "d.jsonl", "-f", "arrow", "-o", "fifo") == (0, "")
    reader.join(60)
    assert pa.ipc.open_stream(io.BytesIO(got[0])).read_all().equals(table)


def test_a_reader_that_stops_is_a_quiet_end(here):
    write_jsonl(here / "d.jsonl", [{"id": n, "text": f"text {n}", "k": "x" * 10_000} for n in range(300)])
    command = (
        f"{sys.executable} -m moembed embed -i d.jsonl --dim 8 -f arrow --keep k | head -c 10; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], cwd=here, capture_output=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_extra_is_named_where_it_is_missing(here, tmp_path):
    write_jsonl(here / "d.jsonl", [{"text": "a"}])
    (here / "d.jsonl.zst").write_bytes(b"(\xb5/\xfd")
    script = (
        "import sys\nfor name in ('pyarrow', 'zstandard'): sys.modules[name] = None\nfrom moembed.cli import main\n"
        "sys.exit(main(['embed', '-q', *sys.argv[1:]]))"
    )
    for arguments in (
        ["-i", "d.jsonl", "-o", "out/"],
        ["-i", "d.jsonl.zst", "-o", "v.jsonl"],
        ["-i", "s3://a/b", "-o", "v.jsonl"],
    ):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert 'pip install "moembed[data]"' in done.stderr
        assert done.stderr.count("\n") == 1
        assert not Path("out").exists()
    arguments = ["-i", "d.jsonl", "-o", "out/", "-f", "jsonl"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # JSONL needs no package


@pytest.fixture(scope="module")
def s3():
    """A real local S3 server; gives the query of its addresses."""
    moto = pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = moto.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    from pyarrow.fs import S3FileSystem

    S3FileSystem(endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True).create_dir("bucket")
    yield f"?scheme=http&endpoint_override=127.0.0.1:{port}"
    server.stop()
    os.environ.clear()
    os.environ |= before


def test_s3_in_and_out(run, s3, here, monkeypatch):
    from moembed.corpus import claims
    from moembed.corpus.storage import remote

    monkeypatch.setitem(claims._BEAT_SECONDS, claims.RemoteTarget, 0.2)
    system, _ = remote(f"s3://bucket/x{s3}")
    records = [{"id": n, "text": f"text {n}"} for n in range(25)]
    write_jsonl(here / "a.jsonl", records[:13])
    write_jsonl(here / "b.jsonl", records[13:])
    for name in ("a.jsonl", "b.jsonl", "_SUCCESS"):
        with system.open_output_stream(f"bucket/in/{name}") as out:
            out.write((here / name).read_bytes() if name != "_SUCCESS" else b"")
    run(["a.jsonl", "b.jsonl"], "local")
    for inputs in (
        f"s3://bucket/in{s3}",
        f"s3://bucket/in/*.jsonl{s3}",
        [f"s3://bucket/in/{n}.jsonl{s3}" for n in "ab"],
    ):
        shutil.rmtree(here / "out", ignore_errors=True)
        run(inputs)
        assert content(here / "out") == content(here / "local")
    result = run(["a.jsonl", "b.jsonl"], f"s3://bucket/out{s3}")
    assert result.made == (0, 1, 2)
    for path in sorted((here / "local").glob("*.parquet")):
        with system.open_input_stream(f"bucket/out/{path.name}") as file:
            assert file.read() == path.read_bytes()
    system.delete_file("bucket/out/rows-000000000010.parquet")
    assert run(["a.jsonl", "b.jsonl"], f"s3://bucket/out{s3}").made == (1,)
    with pytest.raises(Exception, match="no such file or folder"):
        run(f"s3://bucket/absent{s3}")


def test_times_left():
    meter = Meter(100, show=False, log=print)
    assert meter.text(5) == "0 of 100 rows (0 %), 0 rows/s, 0 tokens/s, time left unknown"
    meter.advance(25, 500)
    assert meter.text(5) == "25 of 100 rows (25 %), 5 rows/s, 100 tokens/s, about 15 s left"
    assert Meter(0, show=False, log=print).text(1).startswith("0 of 0 rows, 0 rows/s")
    assert [duration(s) for s in (0.4, 59, 185, 7800, 273_600)] == ["0 s", "59 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"]


def test_time_left_is_that_of_the_texts_that_are_left(here):
    """Long texts may come last: rows alone would promise too much."""
    short, long = [{"text": "a"}] * 30, [{"text": "a" * 990}] * 20
    write_jsonl(here / "a.jsonl", short)
    pq.write_table(pa.Table.from_pylist(short), "a.parquet", row_group_size=15, use_dictionary=False)
    write_jsonl(here / "b.jsonl", long)
    pq.write_table(pa.Table.from_pylist(long), "b.parquet", use_dictionary=False, compression="none")
    for form, left in (("jsonl", "about 48 s"), ("parquet", "about 1 min ")):
        sources = find([f"a.{form}", f"b.{form}"], None, print)
        job = Job(
            sources=tuple(sources),
            inventory=take_inventory(sources, Selection()),
            selection=Selection(),
            model=None,
            form="parquet",
            fixed=True,
            shard_rows=10,
            skip_rejects=False,
            only=None,
        )
        sizes = job.sizes(range(5))
        assert sizes == sorted(sizes)
        assert sizes[-1][0] == 50
        meter = Meter(50, show=False, log=print, sizes=sizes)
        meter.advance(30, 100)
        assert left in meter.text(1)  # for 20 kB, after a second for 0.4 kB
        meter.advance(10, 100)
        assert ", about 1 s left" in meter.text(1)
        last = job.sizes([4])
        assert (last[-1][0], len(last)) == (10, 2)
        assert last[-1][1] == pytest.approx(sizes[-1][1] / 2, rel=0.05)


def test_progress_without_a_terminal_is_plain_lines(monkeypatch):
    from moembed.corpus import meter as meters

    monkeypatch.setattr(meters, "_LINE_SECONDS", 0.0)
    lines = []
    with Meter(10, show=None, log=lines.append) as meter:
        meter.advance(4, 10)
        meter.advance(6, 20)
    assert [line.split(" rows")[0] for line in lines] == ["moembed: 4 of 10", "moembed: 10 of 10"]
    assert not any("\r" in line for line in lines)


def test_progress_is_that_of_this_run_alone(run, here, monkeypatch):
    """Of a run that goes on, only the rows that are left count."""
    from moembed.corpus import runs

    totals = []

    class Noted(Meter):
        def __init__(self, total, *, sizes, **keywords):
            totals.append((total, sizes[-1][0]))
            super().__init__(total, sizes=sizes, **keywords)

    write_jsonl(here / "d.jsonl", [{"text": f"{n}"} for n in range(35)])
    monkeypatch.setattr(runs, "Meter", Noted)
    run("d.jsonl")
    (here / "out" / "rows-000000000030.parquet").unlink()
    run("d.jsonl")
    assert totals == [(35, 35), (5, 5)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs priorities of threads")
def test_nice_lowers_the_priority_of_the_command_and_of_its_workers(here, monkeypatch, capsys):
    """In a thread, which has a priority of its own."""
    from moembed.corpus import pool

    write_jsonl(here / "d.jsonl", [{"text": f"{n}"} for n in range(4)])
    start, found = pool._start, []

    def noted(*arguments):
        process = start(*arguments)
        found.append(os.getpriority(os.PRIO_PROCESS, process.pid))
        return process

    def command(*argv):
        code = main(["embed", "-q", "--dim", "8", *argv])
        found.append((code, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))

    monkeypatch.setattr(pool, "_start", noted)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    for argv in (
        ("-i", "d.jsonl", "-o", "out/", "--shard-rows", "2", "--workers", "2", "--threads", "1", "--nice", "3"),
        ("--nice", "3", "a text"),
        ("--nice", "20", "a text"),
        ("--nice=-1", "a text"),
    ):
        thread = threading.Thread(target=command, args=argv)
        thread.start()
        thread.join()
    lower = min(before + 3, 19)
    assert found == [lower, lower, (0, lower), (0, lower), (2, before), (2, before)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert "--nice 20; expected an integer from 0 to 19" in capsys.readouterr().err


@pytest.mark.usefixtures("opened_once")
def test_counts_at_the_end(here, capsys):
    write_jsonl(here / "d.jsonl", [{"text": text} for text in ("a", None, "word " * 600)])
    code = main(
        ["embed", "-i", "d.jsonl", "-o", "out/", "--on-error", "skip", "--overlong", "truncate", "--workers", "2"]
    )
    err = capsys.readouterr().err
    assert code == 3
    assert "3 rows, 2 vectors, 1 of them of texts that were cut, 1 rejected, 1 shards computed, 0 kept, in out/" in err
    assert "1 rows were rejected; see out/_moembed/rejects" in err
    assert len(rejects(here / "out")) == 1


def test_memory_does_not_grow_with_row_groups(here):
    """Only the needed columns are read, by batches: 100 MB of another column in one row group cost nothing."""
    rows = 1000
    rng = np.random.default_rng(0)
    wide = pa.array([rng.bytes(100_000) for _ in range(rows)], pa.binary())
    pq.write_table(
        pa.table({"text": [f"text {n % 50}" for n in range(rows)], "wide": wide}),
        "wide.parquet",
        row_group_size=rows,
        compression="none",
    )
    pq.write_table(pa.table({"text": [f"text {n % 50}" for n in range(rows)]}), "narrow.parquet")
    narrow, wide = peaks_of("narrow.parquet", "wide.parquet")
    assert wide - narrow < 40


def peaks_of(*names):
    """Peak memory in MiB of a process after each of some inputs."""
    script = (
        "import resource, sys\nfrom moembed.cli import main\n"
        "for name in sys.argv[1:]:\n"
        "    assert main(['embed', '-q', '--dim', '8', '-i', name, '-o', f'{name}.out/']) == 0\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, check=True)
    return list(map(int, done.stdout.split()))


@pytest.mark.long
def test_memory_does_not_grow_with_rows(here):
    """Ten times the rows, in one row group, in JSONL, and in 1,000 files."""

    def table(rows):
        return pa.table({"text": [f"text {number % 50}" for number in range(rows)]})

    for name, rows in (("few", 100_000), ("many", 1_000_000)):
        pq.write_table(table(rows), f"{name}.parquet", row_group_size=rows)
        write_jsonl(here / f"{name}.jsonl", table(rows).to_pylist())
    Path("files").mkdir()
    for number in range(1000):
        pq.write_table(table(100), f"files/{number:03}.parquet")
    few, *others = peaks_of("few.parquet", "many.parquet", "many.jsonl", "files")
    assert max(others) - few < 60, others
