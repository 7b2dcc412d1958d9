"""Cache of evaluation texts: vectors of one stamp are found again, and of another one never."""

from moembed import Embedder
from moembed.evaluation.embedding_cache import CachedEmbedder, EmbeddingCache

TEXT = "far more words than that few tokens can hold " * 3


def test_vectors_are_found_for_the_same_stamp_alone(model):
    cache, own = EmbeddingCache(), Embedder(model.bundle, threads=1)
    calls = []
    embed = own.embed
    own.embed = lambda texts, **options: embed((calls.append(text) or text for text in texts), **options)

    def vectors():
        return CachedEmbedder(own, lambda _count: None, cache=cache).embed([TEXT, TEXT], ["document"])

    whole = vectors()
    assert vectors().tobytes() == whole.tobytes()
    assert len(calls) == 1
    own.max_tokens = 12
    cut = vectors()
    assert len(calls) == 2
    assert cut.tobytes() != whole.tobytes()
    own.max_tokens = model.max_tokens
    assert vectors().tobytes() == whole.tobytes()
    assert len(calls) == 2
