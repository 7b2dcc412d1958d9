"""Frame of the numpy oracles: a post-norm encoder over packed texts, as the descriptions of all models have it."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from moembed.models.config import NetworkConfig
from moembed.models.family import FamilyOracle
from moembed.models.oracle_math import layer_norm, pooled_state, slices, standardized, unit
from moembed.models.oracle_result import Array, OracleResult, OracleRouting
from moembed.models.weights import Weights

_POOLED_EPSILON = 1e-5  # PyTorch's default, which the model cards use


class EncoderOracle(FamilyOracle):
    """The network over open weights; a family gives its embeddings, its two sub-layers and the names of its norms.

    Args:
        config: its configuration.
        weights: the tensors, by the names of the file.

    Attributes:
        layer_names: beginning of the names of a layer's tensors, with `{}` for its index.
        embedding_norm: name of the norm behind the embeddings.
        layer_norms: names of the norms behind attention and MLP, without that beginning.
    """

    layer_names: ClassVar[str] = "encoder.layer.{}."
    embedding_norm: ClassVar[str] = "embeddings.LayerNorm"
    layer_norms: ClassVar[tuple[str, str]]
    config: NetworkConfig

    def __init__(self, config: NetworkConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights

    def embed(self, ids: Sequence[int], texts: Sequence[slice]) -> Array:
        """Return the embeddings `[T, hidden]` before the norm: the word's and that of token type 0, in this class.

        Args:
            ids: token ids of all texts, one behind the other.
            texts: the rows of each text.
        """
        del texts
        return np.asarray(self.words(ids) + self.tensor("embeddings.token_type_embeddings.weight")[0])

    @abstractmethod
    def attend(self, x: Array, texts: Sequence[slice], layer: str) -> Array:
        """Return what attention adds to the states `[T, hidden]`; `layer` is the beginning of the names of its tensors."""

    @abstractmethod
    def mlp(self, h: Array, layer: str) -> Array | tuple[Array, OracleRouting]:
        """Return what the MLP adds to the states `[T, hidden]`, with the routing of its experts if it has any."""

    def project(self, x: Array) -> Array:
        """Map the states `[T, hidden]` of the last layer to those that are pooled."""
        return x

    def run_all(self, texts: Sequence[list[int]]) -> list[OracleResult]:
        """Compute texts given their token ids, special tokens included."""
        parts = slices([len(ids) for ids in texts])
        x = self.norm(self.embed([i for ids in texts for i in ids], parts), self.embedding_norm)
        states, routing = [x], {}
        for i in range(self.config.num_layers):
            layer = self.layer_names.format(i)
            norm1, norm2 = (layer + name for name in self.layer_norms)
            h = self.norm(self.attend(x, parts, layer) + x, norm1)
            added = self.mlp(h, layer)
            if isinstance(added, tuple):
                added, routing[i] = added
            x = self.norm(added + h, norm2)
            states.append(x)
        projected = self.project(x)
        return [self._result(part, projected, states, routing) for part in parts]

    def words(self, ids: Sequence[int]) -> Array:
        """Return the rows of the table of words for `[T]` ids, `[T, hidden]`."""
        table: Any = self.weights.get_slice("embeddings.word_embeddings.weight")
        return np.stack([np.asarray(table[i], dtype=np.float64) for i in ids])

    def tensor(self, name: str) -> Array:
        """Return a tensor of the file."""
        return np.asarray(self.weights.get_tensor(name), dtype=np.float64)

    def linear(self, x: Array, name: str, *, bias: bool = True) -> Array:
        """Apply the linear layer of a name to rows `[T, in]`."""
        y = x @ self.tensor(f"{name}.weight").T
        return np.asarray(y + self.tensor(f"{name}.bias") if bias else y)

    def norm(self, x: Array, name: str) -> Array:
        """Apply the LayerNorm of a name to rows `[T, hidden]`."""
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        return layer_norm(x, weight, bias, self.config.layer_norm_eps)

    def _result(
        self, part: slice, projected: Array, states: Sequence[Array], routing: dict[int, OracleRouting]
    ) -> OracleResult:
        pooled = pooled_state(projected[part], self.config.pooling)
        head = standardized(pooled[None], _POOLED_EPSILON)[0] if self.config.pooled_layer_norm else pooled
        own = {
            i: OracleRouting(r.probabilities[part], r.expert_indices[part], r.weights[part]) for i, r in routing.items()
        }
        return OracleResult(unit(head), pooled, tuple(state[part] for state in states), own)
