"""Conversion of a dense MLP to a mixture of smaller experts, in closed form.

Tokens are clustered by k-means, and the distances to the centres become the router's logits. Each expert keeps the neurons that
matter most to its tokens. The experts' outer weights are then solved for jointly, given the router weights. Neither router nor
experts have biases of their own, so constants are carried by a direction along which every token measures close to one.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.nomic_bert_moe.network import MoeMlp
from moembed.train.convert import student
from moembed.train.convert.regression import NormalEquations, RidgeFit, ridge
from moembed.train.convert.teacher import TeacherLayer

_ITERATIONS = 25


class MlpRows(NamedTuple):
    """Inputs and targets of an MLP, each `[n, hidden]`, and the weight of each row's error, `[n, 1]`."""

    inputs: Tensor
    targets: Tensor
    weight: Tensor


def constant_direction(h: Tensor) -> Tensor:
    """Return the direction `[hidden]` along which rows `[n, hidden]` measure as close to one as possible."""
    gram = (h.T @ h).double()
    gram.diagonal().add_(1e-5 * gram.diagonal().mean())
    direction: Tensor = torch.linalg.solve(gram, h.sum(0).double()).float()
    return direction


def kmeans(h: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return centres `[count, hidden]` of rows `[n, hidden]`; an empty cluster restarts at a random row."""
    centres = h[torch.randperm(len(h), generator=generator)[:count]].clone()
    for _ in range(_ITERATIONS):
        nearest = (h @ centres.T - 0.5 * centres.square().sum(1)).argmax(1)
        for index in range(count):
            members = h[nearest == index]
            restart = torch.randint(len(h), (1,), generator=generator)
            centres[index] = members.mean(0) if len(members) else h[restart[0]]
    return centres


def router_weight(h: Tensor, centres: Tensor, direction: Tensor, mass: float, top_k: int) -> Tensor:
    """Return a router `[experts, hidden]` that prefers near centres, scaled so that the selected experts get `mass` on average.

    Args:
        h: rows `[n, hidden]`.
        centres: `[experts, hidden]`, of rows less their mean.
        direction: from `constant_direction`.
        mass: mean sum of the `top_k` largest probabilities.
        top_k: experts per token.
    """
    offset = -(centres @ h.mean(0)) - 0.5 * centres.square().sum(1)
    weight = centres + torch.outer(offset, direction)
    logits = h @ weight.T
    low, high = 1e-4, 1e4  # bounds of the sharpness
    for _ in range(40):
        sharpness = math.sqrt(low * high)
        found = float(torch.softmax(logits * sharpness, -1).topk(top_k).values.sum(-1).mean())
        low, high = (sharpness, high) if found < mass else (low, sharpness)
    return weight * math.sqrt(low * high)


def split_dense(mlp: MoeMlp, layer: TeacherLayer, h: Tensor, mass: float, generator: torch.Generator) -> None:
    """Set the router and inner weights of a mixture from a dense layer.

    Args:
        mlp: changed in place; its outer weights are only the prior for `solve_outer_weights`.
        layer: of the teacher.
        h: rows `[n, hidden]`, the inputs of the MLP.
        mass: see `router_weight`.
        generator: of random numbers.
    """
    direction = constant_direction(h)
    count = mlp.experts.num_experts
    centres = kmeans(h - h.mean(0), count, generator)
    mlp.router.layer.weight.copy_(router_weight(h, centres, direction, mass, mlp.router.top_k))
    expert_indices = student.route(mlp, h).expert_indices
    importance = layer.down_weight.norm(dim=0)
    up, down = (w.view(count, -1, h.shape[1]) for w in (mlp.experts.mlp.w1, mlp.experts.mlp.w2))
    for expert in range(count):
        rows = h[(expert_indices == expert).any(1)]
        active = F.gelu(F.linear(rows if len(rows) else h, layer.up_weight, layer.up_bias)).square().mean(0).sqrt()
        neurons = (active * importance).topk(up.shape[1]).indices.sort().values
        up[expert] = layer.up_weight[neurons] + torch.outer(layer.up_bias[neurons], direction)
        down[expert] = layer.down_weight[:, neurons].T
    mlp.experts.bias.zero_()


def inner_activations(mlp: MoeMlp, h: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Compute the inputs of the outer weights, for each combination of experts that tokens select.

    Args:
        mlp: the mixture.
        h: rows `[n, hidden]`.

    Yields:
        Indices `[m]` of rows of `h`; their inner activations times the router weights `[m, top_k * width]`; the columns of these
        `[top_k * width]` among the inner activations of all experts. Every other column of these rows is zero.
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


def solve_outer_weights(
    mlp: MoeMlp, train: Sequence[MlpRows], validation: Sequence[MlpRows], strengths: Sequence[float]
) -> RidgeFit:
    """Solve for the outer weights of all experts and their shared bias, and set them.

    Args:
        mlp: changed in place.
        train: training rows, batch by batch.
        validation: validation rows.
        strengths: of the penalty on the distance from the dense layer's weights.
    """
    equations = []
    for batches in (train, validation):
        sums = NormalEquations(len(mlp.experts.mlp.w2), mlp.experts.bias.shape[0])
        for h, targets, weight in batches:
            for rows, values, columns in inner_activations(mlp, h):
                sums.add(values, targets[rows], weight[rows], columns)
        equations.append(sums)
    fit = ridge(equations[0], equations[1], mlp.experts.mlp.w2, strengths)
    mlp.experts.mlp.w2.copy_(fit.weight)
    mlp.experts.bias.copy_(fit.bias)
    return fit
