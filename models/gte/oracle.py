"""GTE in numpy and float64, by the names of the published files; it shares no code with the network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from moembed.models.family import FamilyOracle
from moembed.models.gte.config import GteConfig
from moembed.models.oracle_math import attention, gelu, layer_norm, pooled_state, rotary_frequencies, slices, unit
from moembed.models.oracle_result import Array, OracleResult
from moembed.models.weights import Weights


class GteOracle(FamilyOracle):
    """The network over open weights.

    Args:
        config: its configuration.
        weights: the tensors.
    """

    def __init__(self, config: GteConfig, weights: Weights) -> None:
        self.config, self._handle = config, weights

    def run_all(self, texts: Sequence[list[int]]) -> list[OracleResult]:
        """Compute texts given their token ids, special tokens included."""
        config, parts = self.config, slices([len(ids) for ids in texts])
        words: Any = self._handle.get_slice("embeddings.word_embeddings.weight")
        x = np.stack([np.asarray(words[i], dtype=np.float64) for ids in texts for i in ids])
        if config.type_vocab_size:
            x = x + self._tensor("embeddings.token_type_embeddings.weight")[0]
        x = self._norm(x, "embeddings.LayerNorm")
        states = [x]
        for i in range(config.num_layers):
            layer = f"encoder.layer.{i}."
            attended = self._attention(x, parts, layer) @ self._tensor(layer + "attention.o_proj.weight").T
            h = self._norm(attended + self._tensor(layer + "attention.o_proj.bias") + x, layer + "attn_ln")
            up, gate = np.split(h @ self._tensor(layer + "mlp.up_gate_proj.weight").T, 2, axis=1)
            down = (gelu(gate) * up) @ self._tensor(layer + "mlp.down_proj.weight").T
            x = self._norm(down + self._tensor(layer + "mlp.down_proj.bias") + h, layer + "mlp_ln")
            states.append(x)
        return [self._result(part, states) for part in parts]

    def _result(self, part: slice, states: list[Array]) -> OracleResult:
        own = tuple(state[part] for state in states)
        pooled = pooled_state(own[-1], self.config.pooling)
        return OracleResult(unit(pooled), pooled, own)

    def _attention(self, x: Array, parts: list[slice], layer: str) -> Array:
        config = self.config
        qkv = x @ self._tensor(layer + "attention.qkv_proj.weight").T + self._tensor(layer + "attention.qkv_proj.bias")
        base, divisor = config.rotary_base * config.rotary_factor, config.rotary_factor ** (2 / config.head_dim)
        frequencies = rotary_frequencies(config.head_dim, base, divisor)
        q, k, v = np.split(qkv, 3, axis=1)
        return attention(q, k, v, parts, config.num_heads, frequencies)

    def _tensor(self, name: str) -> Array:
        return np.asarray(self._handle.get_tensor(name), dtype=np.float64)

    def _norm(self, x: Array, name: str) -> Array:
        weight, bias = self._tensor(name + ".weight"), self._tensor(name + ".bias")
        return layer_norm(x, weight, bias, self.config.layer_norm_eps)
