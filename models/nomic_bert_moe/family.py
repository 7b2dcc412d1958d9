"""The family NomicBert-MoE: post-norm encoders with rotary positions and, in some layers, experts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moembed.errors import extra
from moembed.models.family import Family, FamilyOracle
from moembed.models.nomic_bert.fields import MODEL_TYPE
from moembed.models.nomic_bert.repeated_fields import common_names
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.nomic_bert_moe.fields import SAME_AS
from moembed.models.nomic_bert_moe.oracle import NomicMoeOracle
from moembed.models.parameters import Parameter, plain
from moembed.models.pooling import Pooling
from moembed.models.roles import ATTENTION, DENSE, EMBEDDINGS, MOE, NORMS, PROJECTION, Kind, Role, role
from moembed.models.rotary import rotary_table
from moembed.models.weights import Weights

if TYPE_CHECKING:
    from moembed.models.nomic_bert_moe.network import NomicMoe


class NomicBertMoe(Family):
    """The family; `moembed.models.family.Family` describes its members."""

    name = "nomic_bert_moe"
    model_types = frozenset({MODEL_TYPE})
    graph_name = "nomic_moe"
    config = NomicMoeConfig
    poolings = (Pooling.MEAN,)
    default_pooling = Pooling.MEAN

    def reads(self, raw: Mapping[str, Any]) -> bool:
        """Return True for a config of this `model_type` with experts."""
        return super().reads(raw) and bool(raw.get("num_experts"))

    def read_config(self, raw: dict[str, Any], pooling: Pooling, sha256: str) -> NomicMoeConfig:
        """Read the fields of a `config.json`."""
        del pooling, sha256  # there is one pooling
        return NomicMoeConfig.from_dict(raw)

    def parameters(self, config: NomicMoeConfig) -> list[Parameter]:
        """Return all parameters of a network: the published file has them under the same names, 148 for 12 layers."""
        hidden, ffn = config.hidden_size, config.ffn_size
        stacked = (config.num_experts * config.expert_ffn_size, hidden)
        shapes: dict[Kind, tuple[int, ...]] = {
            Kind.WORD_EMBEDDINGS: (config.vocab_size, hidden),
            Kind.TYPE_EMBEDDINGS: (1, hidden),
            Kind.EMBEDDING_NORM: (hidden,),
            Kind.EMBEDDING_NORM_BIAS: (hidden,),
            Kind.QKV: (3 * hidden, hidden),
            Kind.QKV_BIAS: (3 * hidden,),
            Kind.ATTENTION_OUT: (hidden, hidden),
            Kind.ATTENTION_OUT_BIAS: (hidden,),
            Kind.NORM1: (hidden,),
            Kind.NORM1_BIAS: (hidden,),
            Kind.NORM2: (hidden,),
            Kind.NORM2_BIAS: (hidden,),
            Kind.FC1: (ffn, hidden),
            Kind.FC1_BIAS: (ffn,),
            Kind.FC2: (hidden, ffn),
            Kind.FC2_BIAS: (hidden,),
            Kind.ROUTER: (config.num_experts, hidden),
            Kind.EXPERTS_W1: stacked,
            Kind.EXPERTS_W2: stacked,
            Kind.EXPERTS_BIAS: (hidden,),
            Kind.PROJECTION: (hidden, hidden),
            Kind.PROJECTION_BIAS: (hidden,),
        }
        roles = [Role(kind) for kind in EMBEDDINGS]
        for layer in range(config.num_layers):
            mlp = MOE if layer in config.moe_layers else DENSE
            roles += [Role(kind, layer) for kind in (*ATTENTION, *NORMS, *mlp)]
        if config.projection:
            roles += [Role(kind) for kind in PROJECTION]
        return [plain(one, shapes[one.kind]) for one in roles]

    def tables(self, config: NomicMoeConfig) -> dict[str, NDArray[np.float32]]:
        """Return the rotary tables."""
        cos, sin = rotary_table(config.head_dim, config.rotary_base, config.max_positions)
        return {"cos": cos, "sin": sin}

    def network(self, config: NomicMoeConfig) -> "NomicMoe":
        """Return the PyTorch network without weights."""
        with extra("export", "Making a network"):
            from moembed.models.nomic_bert_moe.network import NomicMoe
        return NomicMoe(config)

    def oracle(self, config: NomicMoeConfig, weights: Weights) -> FamilyOracle:
        """Return the reference implementation over open weights."""
        return NomicMoeOracle(config, weights)

    def problems(self, config: NomicMoeConfig, weights: Weights) -> list[str]:
        """Compare the MoE layers of the tensors with the rule of `config.json`."""
        roles = [tensor for name in weights.names if (tensor := role(name)) is not None]
        moe_layers = {tensor.layer for tensor in roles if tensor.kind in MOE and tensor.layer is not None}
        if not moe_layers or moe_layers == set(config.moe_layers):
            return []
        return [
            f"MoE layers: the tensors have {sorted(moe_layers)}, the rule of config.json "
            f"(i % {config.moe_every_n_layers} == 1) gives {list(config.moe_layers)}"
        ]

    def common_names(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a `config.json` with the sizes under the names of transformers 5."""
        return common_names(raw, SAME_AS)
