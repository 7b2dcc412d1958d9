"""The network in plain torch on padded tokens, as a converter without our operators wants it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from moembed.models.pooling import Pooling
from moembed.models.text_encoder import Block, TextEncoder


class Plain(nn.Module):
    """A network of any family, from ids and mask `[batch, sequence]` int64 to vectors `[batch, hidden]` alone."""

    def __init__(self, network: TextEncoder) -> None:
        super().__init__()
        self.network = network
        self.rotates = bool(network.sin.any())

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        network = self.network
        batch, sequence = ids.shape
        everything = torch.ones_like(attention_mask)
        cells = torch.arange(batch * sequence)
        x = network.embed(ids.reshape(-1), cells, everything).view(batch, sequence, -1)
        x = network.emb_ln(x)
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e9
        cos, sin = (table[:sequence] for table in (network.cos, network.sin))
        for layer in network.encoder.layers:
            x = self._block(layer, x, bias, cos, sin)
        if network.config.pooling is Pooling.FIRST:
            pooled = x[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(x.dtype)
            pooled = (x * mask).sum(1) / mask.sum(1)
        if network.projection is not None:
            pooled = network.projection(pooled)
        return F.normalize(network.head(pooled), dim=-1)

    def _block(self, layer: Block, x: Tensor, bias: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, sequence, hidden = x.shape
        qkv = layer.attn.Wqkv(x).view(batch, sequence, 3, layer.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (_turned(part, cos, sin) if self.rotates else part for part in (qkv[0], qkv[1]))
        mixed = F.scaled_dot_product_attention(q, k, qkv[2], attn_mask=bias).transpose(1, 2)
        h = layer.norm1(layer.attn.out_proj(mixed.reshape(batch, sequence, hidden)) + x)
        mlp = layer.mlp
        if not hasattr(mlp, "router"):
            return layer.norm2(mlp(h) + h)
        rows = h.reshape(-1, hidden)
        weights, expert_indices = torch.topk(torch.softmax(mlp.router.layer(rows), dim=-1), mlp.router.top_k)
        up, down = (w.view(mlp.experts.num_experts, -1, hidden) for w in (mlp.experts.mlp.w1, mlp.experts.mlp.w2))
        made = _experts(rows, weights, expert_indices, up, down) + mlp.experts.bias
        return layer.norm2(made.view(batch, sequence, hidden) + h)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _experts(rows: Tensor, weights: Tensor, expert_indices: Tensor, up: Tensor, down: Tensor) -> Tensor:
    out = torch.zeros_like(rows)
    for expert in range(up.shape[0]):
        # Of a token's choices at most one is this expert. No branch: one would be traced as the example took it.
        weight = (weights * (expert_indices == expert)).sum(1)
        tokens = torch.nonzero(weight).squeeze(1)
        made = F.linear(F.gelu(F.linear(rows[tokens], up[expert])), down[expert].t())
        out = out.index_add(0, tokens, made * weight[tokens].unsqueeze(1))
    return out
