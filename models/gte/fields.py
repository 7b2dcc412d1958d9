"""Fields that a `config.json` of the family may hold: which are read or checked.

Those that all families treat alike stand in `moembed.models.config_fields`. Any other field is refused.
"""

from dataclasses import dataclass, fields

from moembed.files.records import Count
from moembed.models.config_fields import COMMON, Implemented, PositiveNumber, SizeFields


@dataclass(frozen=True, kw_only=True)
class ReadFields(SizeFields):
    """Fields that give the sizes of the network, or the dtype that its tensors were saved in."""

    rope_theta: PositiveNumber
    type_vocab_size: Count


READ = frozenset(field.name for field in fields(ReadFields))

IMPLEMENTED: Implemented = {
    "hidden_act": (
        ("gelu",),
        "another activation (gelu_new, gelu_fast and gelu_pytorch_tanh approximate GELU by tanh)",
    ),
    "layer_norm_type": (("layer_norm",), "RMSNorm instead of LayerNorm"),
    "position_embedding_type": (("rope",), "learned positions"),
    "pack_qkv": ((True,), "queries, keys and values in tensors of their own"),
    "logn_attention_scale": ((False, None), "attention scores scaled by the logarithm of the length"),
    "rope_parameters": (
        (None,),
        "the layout of transformers' own class, with other tensor names: use the published files",
    ),
    **{name: rule for name, rule in COMMON.items() if name != "rope_scaling"},
}

# Checked by value: null, or {"type": "ntk", "factor": a number of at least 1}.
ROPE_SCALING = "rope_scaling"
ENCODERS = ("NewModel", "NewForTokenClassification", "GteModel")
# Fields of this family that change nothing at inference: choices of an implementation, which the published files state as
# booleans or as strings, and the widths that a model was trained for.
IGNORED = frozenset(
    "architectures unpad_inputs use_memory_efficient_attention logn_attention_clip1 pad_token_id matryoshka_dimensions".split()
)
