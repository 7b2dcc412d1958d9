"""The family of GTE: post-norm encoders with rotary positions and gated MLPs."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moembed.errors import extra
from moembed.models.family import Family, FamilyOracle
from moembed.models.gte.config import GteConfig
from moembed.models.gte.oracle import GteOracle
from moembed.models.parameters import Parameter, Part, pair, plain, zeros
from moembed.models.pooling import Pooling
from moembed.models.roles import Kind, Role
from moembed.models.rotary import rotary_table
from moembed.models.weights import Weights

if TYPE_CHECKING:
    from moembed.models.gte.network import Gte

# The published gte-multilingual-base has a head for sparse weights of tokens, which the dense vector does not need.
_HEAD = "classifier.weight"
_OPTIONAL = frozenset({_HEAD, "classifier.bias"})
_POOLER = "pooler."


class GteFamily(Family):
    """The family; `moembed.models.family.Family` describes its members."""

    name = "gte"
    model_types = frozenset({"new", "gte"})
    graph_name = "gte"
    config = GteConfig
    poolings = (Pooling.MEAN, Pooling.FIRST)
    default_pooling = None

    def read_config(self, raw: dict[str, Any], pooling: Pooling, sha256: str) -> GteConfig:
        """Read the fields of a `config.json`."""
        del sha256
        return GteConfig.from_dict(raw, pooling)

    def parameters(self, config: GteConfig) -> list[Parameter]:
        """Return all parameters of a network: the published files have 4 tensors and 11 more for every layer."""
        hidden, ffn = config.hidden_size, config.ffn_size
        found = [
            plain(Role(Kind.WORD_EMBEDDINGS), (config.vocab_size, hidden)),
            self._token_type(config),
            *pair(Kind.EMBEDDING_NORM, Kind.EMBEDDING_NORM_BIAS, None, (hidden,), "embeddings.LayerNorm"),
        ]
        for i in range(config.num_layers):
            layer = f"encoder.layer.{i}."
            fused = f"{layer}mlp.up_gate_proj.weight", (2 * ffn, hidden)
            found += [
                *pair(Kind.QKV, Kind.QKV_BIAS, i, (3 * hidden, hidden), f"{layer}attention.qkv_proj"),
                *pair(Kind.ATTENTION_OUT, Kind.ATTENTION_OUT_BIAS, i, (hidden, hidden), f"{layer}attention.o_proj"),
                *pair(Kind.NORM1, Kind.NORM1_BIAS, i, (hidden,), f"{layer}attn_ln"),
                Parameter(Role(Kind.FC11, i), (ffn, hidden), (Part(*fused, 0, ffn),)),
                zeros(Role(Kind.FC11_BIAS, i), (ffn,)),
                Parameter(Role(Kind.FC12, i), (ffn, hidden), (Part(*fused, ffn, 2 * ffn),)),
                zeros(Role(Kind.FC12_BIAS, i), (ffn,)),
                *pair(Kind.FC2, Kind.FC2_BIAS, i, (hidden, ffn), f"{layer}mlp.down_proj"),
                *pair(Kind.NORM2, Kind.NORM2_BIAS, i, (hidden,), f"{layer}mlp_ln"),
            ]
        return found

    def _token_type(self, config: GteConfig) -> Parameter:
        role, shape = Role(Kind.TYPE_EMBEDDINGS), (1, config.hidden_size)
        if not config.type_vocab_size:
            return zeros(role, shape)
        return Parameter(role, shape, (Part(role.name, (config.type_vocab_size, config.hidden_size), 0, 1),))

    def tables(self, config: GteConfig) -> dict[str, NDArray[np.float32]]:
        """Return the rotary tables."""
        cos, sin = rotary_table(config.head_dim, config.scaled_base, config.max_positions, config.divisor)
        return {"cos": cos, "sin": sin}

    def network(self, config: GteConfig) -> "Gte":
        """Return the PyTorch network without weights."""
        with extra("export", "Making a network"):
            from moembed.models.gte.network import Gte
        return Gte(config)

    def oracle(self, config: GteConfig, weights: Weights) -> FamilyOracle:
        """Return the reference implementation over open weights."""
        return GteOracle(config, weights)

    def is_optional(self, name: str) -> bool:
        """Return True for a tensor that files may hold and no vector depends on."""
        return name in _OPTIONAL

    def problems(self, config: GteConfig, weights: Weights) -> list[str]:
        """Recognize a reranker, whose head has the names of that for sparse weights, behind a pooler that encoders have not."""
        del config
        if _HEAD in weights.names and any(name.startswith(_POOLER) for name in weights.names):
            return [
                f"{_POOLER}* beside {_HEAD}: this is a reranker, which scores pairs of texts and makes no vector of one"
            ]
        return []
