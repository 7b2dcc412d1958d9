"""NomicBert without experts in numpy and float64, by the names of the published files; it shares no code with the network."""

from collections.abc import Sequence

import numpy as np

from moembed.models.nomic_bert.config import NomicBertConfig
from moembed.models.oracle_encoder import EncoderOracle
from moembed.models.oracle_math import attention, rotary_frequencies, silu
from moembed.models.oracle_result import Array


class NomicBertOracle(EncoderOracle):
    """The network over open weights."""

    config: NomicBertConfig
    layer_names = "encoder.layers.{}."
    embedding_norm = "emb_ln"
    layer_norms = ("norm1", "norm2")

    def attend(self, x: Array, texts: Sequence[slice], layer: str) -> Array:
        """Return what attention adds."""
        q, k, v = np.split(self.linear(x, f"{layer}attn.Wqkv", bias=False), 3, axis=1)
        frequencies = rotary_frequencies(self.config.head_dim, self.config.rotary_base)
        mixed = attention(q, k, v, texts, self.config.num_heads, frequencies)
        return self.linear(mixed, f"{layer}attn.out_proj", bias=False)

    def mlp(self, h: Array, layer: str) -> Array:
        """Return what the MLP adds."""
        up, gate = (self.linear(h, f"{layer}mlp.{name}", bias=False) for name in ("fc11", "fc12"))
        return self.linear(up * silu(gate), f"{layer}mlp.fc2", bias=False)
