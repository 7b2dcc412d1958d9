"""NomicBert-MoE in numpy and float64.

It follows the description of the model (embedding, post-norm blocks, rotary halves, erf GELU, un-renormalized top-k, one shared
expert bias), and shares no code with the network.
"""

from collections.abc import Sequence

import numpy as np

from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.oracle_encoder import EncoderOracle
from moembed.models.oracle_math import attention, gelu, rotary_frequencies, softmax
from moembed.models.oracle_result import Array, OracleRouting


class NomicMoeOracle(EncoderOracle):
    """The network over open weights."""

    config: NomicMoeConfig
    layer_names = "encoder.layers.{}."
    embedding_norm = "emb_ln"
    layer_norms = ("norm1", "norm2")

    def attend(self, x: Array, texts: Sequence[slice], layer: str) -> Array:
        """Return what attention adds."""
        q, k, v = np.split(self.linear(x, f"{layer}attn.Wqkv"), 3, axis=1)
        frequencies = rotary_frequencies(self.config.head_dim, self.config.rotary_base)
        return self.linear(attention(q, k, v, texts, self.config.num_heads, frequencies), f"{layer}attn.out_proj")

    def mlp(self, h: Array, layer: str) -> Array | tuple[Array, OracleRouting]:
        """Return what a dense MLP adds, or what the experts add, with their routing."""
        if f"{layer}mlp.router.layer.weight" not in self.weights.names:
            return self.linear(gelu(self.linear(h, f"{layer}mlp.fc1")), f"{layer}mlp.fc2")
        routing = self._route(h, layer)
        return self._experts(h, routing, layer), routing

    def project(self, x: Array) -> Array:
        """Apply the projection, if there is one."""
        return self.linear(x, "projection") if self.config.projection else x

    def _route(self, h: Array, layer: str) -> OracleRouting:
        probabilities = softmax(self.linear(h, f"{layer}mlp.router.layer", bias=False))
        expert_indices = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.config.top_k]
        return OracleRouting(probabilities, expert_indices, np.take_along_axis(probabilities, expert_indices, axis=1))

    def _experts(self, h: Array, routing: OracleRouting, layer: str) -> Array:
        rows = self.config.expert_ffn_size
        w1, w2 = (self.weights.get_slice(f"{layer}mlp.experts.mlp.{name}") for name in ("w1", "w2"))
        out = np.zeros_like(h)
        for expert in np.unique(routing.expert_indices):
            first, last = int(expert) * rows, (int(expert) + 1) * rows
            up, down = np.asarray(w1[first:last], np.float64), np.asarray(w2[first:last], np.float64)
            token, rank = np.nonzero(routing.expert_indices == expert)
            out[token] += routing.weights[token, rank, None] * (gelu(h[token] @ up.T) @ down)
        return out + self.tensor(f"{layer}mlp.experts.bias")
