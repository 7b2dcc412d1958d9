"""Workers are started from any program: without a main guard, at import, from stdin, by `-c` and in a notebook."""

import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from moembed.corpus import Options, Selection
from moembed.corpus.inventory import take_inventory
from moembed.corpus.runs import job_of
from moembed.corpus.sources import find
from moembed.corpus.vectors import Encoder
from moembed.errors import InputError
from support.corpora import write_jsonl
from support.mappings import check_shared, mapping_reader, on_linux

PROGRAM = """
from moembed import Embedder
from moembed.corpus import Options, Selection, embed_files
model = Embedder.from_pretrained(threads=1)
options = Options(selection=Selection(), prompt="", dim=8, shard_rows=2, workers=2)
print(embed_files(["d.jsonl"], "out", model, options, show=False).made)
"""
STARTS = {
    "script": ["program.py"],
    "import": ["-c", "import program"],
    "stdin": ["-"],
    "-c": ["-c", PROGRAM],
    "notebook": ["-m", "IPython", "--quick", "--no-banner", "--colors=NoColor", "-c", PROGRAM],
}


@pytest.mark.parametrize(
    "how", [name if name == "script" else pytest.param(name, marks=pytest.mark.long) for name in STARTS]
)
def test_workers_of_any_program(here, how):
    if how == "notebook":
        pytest.importorskip("IPython")
    write_jsonl(here / "d.jsonl", [{"text": f"{number}"} for number in range(4)])
    (here / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, *STARTS[how]],
        input=PROGRAM if how == "stdin" else "",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "(0, 1)"), done.stderr
    assert pq.read_table("out")["index"].to_pylist() == [0, 1, 2, 3]


def test_no_more_workers_than_shards(run, here, monkeypatch):
    from moembed.corpus import pool

    write_jsonl(here / "d.jsonl", [{"text": f"{number}"} for number in range(3)])
    started = []

    def start(_job, number, answers):
        started.append(number)
        answers.put((number, {"error": "InputError", "message": "enough"}))

    monkeypatch.setattr(pool, "_start", start)
    monkeypatch.setattr(pool, "_send", lambda *_: None)
    monkeypatch.setattr(pool, "_stop", lambda _processes: None)
    assert run("d.jsonl", workers=16).made == (0,), "one shard is computed here"
    assert started == []
    with pytest.raises(InputError, match="enough"):
        run("d.jsonl", "several", workers=16, shard_rows=1)
    assert started == [0, 1, 2]


@on_linux
def test_workers_have_the_weights_in_memory_once(run, here, model, monkeypatch):
    from moembed.corpus import pool

    write_jsonl(here / "d.jsonl", [{"text": f"{number}"} for number in range(4)])
    mapped, stop, told = mapping_reader(), pool._stop, []

    def look_and_stop(processes):
        told.extend(mapped(".onnx_data", process.pid) for process in processes)
        stop(processes)

    monkeypatch.setattr(pool, "_stop", look_and_stop)
    run("d.jsonl", workers=2, shard_rows=2)
    assert len(told) == 2
    (weights,) = model.bundle.folder.glob("onnx/*.onnx_data")
    check_shared(told, weights)


@on_linux
def test_workers_need_no_shared_memory(here):
    """In containers, /dev/shm has 64 MB or less."""
    write_jsonl(here / "d.jsonl", [{"text": f"{number}"} for number in range(4)])
    small = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4k none /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    command = ["-m", "moembed", "embed", "-q", "-i", "d.jsonl", "-o", "out/", "--shard-rows", "1", "--workers", "2"]
    done = subprocess.run([*small, sys.executable, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert pq.read_table("out")["index"].to_pylist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("cpus", "workers", "threads"), [(8, 2, 4), (8, 3, 2), (2, 4, 1), (8, 1, 8)])
def test_workers_share_the_threads_of_a_machine(here, model, monkeypatch, cpus, workers, threads):
    """Those that nobody chose: a number that was given is that of each worker."""
    from moembed.corpus import runs

    monkeypatch.setattr(runs, "available_cpus", lambda: cpus)
    monkeypatch.setattr(model, "threads", cpus)
    write_jsonl(here / "d.jsonl", [{"text": "a"}])
    sources, options = find(["d.jsonl"], None, print), Options(selection=Selection(), prompt="", workers=workers)
    encoder = Encoder(model, prompt="", dim=8, precision="float32", overlong="error")
    assert job_of(sources, take_inventory(sources, Selection()), options, encoder).model.threads == threads
    monkeypatch.setattr(model, "threads", cpus + 1)
    assert job_of(sources, take_inventory(sources, Selection()), options, encoder).model.threads == cpus + 1
