"""Fields that a `config.json` of the family may hold: which are read or checked.

Those that all families treat alike stand in `moembed.models.config_fields`. Any other field is refused.
"""

from dataclasses import dataclass, fields

from moembed.files.records import Count, Positive
from moembed.models.config_fields import COMMON, Dtype, Implemented, PositiveNumber


@dataclass(frozen=True, kw_only=True)
class ReadFields:
    """Fields that give the sizes of the network, or the dtype that its tensors were saved in."""

    vocab_size: Positive
    n_embd: Positive
    n_layer: Positive
    n_head: Positive
    n_inner: Positive
    ffn_div: Positive = 1
    num_experts: Positive
    moe_top_k: Positive
    moe_every_n_layers: Positive
    layer_norm_epsilon: PositiveNumber
    rotary_emb_base: PositiveNumber
    n_positions: Positive
    pad_token_id: Count
    pad_vocab_size_multiple: Positive = 1
    torch_dtype: Dtype | None = None
    dtype: Dtype | None = None
    projection: bool | None = None


READ = frozenset(field.name for field in fields(ReadFields))

IMPLEMENTED: Implemented = {
    "model_type": (("nomic_bert",), "another architecture"),
    "activation_function": (("gelu",), "another activation (swiglu/geglu: a gated MLP, as in nomic-embed v1 and v1.5)"),
    "use_rms_norm": ((None, False), "RMSNorm instead of LayerNorm"),
    "prenorm": ((False,), "normalization before instead of after each sub-layer"),
    "parallel_block": ((False,), "attention and MLP computed side by side"),
    "parallel_block_tied_norm": ((False,), "one norm shared by a parallel block"),
    "causal": ((False,), "causal attention"),
    "add_pooling_layer": ((False,), "a pooler with weights of its own"),
    "qkv_proj_bias": ((True,), "attention without biases"),
    "mlp_fc1_bias": ((True,), "a dense MLP without its first bias"),
    "mlp_fc2_bias": ((True,), "a dense MLP without its second bias"),
    "rotary_emb_fraction": ((1.0, 1), "partly rotated or absolute positions"),
    "rotary_emb_interleaved": ((False,), "interleaved rotary pairs"),
    "rotary_emb_scale_base": ((None,), "XPos scaling"),
    "rotary_scaling_factor": ((None,), "dynamic-NTK rotary scaling"),
    "scale_attn_weights": ((True,), "attention scores that are not divided by sqrt(head_dim)"),
    "scale_attn_by_inverse_layer_idx": ((False,), "attention scores scaled by layer"),
    "moe_normalize_expert_weights": ((False, None), "renormalized top-k weights"),
    "expert_choice_router": ((False, None), "expert-choice routing"),
    "num_shared_experts": ((0, None), "shared experts"),
    "type_vocab_size": ((1,), "more than one token type"),
    **COMMON,
}

# Field of transformers' own classes -> the field above that it repeats, with the same value.
SAME_AS = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
    "rope_theta": "rotary_emb_base",
}

# Fields that follow from those above: n_embd / n_head, and plain rotary positions of base `rotary_emb_base`.
DERIVED = frozenset({"head_dim", "rope_parameters"})
