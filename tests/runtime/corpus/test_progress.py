"""Progress of a run, its counts at the end, and its priority."""

import io
import os
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moembed.cli import main
from moembed.corpus import Selection
from moembed.corpus.inventory import take_inventory
from moembed.corpus.job import Job
from moembed.corpus.meter import Meter, duration
from moembed.corpus.sources import find
from support.corpora import rejects, write_jsonl


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


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_is_that_of_this_run_alone(run, here, monkeypatch, workers):
    """Of a run that goes on, only the rows and tokens that are left count, in other processes too."""
    from moembed.corpus import runs

    totals = []

    class Noted(Meter):
        def __init__(self, total, *, sizes, **keywords):
            totals.append((total, sizes[-1][0]))
            super().__init__(total, sizes=sizes, **keywords)

        def __exit__(self, *error):
            super().__exit__(*error)
            totals.append((self.rows, self.tokens))

    write_jsonl(here / "d.jsonl", [{"text": f"{n}"} for n in range(35)])
    monkeypatch.setattr(runs, "Meter", Noted)
    run("d.jsonl", workers=workers)
    for first in (20, 30):
        (here / "out" / f"rows-0000000000{first}.parquet").unlink()
    run("d.jsonl", workers=workers)
    tokens = pq.read_table("out")["tokens"].to_pylist()
    assert totals == [(35, 35), (35, sum(tokens)), (15, 15), (15, sum(tokens[20:]))]


@pytest.mark.parametrize(
    ("text", "told"), [("a\nb\n", ["2 of 2 rows (100 %)", "2 rows, 2 vectors"]), ("", ["0 rows, 0 vectors"])]
)
def test_progress_of_stdin_knows_its_rows(here, monkeypatch, capsys, text, told):
    """It is copied first. No rows are no division by zero."""
    from moembed.corpus import meter

    monkeypatch.setattr(meter, "_LINE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["embed", "-i", "-", "-o", "out/", "--dim", "8"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(told)
    assert all(line.startswith(f"moembed: {one}, ") for line, one in zip(lines, told, strict=True))


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
