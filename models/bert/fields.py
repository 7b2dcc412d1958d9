"""Fields that a `config.json` of the family may hold: which are read or checked.

Those that all families treat alike stand in `moembed.models.config_fields`. Any other field is refused.
"""

from dataclasses import dataclass, fields

from moembed.files.records import Count, Positive
from moembed.models.config_fields import COMMON, Implemented, SizeFields


@dataclass(frozen=True, kw_only=True)
class ReadFields(SizeFields):
    """Fields that give the sizes of the network, or the dtype that its tensors were saved in."""

    model_type: str
    type_vocab_size: Positive
    pad_token_id: Count | None = None


READ = frozenset(field.name for field in fields(ReadFields))

IMPLEMENTED: Implemented = {
    "hidden_act": (
        ("gelu",),
        "another activation (gelu_new, gelu_fast and gelu_pytorch_tanh approximate GELU by tanh)",
    ),
    "position_embedding_type": (("absolute", None), "relative positions"),
    "auto_map": ((None,), "code of its own, and so perhaps another network"),
    **COMMON,
}

# Classes in `architectures` that are encoders.
ENCODERS = ("BertModel", "XLMRobertaModel")

# Fields of this family that change nothing at inference: those of the pooler, which no vector depends on, and old ones.
IGNORED = frozenset(
    "architectures output_past directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers"
    " pooler_size_per_head pooler_type".split()
)
