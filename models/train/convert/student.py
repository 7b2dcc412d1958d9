"""Forward pass of the student with gradients, on batches of texts of one length.

The parameters are those of `moembed.models.nomic_bert_moe.network.NomicMoe`, so its `state_dict` is the
checkpoint. Its own operations have no gradients and pack padded texts. A test checks that both agree.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.nomic_bert_moe.network import MoeMlp, NomicMoe
from moembed.models.text_encoder import Attention, Block
from moembed.train.convert.teacher import split_heads

PROJECTION_PREFIX = "projection."  # of its parameters' names; it is trained separately, see `steps.projection`
_ROWS = 64  # multiple that an expert's rows are padded to, because oneDNN prepares each new shape


class Routing(NamedTuple):
    """Output of a router: `probabilities` `[T, experts]`, and `weights` and `expert_indices` `[T, top_k]`."""

    probabilities: Tensor
    weights: Tensor
    expert_indices: Tensor


def embed(network: NomicMoe, ids: Tensor) -> Tensor:
    """Return the encoder's input: ids `[batch, length]` to `[batch, length, hidden]`."""
    normed: Tensor = network.emb_ln(network.embeddings(ids))
    return normed


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs of `[batch, heads, length, head_dim]` by their positions, the rows of `cos` and `sin`."""
    first, second = x.chunk(2, dim=-1)
    c, s = cos[: x.shape[2]], sin[: x.shape[2]]
    return torch.cat([first * c - second * s, second * c + first * s], dim=-1)


def scores(attn: Attention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return attention scores before the softmax: `[batch, length, hidden]` to `[batch, heads, length, length]`."""
    rows = slice(0, 2 * x.shape[-1])
    q, k = F.linear(x, attn.Wqkv.weight[rows], attn.Wqkv.bias[rows]).chunk(2, dim=-1)
    q, k = (apply_rotary(split_heads(part, attn.num_heads), cos, sin) for part in (q, k))
    return q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])


def context(attn: Attention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return the output of attention before its output projection: `[batch, length, hidden]` to the same shape."""
    rows = slice(2 * x.shape[-1], None)
    v = split_heads(F.linear(x, attn.Wqkv.weight[rows], attn.Wqkv.bias[rows]), attn.num_heads)
    # The backward pass of fused attention is slow on CPUs.
    mixed = torch.softmax(scores(attn, x, cos, sin), dim=-1).to(v.dtype) @ v
    return mixed.transpose(1, 2).reshape(x.shape)


def route(mlp: MoeMlp, h: Tensor) -> Routing:
    """Select experts for `[T, hidden]`, always in float32."""
    with torch.autocast("cpu", enabled=False):
        probabilities = torch.softmax(F.linear(h.float(), mlp.router.layer.weight), dim=-1)
        return Routing(probabilities, *torch.topk(probabilities, mlp.router.top_k))


def expert_rows(routing: Routing, expert: int) -> tuple[Tensor, Tensor]:
    """Return the tokens `[n]` int64 routed to an expert, and their router weights `[n]`."""
    token, rank = torch.nonzero(routing.expert_indices == expert, as_tuple=True)
    return token, routing.weights[token, rank]


def run_experts(mlp: MoeMlp, h: Tensor, routing: Routing) -> Tensor:
    """Evaluate the selected experts on `[T, hidden]`, and sum their outputs and the shared bias."""
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
    """Run the MLP of a layer on `[batch, length, hidden]`; the routing is None if the MLP is dense."""
    if not isinstance(block.mlp, MoeMlp):
        return block.mlp(h), None
    flat = h.reshape(-1, h.shape[-1])
    routing = route(block.mlp, flat)
    return run_experts(block.mlp, flat, routing).view(h.shape), routing


def layer(block: Block, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Routing | None]:
    """Run one layer on `[batch, length, hidden]`."""
    h = block.norm1(x + block.attn.out_proj(context(block.attn, x, cos, sin)))
    mixed, routing = feed_forward(block, h)
    return block.norm2(h + mixed), routing


def blocks(network: NomicMoe) -> list[Block]:
    """Return the layers of a network, with their type."""
    return [block for block in network.encoder.layers if isinstance(block, Block)]


def project(network: NomicMoe, vectors: Tensor) -> Tensor:
    """Apply the projection, if there is one, to mean hidden states `[texts, hidden]`; the result is not normalized."""
    return vectors if network.projection is None else network.projection(vectors)


def encode(network: NomicMoe, ids: Tensor) -> tuple[list[Tensor], list[Routing]]:
    """Return the hidden states after every layer, each `[batch, length, hidden]`, and the routing of every mixture."""
    return run_layers(network, embed(network, ids), blocks(network))


def run_layers(network: NomicMoe, x: Tensor, layers: Sequence[Block]) -> tuple[list[Tensor], list[Routing]]:
    """Run consecutive layers on `[batch, length, hidden]`, and return the same as `encode`."""
    states, routings = [], []
    for block in layers:
        x, routing = layer(block, x, network.cos, network.sin)
        states.append(x)
        if routing is not None:
            routings.append(routing)
    return states, routings
