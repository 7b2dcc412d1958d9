"""The figures of `moembed evaluate`: against hand computation, exact block-wise search, widths and precisions, means."""

import math
from pathlib import Path

import numpy as np
import pytest

from moembed.errors import InputError
from moembed.evaluation import tasks as tasks_module
from moembed.evaluation import variants as variants_module
from moembed.evaluation.datasets import Dataset
from moembed.evaluation.embedding_cache import CachedEmbedder, EmbeddingCache, shared_cache
from moembed.evaluation.metrics import Found, Scores, correlation, ranked_figures, standard_error
from moembed.evaluation.ranking import Ranking
from moembed.evaluation.report import difference
from moembed.evaluation.results import Result, means
from moembed.evaluation.tasks import Retrieval
from moembed.evaluation.variants import Variant, as_query, variants
from support.evaluation_sets import QUERIES, TEXTS, by_hand, figures_of, measured, only, write_beir

# Figures


def _found(names, scores=None):
    """Return documents that a query found; without scores, all different."""
    return Found(names, np.arange(len(names), 0, -1, np.float32) if scores is None else np.float32(scores))


def test_ranked_figures_by_hand():
    rng = np.random.default_rng(5)
    names = [f"n{i}" for i in range(150)]
    judged = {f"q{i}": {n: int(rng.integers(0, 3)) for n in rng.choice(names, 12)} for i in range(20)}
    ranked = {query: list(rng.permutation(names))[:100] for query in judged}
    del ranked["q3"]
    ranked["q4"] = []
    scores = ranked_figures(judged, {query: _found(names) for query, names in ranked.items()})
    assert scores.figures == pytest.approx(by_hand(judged, ranked), abs=1e-6)
    alone = [by_hand({query: judged[query]}, ranked)["nDCG@10"] for query in judged]
    assert scores.each == pytest.approx(alone, abs=1e-6)
    one = ranked_figures({"q": {"a": 2, "b": 1}}, {"q": _found(["x", "b", "a"])}).figures
    ideal = 2 + 1 / math.log2(3)
    assert one["nDCG@10"] == pytest.approx((1 / math.log2(3) + 2 / 2) / ideal)
    assert (one["Recall@100"], one["MRR@10"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("judged", "names", "scores", "ties"),
    [
        ({"a": 1}, "ab", [0.5, 0.5], 1),
        ({"a": 1}, "ab", [0.5, 0.4], 0),
        ({"a": 1, "b": 1}, "ab", [0.5, 0.5], 0),
        ({"a": 2, "b": 1}, "ab", [0.5, 0.5], 1),
        ({"a": 0}, "ab", [0.5, 0.5], 0),
        ({"k": 1}, "abcdefghijk", [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 2], 1),  # the tenth place is shared
        ({"l": 1}, "abcdefghijkl", [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1], 0),  # the eleventh does not count
    ],
)
def test_ties_that_decide_a_figure_are_counted(judged, names, scores, ties):
    """M43: nDCG@10 of equal vectors is what the order of the corpus makes of it."""
    assert ranked_figures({"q": judged}, {"q": _found(list(names), scores)}).ties == ties


def test_names_of_documents_decide_nothing_and_their_order_decides_ties(tmp_path, model):
    """M43: equal documents rank in the order of the corpus, as told by the count of ties; other names change nothing."""
    texts = {f"d{i}": ("", "The same text.") for i in range(12)}
    queries, judged = {"q": "The same text?"}, {"q": {"d2": 1}}
    renamed = {name: f"{9 - int(name[1:]) % 10}{name}" for name in texts}
    write_beir(tmp_path / "own", texts, queries, judged)
    write_beir(tmp_path / "renamed", {renamed[n]: t for n, t in texts.items()}, queries, {"q": {renamed["d2"]: 1}})
    write_beir(tmp_path / "reversed", dict(reversed(texts.items())), queries, judged)
    for precision in ("float32", "hamming"):
        found = {}
        for name in ("own", "renamed", "reversed"):
            task, variant = only([name], tmp_path), Variant(64, precision)
            task.check()
            found[name] = task.measure(CachedEmbedder(model, lambda _: None), [variant])[variant]
        assert [scores.ties for scores in found.values()] == [1, 1, 1]
        assert found["own"].figures == found["renamed"].figures
        assert found["own"].figures["nDCG@10"] == pytest.approx(1 / math.log2(4))
        assert found["reversed"].figures["nDCG@10"] == pytest.approx(1 / math.log2(11))


def test_every_judged_query_counts_for_every_model():
    """M44: a query without relevant documents, or without an answer, counts as 0 in all means."""
    judged = {"answered": {"a": 1}, "unanswered": {"a": 1}, "nothing relevant": {"a": 0, "b": 0}}
    found = ranked_figures(judged, {"answered": _found(["a"]), "nothing relevant": _found(["a", "b"])})
    assert found.each.tolist() == [1, 0, 0]
    assert list(found.figures.values()) == pytest.approx([1 / 3] * 3)


def test_correlation_by_hand():
    scores, similarities = [1.0, 2.0, 3.0, 4.0], np.array([0.1, 0.3, 0.2, 0.9], np.float32)
    assert correlation(scores, similarities).figures["Spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert correlation(scores, np.ones(4, np.float32)) == Scores({"Spearman": 0.0})


def test_the_standard_error_of_a_difference():
    base = np.array([0.2, 0.5, 0.9, 1.0])
    assert standard_error(base, base) == 0
    # Queries differ much more than the two models do on the same query.
    assert standard_error(base + np.array([0.1, -0.1, 0.1, -0.1]), base) == pytest.approx(0.1 / math.sqrt(3))
    assert standard_error(base[:1], base[:1]) == 0


# Search


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("ties", [False, True])
def test_blocks_find_what_brute_force_finds(block, ties, monkeypatch):
    rng = np.random.default_rng(3)
    corpus = rng.standard_normal((500, 16)).astype(np.float32)
    queries = rng.standard_normal((9, 16)).astype(np.float32)
    if ties:
        corpus, queries = np.sign(corpus[:, :8]), np.sign(queries[:, :8])
        corpus[100:200] = corpus[:100]
    monkeypatch.setattr("moembed.evaluation.ranking._QUERY_BLOCK", 4)
    ranking = Ranking(queries, 20)
    for first in range(0, 500, block):
        ranking.add(corpus[first : first + block], first)
    scores = (queries.astype(np.float64) @ corpus.T.astype(np.float64)).astype(np.float32)
    expected = [sorted(range(500), key=lambda i: (-row[i], i))[:20] for row in scores]
    assert [names for names, _ in ranking.best()] == expected
    for (names, found), row in zip(ranking.best(), scores, strict=True):
        assert found.tolist() == row[names].tolist()
    assert ranking.positions().tolist() == sorted({i for row in expected for i in row})


def test_a_small_corpus_and_excluded_documents():
    corpus = np.eye(3, dtype=np.float32)
    ranking = Ranking(corpus, 5)
    ranking.add(corpus, 0, ([0, 2], [0, 1]))
    assert [names for names, _ in ranking.best()] == [[1, 2], [1, 0, 2], [2, 0]]


def test_small_blocks_measure_the_same(beir, model, monkeypatch):
    chosen = variants([384, 64], ["float32", "int8", "hamming"], 384)
    whole = measured(only(["tiny"], beir.parent), model, *chosen)
    monkeypatch.setattr(tasks_module, "BLOCK", 2)
    assert measured(only(["tiny"], beir.parent), model, *chosen) == whole


# Cache


def test_texts_that_tasks_share_are_embedded_once(tmp_path, model, monkeypatch):
    write_beir(tmp_path / "en")
    write_beir(
        tmp_path / "de", TEXTS | {"d1": ("", "Das Brot backt vierzig Minuten.")}, dict.fromkeys(QUERIES, "Brot?")
    )
    tasks = [only([name], tmp_path) for name in ("en", "de:en", "de")]
    expected = [measured(task, model) for task in tasks]
    read, embed = [], model.embed

    def remember(given, **options):
        given = list(given)
        read.extend((options["prompt"], text) for text in given)
        return embed(given, **options)

    monkeypatch.setattr(model, "embed", remember)
    cache, seen = EmbeddingCache(), []
    embedders = [CachedEmbedder(model, seen.append, cache=cache) for _ in tasks]
    chosen = (Variant(model.dim, "float32"),)
    found = [figures_of(task.measure(embedder, chosen)) for task, embedder in zip(tasks, embedders, strict=True)]
    assert found == expected
    assert len(read) == len(set(read)) == (3 + 5) + 1 + 1
    assert sum(seen) == 3 * (3 + 5), "progress counts them all the same"


def test_truncation_is_cached(model):
    cache, texts = EmbeddingCache(), ["word " * 700, "a", "a"]
    first, second = (CachedEmbedder(model, lambda _: None, cache=cache) for _ in range(2))
    assert first.embed(texts, ["query"]).tobytes() == second.embed(texts, ["query"]).tobytes()
    assert first.embed(texts, ["query"]).tobytes() != first.embed(texts, ["passage"]).tobytes()
    assert (first.truncated, second.truncated) == (3, 1)


def test_the_cache_is_bounded_and_evicts_the_least_recently_used():
    cache, vectors = EmbeddingCache(limit=3 * 16), np.arange(20, dtype=np.float32).reshape(5, 4)
    for key in range(3):
        cache.put(bytes([key]), vectors[key], False)
    assert cache.get(b"\x00") is not None
    for key in (3, 4):
        cache.put(bytes([key]), vectors[key], True)
    found = [cache.get(bytes([key])) for key in range(5)]
    assert [None if one is None else (one[0].tolist(), one[1]) for one in found] == [
        (vectors[0].tolist(), False), None, None, (vectors[3].tolist(), True), (vectors[4].tolist(), True),
    ]  # fmt: skip
    EmbeddingCache(limit=15).put(b"", vectors[0], False)


def test_a_cache_belongs_to_its_model():
    class Model:
        pass

    model, other = Model(), Model()
    assert shared_cache(model) is shared_cache(model) is not shared_cache(other)


# Variants


def test_variants_are_what_encode_gives(model):
    from moembed import dequantize_embeddings

    texts = ["one text", "another one", "ein dritter"]
    full = model.encode_document(texts)

    def as_stored(vectors, variant):
        return variants_module.as_stored(vectors, variant, model.int8_scale)

    for dim in (384, 64):
        assert np.array_equal(as_stored(full, Variant(dim, "float32")), model.encode_document(texts, truncate_dim=dim))
        for precision in ("float16", "int8", "int8-per-vector", "uint8", "binary", "ubinary"):
            codes = model.encode_document(texts, truncate_dim=dim, precision=precision)
            scale = model.int8_scale(dim) if precision in ("int8", "uint8") else None
            back = dequantize_embeddings(codes, precision, scale)
            assert np.array_equal(as_stored(full, Variant(dim, precision)), back)
            assert np.array_equal(as_query(full, Variant(dim, precision)), as_stored(full, Variant(dim, "float32")))
    bits = as_stored(full, Variant(64, "hamming"))
    assert np.array_equal(bits, as_query(full, Variant(64, "hamming")))
    distances = (np.sign(bits[0]) != np.sign(bits[1])).sum()
    assert bits[0] @ bits[1] == pytest.approx(1 - 2 * distances / 64, abs=1e-6)


@pytest.mark.parametrize(
    ("dims", "precisions", "part"),
    [([385], ["int8"], "dim = 385; expected 1 to 384"), ([0], ["int8"], "dim = 0"), ([8], ["int4"], "'int4'; expected"),
     ([384, 20], ["float32", "hamming"], "20 is not a multiple of 8")],
)  # fmt: skip
def test_impossible_variants(dims, precisions, part):
    with pytest.raises(InputError, match=part):
        variants(dims, precisions, 384)


# Differences and means


def test_means_count_a_group_in_a_group_once():
    def result(name, value):
        table = {Variant(8, "int8"): {"nDCG@10": value}}
        return Result(name, "retrieval", {}, {}, 0, 0.0, table, table)

    def task(name):
        return Dataset(name, Retrieval(name, Path(), Path(), ()))

    inner = Dataset("inner", members=(task("b"), task("c")))
    results = {name: result(name, value) for name, value in (("a", 1), ("b", 2), ("c", 6))}
    found = list(means([Dataset("outer", members=(task("a"), inner))], results))
    assert [(mean.name, mean.figures[Variant(8, "int8")]["nDCG@10"]) for mean in found] == [
        ("inner", 4),
        ("outer", 2.5),
    ]


def test_differences():
    assert difference("retrieval", 0.49, 0.5) == (pytest.approx(-2), "%")
    assert difference("similarity", 0.81, 0.8) == (pytest.approx(1), "points")
    assert difference("retrieval", 0.1, 0.0) == (0.0, "%")
