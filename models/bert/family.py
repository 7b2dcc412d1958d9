"""The family of BERT and XLM-RoBERTa: post-norm encoders with learned positions and dense MLPs."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moembed.errors import extra
from moembed.models.bert.config import BERT, XLM_ROBERTA, BertConfig
from moembed.models.bert.oracle import BertOracle
from moembed.models.family import Family, FamilyOracle
from moembed.models.parameters import Parameter, Part, pair, plain
from moembed.models.pooling import Pooling
from moembed.models.roles import Kind, Role
from moembed.models.rotary import no_rotation
from moembed.models.weights import Weights

if TYPE_CHECKING:
    from moembed.models.bert.network import Bert

_POSITION_IDS = "embeddings.position_ids"
# The pooler belongs to the pre-training, and position_ids count 0, 1, 2, ...
_OPTIONAL = frozenset({"pooler.dense.weight", "pooler.dense.bias", _POSITION_IDS})


class BertFamily(Family):
    """The family; `moembed.models.family.Family` describes its members."""

    name = "bert"
    model_types = frozenset({BERT, XLM_ROBERTA})
    graph_name = "bert"
    config = BertConfig
    poolings = (Pooling.MEAN, Pooling.FIRST)
    default_pooling = None

    def read_config(self, raw: dict[str, Any], pooling: Pooling, sha256: str) -> BertConfig:
        """Read the fields of a `config.json`."""
        del sha256
        return BertConfig.from_dict(raw, pooling)

    def parameters(self, config: BertConfig) -> list[Parameter]:
        """Return all parameters of a network: the published files have 5 tensors and 16 more for every layer."""
        hidden, ffn = config.hidden_size, config.ffn_size
        rows = config.first_position + config.max_positions
        types = Part("embeddings.token_type_embeddings.weight", (config.type_vocab_size, hidden))
        positions = Part("embeddings.position_embeddings.weight", (rows, hidden), config.first_position)
        found = [
            plain(Role(Kind.WORD_EMBEDDINGS), (config.vocab_size, hidden)),
            Parameter(Role(Kind.POSITION_EMBEDDINGS), (config.max_positions, hidden), (positions,), types),
            *pair(Kind.EMBEDDING_NORM, Kind.EMBEDDING_NORM_BIAS, None, (hidden,), "embeddings.LayerNorm"),
        ]
        for i in range(config.num_layers):
            layer = f"encoder.layer.{i}."
            qkv = [f"{layer}attention.self.{name}" for name in ("query", "key", "value")]
            out = f"{layer}attention.output"
            found += [
                *pair(Kind.QKV, Kind.QKV_BIAS, i, (hidden, hidden), *qkv),
                *pair(Kind.ATTENTION_OUT, Kind.ATTENTION_OUT_BIAS, i, (hidden, hidden), f"{out}.dense"),
                *pair(Kind.NORM1, Kind.NORM1_BIAS, i, (hidden,), f"{out}.LayerNorm"),
                *pair(Kind.FC1, Kind.FC1_BIAS, i, (ffn, hidden), f"{layer}intermediate.dense"),
                *pair(Kind.FC2, Kind.FC2_BIAS, i, (hidden, ffn), f"{layer}output.dense"),
                *pair(Kind.NORM2, Kind.NORM2_BIAS, i, (hidden,), f"{layer}output.LayerNorm"),
            ]
        return found

    def tables(self, config: BertConfig) -> dict[str, NDArray[np.float32]]:
        """Return rotary tables that rotate nothing."""
        cos, sin = no_rotation(config.head_dim, config.max_positions)
        return {"cos": cos, "sin": sin}

    def network(self, config: BertConfig) -> "Bert":
        """Return the PyTorch network without weights."""
        with extra("export", "Making a network"):
            from moembed.models.bert.network import Bert
        return Bert(config)

    def oracle(self, config: BertConfig, weights: Weights) -> FamilyOracle:
        """Return the reference implementation over open weights."""
        return BertOracle(config, weights)

    def is_optional(self, name: str) -> bool:
        """Return True for a tensor that files may hold and no vector depends on."""
        return name in _OPTIONAL

    def problems(self, config: BertConfig, weights: Weights) -> list[str]:
        """Recognize position ids that do not count from 0."""
        del config
        if _POSITION_IDS in weights.names:
            ids = np.asarray(weights.get_tensor(_POSITION_IDS)).ravel()
            if not np.array_equal(ids, np.arange(len(ids))):
                return [f"{_POSITION_IDS} begins {ids[:4].tolist()}, expected 0, 1, 2, ..."]
        return []
