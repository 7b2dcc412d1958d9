"""Vector stores take our codes and rank by them: the programs of docs/stores.md, in an environment that pip builds."""

import json
import runpy
import subprocess

import numpy as np
import pytest

from moembed import quantize_embeddings
from moembed.precision import PRECISIONS, normalized, shares_scale
from support.environments import environment
from support.folders import TESTS

pytestmark = pytest.mark.interop
FOLDER = TESTS / "interop" / "stores"
WAYS = runpy.run_path(str(FOLDER / "ways.py"))["WAYS"]
IDS = runpy.run_path(str(FOLDER / "ids.py"))
DOCUMENTS, WIDTH = 300, 384
# Share of the 10 nearest that are found. Random vectors have no near neighbours: bits order them badly.
LEAST = {"float32": 0.99, "float16": 0.97, "int8": 0.95, "uint8": 0.95, "ubinary": 0.25}


@pytest.fixture(scope="module")
def exact():
    """Queries and documents, whose largest components differ, as those of a model do; and their 10 nearest."""
    rng = np.random.default_rng(0)
    documents = rng.standard_normal((DOCUMENTS, WIDTH)) * rng.uniform(0.2, 2, (1, WIDTH))
    documents[:, 0] = rng.uniform(0, 10, DOCUMENTS)
    documents = normalized(documents.astype(np.float32))
    queries = normalized(documents[:20] + 0.03 * rng.standard_normal((20, WIDTH)).astype(np.float32))
    return documents, queries, np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]


@pytest.fixture(scope="module")
def names():
    """C43: ids as corpora have them."""
    odd = ["./a.txt_1", "", "Straße 7", "👍🏽", "a\0b", "a'; DROP TABLE vectors; --", "x" * 5000, "-1", "1e400"]
    return odd + [f"row/{number}" for number in range(DOCUMENTS - len(odd))]


@pytest.fixture(scope="module")
def results(exact, names, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    documents, queries, _ = exact
    scale = float(np.abs(documents).max()) / 127
    codes = {}
    for precision in PRECISIONS:
        one = scale if shares_scale(precision) else None
        codes[f"documents_{precision}"] = quantize_embeddings(documents, precision, scale=one).codes
        codes[f"queries_{precision}"] = quantize_embeddings(queries, precision, scale=one).codes
    np.savez(folder / "codes.npz", **codes)
    (folder / "ids.json").write_text(json.dumps(names), "utf-8")
    python = environment("stores", request.config.cache.mkdir("interop"))
    command = [python, "-E", FOLDER / "run.py", folder / "codes.npz", folder / "ids.json", folder / "results.json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text("utf-8"))


def overlap(found, exact):
    return np.mean([len(set(row) & set(best)) / 10 for row, best in zip(found, exact.tolist(), strict=True)])


@pytest.mark.parametrize("number", range(len(WAYS)), ids=[f"{way.store}-{way.function}" for way in WAYS])
def test_a_store_finds_the_nearest_and_returns_their_ids(number, results, exact, names):
    found = [[names.index(name) for name in row] for row in results["ways"][number]]
    assert all(len(set(row)) == 10 for row in found)
    assert overlap(found, exact[2]) >= LEAST[WAYS[number].precision]
    assert [row[0] for row in found] == list(range(20)), "each query is close to one document"


@pytest.mark.parametrize(
    ("trap", "error"),
    [
        ("faiss_takes_binary", "TypeError"),
        ("lancedb_takes_int8", "ValueError"),
        ("qdrant_takes_ids_of_text", "ValueError"),
        ("postgres_takes_nul_in_text", "DataError"),
    ],
)
def test_what_a_store_refuses(trap, error, results):
    assert results["traps"][trap].get("error", "").startswith(error)


@pytest.mark.parametrize("trap", ["faiss_takes_float16", "faiss_takes_int32_ids"])
def test_what_older_releases_of_faiss_refused(trap, results, exact):
    assert overlap(results["traps"][trap]["found"], exact[2]) >= LEAST["float16"]


@pytest.mark.parametrize(
    ("trap", "most"),
    [
        ("usearch_takes_binary", 0.2),
        ("queries_by_vec_quantize_binary", 0.1),
        ("dot_product_of_int8_per_vector", 0.7),
        ("cosine_of_uint8", 0.95),
    ],
)
def test_what_a_store_takes_and_ranks_wrongly(trap, most, results, exact):
    assert overlap(results["traps"][trap]["found"], exact[2]) <= most


def test_mapped_ids_are_stable_and_fit():
    """An index that was written with them is read with them."""
    assert IDS["int64_id"]("./a.txt_1") == 5697981059003446497
    assert IDS["uuid_id"]("./a.txt_1") == "1340f303-f9ed-55e3-a6b8-c6bf58bcf53b"
    assert all(0 <= IDS["int64_id"](str(number)) < 2**63 for number in range(1000))
