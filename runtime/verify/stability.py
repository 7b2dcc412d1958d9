"""Check of batch invariance on this machine: a text's vector has the same bytes alone and in every batch."""

import random

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Stability
from moembed.inference.batching import pad
from moembed.inference.cpu import available_cpus
from moembed.inference.session import Output, Session
from moembed.tokenizer.tokenizer import Ids, Tokenizer
from moembed.verify.probes import probe_ids

_SIZES = (2, 3, 8, 16)
_QUICK_STEP = 3


def check_stability(bundle: Bundle, *, providers: str = "cpu", seed: int = 0, quick: bool = False) -> Stability:
    """Embed the probe texts alone, padded, shuffled and in batches, on one and on all threads, and compare the bytes.

    Args:
        bundle: the bundle; of its manifest only the graph, the token limit and the list of files are used.
        providers: as for `Session`.
        seed: seed of the order of the texts.
        quick: use every third text, in a third of the time.
    """
    tokenizer = Tokenizer(bundle)
    step = _QUICK_STEP if quick else 1
    rows = [np.array(ids, np.int32) for ids in probe_ids(tokenizer, bundle.manifest.max_tokens)[::step]]
    threads = tuple(sorted({1, max(available_cpus(), 2)}))
    alone: list[NDArray[np.float32]] = []
    comparisons, differing, max_abs = 0, 0, 0.0
    for count in threads:
        session = Session(bundle, providers=providers, threads=count)
        if not alone:
            alone = [_vectors(session, [row])[0] for row in rows]
        for batch, extra in _batches(rows, random.Random(seed)):  # noqa: S311  (not for secrets)
            vectors = _vectors(session, [rows[i] for i in batch], extra)
            for i, vector in zip(batch, vectors, strict=True):
                comparisons += 1
                if vector.tobytes() != alone[i].tobytes():
                    differing += 1
                    max_abs = max(max_abs, float(np.abs(vector - alone[i]).max()))
    return Stability(len(rows), comparisons, differing, max_abs, threads)


def _batches(rows: list[Ids], rng: random.Random) -> list[tuple[list[int], int]]:
    """Return batches of texts by index, each with a number of pad columns to add."""
    order = list(range(len(rows)))
    batches = [([i], extra) for i in order for extra in (0, 1, 37)]
    for size in _SIZES:
        rng.shuffle(order)
        batches += [(order[k : k + size], rng.choice((0, 0, 5))) for k in range(0, len(order), size)]
        by_length = sorted(order, key=lambda i: len(rows[i]))
        batches += [(by_length[k : k + size], 0) for k in range(0, len(order), size)]
    return batches


def _vectors(session: Session, rows: list[Ids], extra: int = 0) -> NDArray[np.float32]:
    ids, mask = pad(rows, 1)
    return session.run(Output.EMBEDDING, np.pad(ids, ((0, 0), (0, extra))), np.pad(mask, ((0, 0), (0, extra))))
