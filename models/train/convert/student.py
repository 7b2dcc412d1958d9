"""The student's arithmetic with gradients, on batches of texts of one length.

The parameters are those of `moembed.models.network.NomicMoe`, so that its `state_dict` is the checkpoint; the network's own
operations have no gradients and pack padded texts. Both must agree, which a test checks.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.network import Attention, Block, MoeMlp, NomicMoe
from moembed.train.convert.teacher import split_heads

PROJECTION = "projection."  # how names of its parameters begin; it is learned apart from all the others, see `rotation`
_ROWS = 64  # experts' rows are padded to multiples of this: oneDNN prepares each shape anew


class Routing(NamedTuple):
    """What a router decided: `probabilities` `[T, experts]`, and `weights` and `expert_indices` `[T, top_k]`."""

    probabilities: Tensor
    weights: Tensor
    expert_indices: Tensor


def embed(network: NomicMoe, ids: Tensor) -> Tensor:
    """The encoder's input: ids `[batch, length]` to `[batch, length, hidden]`."""
    normed: Tensor = network.emb_ln(network.embeddings(ids))
    return normed


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of `[batch, heads, length, head_dim]` by their positions; the table's rows are positions."""
    first, second = x.chunk(2, dim=-1)
    c, s = cos[: x.shape[2]], sin[: x.shape[2]]
    return torch.cat([first * c - second * s, second * c + first * s], dim=-1)


def scores(attn: Attention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Attention before its softmax: `[batch, length, hidden]` to `[batch, heads, length, length]`."""
    rows = slice(0, 2 * x.shape[-1])
    q, k = F.linear(x, attn.Wqkv.weight[rows], attn.Wqkv.bias[rows]).chunk(2, dim=-1)
    q, k = (rotate(split_heads(part, attn.num_heads), cos, sin) for part in (q, k))
    return q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])


def context(attn: Attention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Attention before its output projection: `[batch, length, hidden]` to the same shape."""
    rows = slice(2 * x.shape[-1], None)
    v = split_heads(F.linear(x, attn.Wqkv.weight[rows], attn.Wqkv.bias[rows]), attn.num_heads)
    # Not the fused attention: its backward pass is slow on CPUs.
    mixed = torch.softmax(scores(attn, x, cos, sin), dim=-1).to(v.dtype) @ v
    return mixed.transpose(1, 2).reshape(x.shape)


def route(mlp: MoeMlp, h: Tensor) -> Routing:
    """Choose experts for `[T, hidden]`, always in float32."""
    with torch.autocast("cpu", enabled=False):
        probabilities = torch.softmax(F.linear(h.float(), mlp.router.layer.weight), dim=-1)
        return Routing(probabilities, *torch.topk(probabilities, mlp.router.top_k))


def expert_rows(routing: Routing, expert: int) -> tuple[Tensor, Tensor]:
    """The tokens `[n]` int64 that chose an expert, and the weights `[n]` with which they did."""
    token, rank = torch.nonzero(routing.expert_indices == expert, as_tuple=True)
    return token, routing.weights[token, rank]


def mix(mlp: MoeMlp, h: Tensor, routing: Routing) -> Tensor:
    """Evaluate the chosen experts on `[T, hidden]` and add them up, with the shared bias."""
    stacked = mlp.experts.mlp
    up, down = (w.view(mlp.experts.num_experts, -1, h.shape[1]) for w in (stacked.w1, stacked.w2))
    out = mlp.experts.bias.expand(h.shape)
    for expert in range(mlp.experts.num_experts):
        token, weight = expert_rows(routing, expert)
        rows = F.pad(h[token], (0, 0, 0, -len(token) % _ROWS))
        mixed = (F.gelu(F.linear(rows, up[expert])) @ down[expert])[: len(token)]
        out = out.index_add(0, token, mixed.to(out.dtype) * weight[:, None])
    return out


def feed_forward(block: Block, h: Tensor) -> tuple[Tensor, Routing | None]:
    """The MLP of a layer on `[batch, length, hidden]`, and its routing if it is a mixture."""
    if not isinstance(block.mlp, MoeMlp):
        return block.mlp(h), None
    flat = h.reshape(-1, h.shape[-1])
    routing = route(block.mlp, flat)
    return mix(block.mlp, flat, routing).view(h.shape), routing


def layer(block: Block, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Routing | None]:
    """One layer on `[batch, length, hidden]`."""
    h = block.norm1(x + block.attn.out_proj(context(block.attn, x, cos, sin)))
    mixed, routing = feed_forward(block, h)
    return block.norm2(h + mixed), routing


def blocks(network: NomicMoe) -> list[Block]:
    """The layers of a network, with their type."""
    return [block for block in network.encoder.layers if isinstance(block, Block)]


def project(network: NomicMoe, vectors: Tensor) -> Tensor:
    """Embeddings `[texts, hidden]`, not yet of unit length, of means of last hidden states, of the same shape."""
    return vectors if network.projection is None else network.projection(vectors)


def encode(network: NomicMoe, ids: Tensor) -> tuple[list[Tensor], list[Routing]]:
    """Hidden states after every layer, each `[batch, length, hidden]`, and the routing of every mixture."""
    return through(network, embed(network, ids), blocks(network))


def through(network: NomicMoe, x: Tensor, layers: Sequence[Block]) -> tuple[list[Tensor], list[Routing]]:
    """The same, of some layers of the network in a row and what the first of them reads, `[batch, length, hidden]`."""
    states, routings = [], []
    for block in layers:
        x, routing = layer(block, x, network.cos, network.sin)
        states.append(x)
        routings += [routing] if routing is not None else []
    return states, routings
