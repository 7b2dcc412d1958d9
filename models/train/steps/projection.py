"""A rotation of embeddings that nobody sees until they are cut: what tells texts apart goes into the leading components.

A post-norm residual stream cannot be turned, for its norms weigh each coordinate by itself. So the student learns the teacher's
coordinates, and its projection turns them afterwards, at no loss. Before the steps towards the teacher it is learned from which
texts are near each other, so that those steps can be taken at every width; after them, from pairs: a cut vector is to keep what
finds a document or a translation, not what language it is in.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from moembed.train.recipe import Rotate
from moembed.train.steps.losses import as_spread, divergence, info_nce, similarities

Turned = Callable[[Tensor], Tensor]


def learn(vectors: Tensor, dims: Sequence[int], choices: Rotate, seed: int) -> Tensor:
    """Find the rotation whose leading components give each text the neighbours that it has by all of them.

    It begins with the principal directions, and descends on the divergence of each text's distribution over the others in a batch
    from the whole vectors', at every width.

    Args:
        vectors: embeddings `[texts, hidden]` of unit length.
        dims: widths that they may be cut to.
        choices: of the steps.
        seed: of the batches.

    Returns:
        `[hidden, hidden]` float32, orthogonal: `vectors @ rotation.T` are the turned ones.
    """
    widths = [dim for dim in dims if dim < vectors.shape[1]]
    begin = torch.linalg.eigh(vectors.double().T @ vectors.double())[1].flip(1).T.float()

    def loss(rows: Tensor, turned: Turned) -> Tensor:
        return _lost(vectors[rows], turned, widths, choices)

    return _descend(begin, len(vectors), loss, choices, seed) if widths else begin


def refine(
    queries: Tensor, documents: Tensor, begin: Tensor, dims: Sequence[int], choices: Rotate, seed: int
) -> Tensor:
    """Find the rotation whose leading components let a query find its document, and leave each text its neighbours.

    Between two widths, where the order changes no cut, principal directions come first: other cuts lose less so, and bits too,
    for what all texts share is then in one component.

    Args:
        queries: embeddings `[pairs, hidden]` of unit length.
        documents: the same, in the same order.
        begin: the rotation to begin with, `[hidden, hidden]`.
        dims: widths that they may be cut to.
        choices: of the steps.
        seed: of the batches.

    Returns:
        `[hidden, hidden]` float32, orthogonal.
    """
    widths = [dim for dim in dims if dim < queries.shape[1]]

    def loss(rows: Tensor, turned: Turned) -> Tensor:
        whole = queries[rows], documents[rows]
        mixed = torch.cat([whole[0][::2], whole[1][1::2]])
        parts = [choices.neighbours * _lost(mixed, turned, widths, choices)]
        for width in widths:
            cut = [turned(side)[:, :width] for side in whole]
            for one, other in ((0, 1), (1, 0)):
                sides = (cut[one], cut[other]), (whole[one], whole[other])
                parts.append(info_nce(*sides, choices.pair_temperature, choices.margin))
        return torch.stack(parts).sum()

    if not widths:
        return begin
    return _ordered(_descend(begin, len(queries), loss, choices, seed), torch.cat([queries, documents]), widths)


def nearest(matrix: Tensor) -> Tensor:
    """The rotation nearest to a square matrix, such as one that was rounded."""
    left, _, right = torch.linalg.svd(matrix.double())
    found: Tensor = (left @ right).float()
    return found


def _ordered(rotation: Tensor, vectors: Tensor, widths: Sequence[int]) -> Tensor:
    """The rotation with principal directions of the vectors first in every block of components between two widths."""
    blocks = []
    for block in torch.tensor_split(rotation, sorted(widths)):
        own = (vectors @ block.T).double()
        blocks.append(torch.linalg.eigh(own.T @ own)[1].flip(1).T.float() @ block)
    return torch.cat(blocks)


def _lost(vectors: Tensor, turned: Turned, widths: Sequence[int], choices: Rotate) -> Tensor:
    """How far each text's distribution over the others is from the whole vectors', summed over widths."""
    theirs = similarities(vectors, choices.temperature)
    own = turned(vectors)
    return torch.stack(
        [divergence(as_spread(similarities(own[:, :width], choices.temperature), theirs), theirs) for width in widths]
    ).sum()


def _descend(begin: Tensor, count: int, loss: Callable[[Tensor, Turned], Tensor], choices: Rotate, seed: int) -> Tensor:
    """Descend by Cayley's map, which leaves a rotation one, on the loss of random rows out of `count`."""
    generator = torch.Generator().manual_seed(seed)
    skew = torch.zeros_like(begin, requires_grad=True)
    optimizer = torch.optim.Adam([skew], choices.rate)
    with torch.enable_grad():
        for _ in range(choices.steps):
            turn = _turned(skew, begin)
            rows = torch.randint(count, (choices.texts,), generator=generator)
            optimizer.zero_grad()
            loss(rows, lambda x, turn=turn: x @ turn.T).backward()  # type: ignore[misc,no-untyped-call]
            optimizer.step()
    return _turned(skew.detach(), begin)


def _turned(skew: Tensor, begin: Tensor) -> Tensor:
    half = (skew - skew.T) / 2
    eye = torch.eye(len(half))
    cayley: Tensor = torch.linalg.solve(eye + half, eye - half)
    return cayley @ begin
