"""Pairs of a query and the document that answers it, or of a text and its translation: read, filtered, and given hard negatives.

A line is `{"q": text, "d": text, "k": kind}`, the kind one of `source.Asked`'s or any other word, or left out. Pairs found in the
wild are noisy: the teacher decides which to believe.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.errors import InputError
from moembed.train.data import corpus

_BLOCK = 1024


class Pair(NamedTuple):
    """A query and its document, prompts included, and what kind of pair they are, "" if that is not known."""

    query: str
    document: str
    kind: str = ""


def read(paths: Sequence[Path], prompts: Mapping[str, str], held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Read the files, each distinct pair once, and split them: to learn from, and to choose by.

    A pair is held out if either of its texts would be, see `corpus.read`, so that nothing is learned from a text held out there.

    Args:
        paths: JSONL files, gzip or plain.
        prompts: of `query` and `passage`.
        held_out: share of the texts that is held out.

    Raises:
        InputError: a file cannot be read, or a line is not of the form above.
    """
    seen: set[tuple[str, str]] = set()
    learned: list[Pair] = []
    held: list[Pair] = []
    for path in paths:
        for number, row in corpus.rows(path):
            query, document, kind = row.get("q"), row.get("d"), row.get("k", "")
            if not isinstance(query, str) or not isinstance(document, str) or not isinstance(kind, str):
                raise InputError(f'{path}:{number}: expected texts "q" and "d", and perhaps "k", found {sorted(row)}')
            pair = Pair(prompts["query"] + query, prompts["passage"] + document, kind)
            if pair[:2] in seen:
                continue
            seen.add(pair[:2])
            out = any(corpus.is_held_out(corpus.digest(text), held_out) for text in (query, document))
            (held if out else learned).append(pair)
    return learned, held


def sample(pairs: Sequence[Pair], count: int, emphasis: Mapping[str, float], seed: int) -> list[Pair]:
    """Draw pairs, none twice; drawing more begins with what drawing fewer gives.

    Args:
        pairs: to draw from.
        count: how many; fewer if there are no more.
        emphasis: by kind, how much more often than another each pair of it is drawn; 1 where nothing is said.
        seed: of the drawing.
    """
    kinds: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        kinds[pair.kind].append(pair)
    return corpus.mixed(kinds, 1.0, emphasis, seed)[:count]


def consistent(queries: Tensor, documents: Tensor, rank: int) -> Tensor:
    """Which pairs the teacher believes: those whose document is among the `rank` that it finds nearest to the query.

    Args:
        queries: the teacher's embeddings `[pairs, hidden]`, of unit length.
        documents: the same, in the same order; equal ones count once.
        rank: 1 believes only what the teacher finds itself.

    Returns:
        `[pairs]` bool.
    """
    distinct = torch.unique(documents, dim=0)
    kept = []
    for start in range(0, len(queries), _BLOCK):
        own = queries[start : start + _BLOCK]
        mine = (own * documents[start : start + _BLOCK]).sum(-1, keepdim=True)
        # Two ways to compute one product may differ in the last bits.
        kept.append(((own @ distinct.T) > mine + 1e-6).sum(1) < rank)
    return torch.cat(kept)


def hard_negatives(queries: Tensor, documents: Tensor, count: int, margin: float) -> Tensor:
    """For every pair the documents nearest to its query that the teacher nevertheless calls wrong.

    Args:
        queries: the teacher's embeddings `[pairs, hidden]`, of unit length.
        documents: the same, in the same order.
        count: documents to find for each.
        margin: a document is wrong if its similarity is less than that of the pair's own by more than this.

    Returns:
        Numbers of documents `[pairs, count]` int64, nearest first; -1 where there are not so many.
    """
    count = min(count, len(documents))
    found = []
    for start in range(0, len(queries), _BLOCK):
        own = queries[start : start + _BLOCK]
        mine = (own * documents[start : start + _BLOCK]).sum(-1, keepdim=True)
        similar = own @ documents.T
        nearest = similar.masked_fill(similar >= mine - margin, -2).topk(count)
        found.append(nearest.indices.masked_fill(nearest.values == -2, -1))
    return torch.cat(found)


def found(queries: Tensor, documents: Tensor, dims: Sequence[int]) -> dict[str, float]:
    """The share of queries that find their own document first: `pairs_found`, and `pairs_found_128` when cut to 128 dimensions.

    Args:
        queries: embeddings `[pairs, hidden]`.
        documents: the same, in the same order; where equal ones are first, one of them is enough.
        dims: widths to cut to.
    """
    shares = {}
    for dim in dims:
        cut = [F.normalize(side[:, :dim], dim=-1) for side in (queries, documents)]
        best = cut[1][(cut[0] @ cut[1].T).argmax(1)]
        right = torch.isclose((best * cut[1]).sum(-1), torch.ones(()), rtol=0, atol=1e-6)
        shares["pairs_found" + f"_{dim}" * (dim < queries.shape[1])] = round(float(right.float().mean()), 4)
    return shares
