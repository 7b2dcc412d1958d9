"""Operations that trace as one node each: routing, expert evaluation, packed attention and pooling.

They are `torch.library` custom ops in the namespace `moembed`, so that an exporter sees a node and not the loop over experts (a
traced loop silently loses the experts that the example did not visit). `moembed.export.functions` defines them in ONNX under the
same names.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)


@torch.library.custom_op("moembed::router", mutates_args=())
def router(x: Tensor, weight: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Choose `top_k` experts for each token.

    Args:
        x: `[T, hidden]` float32.
        weight: `[experts, hidden]` float32; there is no bias.
        top_k: experts per token.

    Returns:
        Softmax probabilities over all experts of the chosen ones, `[T, top_k]` float32, descending and not renormalized,
        and the experts' indices, `[T, top_k]` int64.
    """
    probabilities = torch.softmax(F.linear(x, weight), dim=-1)
    weights, expert_indices = torch.topk(probabilities, top_k)
    return weights, expert_indices


@router.register_fake
def _(x: Tensor, weight: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], top_k), x.new_empty(x.shape[0], top_k, dtype=torch.int64)


@torch.library.custom_op("moembed::experts", mutates_args=())
def experts(
    x: Tensor, weights: Tensor, expert_indices: Tensor, w1: Tensor, w2: Tensor, bias: Tensor, num_experts: int
) -> Tensor:
    """Evaluate the chosen experts and mix them: `sum_k weights_k * gelu(x @ w1_k.T) @ w2_k + bias`.

    Args:
        x: `[T, hidden]` float32.
        weights: `[T, top_k]` float32, from `router`.
        expert_indices: `[T, top_k]` int64, from `router`.
        w1: `[num_experts * ffn, hidden]` float32, viewed `[num_experts, ffn, hidden]` and used transposed.
        w2: the same shape and the same view, used as it is; viewed `[num_experts, hidden, ffn]` it would be garbage.
        bias: `[hidden]` float32, one for all experts, added once and unweighted.
        num_experts: experts that are stacked in `w1` and `w2`.

    Returns:
        `[T, hidden]` float32.
    """
    slots = x.new_zeros(*expert_indices.shape, x.shape[1])
    up, down = (w.view(num_experts, -1, x.shape[1]) for w in (w1, w2))
    for expert in range(num_experts):
        token, rank = torch.nonzero(expert_indices == expert, as_tuple=True)
        slots[token, rank] = F.gelu(F.linear(x[token], up[expert])) @ down[expert]
    # Summed by rank, so that a token's result does not depend on the rest of the batch.
    return (slots * weights.unsqueeze(-1)).sum(1) + bias


@experts.register_fake
def _(
    x: Tensor, weights: Tensor, expert_indices: Tensor, w1: Tensor, w2: Tensor, bias: Tensor, num_experts: int
) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("moembed::attention", mutates_args=())
def attention(qkv: Tensor, tokens: Tensor, attention_mask: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """Rotate queries and keys, then attend within each text.

    Args:
        qkv: `[T, 3 * hidden]` float32, three-major: all of Q, all of K, all of V, heads contiguous inside each.
        tokens: `[T]` int64, `row * sequence + column` of each packed token; the column is its position.
        attention_mask: `[batch, sequence]` int64.
        cos: `[positions, head_dim / 2]` float32.
        sin: `[positions, head_dim / 2]` float32.
        num_heads: attention heads.

    Returns:
        `[T, hidden]` float32, before the output projection.
    """
    batch, sequence = attention_mask.shape
    hidden = qkv.shape[1] // 3
    position = tokens % sequence
    c, s = cos[position].unsqueeze(1), sin[position].unsqueeze(1)
    first, second = qkv[:, : 2 * hidden].reshape(-1, 2 * num_heads, hidden // num_heads).chunk(2, dim=-1)
    rotated = torch.cat([first * c - second * s, second * c + first * s], dim=-1)
    packed = torch.cat([rotated.reshape(-1, 2 * hidden), qkv[:, 2 * hidden :]], dim=1)
    padded = qkv.new_zeros(batch * sequence, 3 * hidden).index_copy(0, tokens, packed)
    q, k, v = padded.view(batch, sequence, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    bias = (1.0 - attention_mask[:, None, None, :].to(qkv.dtype)) * torch.finfo(qkv.dtype).min
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return mixed.transpose(1, 2).reshape(batch * sequence, hidden)[tokens]


@attention.register_fake
def _(qkv: Tensor, tokens: Tensor, attention_mask: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    return qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)


@torch.library.custom_op("moembed::pool", mutates_args=())
def pool(x: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
    """Average the tokens of each text.

    Args:
        x: `[T, hidden]` float32.
        tokens: `[T]` int64, `row * sequence + column` of each packed token.
        attention_mask: `[batch, sequence]` int64.

    Returns:
        `[batch, hidden]` float32; zero for a text without tokens.
    """
    total = x.new_zeros(attention_mask.shape[0], x.shape[1]).index_add(0, tokens // attention_mask.shape[1], x)
    return total / attention_mask.sum(1, keepdim=True).to(x.dtype).clamp(min=1e-9)


@pool.register_fake
def _(x: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
    return x.new_empty(attention_mask.shape[0], x.shape[1])
