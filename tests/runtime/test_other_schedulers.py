"""Embedder in worker processes of others: pools, joblib, datasets, Dask, and closures as Spark sends them."""

import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import cloudpickle
import joblib
import numpy as np
import pytest

from moembed import Embedder
from moembed.errors import BundleError
from moembed.pull.opening import DEFAULT_FOLDER

TEXTS = ["one", "zwei", "drei kleine Texte", "三"]
MAP = """
import sys
from pathlib import Path
from datasets import disable_progress_bars, load_from_disk
from moembed import Embedder
disable_progress_bars()
folder, source, calls, processes = sys.argv[1], sys.argv[2] or None, Path(sys.argv[3]), int(sys.argv[4]) or None
model = Embedder.from_pretrained(source, threads=1)

def embed(rows):
    with open({calls!r}, "a") as file:
        file.write("x")
    return {{"vector": model.encode_document(rows["text"])}}

rows = load_from_disk(folder).map(embed, batched=True, num_proc=processes)
import numpy
print(numpy.array(rows["vector"], "float32").tobytes().hex())
"""


def hexes(vectors):
    return [vector.tobytes().hex() for vector in vectors]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_process_pools_of_a_used_model(model, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    expected = hexes(model.encode_document(TEXTS))
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert hexes(pool.map(model.encode_document, TEXTS, timeout=120)) == expected


JOBLIB = """
import joblib
from moembed import Embedder
model = Embedder.from_pretrained(threads=1)
found = joblib.Parallel(2)(joblib.delayed(model.encode_document)([text]) for text in TEXTS)
print(b"".join(vector.tobytes() for vector in found).hex())
"""


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_joblib_in_a_script_without_a_main_guard(model, tmp_path, way):
    script = JOBLIB.replace("TEXTS", repr(TEXTS))
    (tmp_path / "script.py").write_text(script)
    command, given = {
        "file": ([str(tmp_path / "script.py")], ""),
        "stdin": (["-"], script),
    }[way]
    done = subprocess.run(
        [sys.executable, *command], input=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == model.encode_document(TEXTS).tobytes().hex(), done.stderr


def test_more_workers_than_rows(model):
    found = joblib.Parallel(4)(joblib.delayed(model.encode_document)([text]) for text in TEXTS[:1])
    assert found[0].tobytes() == model.encode_document(TEXTS[:1]).tobytes()


def test_datasets_map_finds_its_cache_in_another_process(model, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    copy = shutil.copytree(DEFAULT_FOLDER, tmp_path / "copy")
    for processes in (0, 2):
        datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / f"rows{processes}")
    calls, expected = tmp_path / "calls", model.encode_document(TEXTS).tobytes().hex()

    def mapped(source, processes):
        script = MAP.format(calls=str(calls))
        command = [
            sys.executable,
            "-c",
            script,
            str(tmp_path / f"rows{processes}"),
            str(source),
            str(calls),
            str(processes),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout.split() == [expected], done.stderr
        assert "hashed properly" not in done.stderr
        return len(calls.read_text())

    assert mapped("", 0) == 1
    assert mapped(copy, 0) == 1, "the second run finds the cache, from another folder too"
    assert mapped("", 2) == 3
    assert mapped(copy, 2) == 3


def test_dask_in_processes_and_over_a_frame(model):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("dask.dataframe")
    import dask.bag
    import dask.dataframe

    expected = model.encode_document(TEXTS)
    bag = dask.bag.from_sequence(TEXTS, npartitions=2).map(model.encode_document)
    assert hexes(bag.compute(scheduler="processes", num_workers=2)) == hexes(expected)

    def embed(part):
        return part.assign(vector=list(model.encode_document(part["text"])))

    rows = pd.DataFrame({"text": TEXTS})
    # Without meta, Dask calls the function with a made-up row first.
    meta = {"text": object, "vector": object}
    found = dask.dataframe.from_pandas(rows, npartitions=2).map_partitions(embed, meta=meta)
    assert np.stack(found.compute(scheduler="threads")["vector"]).tobytes() == expected.tobytes()


def test_a_closure_as_spark_sends_it(model, tmp_path):
    def embed(batches):
        for texts in batches:
            yield model.encode_document(texts)

    (tmp_path / "closure").write_bytes(cloudpickle.dumps(embed))
    assert (tmp_path / "closure").stat().st_size < 10_000
    script = (
        f"import pickle; embed = pickle.load(open({str(tmp_path / 'closure')!r}, 'rb')); "
        f"print(b''.join(v.tobytes() for v in embed([{TEXTS[:2]!r}, {TEXTS[2:]!r}])).hex())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == model.encode_document(TEXTS).tobytes().hex(), done.stderr


def test_an_executor_without_the_bundle_names_host_path_and_remedy(tmp_path):
    import platform

    folder = shutil.copytree(DEFAULT_FOLDER, tmp_path / "bundle")
    content = cloudpickle.dumps(Embedder.from_pretrained(folder, threads=1).encode_document)
    shutil.rmtree(folder)
    with pytest.raises(BundleError) as caught:
        cloudpickle.loads(content)
    for part in (
        str(folder),
        f"on {platform.node()}",
        "put the bundle at the same path on all machines, or use its hub name",
    ):
        assert part in str(caught.value)
