"""GTE in numpy and float64, by the names of the published files; it shares no code with the network."""

from collections.abc import Sequence

import numpy as np

from moembed.models.gte.config import GteConfig
from moembed.models.oracle_encoder import EncoderOracle
from moembed.models.oracle_math import attention, gelu, rotary_frequencies
from moembed.models.oracle_result import Array


class GteOracle(EncoderOracle):
    """The network over open weights."""

    config: GteConfig
    layer_norms = ("attn_ln", "mlp_ln")

    def embed(self, ids: Sequence[int], texts: Sequence[slice]) -> Array:
        """Return the embeddings of words, and of token type 0 if the network has types."""
        return super().embed(ids, texts) if self.config.type_vocab_size else self.words(ids)

    def attend(self, x: Array, texts: Sequence[slice], layer: str) -> Array:
        """Return what attention adds."""
        config = self.config
        base, divisor = config.rotary_base * config.rotary_factor, config.rotary_factor ** (2 / config.head_dim)
        frequencies = rotary_frequencies(config.head_dim, base, divisor)
        q, k, v = np.split(self.linear(x, f"{layer}attention.qkv_proj"), 3, axis=1)
        return self.linear(attention(q, k, v, texts, config.num_heads, frequencies), f"{layer}attention.o_proj")

    def mlp(self, h: Array, layer: str) -> Array:
        """Return what the MLP adds."""
        up, gate = np.split(self.linear(h, f"{layer}mlp.up_gate_proj", bias=False), 2, axis=1)
        return self.linear(gelu(gate) * up, f"{layer}mlp.down_proj")
