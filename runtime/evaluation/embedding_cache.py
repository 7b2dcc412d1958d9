"""Embeddings of evaluation texts, with a cache, so that texts common to several sets are embedded once.

Sets share texts: `xquad-de`, `xquad-de:xquad-en` and `xquad-en` are two corpora and two lists of queries. The same text with the
same stamp always has the same vector, so the cache changes no figure.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from moembed.embedder import Embedder
from moembed.stamps.making import stamp_of
from moembed.stamps.stamp import deciding

Advance = Callable[[int], object]
BLOCK = 1024  # texts embedded and searched at a time: enough to sort by length, few enough for memory
CACHE_BYTES = 128 << 20  # of vectors, for each model: 43,690 of 768 dimensions


class EmbeddingCache:
    """Least-recently-used cache of vectors, of at most `limit` bytes."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._room = limit
        self._entries: OrderedDict[bytes, tuple[bytes, bool]] = OrderedDict()

    def get(self, key: bytes) -> tuple[NDArray[np.float32], bool] | None:
        """Return the vector `[width]` float32, and whether its text was truncated; None if it is not cached."""
        if (entry := self._entries.get(key)) is None:
            return None
        self._entries.move_to_end(key)
        return np.frombuffer(entry[0], np.float32), entry[1]

    def put(self, key: bytes, vector: NDArray[np.float32], truncated: bool) -> None:
        """Add a vector, and evict the least recently used ones beyond the limit."""
        self._entries[key] = vector.tobytes(), truncated
        self._room -= vector.nbytes
        while self._room < 0:
            _, (oldest, _) = self._entries.popitem(last=False)
            self._room += len(oldest)


_CACHES: WeakKeyDictionary[Embedder, EmbeddingCache] = WeakKeyDictionary()


def shared_cache(embedder: Embedder) -> EmbeddingCache:
    """Return the cache that all tasks of this model share; it is freed with the model."""
    return _CACHES.setdefault(embedder, EmbeddingCache())


@dataclass
class CachedEmbedder:
    """Embedder of evaluation texts.

    Attributes:
        embedder: the model.
        advance: called with the number of texts done.
        truncated: number of texts so far that were longer than the model's limit.
        cache: of vectors.
    """

    embedder: Embedder
    advance: Advance
    truncated: int = 0
    cache: EmbeddingCache = field(default_factory=EmbeddingCache)

    def embed(self, texts: Sequence[str], prompt_names: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors `[len(texts), width]` float32 at full width, with the first of the prompts that the model has."""
        prompt = prompt_of(self.embedder, prompt_names)
        stamp = json.dumps(deciding(stamp_of(self.embedder, prompt, overlong="truncate")), sort_keys=True)
        rows_of: dict[bytes, list[int]] = {}
        for row, text in enumerate(texts):
            rows_of.setdefault(_key(stamp, text), []).append(row)
        vectors = np.empty((len(texts), self.embedder.dim), np.float32)
        missing = []
        for key, rows in rows_of.items():
            if cached := self.cache.get(key):
                vectors[rows] = cached[0]
                self._count(len(rows), cached[1])
            else:
                missing.append(key)
        results = self.embedder.embed(
            (texts[rows_of[key][0]] for key in missing), prompt=prompt, batch_size=BLOCK, overlong="truncate"
        )
        for key, result in zip(missing, results, strict=True):
            vectors[rows_of[key]] = result.vector
            self._count(len(rows_of[key]), result.truncated)
            self.cache.put(key, result.vector, result.truncated)
        return vectors

    def int8_scale(self, dim: int) -> float:
        """Return the model's scale of int8 codes for a width."""
        return self.embedder.int8_scale(dim)

    def _count(self, texts: int, truncated: bool) -> None:
        if truncated:
            self.truncated += texts
        self.advance(texts)


def prompt_of(embedder: Embedder, names: Sequence[str]) -> str:
    """Return the text of the first of the prompts that the model has, or "" for a model without prompts."""
    known = [name for name in names if name in embedder.prompts]
    return embedder.prompt_for(known[0] if known else names[-1])


def _key(stamp: str, text: str) -> bytes:
    return hashlib.blake2b(f"{stamp}\0{text}".encode(), digest_size=16).digest()
