"""Replacement of learned positions by rotary ones, one layer at a time.

A head's attention scores are a bilinear form of rank `head_dim`. Any basis of it gives the same scores until rotary positions
turn its pairs of coordinates: the first pairs fast, the last ones hardly at all. `principal_basis` puts the weakest directions on
the fastest pairs, which costs least. Then `AttentionTuner` fits queries and keys to the teacher's attention by gradient steps, so
that the fast pairs take over what the teacher's positions did. Biases get a higher learning rate than weights, because the
product of two biases is a function of the distance alone.
"""

import math

import torch
from torch import Tensor

from moembed.models.text_encoder import Attention
from moembed.train.convert import student
from moembed.train.convert.teacher import TeacherLayer
from moembed.train.recipe import AttentionRecipe

_WARMUP_STEPS = 8


def second_moments(x: Tensor) -> Tensor:
    """Return `[hidden + 1, hidden + 1]` float64 of rows `[n, hidden]` with a constant appended."""
    extended = torch.cat([x, x.new_ones(len(x), 1)], 1)
    return (extended.T @ extended / len(x)).double()


def principal_basis(layer: TeacherLayer, heads: int, moments: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Express each head's queries and keys in the principal directions of its scores, the weakest on the fastest pairs.

    Args:
        layer: of the teacher.
        heads: number of attention heads.
        moments: of the layer's input, from `second_moments`.

    Returns:
        Weight and bias of queries, and of keys; without rotary positions they give the teacher's scores.
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
        # q.T @ k has rank `dim`: its singular vectors follow from the small matrices of two QR decompositions.
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


class AttentionTuner:
    """Fits a layer's queries and keys to the teacher's attention by Adam, with a cosine schedule.

    Args:
        attn: its `Wqkv` is changed in place; the rows of values stay as they are.
        recipe: the learning rates.
        steps: total number of steps.
    """

    def __init__(self, attn: Attention, recipe: AttentionRecipe, steps: int) -> None:
        self._attn, self._steps, self._done = attn, steps, 0
        self._rates = (recipe.learning_rate, recipe.bias_learning_rate)
        self._first_value_row = 2 * attn.Wqkv.weight.shape[1]
        self._parameters = [attn.Wqkv.weight, attn.Wqkv.bias]
        self._optimizer = torch.optim.Adam(
            [{"params": [parameter]} for parameter in self._parameters], betas=(0.9, 0.98)
        )

    def step(self, x: Tensor, probabilities: Tensor, cos: Tensor, sin: Tensor) -> float:
        """Take one step on a batch, and return the divergence before it, in nats per row of attention."""
        warmup = min(1.0, (self._done + 1) / _WARMUP_STEPS)
        decay = 0.5 * (1 + math.cos(math.pi * self._done / self._steps))
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * warmup * decay
        with torch.enable_grad():
            for parameter in self._parameters:
                parameter.requires_grad_(True)
            loss = attention_divergence(student.scores(self._attn, x, cos, sin), probabilities)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad[self._first_value_row :] = 0
            parameter.requires_grad_(False)
        self._optimizer.step()
        self._done += 1
        return float(loss.detach())


def attention_divergence(scores: Tensor, probabilities: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of the student's rows of attention from the teacher's, in nats."""
    teacher = probabilities.float()
    entropy = -torch.xlogy(teacher, teacher).sum(-1)
    return (-(teacher * torch.log_softmax(scores.float(), dim=-1)).sum(-1) - entropy).mean()
