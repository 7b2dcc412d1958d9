"""Late chunking in runs and streams: windows of all texts, with the vectors of `Embedder.embed`."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from moembed import Chunk
from moembed.cli import main
from moembed.corpus.job import Job
from moembed.errors import BundleError, InputError, OutputError
from moembed.inference.session import Output, Session
from moembed.stamps.loading import read_stamp
from moembed.truncation import OVERLONG_NAMES, policy_of
from support.corpora import rejects, write_jsonl
from support.shared_runs import content
from support.shared_runs import run as shared_run

SENTENCE = "The bridge was built of sandstone in 1902, and widened when trams came. "
TEXTS = [SENTENCE * 60, "short", "", SENTENCE * 4, "word " * 40]
WINDOWS = Chunk(late=True, tokens=32)


@pytest.fixture
def corpus(here):
    write_jsonl(here / "d.jsonl", [{"id": f"id {row}", "text": text} for row, text in enumerate(TEXTS)])
    return "d.jsonl"


def expected(model, texts=TEXTS, prompt="", **options):
    return list(model.embed(texts, prompt=prompt, overlong=WINDOWS, truncate_dim=8, **options))


def test_windows_and_vectors_are_those_of_embed(run, corpus, model):
    result = run(corpus, overlong=WINDOWS)
    own = expected(model)
    assert result.counts.vectors == len(own) > 2 * len(TEXTS)
    table = pq.read_table("out")
    for name in ("index", "tokens", "start", "end", "truncated"):
        assert table[name].to_pylist() == [getattr(row, name) for row in own]
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), [row.vector for row in own])
    keys = list(zip(table["id"].to_pylist(), table["window"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys)
    assert [key for key in keys if key[0] == "id 1"] == [("id 1", 0)]
    assert [number for own_id, number in keys if own_id == "id 3"] == [0, 1, 2]


def test_text_formats_name_the_windows_too(run, corpus, here, model):
    own = expected(model)
    run(corpus, "json", overlong=WINDOWS, form="jsonl")
    lines = [json.loads(line) for line in (here / "json" / "rows-000000000000.jsonl").read_text().splitlines()]
    assert [(row["index"], row["start"], row["end"]) for row in lines] == [
        (row.index, row.start, row.end) for row in own
    ]
    run(corpus, "csv", overlong=WINDOWS, form="csv")
    with (here / "csv" / "rows-000000000000.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["window"]) for row in rows] == [row["window"] for row in lines]


@pytest.mark.parametrize("overlong", ["late", Chunk(late=True, tokens=32, overlap=8)])
def test_other_processes_write_the_same_bytes(run, here, overlong):
    write_jsonl(here / "d.jsonl", [{"text": f"{row} {SENTENCE * 10}"} for row in range(6)])
    run("d.jsonl", "one", overlong=overlong, shard_rows=3)
    run("d.jsonl", "two", overlong=overlong, shard_rows=3, workers=2)
    assert content(here / "one") == content(here / "two")


def test_a_text_that_occurs_twice_is_read_once(run, here, monkeypatch):
    write_jsonl(here / "d.jsonl", [{"text": SENTENCE * (1 + row % 3)} for row in range(30)])
    real, rows = Session.run, []
    monkeypatch.setattr(
        Session, "run", lambda self, output, ids, mask: rows.append((output, len(ids))) or real(self, output, ids, mask)
    )
    run("d.jsonl", overlong="late", shard_rows=100)
    assert rows == [(Output.TOKENS, 3)]
    assert len(set(pq.read_table("out")["index"].to_pylist())) == 30


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("chunk", "late", "overlong: 'chunk', and 'late, overlap 64, tokens 128'"),
        ("late", WINDOWS, "overlong: 'late, overlap 64, tokens 128', and 'late, overlap 64, tokens 32'"),
    ],
)
def test_other_windows_are_another_run(run, corpus, first, second, told):
    run(corpus, overlong=first)
    with pytest.raises(OutputError, match=told):
        run(corpus, overlong=second)


def test_equal_policies_are_one_run(run, corpus):
    run(corpus, overlong="late")
    assert run(corpus, overlong=Chunk(late=True)).made == ()


@pytest.mark.parametrize("kind", ["nan", "zeros", "exception"])
def test_a_text_on_which_the_model_fails_is_rejected_alone(run, corpus, here, model, monkeypatch, kind):
    """The fault is in the second pass of the first text, of several in a batch."""
    write_jsonl(here / "d.jsonl", [*({"text": text} for text in TEXTS), {"text": None}])
    real = Session.run
    (first,) = model.tokenizer.encode([TEXTS[0]], prefix="", max_tokens=2000)

    def faulty(self, output, ids, mask):
        result = real(self, output, ids, mask)
        hit = [
            row for row in range(len(ids)) if mask[row].sum() > 400 and ids[row, 1:9].tolist() != first[1:9].tolist()
        ]
        if hit and kind == "exception":
            raise BundleError("injected")
        for row in hit:
            result[row] = np.nan if kind == "nan" else 0.0
        return result

    monkeypatch.setattr(Session, "run", faulty)
    result = run("d.jsonl", overlong=WINDOWS, on_error="skip")
    monkeypatch.undo()
    own = [row for row in expected(model) if row.index != 0]
    assert (result.counts.rejects, result.counts.vectors) == (2, len(own))
    table = pq.read_table(here / "out")
    assert table["index"].to_pylist() == [row.index for row in own]
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), [row.vector for row in own])
    found = {row["index"]: row["reason"] for row in rejects(here / "out")}
    assert "it is null" in found[5]
    assert ("injected" if kind == "exception" else "length") in found[0]


def test_a_model_that_always_fails_ends_the_run(run, corpus, monkeypatch):
    def fails(*_):
        raise BundleError("injected")

    monkeypatch.setattr(Session, "run", fails)
    with pytest.raises(BundleError, match="injected"):
        run(corpus, overlong="late", on_error="skip")


def test_spans_are_a_function_and_do_not_travel(run, corpus, here):
    with pytest.raises(InputError, match="spans is a function"):
        run(corpus, overlong=Chunk(late=True, spans=lambda text: [(0, len(text))]))
    assert not (here / "out").exists()


@pytest.mark.parametrize("overlong", [*OVERLONG_NAMES, WINDOWS, Chunk(7), Chunk(0, pooled=True)])
def test_every_policy_goes_to_other_processes(corpus, here, model, overlong):
    jobs = []
    shared_run(here / corpus, here / "out", model, lambda job, *_: jobs.append(job), overlong=overlong)
    (job,) = jobs
    assert policy_of(Job.from_json(job.to_json()).model.policy) == policy_of(overlong)


def test_the_command_writes_windows_of_all_texts(embed, corpus, here, model):
    assert embed("-i", corpus, "-o", "out/", "--overlong", "late", "--window-tokens", "32", "--task", "query")[0] == 0
    own = expected(model, prompt=model.prompt_for("query"))
    table = pq.read_table("out")
    assert table["window"].to_pylist()[:3] == [0, 1, 2]
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), [row.vector for row in own])
    shard = next((here / "out").glob("*.parquet"))
    assert read_stamp(shard).overlong == "late, overlap 64, tokens 32"
    code, err = embed("-i", corpus, "-o", "out/", "--overlong", "late", "--task", "query")
    assert code == 2
    assert "tokens 32', and 'late, overlap 64, tokens 128'" in err


def test_streams_have_windows_too(here, capsys, model):
    argv = ["embed", SENTENCE * 4, "short", "--overlong", "late", "--window-tokens", "32", "--dim", "8"]
    assert main([*argv, "-o", "v.jsonl"]) == 0
    lines = [json.loads(line) for line in (here / "v.jsonl").read_text().splitlines()]
    own = expected(model, [SENTENCE * 4, "short"], prompt=model.prompt_for("document"))
    assert [row["index"] for row in lines] == [row.index for row in own] == [0, 0, 0, 1]
    assert [(row["start"], row["end"]) for row in lines[:3]] == [(row.start, row.end) for row in own[:3]]
    assert np.array_equal(np.array([row["embedding"] for row in lines], np.float32), [row.vector for row in own])
    assert read_stamp(here / "v.jsonl").overlong == "late, overlap 64, tokens 32"
    assert main([*argv[:3], "--overlong", "chunk", "--dim", "8", "-o", "w.jsonl"]) == 0
    capsys.readouterr()
    assert main(["stamp", "v.jsonl", "w.jsonl"]) == 1
    assert "differs from v.jsonl in overlong: 'late, overlap 64, tokens 32', and 'chunk'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--overlong", "chunk", "--window-tokens", "9"],
            "--window-tokens is for --overlong late; found --overlong chunk",
        ),
        (["--window-tokens", "9"], "found --overlong error"),
        (["--overlong", "late", "--window-tokens", "0"], "--window-tokens 0; expected a positive integer"),
    ],
)
def test_options_that_do_not_go_together(embed, corpus, options, told):
    for output in ("out/", "v.jsonl"):
        code, err = embed("-i", corpus, "-o", output, *options)
        assert code == 2
        assert told in err
