"""NomicBert-MoE in PyTorch, computed on packed tokens.

Mirrors `modeling_hf_nomic_bert.py` of nomic-ai/nomic-bert-2048 at revision 7710840340a098cfb869c4f65e87cf2b1b70caca
(post-norm blocks, three-major Wqkv, NeoX rotary halves, erf GELU, masked mean pooling) and megablocks' dMoE at
78eea65fda01e638af36ae38853bc51efb04a4b4 (softmax before top-k, no renormalization, one shared bias after the sum).
Parameter names are the checkpoint's. Pad positions leave right after the input, so that every linear layer, router and
expert sees real tokens only.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.config import NomicMoeConfig
from moembed.models.ops import attention, experts, pool, router
from moembed.models.rotary import rotary_table


class Embeddings(nn.Module):
    """Word embedding plus the only token-type row; positions are rotary."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        # No padding_idx: the published <pad> row is trained and is not zero.
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(1, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids `[T]` int64 to `[T, hidden]`."""
        return self.word_embeddings(ids) + self.token_type_embeddings.weight[0]


class Attention(nn.Module):
    """Multi-head self-attention within each text, rotary positions, biases on both projections."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, tokens: Tensor, attention_mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map packed `x` `[T, hidden]` to `[T, hidden]`; see `ops.attention` for the other shapes."""
        return self.out_proj(attention(self.Wqkv(x), tokens, attention_mask, cos, sin, self.num_heads))


class DenseMlp(nn.Module):
    """`fc2(gelu(fc1(x)))`, erf GELU, both biases."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.ffn_size)
        self.fc2 = nn.Linear(config.ffn_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[T, hidden]` to `[T, hidden]`."""
        return self.fc2(F.gelu(self.fc1(x)))


class Router(nn.Module):
    """Token-choice router without bias."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.top_k = config.top_k
        self.layer = nn.Linear(config.hidden_size, config.num_experts, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `[T, hidden]` to weights `[T, top_k]` and experts `[T, top_k]` int64."""
        return router(x, self.layer.weight, self.top_k)


class ExpertMlp(nn.Module):
    """Stacked weights of all experts, in the checkpoint's `[experts * ffn, hidden]` layout."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        rows = config.num_experts * config.expert_ffn_size
        self.w1 = nn.Parameter(torch.empty(rows, config.hidden_size))
        self.w2 = nn.Parameter(torch.empty(rows, config.hidden_size))


class Experts(nn.Module):
    """All experts of a layer and the bias they share."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.mlp = ExpertMlp(config)
        self.bias = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, x: Tensor, weights: Tensor, expert_indices: Tensor) -> Tensor:
        """Map `[T, hidden]` to `[T, hidden]` given the router's two outputs."""
        return experts(x, weights, expert_indices, self.mlp.w1, self.mlp.w2, self.bias, self.num_experts)


class MoeMlp(nn.Module):
    """Router and experts, in place of a dense MLP."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[T, hidden]` to `[T, hidden]`."""
        weights, expert_indices = self.router(x)
        return self.experts(x, weights, expert_indices)


class Block(nn.Module):
    """One post-norm encoder layer."""

    def __init__(self, config: NomicMoeConfig, *, moe: bool) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MoeMlp(config) if moe else DenseMlp(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, tokens: Tensor, attention_mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map packed `x` `[T, hidden]` to `[T, hidden]`."""
        h = self.norm1(self.attn(x, tokens, attention_mask, cos, sin) + x)
        return self.norm2(self.mlp(h) + h)


class Encoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config, moe=i in config.moe_layers) for i in range(config.num_layers))


class NomicMoe(nn.Module):
    """The encoder with its two outputs.

    Parameters keep the dtype of float32 whatever the checkpoint's, since float16 and bfloat16 widen exactly.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.emb_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = Encoder(config)
        self.projection = nn.Linear(config.hidden_size, config.hidden_size) if config.projection else None
        self.rebuild_rotary()

    def rebuild_rotary(self) -> Self:
        """Compute the rotary table, which a network made on the meta device lacks, and return the network."""
        for name, table in zip(("cos", "sin"), rotary_table(self.config), strict=True):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embed a batch of texts; `token_embeddings` are projected where the model has a projection.

        Args:
            input_ids: `[batch, sequence]` int64.
            attention_mask: `[batch, sequence]` int64, 1 for real tokens and 0 for padding.

        Returns:
            `sentence_embedding` `[batch, hidden]` float32, the masked mean, L2-normalized; and `token_embeddings`
            `[batch, sequence, hidden]` float32, zero where the mask is.
        """
        batch, sequence = input_ids.shape
        tokens = torch.nonzero(attention_mask.reshape(-1)).squeeze(1)
        x = self.emb_ln(self.embeddings(input_ids.reshape(-1).index_select(0, tokens)))
        for layer in self.encoder.layers:
            x = layer(x, tokens, attention_mask, self.cos, self.sin)
        if self.projection is not None:
            # Projecting the mean would give the same, but this is one more linear layer over packed rows.
            x = self.projection(x)
        padded = x.new_zeros(batch * sequence, self.config.hidden_size).index_copy(0, tokens, x)
        token_embeddings = padded.view(batch, sequence, self.config.hidden_size)
        return F.normalize(pool(x, tokens, attention_mask), dim=-1, eps=1e-12), token_embeddings
