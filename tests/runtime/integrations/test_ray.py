"""Ray on three nodes of this machine: datasets, and runs that lose a node."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moembed import Chunk
from moembed.errors import EngineWarning, InputError, MoembedError
from moembed.integrations import ray_shards
from moembed.integrations.ray import EmbedBatches, embed_dataset
from moembed.integrations.ray_shards import RayShards
from moembed.stamps.stamp import KEY
from support.mappings import LINUX, check_shared, mapping_reader
from support.shared_runs import ROWS, SHARD_ROWS, content, indices, run, write_corpus

pytestmark = pytest.mark.engines
ray = pytest.importorskip("ray")
SHARDS = ROWS // SHARD_ROWS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("ray") / "corpus", length=15)


@pytest.fixture(scope="module")
def local(corpus, tmp_path_factory, model):
    output = tmp_path_factory.mktemp("ray") / "local"
    run(corpus, output, model)
    return content(output)


@pytest.fixture
def shards(nodes, model):
    return RayShards(embedder=model, address=nodes.address, log=print)


@pytest.fixture
def connected(nodes):
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finished(output):
    return len(list((output / "_moembed" / "done").glob("*.json")))


def test_a_run_on_ray_has_the_bytes_of_a_local_one(corpus, local, tmp_path, shards, model):
    result = run(corpus, tmp_path / "out", model, shards)
    assert len(result.made) == SHARDS
    assert content(tmp_path / "out") == local
    assert not ray.is_initialized(), "who was not connected is not afterwards"


def test_a_node_killed_in_the_middle_loses_and_doubles_nothing(corpus, local, tmp_path, shards, nodes, model):
    output = tmp_path / "out"
    (node, *_) = (node for node in nodes.list_all_nodes() if not node.head)

    at_the_kill = []

    def kill():
        wait_for(lambda: finished(output) >= 2)
        at_the_kill.append(finished(output))
        nodes.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run(corpus, output, model, shards)
    finally:
        killer.join()
        nodes.add_node(num_cpus=1, object_store_memory=80 << 20)
        nodes.wait_for_nodes()
    assert at_the_kill[0] < SHARDS
    assert indices(output) == list(range(ROWS))
    assert content(output) == local


def test_late_chunks_have_the_bytes_of_a_local_run_too(tmp_path, shards, model):
    few = write_corpus(tmp_path / "corpus", rows=2 * SHARD_ROWS, length=15)
    policy = Chunk(late=True, tokens=32)
    run(few, tmp_path / "local", model, overlong=policy)
    run(few, tmp_path / "out", model, shards, overlong=policy)
    assert content(tmp_path / "out") == content(tmp_path / "local")


def test_a_worker_that_dies_before_it_reports_costs_nothing(corpus, local, tmp_path, shards, model, monkeypatch):
    output, marker = tmp_path / "out", tmp_path / "died"

    def dies_once(job, source, shard):
        import os

        from moembed.integrations.ray_shards import compute_shard

        answer = compute_shard(job, source, shard)
        try:
            os.close(os.open(f"{marker}-{shard}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return answer
        os._exit(1)

    monkeypatch.setattr(ray_shards, "compute_shard", dies_once)
    result = run(corpus, output, model, shards)
    assert len(result.made) == SHARDS == len(list(tmp_path.glob("died-*")))
    assert content(output) == local


def test_workers_that_die_again_and_again_end_the_run(corpus, tmp_path, shards, model, monkeypatch):
    def dies(job, source, shard):
        import os

        os._exit(1)

    monkeypatch.setattr(ray_shards, "compute_shard", dies)
    with pytest.raises(MoembedError, match="died 6 times"):
        run(corpus, tmp_path / "out", model, shards)


def test_a_task_that_raises_ends_the_run_in_one_line(corpus, tmp_path, shards, model, monkeypatch):
    def fails(job, source, shard):
        raise ZeroDivisionError("of this test")

    monkeypatch.setattr(ray_shards, "compute_shard", fails)
    with pytest.raises(MoembedError, match="ZeroDivisionError: of this test") as error:
        run(corpus, tmp_path / "out", model, shards)
    assert "\n" not in str(error.value)


def command(corpus, output, *options):
    given = ["embed", "-i", str(corpus), "-o", f"{output}/", "--on-error", "skip", "--shard-rows", str(SHARD_ROWS)]
    return [sys.executable, "-m", "moembed", *given, *options]


def start(corpus, output, *options):
    return subprocess.Popen(
        command(corpus, output, *options), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def stop_after(process, output, count, number):
    wait_for(lambda: finished(output) >= count or process.poll() is not None)
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    time.sleep(1)  # what a worker was about to finish is finished now
    return process.returncode, told


def test_the_command_goes_on_after_kills_with_other_engines(corpus, local, tmp_path, nodes):
    output, on_ray = tmp_path / "out", ("--engine", "ray", "--ray-address", nodes.address)
    stop_after(start(corpus, output, "--workers", "2"), output, 1, signal.SIGKILL)
    first = finished(output)
    code, told = stop_after(start(corpus, output, *on_ray), output, first + 2, signal.SIGTERM)
    assert code == 143
    assert "give the same command again to go on" in told
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    done = {path.stem for path in (output / "_moembed" / "done").glob("*.json")}
    assert first + 2 <= len(done) < SHARDS
    process = start(corpus, output, *on_ray, "--workers", "2")
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 3, told
    assert f"{SHARDS - len(done)} shards computed, {len(done)} kept" in told
    for name in done:
        assert (output / f"{name}.parquet").stat().st_mtime_ns == before[f"{name}.parquet"]
    assert indices(output) == list(range(ROWS))
    assert content(output) == local


def test_the_command_starts_a_ray_of_its_own(corpus, local, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    process = start(corpus, tmp_path / "out", "--engine", "ray")
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 3, told
    assert content(tmp_path / "out") == local


def test_a_bad_row_under_fail_ends_the_run(corpus, tmp_path, nodes):
    given = command(corpus, tmp_path / "out", "--engine", "ray", "--ray-address", nodes.address, "--on-error", "fail")
    process = subprocess.run(given, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert re.search(r"row \d+: the field 'text' is null", process.stderr), "that of whichever shard is computed first"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "no-such-host.invalid:6379"])
def test_an_address_without_a_ray_is_an_error_at_once(corpus, tmp_path, model, address):
    """Ray itself tries for 20 minutes."""
    started = time.monotonic()
    with pytest.raises(InputError, match="cannot be reached"):
        run(corpus, tmp_path / "out", model, RayShards(embedder=model, address=address, log=print))
    assert time.monotonic() - started < 60


def test_relative_paths_mean_those_of_the_command(corpus, local, tmp_path, nodes):
    given = command("corpus", "out", "--engine", "ray", "--ray-address", nodes.address, "--quiet")
    (tmp_path / "corpus").symlink_to(corpus)
    process = subprocess.run(given, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert process.returncode == 3, process.stderr
    shards = {name: data for name, data in local.items() if name.endswith(".parquet")}
    assert {name: data for name, data in content(tmp_path / "out").items() if name in shards} == shards


def counted():
    """Return a subclass that tells of its process; of a function, so that Ray sends the class itself."""
    mapped = mapping_reader()

    class Counted(EmbedBatches):
        def __call__(self, batch):
            from moembed.integrations.batches import openings

            table = super().__call__(batch)
            for name, value in (("pid", os.getpid()), ("openings", openings()), ("threads", self.threads)):
                table = table.append_column(name, pa.array([value] * table.num_rows, pa.int64()))
            return table.append_column("weights", pa.array([mapped(".onnx_data")] * table.num_rows, pa.string()))

    return Counted


def test_vectors_stay_beside_their_ids(corpus, tmp_path, connected, model):
    dataset = ray.data.read_parquet([str(corpus / "b.parquet"), str(corpus / "a.parquet")])
    embed_dataset(dataset, actors=2, rows_per_block=40).write_parquet(str(tmp_path / "out"))
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(files) > 4
    tables = [pq.read_table(file) for file in files]
    for table in tables:
        assert table.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32(), nullable=False), 384)
        assert KEY.encode() in table.schema.field("embedding").metadata
    rows = {row["id"]: row for table in tables for row in table.to_pylist()}
    given = {row["id"]: row["text"] for name in "ab" for row in pq.read_table(corpus / f"{name}.parquet").to_pylist()}
    assert sum(map(len, tables)) == len(rows) == ROWS
    fine = [name for name, text in given.items() if text is not None and len(text) < 1000]
    for name, text in given.items():
        assert rows[name]["text"] == text
        assert (rows[name]["embedding"] is None) == (name not in fine)
        assert (rows[name]["embedding_reason"] is None) == (name in fine)
    found = np.array([rows[name]["embedding"] for name in fine], np.float32)
    assert np.array_equal(found, model.encode_document([given[name] for name in fine]))


def test_a_file_of_one_block_is_shared_by_actors_that_open_the_model_once(corpus, connected, model):
    """The actors of this machine have the weights in memory once: they map one file, and copy no page of it."""
    dataset = ray.data.read_parquet(str(corpus / "b.parquet")).select_columns(["text"])
    dataset = dataset.repartition(target_num_rows_per_block=20)
    pool = ray.data.ActorPoolStrategy(size=2)
    made = dataset.map_batches(counted(), batch_format="pyarrow", batch_size=None, compute=pool, num_cpus=1)
    rows = made.take_all()
    assert len(rows) == ROWS * 3 // 5
    assert len({row["pid"] for row in rows}) == 2
    assert {row["openings"] for row in rows} == {1}
    assert {row["threads"] for row in rows} == {1}
    (weights,) = model.bundle.folder.glob("onnx/*.onnx_data")
    if LINUX:
        check_shared({row["weights"] for row in rows}, weights)


def dying(folder, times):
    """Return a subclass whose processes end at their first block, so many of them; with a folder of None, as they start."""

    class Dying(EmbedBatches):
        def __init__(self, **options):
            if folder is None:
                os._exit(1)
            super().__init__(**options)

        def __call__(self, batch):
            if len(list(Path(folder).iterdir())) < times:
                Path(folder, str(os.getpid())).touch()
                os._exit(1)
            return super().__call__(batch)

    return Dying


@pytest.mark.parametrize("times", [1, 3])
def test_an_actor_that_dies_loses_and_doubles_no_row(connected, tmp_path, monkeypatch, times):
    (tmp_path / "died").mkdir()
    monkeypatch.setattr("moembed.integrations.ray.EmbedBatches", dying(str(tmp_path / "died"), times))
    dataset = ray.data.from_arrow(pa.table({"id": range(40), "text": [f"text {row}" for row in range(40)]}))
    rows = embed_dataset(dataset, actors=1, rows_per_block=10).take_all()
    assert sorted(row["id"] for row in rows) == list(range(40))
    assert len(list((tmp_path / "died").iterdir())) == times


@pytest.mark.parametrize("where", ["at a block", "at the start"])
def test_actors_that_die_again_and_again_end_the_job(connected, tmp_path, monkeypatch, where):
    """Ray itself starts them for ever."""
    folder = str(tmp_path) if where == "at a block" else None
    monkeypatch.setattr("moembed.integrations.ray.EmbedBatches", dying(folder, 1000))
    dataset = ray.data.from_arrow(pa.table({"text": ["a"]}))
    with pytest.raises(ray.exceptions.RayError):
        embed_dataset(dataset, actors=1).take_all()
    assert len(list(tmp_path.iterdir())) <= 11


def delayed():
    """Return a subclass that takes longer for earlier rows."""

    class Delayed(EmbedBatches):
        def __call__(self, batch):
            time.sleep(1 - batch["id"][0].as_py() / 90)
            return super().__call__(batch)

    return Delayed


@pytest.mark.parametrize("blocks", ["of the files", "by rows", "repartition"])
def test_blocks_that_end_in_reverse_have_the_vectors_of_their_rows(connected, monkeypatch, model, blocks):
    monkeypatch.setattr("moembed.integrations.ray.EmbedBatches", delayed())
    texts = [f"text {row}" for row in range(90)]
    whole = pa.table({"id": range(90), "text": texts})
    dataset = ray.data.from_arrow([whole.slice(first, 30) for first in (0, 30, 60)])
    dataset = dataset.repartition(7) if blocks == "repartition" else dataset
    made = embed_dataset(dataset, actors=2, rows_per_block=20 if blocks == "by rows" else None)
    table = pa.concat_tables([pa.table(batch) for batch in made.iter_batches(batch_format="pyarrow")]).sort_by("id")
    assert table["id"].to_pylist() == list(range(90))
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), model.encode_document(texts))


def test_empty_datasets_and_datasets_without_a_good_row(connected):
    empty = embed_dataset(ray.data.from_arrow(pa.table({"text": pa.array([], pa.string())})), actors=1)
    assert empty.count() == 0
    none = embed_dataset(ray.data.from_arrow(pa.table({"text": pa.array([None, None], pa.string())})), actors=1)
    assert [row["embedding"] for row in none.take_all()] == [None, None]


def test_fewer_blocks_than_actors_are_told(connected):
    dataset = ray.data.from_arrow(pa.table({"text": ["a", "b", "c"]}))
    with pytest.warns(EngineWarning, match="1 blocks, and 2 actors .* rows_per_block"):
        embed_dataset(dataset, actors=2, rows_per_block=None)
    with pytest.raises(InputError, match="actors = 0"):
        embed_dataset(dataset, actors=0)
    with pytest.raises(InputError, match="actors = 1; expected at least 2"):
        embed_dataset(dataset, actors=(2, 1))
    with pytest.raises(InputError, match="field = 'body'"):
        embed_dataset(dataset, actors=1, field="body")


def test_as_many_actors_as_cpus_leave_one_to_the_other_tasks(connected, tmp_path):
    """Otherwise the tasks that read and write would wait for ever."""
    cpus = int(ray.cluster_resources()["CPU"])
    dataset = ray.data.from_arrow(pa.table({"text": ["a", "b", "c"]}))
    with pytest.warns(EngineWarning, match=f"{cpus} actors of 1 CPU leave no CPU .* {cpus - 1} are started"):
        made = embed_dataset(dataset, actors=cpus)
    made.write_parquet(str(tmp_path / "out"))
    assert sum(pq.read_table(file).num_rows for file in (tmp_path / "out").glob("*.parquet")) == 3


def test_batches_of_another_format_are_refused(connected):
    with pytest.raises(InputError, match="batch_format='pyarrow'"):
        EmbedBatches()({"text": np.array(["a"])})
