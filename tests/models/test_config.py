"""`config.json`: every field of the published one is read; what is not implemented is refused by name."""

import dataclasses

import pytest

from moembed.bundle.bundle import sha256_of
from moembed.errors import CheckpointError
from moembed.models.checkpoint import expected_tensors, parameter_count
from moembed.models.families import family_of_raw
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from support.checkpoints import PUBLISHED_CONFIG, published_spec, small_config
from support.folders import DATA


def test_the_published_config_gives_the_published_network():
    config = NomicMoeConfig.from_dict(PUBLISHED_CONFIG)
    assert config == NomicMoeConfig(
        vocab_size=250048,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        ffn_size=3072,
        expert_ffn_size=3072,
        num_experts=8,
        top_k=2,
        moe_every_n_layers=2,
        layer_norm_eps=1e-5,
        rotary_base=10000.0,
        max_positions=2048,
        pad_token_id=1,
        dtype="float32",
    )
    assert config.head_dim == 64
    assert config.moe_layers == (1, 3, 5, 7, 9, 11)
    assert len(expected_tensors(config)) == 148
    assert parameter_count(config) == 475_292_928


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        NomicMoeConfig.from_dict(small_config()).top_k = 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"activation_function": "swiglu"}, "gated"),
        ({"activation_function": "gelu_new"}, "activation_function"),
        ({"prenorm": True}, "prenorm"),
        ({"rotary_emb_interleaved": True}, "interleaved"),
        ({"rotary_emb_fraction": 0.5}, "rotary_emb_fraction"),
        ({"rotary_emb_fraction": 0.0}, "rotary_emb_fraction"),
        ({"rotary_scaling_factor": 2.0}, "rotary_scaling_factor"),
        ({"rotary_emb_scale_base": 512}, "XPos"),
        ({"causal": True}, "causal"),
        ({"use_rms_norm": True}, "RMSNorm"),
        ({"parallel_block": True}, "parallel_block"),
        ({"qkv_proj_bias": False}, "qkv_proj_bias"),
        ({"mlp_fc1_bias": False}, "mlp_fc1_bias"),
        ({"moe_normalize_expert_weights": True}, "renormalized"),
        ({"expert_choice_router": True}, "expert-choice"),
        ({"num_shared_experts": 1}, "shared experts"),
        ({"type_vocab_size": 2}, "token type"),
        ({"model_type": "bert"}, "model_type"),
        ({"num_experts": 0}, "num_experts"),
        ({"window_attention": 128}, "window_attention"),
        ({"n_embd": 50}, "multiple of n_head"),
        ({"n_embd": 12}, "odd"),
        ({"moe_top_k": 6}, "moe_top_k"),
        ({"moe_every_n_layers": 1}, "moe_every_n_layers"),
        ({"moe_every_n_layers": 9, "n_layer": 1}, "none of 1 layers"),
        ({"ffn_div": 3}, "ffn_div"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon"),
        ({"n_layer": "12"}, "n_layer"),
        ({"n_layer": True}, "n_layer"),
        ({"torch_dtype": "int8"}, "torch_dtype"),
        ({"pad_token_id": 51200}, "pad_token_id"),
    ],
)
def test_unimplemented_values_are_refused_by_name(change, named):
    with pytest.raises(CheckpointError, match=named):
        NomicMoeConfig.from_dict(small_config(**change))


@pytest.mark.parametrize("experts", [{}, {"num_experts": 0}, {"num_experts": None}])
def test_a_config_without_experts_is_that_of_another_family(experts):
    """The `model_type` is the same."""
    raw = {k: v for k, v in PUBLISHED_CONFIG.items() if "moe" not in k and "expert" not in k} | experts
    assert family_of_raw(raw).name == "nomic_bert"
    assert family_of_raw(PUBLISHED_CONFIG).name == "nomic_bert_moe"


def test_all_problems_are_listed_at_once():
    with pytest.raises(CheckpointError) as caught:
        NomicMoeConfig.from_dict(small_config(prenorm=True, causal=True, use_rms_norm=True))
    assert all(name in str(caught.value) for name in ("prenorm", "causal", "use_rms_norm"))


@pytest.mark.parametrize("missing", ["prenorm", "qkv_proj_bias", "rotary_emb_fraction", "n_embd", "rotary_emb_base"])
def test_a_missing_field_is_not_guessed(missing):
    raw = {name: value for name, value in small_config().items() if name != missing}
    with pytest.raises(CheckpointError, match=missing):
        NomicMoeConfig.from_dict(raw)


def test_other_sizes_of_the_family_load():
    config = NomicMoeConfig.from_dict(
        small_config(n_layer=7, moe_every_n_layers=3, num_experts=3, moe_top_k=3, ffn_div=2, vocab_size=47_990)
    )
    assert config.moe_layers == (1, 4)
    assert (config.expert_ffn_size, config.ffn_size) == (40, 80)
    assert config.vocab_size == 48_000, "padded to pad_vocab_size_multiple"


@pytest.mark.parametrize(("content", "message"), [("{", "JSON"), ("[]", "JSON object"), (None, "no config.json")])
def test_a_broken_file_is_refused(tmp_path, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        NomicMoeConfig.from_file(path)


def test_the_published_copy_is_the_published_file():
    spec = published_spec()
    assert spec.sha256.keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert (spec.max_tokens, spec.dims, spec.prompt_required) == (512, (768, 256), True)
    assert sha256_of(DATA / "published_config.json") == spec.sha256["config.json"]
