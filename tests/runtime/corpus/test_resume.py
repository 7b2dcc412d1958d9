"""Runs that go on: the same command gives the same bytes and makes only what is missing; another one is refused."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moembed.cli import main
from moembed.corpus import Options, Selection, embed_files
from moembed.corpus.shards import REJECTS
from moembed.errors import InputError, OutputError
from moembed.inference.kernels import PORTABLE, usable_kernels
from support.corpora import content, write_jsonl


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


def test_another_model_is_refused(corpus, whole, small):
    options = Options(selection=Selection(), prompt="", dim=8, shard_rows=10, on_error="skip")
    with pytest.raises(OutputError, match="begun by another command.*fingerprint"):
        embed_files([corpus], "out", small, options)


@pytest.mark.skipif(usable_kernels() == (PORTABLE,), reason="no native library")
def test_a_machine_with_other_kernels_is_refused(run, corpus, whole, here, monkeypatch, capsys):
    """Half of the shards with one family and half with the other: told before the first row, and by `moembed stamp`."""
    (here / "out" / "rows-000000000050.parquet").unlink()
    portable = ["embed", "-i", corpus, "--prompt", "", "--dim", "8", "--shard-rows", "10", "--on-error", "skip", "-q"]
    monkeypatch.setenv("MOEMBED_KERNELS", PORTABLE)
    assert main([*portable, "-o", "out/"]) == 2
    assert "kernels: 'native', and 'portable'" in capsys.readouterr().err
    assert main([*portable, "-o", "other/"]) == 3
    shutil.copy("other/rows-000000000050.parquet", "out")
    assert main(["stamp", *map(str, sorted((here / "out").glob("*.parquet")))]) == 1
    assert capsys.readouterr().out.count("in kernels: 'native', and 'portable'") == 1
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert run(corpus, on_error="skip").made == (5,)
    assert content(here / "out") == whole


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
    import polars as pl

    pd = pytest.importorskip("pandas")

    expected = pq.read_table("out")["index"].to_pylist()
    assert pl.read_parquet("out/*.parquet")["index"].to_list() == expected
    assert pd.read_parquet("out")["index"].to_list() == expected
    assert pa.dataset.dataset("out").to_table()["index"].to_pylist() == expected
    assert [row[0] for row in duckdb.sql("SELECT index FROM 'out/*.parquet' ORDER BY index").fetchall()] == expected
