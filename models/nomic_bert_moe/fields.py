"""Fields that a `config.json` of the family may hold: which are read or checked.

Those that all families treat alike stand in `moembed.models.config_fields`. Any other field is refused.
"""

from dataclasses import dataclass, fields

from moembed.files.records import Count, Positive
from moembed.models.config_fields import Implemented
from moembed.models.nomic_bert.fields import MODEL_TYPE, NETWORK, NomicFields
from moembed.models.nomic_bert.fields import SAME_AS as SAME_AS_WITHOUT_EXPERTS


@dataclass(frozen=True, kw_only=True)
class ReadFields(NomicFields):
    """Fields that give the sizes of the network, or the dtype that its tensors were saved in."""

    ffn_div: Positive = 1
    num_experts: Positive
    moe_top_k: Positive
    moe_every_n_layers: Positive
    pad_token_id: Count
    projection: bool | None = None


READ = frozenset(field.name for field in fields(ReadFields))

IMPLEMENTED: Implemented = {
    "model_type": ((MODEL_TYPE,), "another architecture"),
    "activation_function": (("gelu",), "another activation (swiglu/geglu: a gated MLP, as in nomic-embed v1 and v1.5)"),
    "qkv_proj_bias": ((True,), "attention without biases"),
    "mlp_fc1_bias": ((True,), "a dense MLP without its first bias"),
    "mlp_fc2_bias": ((True,), "a dense MLP without its second bias"),
    "moe_normalize_expert_weights": ((False, None), "renormalized top-k weights"),
    "expert_choice_router": ((False, None), "expert-choice routing"),
    "num_shared_experts": ((0, None), "shared experts"),
    "type_vocab_size": ((1,), "more than one token type"),
    **NETWORK,
}

# Field of transformers' own classes -> the field above that it repeats, with the same value.
SAME_AS = {
    **SAME_AS_WITHOUT_EXPERTS,
    "max_position_embeddings": "n_positions",
    "hidden_act": "activation_function",
}
