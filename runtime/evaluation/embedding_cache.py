"""Texts in, vectors out, for one model; what it read lately it need not read again.

Sets share texts (`xquad-de`, `xquad-de:xquad-en` and `xquad-en` are two corpora and two lists of queries), and the same text
after the same prompt has the same vector, so that looking one up changes no figure.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from moembed.embedder import Embedder

Advance = Callable[[int], object]
BLOCK = 1024  # texts embedded and searched at a time: enough to sort by length, little to keep
MEMORY_BYTES = 128 << 20  # of vectors, for each model: 43,690 of 768 dimensions


class EmbeddingCache:
    """Vectors of the texts read last, at most `limit` bytes of them; a corpus that is larger streams through."""

    def __init__(self, limit: int = MEMORY_BYTES) -> None:
        self._room = limit
        self._kept: OrderedDict[bytes, tuple[bytes, bool]] = OrderedDict()

    def get(self, key: bytes) -> tuple[NDArray[np.float32], bool] | None:
        """The vector `[width]` float32 and whether its text was cut; None if it is not here."""
        if (found := self._kept.get(key)) is None:
            return None
        self._kept.move_to_end(key)
        return np.frombuffer(found[0], np.float32), found[1]

    def put(self, key: bytes, vector: NDArray[np.float32], cut: bool) -> None:
        """Keep a vector, and forget those that were not asked for longest."""
        self._kept[key] = vector.tobytes(), cut
        self._room -= vector.nbytes
        while self._room < 0:
            _, (oldest, _) = self._kept.popitem(last=False)
            self._room += len(oldest)


_CACHES: WeakKeyDictionary[Embedder, EmbeddingCache] = WeakKeyDictionary()


def cache_of(embedder: Embedder) -> EmbeddingCache:
    """The memory that all tasks of this model share; it goes when the model goes."""
    return _CACHES.setdefault(embedder, EmbeddingCache())


@dataclass
class Reading:
    """Embeds texts with one model and keeps count; `cut` of them were longer than the model reads."""

    embedder: Embedder
    advance: Advance
    cut: int = 0
    memory: EmbeddingCache = field(default_factory=EmbeddingCache)

    def vectors(self, texts: Sequence[str], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Full unit vectors `[len(texts), width]` float32, with the first of the prompts that the model has."""
        prompt = prompt_of(self.embedder, prompts)
        places: dict[bytes, list[int]] = {}
        for row, text in enumerate(texts):
            places.setdefault(_key(prompt, text), []).append(row)
        vectors = np.empty((len(texts), self.embedder.dim), np.float32)
        unread = []
        for key, rows in places.items():
            if known := self.memory.get(key):
                vectors[rows] = known[0]
                self._count(len(rows), known[1])
            else:
                unread.append(key)
        results = self.embedder.embed(
            (texts[places[key][0]] for key in unread), prompt=prompt, batch_size=BLOCK, overlong="truncate"
        )
        for key, result in zip(unread, results, strict=True):
            vectors[places[key]] = result.vector
            self._count(len(places[key]), result.truncated)
            self.memory.put(key, result.vector, result.truncated)
        return vectors

    def _count(self, texts: int, cut: bool) -> None:
        self.cut += texts * cut
        self.advance(texts)


def prompt_of(embedder: Embedder, names: Sequence[str]) -> str:
    """The text of the first of the prompts that the model has; a model without prompts gets none."""
    known = [name for name in names if name in embedder.prompts]
    return embedder.prompt_for(known[0] if known else names[-1])


def _key(prompt: str, text: str) -> bytes:
    return hashlib.blake2b(f"{prompt}\0{text}".encode(), digest_size=16).digest()
