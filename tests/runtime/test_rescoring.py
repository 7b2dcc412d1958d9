"""`rescore`: candidates of a first stage in the order of their cosines, whatever the vectors are stored as."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moembed import Rescored, StampedVectors, dequantize_embeddings, quantize_embeddings, rescore, stamp_of
from moembed.errors import InputError
from moembed.precision import PRECISIONS, cosines, shares_scale

RNG = np.random.default_rng(11)
DOCUMENTS = RNG.standard_normal((50, 16)).astype(np.float32)
QUERIES = RNG.standard_normal((3, 16)).astype(np.float32)


def stored(precision):
    scale = 0.03 if shares_scale(precision) else None
    return quantize_embeddings(DOCUMENTS, precision, scale=scale).codes


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_gives_the_cosines_of_its_vectors(precision):
    codes = stored(precision)
    every = np.broadcast_to(np.arange(50), (3, 50))
    expected = cosines(QUERIES, dequantize_embeddings(codes, precision))
    found = rescore(QUERIES, every, codes)
    order = np.argsort(-expected, axis=1, kind="stable")
    np.testing.assert_allclose(found.scores, np.take_along_axis(expected, order, axis=1), rtol=0, atol=1e-6)
    assert found.scores.dtype == np.float32
    np.testing.assert_allclose(np.take_along_axis(expected, found.indices, axis=1), found.scores, rtol=0, atol=1e-6)
    one = rescore(QUERIES[1], np.arange(50), codes, top_k=7)
    assert np.array_equal(one.indices, found.indices[1, :7])
    assert np.array_equal(one.scores, found.scores[1, :7])


def test_only_candidates_are_read(tmp_path):
    path = tmp_path / "vectors.npy"
    damaged = DOCUMENTS.copy()
    damaged[10:] = np.nan
    np.save(path, damaged)
    found = rescore(QUERIES[0], [4, 9, 1], np.load(path, mmap_mode="r"))
    assert sorted(found.indices.tolist()) == [1, 4, 9]
    with pytest.raises(InputError, match="NaN"):
        rescore(QUERIES[0], [4, 10], np.load(path, mmap_mode="r"))


def test_equal_scores_keep_the_order_of_the_candidates():
    same = np.ones((4, 8), np.float32)
    found = rescore(same[0], [2, 0, 3, 1], same, top_k=np.int64(3))
    assert found.indices.tolist() == [2, 0, 3]


def test_missing_candidates_come_last():
    found = rescore(QUERIES[:2], [[-1, 5, -1], [3, -1, 4]], DOCUMENTS)
    assert found.indices[0].tolist() == [5, -1, -1]
    assert found.indices[1, 2] == -1
    assert np.isneginf(found.scores).sum() == 3
    none = rescore(QUERIES[0], [-1, -1], np.empty((0, 16), np.float32))
    assert (none.indices.tolist(), np.isneginf(none.scores).all()) == ([-1, -1], True)


@pytest.mark.parametrize("candidates", [[], np.empty(0, np.int32)])
def test_no_candidates_give_no_results(candidates):
    found = rescore(QUERIES[0], candidates, DOCUMENTS)
    assert isinstance(found, Rescored)
    assert (found.indices.shape, found.scores.shape) == ((0,), (0,))
    assert rescore(np.empty((0, 16)), np.empty((0, 5), int), DOCUMENTS).indices.shape == (0, 5)


def test_blocks_of_queries_change_nothing(monkeypatch):
    candidates = RNG.integers(0, 50, (3, 20))
    whole = rescore(QUERIES, candidates, stored("int8"))
    monkeypatch.setattr("moembed.rescoring._MAX_NUMBERS", 1)
    again = rescore(QUERIES, candidates, stored("int8"))
    assert [part.tobytes() for part in again] == [part.tobytes() for part in whole]


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10), st.floats(1e-3, 1e3))
def test_lengths_change_no_order(seed, top_k, factor):
    rng = np.random.default_rng(seed)
    vectors, query = rng.standard_normal((20, 8)), rng.standard_normal(8)
    lengths = rng.uniform(0.1, 10, (20, 1))
    found = rescore(query, np.arange(20), vectors, top_k=top_k)
    longer = rescore(query * factor, np.arange(20), vectors * lengths, top_k=top_k)
    np.testing.assert_allclose(found.scores, longer.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("query", "candidates", "vectors", "options", "said"),
    [
        (QUERIES[0].astype(int), [1], DOCUMENTS, {}, "query is int64.*expected floats"),
        (np.float32(1), [1], DOCUMENTS, {}, "query is float32 of shape"),
        (QUERIES[0], [[1]], DOCUMENTS, {}, r"takes integers \[n\]"),
        (QUERIES, [[1], [2]], DOCUMENTS, {}, r"takes integers \[3, n\]"),
        (QUERIES, [1, 2, 3], DOCUMENTS, {}, r"takes integers \[3, n\]"),
        (QUERIES[0], [0.5], DOCUMENTS, {}, "candidates is float64"),
        (QUERIES[0], [3, 50], DOCUMENTS, {}, "row 50, but there are 50 vectors"),
        (QUERIES[0], [0], np.empty((0, 16), np.float32), {}, "row 0, but there are 0 vectors"),
        (QUERIES[0], [1], DOCUMENTS[:, :8], {}, r"takes \[rows, 16\] floats"),
        (QUERIES[0], [1], DOCUMENTS[0], {}, r"shape \(16,\); a query of 16 dimensions"),
        (QUERIES[0], [1], np.zeros((5, 3), np.uint8), {}, "bits"),
        (QUERIES[0], [1], np.zeros((5, 16), np.int32), {}, "vectors is int32"),
        (QUERIES[0] * np.nan, [1], DOCUMENTS, {}, "NaN"),
        (QUERIES[0], [1], DOCUMENTS, {"top_k": 0}, "top_k = 0; expected a positive integer"),
        (QUERIES[0], ["a"], DOCUMENTS, {}, "candidates is"),
    ],
)
def test_what_cannot_be_rescored(query, candidates, vectors, options, said):
    with pytest.raises(InputError, match=said):
        rescore(query, candidates, vectors, **options)


def test_vectors_of_two_models_are_refused(model):
    stamp = stamp_of(model, "")
    vectors = model.encode(["a", "b"], prompt="")
    other = StampedVectors(vectors, replace(stamp, fingerprint="0" * 64), name="old.npy")
    ours = StampedVectors(vectors, stamp)
    assert rescore(ours, np.array([[0, 1], [0, 1]]), ours).indices[:, 0].tolist() == [0, 1]
    assert rescore(vectors[0], np.array([0, 1]), other).indices[0] == 0
    with pytest.raises(InputError, match=r"vectors \(old.npy\) cannot be compared"):
        rescore(ours, np.array([[0, 1], [0, 1]]), other)


def test_vectors_with_a_stamp_are_an_array(model):
    vectors = model.encode(["a", "b"], prompt="")
    stamped = StampedVectors(vectors, stamp_of(model, ""))
    assert np.shares_memory(np.asarray(stamped), vectors)
    assert np.asarray(stamped, np.float64).dtype == np.float64
    copied = np.array(stamped)
    assert not np.shares_memory(copied, vectors)
    assert (copied == vectors).all()
