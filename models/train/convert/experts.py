"""From a dense MLP to a mixture of smaller ones, in closed form.

Tokens are clustered by k-means: the distances to the centres are the router's logits. Each expert keeps the neurons that matter
most to its tokens. The experts' outer weights are then solved for jointly, given the weights with which they are mixed. Neither
router nor experts have biases of their own, so that constants ride on a direction along which every token measures close to one.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.network import MoeMlp
from moembed.train.convert import student
from moembed.train.convert.moments import Fit, Moments, ridge
from moembed.train.convert.teacher import TeacherLayer

_ITERATIONS = 25


class Rows(NamedTuple):
    """What an MLP reads and what it should give, each `[n, hidden]`, and by how much an error counts, `[n, 1]`."""

    read: Tensor
    wanted: Tensor
    weight: Tensor


def constant_direction(h: Tensor) -> Tensor:
    """The direction `[hidden]` along which rows `[n, hidden]` measure as close to one as they can."""
    gram = (h.T @ h).double()
    gram.diagonal().add_(1e-5 * gram.diagonal().mean())
    direction: Tensor = torch.linalg.solve(gram, h.sum(0).double()).float()
    return direction


def cluster(h: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres `[count, hidden]` of rows `[n, hidden]` by k-means; a cluster that runs empty starts again at a random row."""
    centres = h[torch.randperm(len(h), generator=generator)[:count]].clone()
    for _ in range(_ITERATIONS):
        nearest = (h @ centres.T - 0.5 * centres.square().sum(1)).argmax(1)
        for index in range(count):
            own = h[nearest == index]
            anywhere = torch.randint(len(h), (1,), generator=generator)
            centres[index] = own.mean(0) if len(own) else h[anywhere[0]]
    return centres


def router_weight(h: Tensor, centres: Tensor, direction: Tensor, mass: float, top_k: int) -> Tensor:
    """A router `[experts, hidden]` that prefers near centres, as sharply as gives the chosen ones `mass` on average.

    Args:
        h: rows `[n, hidden]`.
        centres: `[experts, hidden]`, of rows less their mean.
        direction: from `constant_direction`.
        mass: mean sum of the `top_k` largest probabilities.
        top_k: experts of a token.
    """
    offset = -(centres @ h.mean(0)) - 0.5 * centres.square().sum(1)
    weight = centres + torch.outer(offset, direction)
    logits = h @ weight.T
    low, high = 1e-4, 1e4  # of the sharpness
    for _ in range(40):
        sharpness = math.sqrt(low * high)
        found = float(torch.softmax(logits * sharpness, -1).topk(top_k).values.sum(-1).mean())
        low, high = (sharpness, high) if found < mass else (low, sharpness)
    return weight * math.sqrt(low * high)


def divide(mlp: MoeMlp, layer: TeacherLayer, h: Tensor, mass: float, generator: torch.Generator) -> None:
    """Set router and inner weights of a mixture from a dense layer.

    Args:
        mlp: changed in place; its outer weights are only a start for `solve`.
        layer: the teacher's.
        h: rows `[n, hidden]` that the MLP reads.
        mass: see `router_weight`.
        generator: of random numbers.
    """
    direction = constant_direction(h)
    count = mlp.experts.num_experts
    centres = cluster(h - h.mean(0), count, generator)
    mlp.router.layer.weight.copy_(router_weight(h, centres, direction, mass, mlp.router.top_k))
    expert_indices = student.route(mlp, h).expert_indices
    importance = layer.down_weight.norm(dim=0)
    up, down = (w.view(count, -1, h.shape[1]) for w in (mlp.experts.mlp.w1, mlp.experts.mlp.w2))
    for expert in range(count):
        own = h[(expert_indices == expert).any(1)]
        active = F.gelu(F.linear(own if len(own) else h, layer.up_weight, layer.up_bias)).square().mean(0).sqrt()
        kept = (active * importance).topk(up.shape[1]).indices.sort().values
        up[expert] = layer.up_weight[kept] + torch.outer(layer.up_bias[kept], direction)
        down[expert] = layer.down_weight[:, kept].T
    mlp.experts.bias.zero_()


def inner(mlp: MoeMlp, h: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What the outer weights read: for each set of experts that tokens share, its rows, their inner values and the columns.

    Args:
        mlp: the mixture.
        h: rows `[n, hidden]`.

    Yields:
        Row numbers `[m]` of `h`; weighted inner values `[m, top_k * width]`; their columns `[top_k * width]` among all
        experts' inner values. Every other column of these rows is zero.
    """
    up = mlp.experts.mlp.w1.view(mlp.experts.num_experts, -1, h.shape[1])
    width = up.shape[1]
    routing = student.route(mlp, h)
    order = routing.expert_indices.argsort(dim=1)
    expert_indices, weights = routing.expert_indices.gather(1, order), routing.weights.gather(1, order)
    for members in combinations(range(len(up)), mlp.router.top_k):
        rows = torch.nonzero((expert_indices == torch.tensor(members)).all(1)).squeeze(1)
        if not len(rows):
            continue
        values = [F.gelu(F.linear(h[rows], up[e])) * weights[rows, k, None] for k, e in enumerate(members)]
        columns = torch.cat([torch.arange(e * width, (e + 1) * width) for e in members])
        yield rows, torch.cat(values, 1), columns


def solve(
    mlp: MoeMlp,
    learned: Sequence[Rows],
    held: Sequence[Rows],
    strengths: list[float],
) -> Fit:
    """Solve for the outer weights of all experts and the bias they share, and set them.

    Args:
        mlp: changed in place.
        learned: rows to learn from, batch by batch.
        held: the same of held-out text.
        strengths: of the penalty for leaving the dense layer's weights.
    """
    sums = []
    for side in (learned, held):
        moments = Moments(len(mlp.experts.mlp.w2), mlp.experts.bias.shape[0])
        for h, target, weight in side:
            for rows, values, columns in inner(mlp, h):
                moments.add(values, target[rows], weight[rows], columns)
        sums.append(moments)
    fit = ridge(sums[0], sums[1], mlp.experts.mlp.w2, strengths)
    mlp.experts.mlp.w2.copy_(fit.weight)
    mlp.experts.bias.copy_(fit.bias)
    return fit
