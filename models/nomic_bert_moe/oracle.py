"""NomicBert-MoE in numpy and float64.

It follows the description of the model (embedding, post-norm blocks, rotary halves, erf GELU, un-renormalized top-k, one shared
expert bias), and shares no code with the network.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from moembed.models.family import FamilyOracle
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.oracle_math import (
    attention,
    gelu,
    layer_norm,
    pooled_state,
    rotary_frequencies,
    slices,
    softmax,
    unit,
)
from moembed.models.oracle_result import Array, OracleResult, OracleRouting
from moembed.models.weights import Weights


class NomicMoeOracle(FamilyOracle):
    """The network over open weights.

    Args:
        config: its configuration.
        weights: the tensors.
    """

    def __init__(self, config: NomicMoeConfig, weights: Weights) -> None:
        self.config, self._handle = config, weights

    def _tensor(self, name: str) -> Array:
        return np.asarray(self._handle.get_tensor(name), dtype=np.float64)

    def run_all(self, texts: Sequence[list[int]]) -> list[OracleResult]:
        """Compute texts given their token ids, special tokens included."""
        config = self.config
        parts = slices([len(ids) for ids in texts])
        table: Any = self._handle.get_slice("embeddings.word_embeddings.weight")
        words = np.stack([np.asarray(table[i], dtype=np.float64) for ids in texts for i in ids])
        x = words + self._tensor("embeddings.token_type_embeddings.weight")[0]
        x = self._norm(x, "emb_ln")
        states, routing = [x], {}
        for i in range(config.num_layers):
            prefix = f"encoder.layers.{i}."
            h = self._norm(self._attention(x, parts, prefix + "attn.") + x, prefix + "norm1")
            if i in config.moe_layers:
                routing[i] = self._route(h, prefix)
                mixed = self._experts(h, routing[i], prefix)
            else:
                mixed = self._dense(h, prefix)
            x = self._norm(mixed + h, prefix + "norm2")
            states.append(x)
        if config.projection:
            x = x @ self._tensor("projection.weight").T + self._tensor("projection.bias")
        return [self._result(part, x, states, routing) for part in parts]

    def _result(self, part: slice, x: Array, states: list[Array], routing: dict[int, OracleRouting]) -> OracleResult:
        pooled = pooled_state(x[part], self.config.pooling)
        own = {
            i: OracleRouting(r.probabilities[part], r.expert_indices[part], r.weights[part]) for i, r in routing.items()
        }
        return OracleResult(unit(pooled), pooled, tuple(state[part] for state in states), own)

    def _norm(self, x: Array, name: str) -> Array:
        weight, bias = self._tensor(name + ".weight"), self._tensor(name + ".bias")
        return layer_norm(x, weight, bias, self.config.layer_norm_eps)

    def _attention(self, x: Array, parts: list[slice], prefix: str) -> Array:
        config = self.config
        qkv = x @ self._tensor(prefix + "Wqkv.weight").T + self._tensor(prefix + "Wqkv.bias")
        q, k, v = np.split(qkv, 3, axis=1)
        frequencies = rotary_frequencies(config.head_dim, config.rotary_base)
        out = attention(q, k, v, parts, config.num_heads, frequencies)
        return np.asarray(out @ self._tensor(prefix + "out_proj.weight").T + self._tensor(prefix + "out_proj.bias"))

    def _dense(self, h: Array, prefix: str) -> Array:
        inner = gelu(h @ self._tensor(prefix + "mlp.fc1.weight").T + self._tensor(prefix + "mlp.fc1.bias"))
        return inner @ self._tensor(prefix + "mlp.fc2.weight").T + self._tensor(prefix + "mlp.fc2.bias")

    def _route(self, h: Array, prefix: str) -> OracleRouting:
        probabilities = softmax(h @ self._tensor(prefix + "mlp.router.layer.weight").T)
        expert_indices = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.config.top_k]
        return OracleRouting(probabilities, expert_indices, np.take_along_axis(probabilities, expert_indices, axis=1))

    def _experts(self, h: Array, routing: OracleRouting, prefix: str) -> Array:
        rows = self.config.expert_ffn_size
        w1, w2 = (self._handle.get_slice(prefix + f"mlp.experts.mlp.{name}") for name in ("w1", "w2"))
        out = np.zeros_like(h)
        for expert in np.unique(routing.expert_indices):
            first, last = int(expert) * rows, (int(expert) + 1) * rows
            up, down = np.asarray(w1[first:last], np.float64), np.asarray(w2[first:last], np.float64)
            token, rank = np.nonzero(routing.expert_indices == expert)
            out[token] += routing.weights[token, rank, None] * (gelu(h[token] @ up.T) @ down)
        return out + self._tensor(prefix + "mlp.experts.bias")
