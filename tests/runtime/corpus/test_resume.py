"""Runs that go on: after faults of any kind, the same command gives the same bytes, and makes only what is missing."""

import errno
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
import pyarrow.parquet as pq
import pytest

from moembed.corpus import claims
from moembed.corpus.shards import REJECTS
from moembed.corpus.sources import Source
from moembed.corpus.spooling import spooled
from moembed.corpus.storage import reading
from moembed.errors import BundleError, InputError, OutputError
from moembed.inference.session import Session
from support.corpora import content, rejects, write_jsonl


@pytest.fixture
def corpus(here):
    """60 rows, of which row 17 has no text and row 30 too long a one."""
    records = [{"id": f"k{number}", "text": f"text {number} of a corpus", "n": number} for number in range(60)]
    records[17]["text"] = None
    records[30]["text"] = "word " * 600
    write_jsonl(here / "d.jsonl", records)
    return "d.jsonl"


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Place of the first run of the corpus, which the tests copy."""
    return tmp_path_factory.mktemp("first") / "out"


@pytest.fixture
def whole(run, corpus, here, first_run):
    """Run of the corpus into `out`; gives what it wrote."""
    if not first_run.exists():
        assert run(corpus, on_error="skip").made == tuple(range(6))
        shutil.copytree("out", first_run)
    shutil.copytree(first_run, "out", dirs_exist_ok=True)
    return content(here / "out")


def test_the_same_command_makes_nothing_again(run, corpus, whole, here):
    result = run(corpus, on_error="skip")
    assert (result.made, result.kept) == ((), tuple(range(6)))
    assert (result.counts.rows, result.counts.vectors, result.counts.rejects) == (60, 58, 2)
    assert content(here / "out") == whole


@pytest.mark.parametrize("form", ["parquet", "jsonl", "npy"])
def test_damaged_shards_and_no_others_are_made_again(run, corpus, here, form):
    run(corpus, on_error="skip", form=form)
    out = here / "out"
    before = content(out)
    paths = sorted(out.glob(f"rows-*.{form}"))
    with paths[1].open("r+b") as file:
        file.truncate(max(paths[1].stat().st_size - 100, 1))
    paths[2].write_bytes(b"")
    paths[3].unlink()
    flipped = bytearray(paths[4].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    paths[4].write_bytes(flipped)
    (out / "_moembed" / "done" / f"{paths[5].stem}.json").unlink()
    result = run(corpus, on_error="skip", form=form)
    assert (result.made, result.kept) == ((1, 2, 3, 4, 5), (0,))
    assert content(out) == before


def test_a_marker_alone_never_counts(run, corpus, whole, here):
    out = here / "out"
    done = out / "_moembed" / "done"
    first = json.loads((done / "rows-000000000000.json").read_text())
    for text in ("", "[]", "{}", '{"record": 1}', json.dumps(first | {"record": "0" * 64}), '{"files": null}'):
        (done / "rows-000000000010.json").write_text(text)
        assert run(corpus, on_error="skip").made == (1,)
    (out / REJECTS / "rows-000000000030.jsonl").unlink()
    assert run(corpus, on_error="skip").made == (3,)
    assert content(out) == whole


def test_what_counts_as_changed(run, corpus, whole, here):
    for options, difference in (
        ({"template": "{text}!"}, "template"),
        ({"field": "id"}, "field: 'text', and 'id'"),
        ({"keep": (("n", "n"),)}, "keep"),
        ({"overlong": "truncate"}, "overlong: 'error', and 'truncate'"),
        ({"shard_rows": 11}, "rows of a shard: 10, and 11"),
        ({"dim": 16}, "width: 8, and 16"),
        ({"precision": "int8"}, "precision: 'float32', and 'int8'"),
        ({"prompt": "query: "}, "prompt: '', and 'query: '"),
        ({"form": "jsonl"}, "format: 'parquet', and 'jsonl'"),
        ({"fixed": False}, "fixed-size lists: True, and False"),
        ({"slice": (0, 2)}, "slices: 1, and 2"),
        ({"id_required": True}, "id: ['id', False], and ['id', True]"),
    ):
        with pytest.raises(OutputError, match="begun by another command") as error:
            run(corpus, **{"on_error": "skip"} | options)
        assert difference in str(error.value)
    os.utime(corpus)
    shutil.copy(corpus, "copy.jsonl")
    assert run("copy.jsonl", on_error="skip").made == ()
    before = Path(corpus).stat()
    Path(corpus).write_text(Path(corpus).read_text().replace("text 5 ", "text 6 "))
    os.utime(corpus, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Path(corpus).stat().st_size == before.st_size
    with pytest.raises(OutputError, match="the sha256 of file 0 is"):
        run(corpus, on_error="skip")
    assert content(here / "out") == whole
    assert run(corpus, on_error="skip", force=True, shard_rows=25).made == (0, 1, 2)
    assert sorted(path.name for path in (here / "out").glob("rows-*")) == [f"rows-{n:012}.parquet" for n in (0, 25, 50)]


def test_a_folder_with_other_files_is_not_touched(run, corpus, here):
    (here / "out").mkdir()
    (here / "out" / "mine.parquet").write_text("precious")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"it has files that no run .* such as mine\.parquet"):
            run(corpus, on_error="skip", force=force)
    assert [path.name for path in (here / "out").iterdir()] == ["mine.parquet"]
    Path("file").write_text("precious")
    with pytest.raises(OutputError, match="cannot write file"):
        run(corpus, "file")
    assert Path("file").read_text() == "precious"


def test_a_bad_row_ends_the_run_and_keeps_the_shards_before_it(run, corpus, here):
    with pytest.raises(InputError, match=r"^d\.jsonl:18: expected a string in the field 'text', it is null"):
        run(corpus)
    assert [path.name for path in sorted((here / "out").glob("rows-*"))] == ["rows-000000000000.parquet"]
    result = run(corpus, on_error="skip")
    assert (result.made, result.kept) == ((1, 2, 3, 4, 5), (0,))


def test_cut_by_input_rows_alone(run, corpus, here):
    """Rejected rows leave no gap in the names; a shard of rejects only is a shard."""
    write_jsonl(here / "e.jsonl", [{"text": None if 10 <= n < 20 else f"{n}"} for n in range(30)])
    run("e.jsonl", on_error="skip")
    counts = [len(pq.read_table(path)) for path in sorted((here / "out").glob("rows-*"))]
    assert counts == [10, 0, 10]
    assert pq.read_table("out")["index"].to_pylist() == [*range(10), *range(20, 30)]


def test_rejects_later(run, corpus, whole, here):
    assert [row["index"] for row in rejects(here / "out")] == [17, 30]
    result = run(corpus, "later", only_rejects="out", overlong="truncate", on_error="skip")
    assert (result.made, result.counts.vectors, result.counts.rejects) == ((1, 3), 1, 1)
    assert pq.read_table("later")["index"].to_pylist() == [30]
    records = [json.loads(line) for line in Path(corpus).read_text().splitlines()]
    records[17]["text"] = "mended"
    write_jsonl(here / "mended.jsonl", records)
    result = run("mended.jsonl", "mended", only_rejects="out", overlong="truncate")
    assert pq.read_table("mended")["index"].to_pylist() == [17, 30]
    assert sorted([*pq.read_table("out")["index"].to_pylist(), 17, 30]) == list(range(60))
    write_jsonl(here / "longer.jsonl", [*records, records[0]])
    with pytest.raises(InputError, match="had \\[60\\]"):
        run("longer.jsonl", "longer", only_rejects="out")
    with pytest.raises(InputError, match="is no output folder of moembed embed"):
        run(corpus, "none", only_rejects="absent")


def test_slices_are_the_whole(run, corpus, whole, here):
    for part in (2, 0, 3, 1):
        run(corpus, "sliced", slice=(part, 4), on_error="skip")
    markers = {name: data for name, data in content(here / "sliced").items() if "/done/" not in name}
    assert markers == {name: data for name, data in whole.items() if "/done/" not in name}  # whose records differ by N


def test_slices_at_once_into_one_folder(run, corpus, whole, here):
    """As jobs of an array that all start together, one of them twice; most of 1,500 have nothing to do."""
    results, errors = [], []

    def slice_of(part, slices):
        try:
            results.append(run(corpus, "sliced", slice=(part, slices), on_error="skip"))
        except OutputError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=slice_of, args=(part, 1500)) for part in (0, 1, 2, 3, 4, 5, 5, 6, 1499)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("the slice 5/1500 of sliced is being written by process" in error for error in errors)
    assert len(errors) <= 1
    assert sorted(shard for result in results for shard in result.made) == list(range(6))
    shards = {name: data for name, data in content(here / "sliced").items() if name.startswith("rows-")}
    assert shards == {name: data for name, data in whole.items() if name.startswith("rows-")}
    with pytest.raises(OutputError, match="slices: 1500, and 4"):
        run(corpus, "sliced", slice=(0, 4), on_error="skip")


@pytest.mark.parametrize("text", ["4/4", "5/4", "-1/4", "1/0", "a/4", "1", "1/4/2", "", "¹/4"])
def test_slices_count_from_0(embed, text):
    code, err = embed("-i", "d.jsonl", "-o", "out/", f"--shard={text}")
    assert code == 2
    assert "expected I/N, where I counts from 0" in err


def test_slices_check_only_what_they_read(run, here):
    """A slice takes the inventory over, and hashes the files of its own shards."""
    for name in "ab":
        write_jsonl(here / f"{name}.jsonl", [{"text": f"{name}{n}"} for n in range(10)])
    inputs = ["a.jsonl", "b.jsonl"]
    run(inputs, slice=(0, 2))
    (here / "a.jsonl").write_text((here / "a.jsonl").read_text().replace("a9", "a8"))
    assert run(inputs, slice=(1, 2)).made == (1,)
    with pytest.raises(OutputError, match="sha256 of file 0"):
        run(inputs, slice=(0, 2))


@pytest.mark.parametrize("names", [("rename", "replace", "chmod")])
def test_no_renames(run, corpus, whole, here, monkeypatch, names):
    """As on a bucket that is mounted: told before the first row, and shards are written in place."""

    def refuse(*_arguments, **_options):
        raise OSError(errno.ENOSYS, "Function not implemented")

    for name in names:
        monkeypatch.setattr(os, name, refuse)
    log = []
    run(corpus, "mounted", on_error="skip", log=log)
    assert "mounted has no renames" in log[0]
    assert content(here / "mounted") == whole
    (here / "mounted" / "rows-000000000010.parquet").write_bytes(b"PAR1")  # a write that was cut off
    assert run(corpus, "mounted", on_error="skip").made == (1,)
    assert content(here / "mounted") == whole


def held(folder):
    """Claim a folder in another process, until its stdin is closed."""
    script = (
        "import sys\nfrom moembed.corpus.claims import claimed\nfrom moembed.corpus.target import LocalTarget\n"
        f"with claimed(LocalTarget({str(folder)!r}, 'x'), '0-of-1'):\n print('held', flush=True)\n sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(run, corpus, here):
    process = held(here / "out")
    try:
        with pytest.raises(OutputError, match="is being written by process") as error:
            run(corpus, on_error="skip")
        assert f"process {process.pid} on {socket.gethostname()}" in str(error.value)
        run(corpus, "out2", on_error="skip")
    finally:
        process.kill()
        process.communicate()
    partial = here / "out" / "_moembed" / "partial" / "0-of-1-host-1-abcd-rows-000000000000.parquet"
    partial.write_text("of the dead owner")
    other = partial.with_name("1-of-2-host-1-abcd-rows-000000000000.parquet")
    other.write_text("of an owner of something else")
    assert run(corpus, on_error="skip").made == tuple(range(6))  # the dead owner is noticed at once
    assert not partial.exists()
    assert other.exists()


def test_locks_that_do_nothing(run, corpus, whole, here, monkeypatch):
    """As on NFS: the owner is known by signs of life, and two owners would write the same bytes."""
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_arguments: None)
    monkeypatch.setitem(claims._BEAT_SECONDS, claims.LocalTarget, 0.2)
    started, release = threading.Event(), threading.Event()
    target = claims.LocalTarget(str(here / "shared"), "x")

    def own():
        with claims.claimed(target, "0-of-1"):
            started.set()
            release.wait(60)

    owner = threading.Thread(target=own)
    owner.start()
    started.wait(60)
    partial = target.spool("rows-000000000000.parquet")
    partial.write_text("of the other owner")
    try:
        with pytest.raises(OutputError, match=f"is being written by process {os.getpid()} on"):
            run(corpus, "shared", on_error="skip")
    finally:
        release.set()
        owner.join()
    assert partial.read_text() == "of the other owner"
    claim = here / "shared" / "_moembed" / "owners" / "0-of-1.json"
    claim.write_text('{"pid": 1, "host": "gone", "token": "0", "beat": 3}')  # of one that was killed
    run(corpus, "shared", on_error="skip")
    assert partial.exists()  # its owner may be alive
    partial.unlink()
    claim.unlink(missing_ok=True)
    assert content(here / "shared") == whole


def test_what_cannot_be_written_is_told(run, corpus, here):
    """An `OutputError` is an `OSError`: nothing takes it for one of reading, or drops it."""
    (here / "out" / "_moembed").mkdir(parents=True)
    (here / "out" / "_moembed" / "owners").write_text("no folder")
    with pytest.raises(OutputError, match="cannot write out/_moembed/owners/0-of-1: "):
        run(corpus)
    with pytest.raises(OutputError, match="refused"), reading(corpus):
        raise OutputError("refused")
    with pytest.raises(OutputError, match=r"cannot copy stdin to .*absent/input0: No such file"):
        spooled([Source(os.devnull, "lines", label="stdin")], here / "absent" / "input")
    with pytest.raises(InputError, match="^d cannot be read: Is a directory"), reading(str(here), "d"):
        pass


def test_damaged_rejects_are_told(run, corpus, whole, here):
    path = next((here / "out" / REJECTS).iterdir())
    path.write_text('{"index": ')
    with pytest.raises(InputError, match=f"{path.name} is damaged .* give the command of out again, which mends it"):
        run(corpus, "rest", only_rejects="out")
    assert len(run(corpus, on_error="skip").made) == 1
    assert content(here / "out") == whole


def test_two_owners_at_once_lose_nothing(run, corpus, whole, here, monkeypatch):
    import contextlib

    from moembed.corpus import runs

    @contextlib.contextmanager
    def everybody(*_arguments):
        yield False

    monkeypatch.setattr(runs, "claimed", everybody)
    threads = [threading.Thread(target=run, args=(corpus, "both"), kwargs={"on_error": "skip"}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(here / "both") == whole


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs another file system")
def test_the_output_may_be_a_link_into_another_file_system(run, corpus, whole, here):
    place = Path(f"/dev/shm/moembed-test-{os.getpid()}")
    place.mkdir()
    try:
        (here / "link").symlink_to(place, target_is_directory=True)
        run(corpus, "link", on_error="skip")
        assert (here / "link").is_symlink()
        assert content(place) == whole
    finally:
        shutil.rmtree(place)


def test_disk_full_is_told_and_the_run_goes_on_later(run, corpus, whole, here, monkeypatch):
    from moembed.corpus import target as targets

    written = {"left": 0}
    write = targets.Sink.write

    def limited(self, data):
        written["left"] -= memoryview(data).nbytes
        if written["left"] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    size = sum(map(len, whole.values()))
    for share in (0.1, 0.99):
        written["left"] = int(share * size)
        with monkeypatch.context() as patch:
            patch.setattr(targets.Sink, "write", limited)
            with pytest.raises(OutputError, match=r"^cannot write full/.*: No space left on device$"):
                run(corpus, "full", on_error="skip")
        assert not list((here / "full").glob("_moembed/partial/*"))
        if share > 0.5:
            assert run(corpus, "full", on_error="skip").kept
            assert content(here / "full") == whole
        shutil.rmtree(here / "full")


def test_going_on_elsewhere(run, corpus, whole, here):
    """After a copy of the folder, with a clock that went back, and a record of another version."""
    shutil.copytree("out", "moved", copy_function=shutil.copyfile)
    (here / "moved" / "rows-000000000020.parquet").unlink()
    for path in (here / "moved").rglob("*"):
        os.utime(path, (4_000_000_000, 4_000_000_000))
    record = here / "moved" / "_moembed" / "run.json"
    raw = json.loads(record.read_text())
    raw["information"]["moembed"] = raw["stamp"]["moembed"] = "0.0.1"
    record.write_text(json.dumps(raw))
    log = []
    assert run(corpus, "moved", on_error="skip", log=log).made == (2,)
    assert "was begun with moembed 0.0.1, and goes on with" in log[0]
    assert content(here / "moved") == whole
    record.write_text("{")
    with pytest.raises(OutputError, match=r"run\.json is damaged .*--force"):
        run(corpus, "moved", on_error="skip")


def test_vectors_are_checked_before_they_are_written(run, model, here, monkeypatch):
    """Faults of one text of 64: the others are written, and nothing takes its place."""
    texts = [f"text {number}" for number in range(64)]
    write_jsonl(here / "d.jsonl", [{"text": text} for text in texts])
    (bad,) = model.tokenizer.encode([texts[40]], prefix="")
    real = Session.run

    def faulty(kind):
        def session_run(self, output, ids, mask):
            result = real(self, output, ids, mask)
            hit = [row for row in range(len(ids)) if ids[row, : len(bad)].tolist() == bad.tolist()]
            if hit and kind == "exception":
                raise BundleError("injected")
            for row in hit:
                result[row] = {"nan": np.nan, "zeros": 0.0, "norm": result[row] * 1.01, "exception": 0}[kind]
            return result

        return session_run

    expected = model.encode(texts, prompt="", truncate_dim=8)
    for kind in ("nan", "zeros", "norm", "exception"):
        with monkeypatch.context() as patch:
            patch.setattr(Session, "run", faulty(kind))
            run("d.jsonl", kind, on_error="skip", shard_rows=100)
        table = pq.read_table(kind)
        assert table["index"].to_pylist() == [n for n in range(64) if n != 40]
        assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), np.delete(expected, 40, 0))
        (reject,) = rejects(here / kind)
        assert reject["index"] == 40
        assert any(word in reject["reason"] for word in ("length", "injected"))


def test_a_text_that_occurs_twice_is_computed_once(run, here, monkeypatch):
    write_jsonl(here / "d.jsonl", [{"text": f"text {number % 5}"} for number in range(50)])
    real, rows = Session.run, []
    monkeypatch.setattr(
        Session, "run", lambda self, output, ids, mask: rows.append(len(ids)) or real(self, output, ids, mask)
    )
    run("d.jsonl", shard_rows=100)
    assert sum(rows) == 5
    assert len(pq.read_table("out")) == 50


def test_the_record_has_the_stamp_and_so_has_every_file(run, corpus, whole, here):
    from moembed.stamps.stamp import KEY, Stamp

    raw = json.loads((here / "out" / "_moembed" / "run.json").read_text())
    stamp = Stamp.from_json(json.dumps(raw["stamp"]), "run.json")
    assert (stamp.width, stamp.precision) == (8, "float32")
    for path in (here / "out").glob("*.parquet"):
        assert Stamp.from_json(pq.read_schema(path).metadata[KEY.encode()], path.name) == stamp


def test_shards_are_read_as_one_table(run, corpus, whole):
    """Readers skip what a run keeps for itself."""
    import duckdb
    import pandas as pd
    import polars as pl

    expected = pq.read_table("out")["index"].to_pylist()
    assert pl.read_parquet("out/*.parquet")["index"].to_list() == expected
    assert pd.read_parquet("out")["index"].to_list() == expected
    assert pa.dataset.dataset("out").to_table()["index"].to_pylist() == expected
    assert [row[0] for row in duckdb.sql("SELECT index FROM 'out/*.parquet' ORDER BY index").fetchall()] == expected
