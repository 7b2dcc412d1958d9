"""From learned positions to rotary ones, a layer at a time.

A head's scores are a bilinear form of rank `head_dim`, and any basis of it gives the same scores until positions turn its pairs
of coordinates, the first pairs fast and the last ones hardly at all. So the basis is chosen such that the weakest directions turn
fastest (`rebase`), which costs least; then queries and keys learn the teacher's attention by gradient steps (`Tuner`), and use
the fast pairs for what the teacher's positions did. Biases learn faster than weights: the product of two biases is a function of
the distance alone.
"""

import math

import torch
from torch import Tensor

from moembed.models.network import Attention
from moembed.train.convert import student
from moembed.train.convert.teacher import TeacherLayer
from moembed.train.recipe import Attend

_WARMUP = 8


def second_moments(x: Tensor) -> Tensor:
    """`[hidden + 1, hidden + 1]` float64 of rows `[n, hidden]` with a constant appended."""
    extended = torch.cat([x, x.new_ones(len(x), 1)], 1)
    return (extended.T @ extended / len(x)).double()


def rebase(layer: TeacherLayer, heads: int, moments: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries and keys of every head in the basis of their scores' principal directions, the weakest on the fastest pairs.

    Args:
        layer: the teacher's.
        heads: attention heads.
        moments: of the layer's input, from `second_moments`.

    Returns:
        Weight and bias of queries and of keys; without rotation they give the teacher's scores.
    """
    hidden = layer.q_weight.shape[1]
    dim = hidden // heads
    factor = torch.linalg.cholesky(moments + 1e-6 * torch.eye(hidden + 1, dtype=torch.float64))
    inverse = torch.linalg.inv(factor)
    weak_first = torch.arange(dim).view(2, dim // 2).T.reshape(-1)  # coordinates p and p + dim / 2 are a pair
    parts: list[list[Tensor]] = [[], []]
    for head in range(heads):
        rows = slice(head * dim, (head + 1) * dim)
        q, k = (
            torch.cat([weight[rows], bias[rows, None]], 1).double() @ factor
            for weight, bias in ((layer.q_weight, layer.q_bias), (layer.k_weight, layer.k_bias))
        )
        # q.T @ k has rank `dim`: its singular vectors come from the small matrices of two QR decompositions.
        left, r_left = torch.linalg.qr(q.T)
        right, r_right = torch.linalg.qr(k.T)
        u, s, vh = torch.linalg.svd(r_left @ r_right.T)
        for side, (basis, vectors) in enumerate(((left, u), (right, vh.T))):
            directions = (basis @ vectors * s.sqrt()).T @ inverse
            placed = torch.empty_like(directions)
            placed[weak_first] = directions.flip(0)
            parts[side].append(placed)
    query, key = (torch.cat(part).float() for part in parts)
    return query[:, :hidden].clone(), query[:, hidden].clone(), key[:, :hidden].clone(), key[:, hidden].clone()


class Tuner:
    """Fits a layer's queries and keys to the teacher's attention by Adam, with a rate that falls to zero.

    Args:
        attn: its `Wqkv` is changed in place; values stay as they are.
        recipe: its rates.
        steps: how many there will be.
    """

    def __init__(self, attn: Attention, recipe: Attend, steps: int) -> None:
        self._attn, self._rates, self._steps, self._done = attn, (recipe.rate, recipe.bias_rate), steps, 0
        self._values = 2 * attn.Wqkv.weight.shape[1]  # the first row of Wqkv that is not learnt
        self._parameters = [attn.Wqkv.weight, attn.Wqkv.bias]
        self._optimizer = torch.optim.Adam(
            [{"params": [parameter]} for parameter in self._parameters], betas=(0.9, 0.98)
        )

    def step(self, x: Tensor, probabilities: Tensor, cos: Tensor, sin: Tensor) -> float:
        """Take one step on a batch; returns the divergence from the teacher's attention before it, in nats a row."""
        rise = min(1.0, (self._done + 1) / _WARMUP)
        fall = 0.5 * (1 + math.cos(math.pi * self._done / self._steps))
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * rise * fall
        with torch.enable_grad():
            for parameter in self._parameters:
                parameter.requires_grad_(True)
            loss = divergence(student.scores(self._attn, x, cos, sin), probabilities)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad[self._values :] = 0
            parameter.requires_grad_(False)
        self._optimizer.step()
        self._done += 1
        return float(loss.detach())


def divergence(scores: Tensor, probabilities: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the student's rows of attention from the teacher's, in nats."""
    teacher = probabilities.float()
    entropy = -torch.xlogy(teacher, teacher).sum(-1)
    return (-(teacher * torch.log_softmax(scores.float(), dim=-1)).sum(-1) - entropy).mean()
