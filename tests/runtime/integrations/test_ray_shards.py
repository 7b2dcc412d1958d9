"""A shard's task, without Ray: attempts of one shard, and nodes that have something else."""

import json
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from moembed.errors import BundleError, InputError, OutputError
from moembed.integrations import ray_shards
from moembed.integrations.ray_shards import RayShards, compute_shard
from support.shared_runs import SHARD_ROWS, content, run, write_corpus

BUILT_IN = (None, None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("shards") / "corpus", 150)


@pytest.fixture
def given(corpus, tmp_path, model):
    """Begin a run whose shards nobody computes; return its job."""
    jobs = []
    run(corpus, tmp_path / "out", model, lambda job, *_: jobs.append(job))
    return jobs[0]


def in_turn(job, shards, advance, done):
    for shard in shards:
        counts, tokens = compute_shard(job.to_json(), BUILT_IN, shard)
        advance(counts.rows, tokens)
        done(shard, counts)


def test_tasks_write_the_bytes_of_a_local_run(corpus, tmp_path, model):
    local = run(corpus, tmp_path / "local", model)
    other = run(corpus, tmp_path / "other", model, in_turn)
    assert (other.counts, other.made) == (local.counts, local.made)
    assert content(tmp_path / "other") == content(tmp_path / "local")


def test_another_attempt_of_a_finished_shard_computes_nothing(given, tmp_path):
    first, tokens = compute_shard(given.to_json(), BUILT_IN, 1)
    assert tokens > SHARD_ROWS
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert compute_shard(given.to_json(), BUILT_IN, 1) == (first, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_an_attempt_that_ends_after_the_run_changes_no_byte(corpus, tmp_path, model, monkeypatch):
    """A node that was given up wakes and goes on: it began before the shard was finished, and puts it in place again."""
    jobs = []

    def compute(job, shards, advance, done):
        jobs.append(job)
        in_turn(job, shards, advance, done)

    run(corpus, tmp_path / "out", model, compute)
    before = content(tmp_path / "out")
    monkeypatch.setattr(ray_shards, "finished", lambda *_: None)
    counts, tokens = compute_shard(jobs[0].to_json(), BUILT_IN, 1)
    assert tokens > SHARD_ROWS
    assert counts.rows == SHARD_ROWS
    assert content(tmp_path / "out") == before
    assert not list((tmp_path / "out" / "_moembed" / "partial").iterdir())
    again = run(corpus, tmp_path / "out", model)
    assert (again.made, again.kept) == ((), (0, 1, 2))


def test_tasks_write_late_chunks_too(corpus, tmp_path, model):
    run(corpus, tmp_path / "local", model, overlong="late")
    other = run(corpus, tmp_path / "other", model, in_turn, overlong="late")
    assert other.counts.rejects == 2, "only null texts"
    assert content(tmp_path / "other") == content(tmp_path / "local")


def test_attempts_at_the_same_time_leave_one_shard(corpus, given, tmp_path, model):
    run(corpus, tmp_path / "local", model)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: compute_shard(given.to_json(), BUILT_IN, 2), range(4)))
    assert len({answer[0] for answer in answers}) == 1
    expected = {name: data for name, data in content(tmp_path / "local").items() if "000000000100" in name}
    assert content(tmp_path / "out") == expected
    assert not list((tmp_path / "out" / "_moembed" / "partial").iterdir())


def test_a_folder_that_is_not_shared_gets_no_shard(given, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    error = compute_shard(replace(given, folder=str(elsewhere)).to_json(), BUILT_IN, 0)
    assert isinstance(error, OutputError)
    assert str(error).startswith(f"on {socket.gethostname()}: {elsewhere} is not the folder of this run")
    assert not elsewhere.exists()
    other = replace(given, digest="0" * 64)
    assert isinstance(compute_shard(other.to_json(), BUILT_IN, 0), OutputError), "begun anew by another command"


def test_a_node_without_the_input_says_so(given, corpus, tmp_path):
    moved = shutil.copytree(corpus, tmp_path / "moved")
    sources = tuple(replace(source, path=str(moved / "gone.parquet"), label="") for source in given.sources)
    error = compute_shard(replace(given, sources=sources).to_json(), BUILT_IN, 0)
    assert isinstance(error, InputError)
    assert socket.gethostname() in str(error)
    assert "gone.parquet cannot be read" in str(error)


def test_a_node_that_would_compute_other_vectors_is_refused(given, tmp_path):
    path = tmp_path / "out" / "_moembed" / "run.json"
    record = json.loads(path.read_text())
    record["stamp"]["kernels"] = "portable"
    path.write_text(json.dumps(record))
    # The digest of the run is that of its record.
    from moembed.corpus.run_record import RunRecord

    digest = RunRecord.from_json(path.read_bytes(), "run.json").digest
    error = compute_shard(replace(given, digest=digest).to_json(), BUILT_IN, 0)
    assert isinstance(error, BundleError)
    assert "kernels: 'portable', and 'native'" in str(error)


def test_a_kept_run_needs_no_ray(corpus, tmp_path, model):
    run(corpus, tmp_path / "out", model)
    shards = RayShards(embedder=model, address="127.0.0.1:1", log=print)
    again = run(corpus, tmp_path / "out", model, shards)
    assert (again.made, again.kept) == ((), (0, 1, 2))
