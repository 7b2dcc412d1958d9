"""Training pairs of a query and a document: read, filtered by the teacher, and given hard negatives.

A line is `{"q": text, "d": text, "k": kind}`; the kind is one of `repository.Kind`, any other word, or absent. Pairs gathered
from the web are noisy, so the teacher decides which ones are consistent.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.errors import InputError
from moembed.evaluation.text_lines import json_objects
from moembed.train.data import corpus
from moembed.train.recipe import Prompts

_BLOCK = 1024  # queries scored at a time


class Pair(NamedTuple):
    """A query and its document, prompts included, and the kind of the pair, "" if unknown."""

    query: str
    document: str
    kind: str = ""


def read_pairs(paths: Sequence[Path], prompts: Prompts, validation_share: float) -> tuple[list[Pair], list[Pair]]:
    """Read the files, each distinct pair once, and split them into training and validation pairs.

    A pair is held out if either of its texts would be, see `corpus.read_texts`, so that no text is in both splits.

    Args:
        paths: JSONL files, gzip or plain.
        prompts: prompts of queries and of passages.
        validation_share: share of the texts held out for validation.

    Raises:
        InputError: a file cannot be read, or a line does not have the form above.
    """
    seen: set[tuple[str, str]] = set()
    train: list[Pair] = []
    validation: list[Pair] = []
    for path in paths:
        for number, row in json_objects(path):
            query, document, kind = row.get("q"), row.get("d"), row.get("k", "")
            if not isinstance(query, str) or not isinstance(document, str) or not isinstance(kind, str):
                raise InputError(
                    f'{path}:{number}: expected texts "q" and "d", and optionally "k", found {sorted(row)}'
                )
            pair = Pair(prompts.query + query, prompts.passage + document, kind)
            if pair[:2] in seen:
                continue
            seen.add(pair[:2])
            held_out = any(corpus.is_held_out(corpus.digest(text), validation_share) for text in (query, document))
            (validation if held_out else train).append(pair)
    return train, validation


def sample(pairs: Sequence[Pair], count: int, weights: Mapping[str, float], seed: int) -> list[Pair]:
    """Sample distinct pairs; a larger sample begins with the smaller one.

    Args:
        pairs: population.
        count: number to sample; fewer if there are fewer pairs.
        weights: sampling rate of each pair by its kind; 1 if absent.
        seed: of the random order.
    """
    kinds: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        kinds[pair.kind].append(pair)
    return corpus.interleave(kinds, 1.0, weights, seed)[:count]


def consistent(queries: Tensor, documents: Tensor, rank: int) -> Tensor:
    """Select pairs whose document is among the `rank` nearest to the query by the teacher's embeddings.

    Args:
        queries: the teacher's embeddings `[pairs, hidden]`, of unit length.
        documents: the same, in the same order; equal ones count once.
        rank: 1 selects only pairs whose document is the nearest.

    Returns:
        `[pairs]` bool.
    """
    distinct = torch.unique(documents, dim=0)
    selected = []
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        positive = (block * documents[start : start + _BLOCK]).sum(-1, keepdim=True)
        # The same product computed in two ways may differ in the last bits.
        selected.append(((block @ distinct.T) > positive + 1e-6).sum(1) < rank)
    return torch.cat(selected)


def hard_negatives(queries: Tensor, documents: Tensor, count: int, margin: float) -> Tensor:
    """Find for every query the nearest documents that the teacher rates as wrong.

    Args:
        queries: the teacher's embeddings `[pairs, hidden]`, of unit length.
        documents: the same, in the same order.
        count: documents to find for each query.
        margin: a document is wrong if its similarity is below that of the query's own document by more than this.

    Returns:
        Indices of documents `[pairs, count]` int64, nearest first, padded with -1.
    """
    count = min(count, len(documents))
    negatives = []
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        positive = (block * documents[start : start + _BLOCK]).sum(-1, keepdim=True)
        similarity = block @ documents.T
        nearest = similarity.masked_fill(similarity >= positive - margin, -2).topk(count)
        negatives.append(nearest.indices.masked_fill(nearest.values == -2, -1))
    return torch.cat(negatives)


def recall_at_1(queries: Tensor, documents: Tensor, dims: Sequence[int]) -> dict[str, float]:
    """Return the share of queries whose own document is the nearest: `recall_at_1`, and `recall_at_1_128` at 128 dimensions.

    Args:
        queries: embeddings `[pairs, hidden]`.
        documents: the same, in the same order; an equal document counts as the query's own.
        dims: widths to truncate to.
    """
    shares = {}
    for dim in dims:
        truncated = [F.normalize(side[:, :dim], dim=-1) for side in (queries, documents)]
        nearest = truncated[1][(truncated[0] @ truncated[1].T).argmax(1)]
        correct = torch.isclose((nearest * truncated[1]).sum(-1), torch.ones(()), rtol=0, atol=1e-6)
        name = f"recall_at_1_{dim}" if dim < queries.shape[1] else "recall_at_1"
        shares[name] = round(float(correct.float().mean()), 4)
    return shares
