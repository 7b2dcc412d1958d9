"""Independent numpy implementation of the network, in float64: the reference of all the others.

It shares no code with `moembed.models.network`; it follows the description of the model (embedding, post-norm blocks,
rotary halves, erf GELU, un-renormalized top-k, one shared expert bias), and needs numpy and safetensors only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.models.checkpoint import open_checkpoint
from moembed.models.config import NomicMoeConfig

Array = NDArray[np.float64]
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True)
class OracleRouting:
    """Decision of one MoE layer's router.

    Attributes:
        probabilities: `[T, experts]` float64, the softmax over all experts.
        expert_indices: `[T, top_k]` int64, most probable first.
        weights: `[T, top_k]` float64.
    """

    probabilities: Array
    expert_indices: NDArray[np.int64]
    weights: Array


@dataclass(frozen=True)
class OracleResult:
    """Everything that is computed for one text.

    Attributes:
        embedding: `[hidden]` float64, unit length.
        pooled: `[hidden]` float64, the mean before normalization.
        hidden_states: the embedding LayerNorm's output and every layer's, each `[T, hidden]` float64.
        routing: MoE layer index -> its routing.
    """

    embedding: Array
    pooled: Array
    hidden_states: tuple[Array, ...]
    routing: dict[int, OracleRouting]


class Oracle:
    """Network of a checkpoint folder, whose tensors are read from the mapped file when needed.

    Args:
        folder: a checkpoint in the published layout.

    Raises:
        CheckpointError: the folder does not hold exactly this network.
    """

    def __init__(self, folder: Path) -> None:
        self._context = open_checkpoint(folder, "np")
        self.config, self._handle = self._context.__enter__()

    def close(self) -> None:
        """Release the mapped file."""
        self._context.__exit__(None, None, None)

    def _tensor(self, name: str) -> Array:
        return np.asarray(self._handle.get_tensor(name), dtype=np.float64)

    def run(self, ids: list[int]) -> OracleResult:
        """Compute one text given its token ids, special tokens included."""
        return self.run_all([ids])[0]

    def run_all(self, texts: Sequence[list[int]]) -> list[OracleResult]:
        """Compute several texts, in less time than one by one: every weight is read once."""
        config = self.config
        stops = np.cumsum([len(ids) for ids in texts])
        parts = [slice(stop - len(ids), stop) for ids, stop in zip(texts, stops, strict=True)]
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
        pooled = x[part].sum(axis=0) / len(x[part])
        embedding = pooled / max(float(np.sqrt((pooled**2).sum())), 1e-12)
        own = {
            i: OracleRouting(r.probabilities[part], r.expert_indices[part], r.weights[part]) for i, r in routing.items()
        }
        return OracleResult(embedding, pooled, tuple(state[part] for state in states), own)

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        variance = (centred**2).mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(variance + self.config.layer_norm_eps)
        return np.asarray(scaled * self._tensor(name + ".weight") + self._tensor(name + ".bias"))

    def _attention(self, x: Array, parts: list[slice], prefix: str) -> Array:
        config = self.config
        qkv = x @ self._tensor(prefix + "Wqkv.weight").T + self._tensor(prefix + "Wqkv.bias")
        q, k, v = (qkv[:, part * config.hidden_size : (part + 1) * config.hidden_size] for part in range(3))
        out = np.empty_like(q)
        for part in parts:
            cos, sin = _rotary_table(config, part.stop - part.start)
            for head in range(config.num_heads):
                columns = slice(head * config.head_dim, (head + 1) * config.head_dim)
                scores = _rotate(q[part, columns], cos, sin) @ _rotate(k[part, columns], cos, sin).T
                out[part, columns] = _softmax(scores / math.sqrt(config.head_dim)) @ v[part, columns]
        return out @ self._tensor(prefix + "out_proj.weight").T + self._tensor(prefix + "out_proj.bias")

    def _dense(self, h: Array, prefix: str) -> Array:
        inner = _gelu(h @ self._tensor(prefix + "mlp.fc1.weight").T + self._tensor(prefix + "mlp.fc1.bias"))
        return inner @ self._tensor(prefix + "mlp.fc2.weight").T + self._tensor(prefix + "mlp.fc2.bias")

    def _route(self, h: Array, prefix: str) -> OracleRouting:
        probabilities = _softmax(h @ self._tensor(prefix + "mlp.router.layer.weight").T)
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
            out[token] += routing.weights[token, rank, None] * (_gelu(h[token] @ up.T) @ down)
        return out + self._tensor(prefix + "mlp.experts.bias")


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1.0 + np.asarray(_erf(x / math.sqrt(2.0)), np.float64))


def _softmax(x: Array) -> Array:
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _rotary_table(config: NomicMoeConfig, length: int) -> tuple[Array, Array]:
    # The frequencies are float32 in the published model; the angles here are not rounded again.
    exponent = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    inverse = (np.float32(1.0) / np.float32(config.rotary_base) ** exponent).astype(np.float64)
    angle = np.outer(np.arange(length), inverse)
    return np.cos(angle), np.sin(angle)


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[1] // 2
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)
