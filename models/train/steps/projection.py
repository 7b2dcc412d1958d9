"""Training of the projection: an orthogonal matrix that moves what tells texts apart into the leading dimensions.

A post-norm residual stream cannot be rotated, because its norms weigh each coordinate separately. So the student learns the
teacher's coordinates, and the projection rotates the pooled embedding afterwards. At full width this changes no similarity; it
decides what truncated embeddings keep. Before distillation it is trained on each text's neighbours, so that distillation can use
every width. After distillation it is trained on pairs: a truncated embedding should keep what finds a document or a translation,
not what identifies the language.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from moembed.train.recipe import ProjectionRecipe
from moembed.train.steps.losses import info_nce, kl_divergence, match_spread, similarities

Project = Callable[[Tensor], Tensor]


def fit_to_neighbours(vectors: Tensor, dims: Sequence[int], recipe: ProjectionRecipe, seed: int) -> Tensor:
    """Train a projection whose leading components give each text the neighbours that it has at full width.

    It starts from the principal directions. The loss is the divergence of each text's similarity distribution within a batch from
    that at full width, summed over the widths.

    Args:
        vectors: embeddings `[texts, hidden]` of unit length.
        dims: widths that they may be truncated to.
        recipe: of the steps.
        seed: of the batches.

    Returns:
        Orthogonal matrix `[hidden, hidden]` float32; `vectors @ matrix.T` are the projected embeddings.
    """
    widths = [dim for dim in dims if dim < vectors.shape[1]]
    principal = torch.linalg.eigh(vectors.double().T @ vectors.double())[1].flip(1).T.float()

    def loss(rows: Tensor, project: Project) -> Tensor:
        return _neighbour_loss(vectors[rows], project, widths, recipe)

    return _optimize(principal, len(vectors), loss, recipe, seed) if widths else principal


def fit_to_pairs(
    queries: Tensor, documents: Tensor, initial: Tensor, dims: Sequence[int], recipe: ProjectionRecipe, seed: int
) -> Tensor:
    """Train a projection whose leading components let a query find its document, and keep each text's neighbours.

    Between two widths the order of components does not change the loss, so principal directions come first: this loses less at
    widths in between, and in binary precision, because what all texts have in common is then in one component.

    Args:
        queries: embeddings `[pairs, hidden]` of unit length.
        documents: the same, in the same order.
        initial: projection to start from, `[hidden, hidden]`.
        dims: widths that they may be truncated to.
        recipe: of the steps.
        seed: of the batches.

    Returns:
        Orthogonal matrix `[hidden, hidden]` float32.
    """
    widths = [dim for dim in dims if dim < queries.shape[1]]

    def loss(rows: Tensor, project: Project) -> Tensor:
        full = queries[rows], documents[rows]
        mixed = torch.cat([full[0][::2], full[1][1::2]])
        parts = [recipe.neighbours_weight * _neighbour_loss(mixed, project, widths, recipe)]
        for width in widths:
            truncated = [project(side)[:, :width] for side in full]
            for one, other in ((0, 1), (1, 0)):
                sides = (truncated[one], truncated[other]), (full[one], full[other])
                parts.append(info_nce(*sides, recipe.pair_temperature, recipe.margin))
        return torch.stack(parts).sum()

    if not widths:
        return initial
    fitted = _optimize(initial, len(queries), loss, recipe, seed)
    return _principal_order(fitted, torch.cat([queries, documents]), widths)


def nearest_orthogonal(matrix: Tensor) -> Tensor:
    """Return the orthogonal matrix nearest to a square one, such as a projection that was rounded."""
    left, _, right = torch.linalg.svd(matrix.double())
    orthogonal: Tensor = (left @ right).float()
    return orthogonal


def _principal_order(matrix: Tensor, vectors: Tensor, widths: Sequence[int]) -> Tensor:
    """Rotate each block of components between two widths to its principal directions, largest first."""
    blocks = []
    for block in torch.tensor_split(matrix, sorted(widths)):
        projected = (vectors @ block.T).double()
        blocks.append(torch.linalg.eigh(projected.T @ projected)[1].flip(1).T.float() @ block)
    return torch.cat(blocks)


def _neighbour_loss(vectors: Tensor, project: Project, widths: Sequence[int], recipe: ProjectionRecipe) -> Tensor:
    """Return the divergence of the similarity distributions from those at full width, summed over the widths."""
    reference = similarities(vectors, recipe.temperature)
    projected = project(vectors)
    logits = [similarities(projected[:, :width], recipe.temperature) for width in widths]
    return torch.stack([kl_divergence(match_spread(own, reference), reference) for own in logits]).sum()


def _optimize(
    initial: Tensor, count: int, loss: Callable[[Tensor, Project], Tensor], recipe: ProjectionRecipe, seed: int
) -> Tensor:
    """Minimize the loss of random rows out of `count`; Cayley's map keeps the matrix orthogonal."""
    generator = torch.Generator().manual_seed(seed)
    skew = torch.zeros_like(initial, requires_grad=True)
    optimizer = torch.optim.Adam([skew], recipe.learning_rate)
    with torch.enable_grad():
        for _ in range(recipe.steps):
            matrix = _cayley(skew) @ initial
            rows = torch.randint(count, (recipe.batch_size,), generator=generator)
            optimizer.zero_grad()
            loss(rows, lambda x, matrix=matrix: x @ matrix.T).backward()  # type: ignore[misc,no-untyped-call]
            optimizer.step()
    return _cayley(skew.detach()) @ initial


def _cayley(skew: Tensor) -> Tensor:
    half = (skew - skew.T) / 2
    eye = torch.eye(len(half))
    orthogonal: Tensor = torch.linalg.solve(eye + half, eye - half)
    return orthogonal
