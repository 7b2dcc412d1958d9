"""BERT and XLM-RoBERTa in numpy and float64, by the names of the published files; it shares no code with the network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from moembed.models.bert.config import BertConfig
from moembed.models.family import FamilyOracle
from moembed.models.oracle_math import attention, gelu, layer_norm, pooled_state, slices, unit
from moembed.models.oracle_result import Array, OracleResult
from moembed.models.weights import Weights


class BertOracle(FamilyOracle):
    """The network over open weights.

    Args:
        config: its configuration.
        weights: the tensors.
    """

    def __init__(self, config: BertConfig, weights: Weights) -> None:
        self.config, self._handle = config, weights

    def run_all(self, texts: Sequence[list[int]]) -> list[OracleResult]:
        """Compute texts given their token ids, special tokens included."""
        config, parts = self.config, slices([len(ids) for ids in texts])
        words: Any = self._handle.get_slice("embeddings.word_embeddings.weight")
        x = np.stack([np.asarray(words[i], dtype=np.float64) for ids in texts for i in ids])
        x = x + self._tensor("embeddings.token_type_embeddings.weight")[0]
        positions = self._tensor("embeddings.position_embeddings.weight")
        for part in parts:
            first = config.first_position
            x[part] += positions[first : first + part.stop - part.start]
        x = self._norm(x, "embeddings.LayerNorm")
        states = [x]
        for i in range(config.num_layers):
            layer = f"encoder.layer.{i}."
            attended = self._linear(self._attention(x, parts, layer), layer + "attention.output.dense")
            h = self._norm(attended + x, layer + "attention.output.LayerNorm")
            inner = gelu(self._linear(h, layer + "intermediate.dense"))
            x = self._norm(self._linear(inner, layer + "output.dense") + h, layer + "output.LayerNorm")
            states.append(x)
        return [self._result(part, states) for part in parts]

    def _result(self, part: slice, states: list[Array]) -> OracleResult:
        own = tuple(state[part] for state in states)
        pooled = pooled_state(own[-1], self.config.pooling)
        return OracleResult(unit(pooled), pooled, own)

    def _attention(self, x: Array, parts: list[slice], layer: str) -> Array:
        q, k, v = (self._linear(x, f"{layer}attention.self.{name}") for name in ("query", "key", "value"))
        return attention(q, k, v, parts, self.config.num_heads)

    def _tensor(self, name: str) -> Array:
        return np.asarray(self._handle.get_tensor(name), dtype=np.float64)

    def _linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self._tensor(name + ".weight").T + self._tensor(name + ".bias"))

    def _norm(self, x: Array, name: str) -> Array:
        weight, bias = self._tensor(name + ".weight"), self._tensor(name + ".bias")
        return layer_norm(x, weight, bias, self.config.layer_norm_eps)
