"""Fields that a `config.json` of the family may hold: which are read or checked.

Those that all families treat alike stand in `moembed.models.config_fields`. Any other field is refused. The networks with and
without experts have one `model_type` and most of their fields in common: `NomicFields`, `NETWORK` and `SAME_AS` are of both.
"""

from dataclasses import dataclass, fields
from typing import Any

from moembed.files.records import Positive
from moembed.models.config_fields import COMMON, Dtype, Implemented, PositiveNumber

MODEL_TYPE = "nomic_bert"


@dataclass(frozen=True, kw_only=True)
class NomicFields:
    """Fields of both networks that give their sizes, or the dtype that their tensors were saved in."""

    vocab_size: Positive
    pad_vocab_size_multiple: Positive = 1
    n_embd: Positive
    n_layer: Positive
    n_head: Positive
    n_inner: Positive
    n_positions: Positive
    layer_norm_epsilon: PositiveNumber
    rotary_emb_base: PositiveNumber
    torch_dtype: Dtype | None = None
    dtype: Dtype | None = None

    @property
    def sizes(self) -> dict[str, Any]:
        """Arguments of the networks' configurations that the fields give."""
        multiple = self.pad_vocab_size_multiple
        return {
            "vocab_size": -(-self.vocab_size // multiple) * multiple,
            "hidden_size": self.n_embd,
            "num_layers": self.n_layer,
            "num_heads": self.n_head,
            "ffn_size": self.n_inner,
            "layer_norm_eps": self.layer_norm_epsilon,
            "max_positions": self.n_positions,
            "rotary_base": float(self.rotary_emb_base),
            "dtype": self.torch_dtype or self.dtype or "float32",
        }


# Of both networks.
NETWORK: Implemented = {
    "use_rms_norm": ((None, False), "RMSNorm instead of LayerNorm"),
    "prenorm": ((False,), "normalization before instead of after each sub-layer"),
    "parallel_block": ((False,), "attention and MLP computed side by side"),
    "parallel_block_tied_norm": ((False,), "one norm shared by a parallel block"),
    "causal": ((False,), "causal attention"),
    "add_pooling_layer": ((False,), "a pooler with weights of its own"),
    "rotary_emb_fraction": ((1.0, 1), "partly rotated or absolute positions"),
    "rotary_emb_interleaved": ((False,), "interleaved rotary pairs"),
    "rotary_emb_scale_base": ((None,), "XPos scaling"),
    "rotary_scaling_factor": ((None,), "dynamic-NTK rotary scaling"),
    "scale_attn_weights": ((True,), "attention scores that are not divided by sqrt(head_dim)"),
    "scale_attn_by_inverse_layer_idx": ((False,), "attention scores scaled by layer"),
    **COMMON,
}

# Field of transformers' own class -> the field of the published files that it repeats, with the same value.
SAME_AS = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
}

# Fields of transformers' own class that follow from others: n_embd / n_head, and plain rotary positions of `rotary_emb_base`.
DERIVED = frozenset({"head_dim", "rope_parameters"})


@dataclass(frozen=True, kw_only=True)
class ReadFields(NomicFields):
    """Fields of the network without experts."""

    type_vocab_size: Positive
    max_trained_positions: Positive | None = None
    pooled_layer_norm: bool | None = None


READ = frozenset(field.name for field in fields(ReadFields))

_SCALED = (
    "dynamic-NTK rotary scaling, by which the vector of a text depends on what is computed with it: texts are read to "
    "max_trained_positions without it"
)
IMPLEMENTED: Implemented = {
    "activation_function": (
        ("swiglu",),
        "another MLP (gelu: nomic-embed-text-v2-moe, which has num_experts)",
    ),
    "hidden_act": (("silu", None), "another activation than that of swiglu"),
    "qkv_proj_bias": ((False,), "attention with biases"),
    "mlp_fc1_bias": ((False,), "an MLP with biases"),
    "mlp_fc2_bias": ((False,), "an MLP with biases"),
    "num_experts": ((0, None), "a mixture of experts"),
    "moe_every_n_layers": ((0, None), "experts in some layers, of which num_experts is missing"),
    **NETWORK,
    # The published files may lack these, which mean false.
    **{
        name: ((False, None), NETWORK[name][1])
        for name in ("parallel_block_tied_norm", "add_pooling_layer", "scale_attn_by_inverse_layer_idx")
    },
    "rotary_scaling_factor": ((None,), _SCALED),
}

# transformers' own class knows one limit, which the published file of v1.5 gives as that of the training.
POSITIONS = "max_position_embeddings"
ENCODERS = ("NomicBertModel",)
# Fields of experts, without which they change nothing, and of padding, which the network never sees.
IGNORED = frozenset(
    "architectures expert_choice_router ffn_div moe_normalize_expert_weights moe_top_k num_shared_experts pad_token_id".split()
)

# The LayerNorm of v1.5 stands in its model card and in none of its files: digests of the published config.json.
LAYER_NORM_SHA256 = frozenset(
    {
        "9ab00bd92cee80a569f708140b7b6c1661a65891ff3765b1519e181ba2f2c92b",  # since e9b6763
        "0168e0883705b0bf8f2b381e10f45a9f3e1ef4b13869b43c160e4c8a70ddf442",  # before
    }
)
