"""The family of NomicBert without experts: post-norm encoders with rotary positions, gated MLPs and no biases."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moembed.errors import extra
from moembed.models.family import Family, FamilyOracle
from moembed.models.nomic_bert.config import NomicBertConfig
from moembed.models.nomic_bert.fields import MODEL_TYPE, POSITIONS, SAME_AS
from moembed.models.nomic_bert.oracle import NomicBertOracle
from moembed.models.nomic_bert.repeated_fields import common_names
from moembed.models.parameters import Parameter, Part, plain, zeros
from moembed.models.pooling import Pooling
from moembed.models.roles import Kind, Role
from moembed.models.rotary import rotary_table
from moembed.models.weights import Weights

if TYPE_CHECKING:
    from moembed.models.nomic_bert.network import NomicBert


class NomicBertFamily(Family):
    """The family; `moembed.models.family.Family` describes its members."""

    name = "nomic_bert"
    model_types = frozenset({MODEL_TYPE})
    graph_name = "nomic_bert"
    config = NomicBertConfig
    poolings = (Pooling.MEAN, Pooling.FIRST)
    default_pooling = None

    def reads(self, raw: Mapping[str, Any]) -> bool:
        """Return True for a config of this `model_type` without experts."""
        return super().reads(raw) and not raw.get("num_experts")

    def read_config(self, raw: dict[str, Any], pooling: Pooling, sha256: str) -> NomicBertConfig:
        """Read the fields of a `config.json`."""
        return NomicBertConfig.from_dict(raw, pooling, sha256)

    def parameters(self, config: NomicBertConfig) -> list[Parameter]:
        """Return all parameters of a network: the published files have 4 tensors and 9 more for every layer."""
        hidden, ffn = config.hidden_size, config.ffn_size
        types = Role(Kind.TYPE_EMBEDDINGS)
        found = [
            plain(Role(Kind.WORD_EMBEDDINGS), (config.vocab_size, hidden)),
            Parameter(types, (1, hidden), (Part(types.name, (config.type_vocab_size, hidden), 0, 1),)),
            plain(Role(Kind.EMBEDDING_NORM), (hidden,)),
            plain(Role(Kind.EMBEDDING_NORM_BIAS), (hidden,)),
        ]
        for i in range(config.num_layers):
            found += [
                plain(Role(Kind.QKV, i), (3 * hidden, hidden)),
                zeros(Role(Kind.QKV_BIAS, i), (3 * hidden,)),
                plain(Role(Kind.ATTENTION_OUT, i), (hidden, hidden)),
                zeros(Role(Kind.ATTENTION_OUT_BIAS, i), (hidden,)),
                plain(Role(Kind.NORM1, i), (hidden,)),
                plain(Role(Kind.NORM1_BIAS, i), (hidden,)),
                plain(Role(Kind.FC11, i), (ffn, hidden)),
                zeros(Role(Kind.FC11_BIAS, i), (ffn,)),
                plain(Role(Kind.FC12, i), (ffn, hidden)),
                zeros(Role(Kind.FC12_BIAS, i), (ffn,)),
                plain(Role(Kind.FC2, i), (hidden, ffn)),
                zeros(Role(Kind.FC2_BIAS, i), (hidden,)),
                plain(Role(Kind.NORM2, i), (hidden,)),
                plain(Role(Kind.NORM2_BIAS, i), (hidden,)),
            ]
        return found

    def tables(self, config: NomicBertConfig) -> dict[str, NDArray[np.float32]]:
        """Return the rotary tables."""
        cos, sin = rotary_table(config.head_dim, config.rotary_base, config.max_positions)
        return {"cos": cos, "sin": sin}

    def network(self, config: NomicBertConfig) -> "NomicBert":
        """Return the PyTorch network without weights."""
        with extra("export", "Making a network"):
            from moembed.models.nomic_bert.network import NomicBert
        return NomicBert(config)

    def oracle(self, config: NomicBertConfig, weights: Weights) -> FamilyOracle:
        """Return the reference implementation over open weights."""
        return NomicBertOracle(config, weights)

    def common_names(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a `config.json` with the sizes under the names of transformers 5."""
        limit = raw.get("max_trained_positions") or raw["n_positions"]
        return common_names(raw, SAME_AS) | {"hidden_act": "silu", POSITIONS: limit}
