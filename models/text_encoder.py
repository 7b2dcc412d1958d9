"""Post-norm text encoder in PyTorch, computed on packed tokens: what the networks of all families have in common.

Pad positions leave right after the input, so that every linear layer, router and expert sees real tokens only. Parameter names
are those of `moembed.models.roles`.
"""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.config import NetworkConfig
from moembed.models.ops import attention, pool
from moembed.models.pooling import Pooling


class Embeddings(nn.Module):
    """Word embedding plus row 0 of the token types, where positions are rotary."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        # No padding_idx: the published <pad> row is trained and is not zero.
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(1, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids `[T]` int64 to `[T, hidden]`."""
        return self.word_embeddings(ids) + self.token_type_embeddings.weight[0]


class Attention(nn.Module):
    """Multi-head self-attention within each text, rotated positions, biases on both projections."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, tokens: Tensor, attention_mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map packed `x` `[T, hidden]` to `[T, hidden]`; see `ops.attention` for the other shapes."""
        return self.out_proj(attention(self.Wqkv(x), tokens, attention_mask, cos, sin, self.num_heads))


class DenseMlp(nn.Module):
    """`fc2(gelu(fc1(x)))`, erf GELU, both biases."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.ffn_size)
        self.fc2 = nn.Linear(config.ffn_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[T, hidden]` to `[T, hidden]`."""
        return self.fc2(F.gelu(self.fc1(x)))


class GatedMlp(nn.Module):
    """`fc2(act(fc12(x)) * fc11(x))`; a network without some of the biases has zeros there."""

    def __init__(self, config: NetworkConfig, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act
        self.fc11 = nn.Linear(config.hidden_size, config.ffn_size)
        self.fc12 = nn.Linear(config.hidden_size, config.ffn_size)
        self.fc2 = nn.Linear(config.ffn_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[T, hidden]` to `[T, hidden]`."""
        return self.fc2(self.act(self.fc12(x)) * self.fc11(x))


class Block(nn.Module):
    """One post-norm encoder layer."""

    def __init__(self, config: NetworkConfig, mlp: nn.Module) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = mlp
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, tokens: Tensor, attention_mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map packed `x` `[T, hidden]` to `[T, hidden]`."""
        h = self.norm1(self.attn(x, tokens, attention_mask, cos, sin) + x)
        return self.norm2(self.mlp(h) + h)


class Layers(nn.Module):
    """The stack of blocks."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)


class TextEncoder(nn.Module):
    """An encoder with its two outputs; a family gives the embeddings, the MLP of each layer and the tables.

    Parameters keep the dtype of float32 whatever the checkpoint's, since float16 and bfloat16 widen exactly.

    Args:
        config: sizes and constants.
        embeddings: what `embed` uses; without one of its own, a map of ids `[T]` int64 to `[T, hidden]`.
        mlps: MLP of every layer.
        projection: True for a linear layer behind the last one.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self, config: NetworkConfig, embeddings: nn.Module, mlps: Sequence[nn.Module], *, projection: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.embeddings = embeddings
        self.emb_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = Layers([Block(config, mlp) for mlp in mlps])
        self.projection = nn.Linear(config.hidden_size, config.hidden_size) if projection else None
        self.rebuild_rotary()

    def rotary_tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return cosines and sines of every position, `[max_positions, head_dim / 2]` each."""
        raise NotImplementedError

    def rebuild_rotary(self) -> Self:
        """Compute the rotary table, which a network made on the meta device lacks, and return the network."""
        for name, table in zip(("cos", "sin"), self.rotary_tables(), strict=True):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)
        return self

    def embed(self, ids: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Map packed ids `[T]` to `[T, hidden]`, before the norm; see `ops.attention` for the other shapes."""
        del tokens, attention_mask
        return self.embeddings(ids)

    def head(self, pooled: Tensor) -> Tensor:
        """Map the pooled states `[batch, hidden]` to what the vectors are made of by cutting and scaling to unit length."""
        return F.layer_norm(pooled, pooled.shape[-1:]) if self.config.pooled_layer_norm else pooled

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embed a batch of texts; `token_embeddings` are projected where the model has a projection.

        Args:
            input_ids: `[batch, sequence]` int64.
            attention_mask: `[batch, sequence]` int64, 1 for real tokens and 0 for padding, which is on the right.

        Returns:
            `sentence_embedding` `[batch, hidden]` float32, pooled, normalized by a LayerNorm where the model has one there, and
            L2-normalized; and `token_embeddings` `[batch, sequence, hidden]` float32, zero where the mask is.
        """
        batch, sequence = input_ids.shape
        tokens = torch.nonzero(attention_mask.reshape(-1)).squeeze(1)
        x = self.emb_ln(self.embed(input_ids.reshape(-1).index_select(0, tokens), tokens, attention_mask))
        for layer in self.encoder.layers:
            x = layer(x, tokens, attention_mask, self.cos, self.sin)
        if self.projection is not None:
            # Projecting the mean would give the same, but this is one more linear layer over packed rows.
            x = self.projection(x)
        padded = x.new_zeros(batch * sequence, self.config.hidden_size).index_copy(0, tokens, x)
        token_embeddings = padded.view(batch, sequence, self.config.hidden_size)
        mean = self.config.pooling == Pooling.MEAN
        pooled = pool(x, tokens, attention_mask) if mean else token_embeddings[:, 0]
        return F.normalize(self.head(pooled), dim=-1, eps=1e-12), token_embeddings
